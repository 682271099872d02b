"""`smtp ciphers` in the real daemon."""

import ssl

from support.certs import make_key, write_acme
from support.daemon import Daemon

CONFIG = """
smtp ciphers "WORDS"
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} tls pki mxkey
match from any for any reject
"""


def daemon_with(words: str) -> Daemon:
    daemon = Daemon(CONFIG.replace("WORDS", words))
    write_acme(daemon.dir / "acme", make_key("rsa"))
    return daemon


def test_ciphers() -> None:
    """TLS 1.2 uses what the list allows and nothing else; TLS 1.3 has its own."""
    daemon = daemon_with("ECDHE-RSA-AES256-GCM-SHA384")
    try:
        daemon.start()
        used = []
        for offered, version in (
            ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", ssl.TLSVersion.TLSv1_2),
            ("ECDHE-RSA-AES128-GCM-SHA256", ssl.TLSVersion.TLSv1_2),
            ("ECDHE-RSA-AES128-GCM-SHA256", ssl.TLSVersion.TLSv1_3),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = version
            context.set_ciphers(offered)
            with daemon.smtp() as client:
                client.ehlo()
                try:
                    client.starttls(context=context)
                except OSError:
                    client.close()
                    used.append("refused")
                else:
                    assert isinstance(client.sock, ssl.SSLSocket)
                    used.append(str(client.sock.cipher()[0]))
        assert used[:2] == ["ECDHE-RSA-AES256-GCM-SHA384", "refused"]
        assert used[2].startswith("TLS_")
        assert daemon.stop() == 0
    finally:
        end(daemon)


def test_a_list_without_ciphers_stops_the_start() -> None:
    """The log says which list it is."""
    daemon = daemon_with("NONSENSE")
    try:
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 1
        daemon.wait_logged("no cipher in 'NONSENSE'")
    finally:
        end(daemon)


def end(daemon: Daemon) -> None:
    if daemon.process and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()
    daemon.remove()
