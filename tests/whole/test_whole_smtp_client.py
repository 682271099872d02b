"""The smtp client: schemes, TLS, credentials, what it says and how it ends."""

import subprocess
import sys

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, free_port, running
from support.sink import Behaviour, sinking

MESSAGE = b"Subject: client\r\n\r\none\n.\n\xff two\n"


def smtp(*words: str, message: bytes = MESSAGE) -> subprocess.CompletedProcess[bytes]:
    """Run the client."""
    argv = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtp", *words]
    return subprocess.run(argv, input=message, capture_output=True, timeout=60, check=False)


def test_a_message() -> None:
    """As it is but for line ends, over SMTP and LMTP, to all recipients; nothing is said."""
    for scheme, lmtp in (("smtp+notls", False), ("smtp", False), ("lmtp", True)):
        with sinking(lmtp=lmtp) as sink:
            url = f"{scheme}://127.0.0.1:{sink.port}"
            done = smtp("-s", url, "-F", "me@x.test", "-H", "client.test", "a@y.test", "b@y.test")
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            (mail,) = sink.mails
            assert (mail.sender, mail.recipients) == ("me@x.test", ["a@y.test", "b@y.test"])
            assert mail.data == b"Subject: client\r\n\r\none\r\n.\r\n\xff two\r\n"
            assert sink.greetings in ([], ["client.test"])


def test_a_server_that_refuses() -> None:
    """Exit status 69 for a 5xx, 75 for a 4xx or no server, each recipient named; never 0."""
    rcpt = {"no@y.test": "550 5.1.1 who?", "later@y.test": "450 4.2.1 later"}
    with sinking(behaviour=Behaviour(rcpt=rcpt)) as sink:
        url = f"smtp://127.0.0.1:{sink.port}"
        done = smtp("-s", url, "yes@y.test", "no@y.test", "later@y.test")
        assert done.returncode == 69
        assert done.stderr.splitlines() == [b"smtp: no@y.test: 550 5.1.1 who?", b"smtp: later@y.test: 450 4.2.1 later"]
        assert smtp("-s", url, "later@y.test").returncode == 75
        sink.behaviour.data = "554 5.7.1 spam"
        assert smtp("-s", url, "yes@y.test").returncode == 69
    assert smtp("-s", f"smtp://127.0.0.1:{free_port()}", "a@y.test").returncode == 75
    assert smtp("-s", "smtp://no.such.host.invalid", "a@y.test").returncode == 68


def test_line_breaks_are_refused() -> None:
    """Nothing that could be a command of its own gets into one."""
    for words in (["a@y.test\r\nRCPT TO:<b@y.test>"], ["-F", "a\nb", "a@y.test"], ["-H", "x\r\ny", "a@y.test"]):
        done = smtp("-s", "smtp://127.0.0.1:9", *words)
        assert done.returncode == 64 and done.stderr.startswith(b"smtp: ")


SERVER = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
table users { ann = HASH }
listen on 127.0.0.1 port {port} tls-require pki mxkey auth <users>
listen on 127.0.0.1 port {port2} smtps pki mxkey auth <users>
action out relay host "smtp://127.0.0.1:SINK"
match auth from any for any action out
"""


def test_tls_and_credentials() -> None:
    """The certificate is verified unless told otherwise; credentials from a file or the URL; -n sends nothing."""
    hashed = cli("smtpctl_ps", "encrypt", "open sesame").stdout.strip()
    with sinking() as sink:
        daemon = Daemon(SERVER.replace("SINK", str(sink.port)).replace("HASH", f'"{hashed}"'))
        chain, _key = write_acme(daemon.dir / "acme", make_key("ecdsa"))
        auth = daemon.dir / "auth"
        auth.write_text("ann\nopen sesame\n")
        try:
            daemon.start()
            tls, smtps = f"smtp+tls://localhost:{daemon.port}", f"smtps://localhost:{daemon.port2}"
            ca = f"cafile={chain}"
            for url in (tls, smtps):
                assert smtp("-n", "-s", url).returncode != 0, "not signed by an authority of the system"
                assert smtp("-n", "-s", url, "-T", "noverify").returncode == 0
                assert smtp("-n", "-s", url, "-T", ca).returncode == 0
                assert smtp("-n", "-s", url, "-T", f"{ca} nosni,protocols=TLSv1.2").returncode == 0
                wrong = smtp("-n", "-s", url, "-T", f"{ca},servername=other.test")
                assert wrong.returncode != 0 and b"other.test" in wrong.stderr
                assert smtp("-n", "-s", url, "-T", f"{ca},nosni,servername=other.test").returncode != 0
                done = smtp("-v", "-s", url, "-T", ca, "-a", str(auth), "-F", "ann@x.test", "bob@y.test")
                assert done.returncode == 0, done.stderr
                assert b">>> AUTH" not in done.stdout and b">>> (credentials)\n<<< 235" in done.stdout
            inline = tls.replace("://", "://ann:open sesame@")
            assert smtp("-s", inline, "-T", ca, "bob@y.test").returncode == 0
            assert smtp("-s", inline.replace("open", "shut"), "-T", ca, "bob@y.test").returncode == 69
            daemon.wait_empty()
            assert len(sink.mails) == 3
            assert daemon.stop() == 0
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()


@pytest.mark.parametrize("scheme", ["smtp+tls", "lmtp+tls"])
def test_tls_that_is_not_offered(scheme: str) -> None:
    """Where TLS is asked for, nothing is said without it."""
    with sinking(lmtp=scheme == "lmtp+tls") as sink:
        done = smtp("-s", f"{scheme}://127.0.0.1:{sink.port}", "a@y.test")
        assert done.returncode in (69, 75) and b"TLS" in done.stderr
        assert sink.mails == []


def test_mailq_is_for_root() -> None:
    """The queue as show queue has it; without the daemon an error."""
    with running("listen on 127.0.0.1 port {port}\naction out relay\nmatch from any for any action out\n") as daemon:
        assert cli("mailq", "--state-dir", str(daemon.state)).stdout == daemon.ctl("show", "queue")
    done = cli("mailq", "--state-dir", str(daemon.state))
    assert done.returncode == 1 and "is smtpd_ps running?" in done.stderr
