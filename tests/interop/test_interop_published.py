"""The published configuration (interface lo, other paths and ports) between real peers."""

import contextlib
import os
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, wait_until
from support.peers import cyrus, dnsmasq, dovecot, postfix

PUBLISHED = """
table virtuals "{dir}/virtuals"
table submitters "{dir}/submitters"

pki example_com cert "{dir}/acme/live/fullchain.pem"
pki example_com key "{dir}/acme/live/privkey.pem"

listen on lo port {port} tls pki example_com
listen on lo port {port2} tls-require pki example_com auth <submitters>

action receive lmtp "LMTP" rcpt-to virtual <virtuals>
action send relay pki example_com

match from any for domain example.com action receive
match auth from any for any action send
"""
PASSWORD = "correct horse battery"
TEXT = "From: a@client.test\r\nTo: x@example.com\r\nSubject: {0}\r\n\r\nhello {0}\r\n"


@contextlib.contextmanager
def published(lmtp: Path | str, resolver: str = "127.0.0.1:9") -> Iterator[Daemon]:
    """The daemon on the published configuration."""
    daemon = Daemon(PUBLISHED.replace("LMTP", str(lmtp)), resolver=resolver)
    write_acme(daemon.dir / "acme", make_key("rsa"), "example.com")
    (daemon.dir / "virtuals").write_text("john.doe@example.com cyrus\n")
    (daemon.dir / "submitters").write_text(f"alice {cli('smtpctl_ps', 'encrypt', PASSWORD).stdout}")
    try:
        daemon.start()
        yield daemon
        assert daemon.stop() == 0, daemon.log[-4000:]
        assert "Traceback" not in daemon.log
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()


def tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("store", [dovecot, cyrus], ids=["dovecot", "cyrus"])
def test_mail_reaches_a_real_mailbox(scratch: Path, store: object) -> None:
    """Port 25 takes mail for example.com in clear and under STARTTLS, and a real LMTP server stores it."""
    with store(scratch / "store") as boxes, published(boxes.lmtp) as daemon:  # type: ignore[operator]
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["john.doe@example.com"], TEXT.format("clear"))
        with daemon.smtp() as client:
            client.starttls(context=tls())
            client.sendmail("a@client.test", ["john.doe@example.com"], TEXT.format("secret"))
            for refused in ("john.doe@elsewhere.test", "nobody@example.com"):
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("a@client.test", [refused], TEXT.format("never"))
        wait_until("both messages stored", lambda: len(boxes.messages()) == 2)
        stored = b"".join(boxes.messages())
        assert b"hello clear" in stored and b"hello secret" in stored
        assert b"TLSv1." in stored, "the Received header names the TLS version"
        daemon.wait_empty()


def test_submission_is_relayed_to_postfix_by_mx(scratch: Path) -> None:
    """An authenticated submission goes to the MX that DNS names, under opportunistic STARTTLS."""
    cert, key = write_acme(scratch / "mxcert", make_key("rsa"), "mx.elsewhere.test")
    records = ("--mx-host=elsewhere.test,mx.elsewhere.test,10", "--host-record=mx.elsewhere.test,127.0.0.2")
    with (
        postfix(scratch / "postfix", "127.0.0.2", "elsewhere.test", cert, key) as boxes,
        dnsmasq(scratch / "dns", *records) as resolver,
        published("/nonexistent", resolver) as daemon,
    ):
        with daemon.smtp(daemon.port2) as client:
            client.starttls(context=tls())
            client.login("alice", PASSWORD)
            client.sendmail("a@client.test", ["someone@elsewhere.test"], TEXT.format("relayed"))
        wait_until("postfix stores it", lambda: len(boxes.messages()) == 1, 60)
        stored = boxes.messages()[0]
        assert b"hello relayed" in stored
        assert b"(using TLSv1." in stored, "Postfix saw no TLS"
        daemon.wait_empty()
        daemon.wait_logged('result="Ok"')


def test_swaks_and_msmtp_submit(scratch: Path) -> None:
    """Two clients that are not ours log in under STARTTLS and hand mail in."""
    with dovecot(scratch / "store") as boxes, published(boxes.lmtp) as daemon:
        swaks = [
            "swaks", "--server", f"127.0.0.1:{daemon.port2}", "--tls", "--auth", "LOGIN", "--auth-user", "alice",
            "--auth-password", PASSWORD, "--from", "a@client.test", "--to", "john.doe@example.com",
            "--header", "Subject: swaks",
        ]  # fmt: skip
        # The published rules give example.com to `receive` first, whoever sends.
        done = subprocess.run(swaks, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        msmtp = [
            "msmtp", "--host=127.0.0.1", f"--port={daemon.port2}", "--tls=on", "--tls-starttls=on",
            "--tls-certcheck=off", "--auth=plain", "--user=alice", "--passwordeval=printf '%s' \"$SPS_PASSWORD\"",
            "--from=a@client.test", "john.doe@example.com",
        ]  # fmt: skip
        environment = os.environ | {"SPS_PASSWORD": PASSWORD}
        text = TEXT.format("msmtp").replace("\r\n", "\n")
        done = subprocess.run(
            msmtp, input=text, capture_output=True, text=True, timeout=60, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        wait_until("both stored", lambda: len(boxes.messages()) == 2)


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_openssl_s_client_sees_the_certificate(scratch: Path, version: str) -> None:
    """STARTTLS with OpenSSL's own client, at each version, shows our chain and verifies against it."""
    with published("/nonexistent") as daemon:
        ca = daemon.dir / "acme/live/fullchain.pem"
        argv = [
            "openssl", "s_client", "-connect", f"127.0.0.1:{daemon.port}", "-starttls", "smtp", f"-{version}",
            "-CAfile", str(ca), "-verify_return_error", "-brief",
        ]  # fmt: skip
        done = subprocess.run(argv, input="QUIT\n", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "Verification: OK" in done.stderr
