"""The filter programs that Debian has, under Debian's OpenSMTPD 6.8 and under us: the same mail, the same result.

filter-dkimsign is written in C on libopensmtpd, filter-rspamd and filter-senderscore in Go; none is changed, and
none knows that it does not talk to OpenSMTPD. rspamd is Debian's with its own rules, without a network.
"""

import contextlib
import re
import shutil
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from support.certs import make_key
from support.daemon import Daemon, free_port, wait_until
from support.dns_zone import zone
from support.opensmtpd import opensmtpd
from support.sink import Sink, sinking

from bench.packages import Packages

CONFIG = """
filter it proc-exec "{command}"
listen on 127.0.0.1 port {port} hostname mx.test filter it
action out relay host "smtp://127.0.0.1:{sink}"
match from any for any action out
"""
NAMESERVER = "127.53.0.1"  # resolv.conf(5) has no ports
PLAIN = (
    "From: Anna <anna@client.test>\r\nTo: b@ours.test\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    "Subject: the report\r\nMessage-ID: <1@client.test>\r\n\r\nHello Ben\r\n.\r\n..dots\r\n\r\n"
)
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@dataclass(frozen=True)
class Sent:
    """One mail: where the client is, and the text."""

    text: str
    client: str = "127.0.0.1"


@dataclass(frozen=True)
class Outcome:
    """What the client was told, and what arrived."""

    reply: tuple[int, str]
    data: bytes = b""

    @property
    def message(self) -> Message:
        """What arrived."""
        return message_from_bytes(self.data)

    def headers(self) -> list[tuple[str, str]]:
        """What arrived, but Received, whose text names the server and the moment."""
        return [(name, re.sub(r"\s+", " ", value)) for name, value in self.message.items() if name != "Received"]


def send(port: int, sink: Sink, mails: tuple[Sent, ...]) -> list[Outcome]:
    """Send them one by one."""
    outcomes = []
    for mail in mails:
        before = len(sink.mails)
        try:
            with smtplib.SMTP("127.0.0.1", port, "client.test", 60, source_address=(mail.client, 0)) as client:
                client.sendmail("anna@client.test", ["b@ours.test"], mail.text.encode())
        except smtplib.SMTPResponseException as error:
            outcomes.append(Outcome((error.smtp_code, bytes(error.smtp_error).decode())))
        else:
            wait_until("it arrives", lambda: len(sink.mails) > before)  # noqa: B023
            outcomes.append(Outcome((250, ""), sink.mails[-1].data))
    return outcomes


@pytest.fixture
def both(scratch: Path, packages: Packages) -> Iterator[Callable[..., tuple[list[Outcome], list[Outcome]]]]:
    """Send mails through a filter program under them, and then under us."""

    def run(command: str, *mails: Sent) -> tuple[list[Outcome], list[Outcome]]:
        with sinking() as sink:
            port = free_port()
            text = CONFIG.format(command=command, port=port, sink=sink.port)
            with opensmtpd(scratch / "theirs", text, port, packages, NAMESERVER):
                theirs = send(port, sink, mails)
            sink.mails.clear()
            resolv_conf = scratch / "resolv.conf"
            resolv_conf.write_text(f"nameserver {NAMESERVER}\n")
            enter = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
            place = str(Path("/etc/resolv.conf").resolve())
            daemon = Daemon(text, prefix=("unshare", "--mount", "sh", "-ec", enter, "sh", str(resolv_conf), place))
            daemon.port = port
            try:
                daemon.start()
                ours = send(port, sink, mails)
                daemon.wait_empty()
                assert daemon.stop() == 0
                assert "Traceback" not in daemon.log, daemon.log
                assert "filter it ended" not in daemon.log, daemon.log
            finally:
                if daemon.process and daemon.process.poll() is None:
                    daemon.process.kill()
                    daemon.process.wait(10)
                daemon.remove()
        return theirs, ours

    yield run


def program(packages: Packages, name: str) -> str:
    """The path of an unpacked filter."""
    return str(packages.tree(f"opensmtpd-{name}") / "usr/libexec/opensmtpd" / name)


def test_dkimsign(both: Callable[..., tuple[list[Outcome], list[Outcome]]], packages: Packages, scratch: Path) -> None:
    """The signature verifies at the sink, and is the very same under both: what was signed was not altered."""
    key = make_key("rsa")
    path = scratch / "dkim.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o644)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    record = "v=DKIM1; k=rsa; p=" + "".join(public.splitlines()[1:-1])
    command = f"{program(packages, 'filter-dkimsign')} -d client.test -s one -k {path} -c relaxed/simple"
    theirs, ours = both(command, Sent(PLAIN), Sent(PLAIN.replace("dots", "x" * 900)))
    for mine, their in zip(ours, theirs, strict=True):
        assert dkim.verify(
            mine.data, dnsfunc=lambda name, timeout=5: record.encode() if b"one._domain" in name else b""
        )
        assert mine.headers() == their.headers()
        assert mine.message["DKIM-Signature"]
        assert mine.data.partition(b"\r\n\r\n")[2] == their.data.partition(b"\r\n\r\n")[2]
    assert not dkim.verify(ours[0].data.replace(b"Ben", b"Bob"), dnsfunc=lambda name, timeout=5: record.encode())


def test_senderscore(both: Callable[..., tuple[list[Outcome], list[Outcome]]], packages: Packages) -> None:
    """It asks a name server about the client, refuses bad ones at connect, and marks the mail of doubtful ones."""
    scores = {
        f"A_{last}_0_0_127_score_senderscore_com": [f"127.0.4.{score}"] for last, score in ((2, 90), (3, 20), (4, 70))
    }
    command = f"{program(packages, 'filter-senderscore')} -blockBelow 50 -junkBelow 80 -scoreHeader"
    with zone((NAMESERVER, 53), **scores) as server:
        theirs, ours = both(command, *(Sent(PLAIN, f"127.0.0.{last}") for last in (2, 3, 4, 5)))
        asked = [name for _, name, kind in server.asked if kind == "A"]
        assert asked.count("3.0.0.127.score.senderscore.com") == 2
    assert [each.reply for each in ours] == [each.reply for each in theirs]
    assert [each.reply[0] for each in ours] == [250, 550, 250, 250]
    # Our mark stands above what a program adds (DIFFERENCES.md), so that it cannot be forged.
    assert [sorted(each.headers()) for each in ours] == [sorted(each.headers()) for each in theirs]
    assert [each.message["X-SenderScore"] for each in ours] == ["90", None, "70", None]
    assert [str(each.message["X-Spam"]).lower() for each in ours] == ["none", "none", "yes", "none"]


RSPAMD = """
options {{
    pidfile = "{dir}/pid";
    .include "$CONFDIR/options.inc"
    enable_test_patterns = true;
    dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.05s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "notice"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
.include "$CONFDIR/common.conf"
milter_headers {{
    use = ["authentication-results", "x-spam-level"];
    skip_local = false;
}}
"""


def pinged(port: int) -> bool:
    """Whether rspamd answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1")
    except OSError:
        return False


@contextlib.contextmanager
def rspamd(folder: Path) -> Iterator[int]:
    """A running one without a network; its port."""
    port = free_port()
    folder.mkdir()
    shutil.chown(folder, "_rspamd", "_rspamd")
    config = folder / "rspamd.conf"
    config.write_text(RSPAMD.format(dir=folder, port=port))
    variables = [f"--var={name}={folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR", "LOCAL_CONFDIR")]
    command = ["rspamd", "-f", "-i", "-u", "_rspamd", "-g", "_rspamd", "-c", str(config), *variables]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    try:
        wait_until(f"rspamd: {folder / 'log'}", lambda: pinged(port), 90)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def test_rspamd(both: Callable[..., tuple[list[Outcome], list[Outcome]]], packages: Packages, scratch: Path) -> None:
    """Clean mail passes with rspamd's headers, GTUBE is rejected, and what is between is marked."""
    bad, doubtful = (PLAIN.replace("Hello Ben", pattern) for pattern in (GTUBE, GTUBE.replace("XJS", "YJS")))
    with rspamd(scratch / "rspamd") as port:
        command = f"{program(packages, 'filter-rspamd')} -url http://127.0.0.1:{port}"
        theirs, ours = both(command, Sent(PLAIN), Sent(bad), Sent(doubtful))
    assert [each.reply for each in ours] == [each.reply for each in theirs]
    assert [each.reply[0] for each in ours] == [250, 550, 250]
    assert [sorted(each.headers()) for each in ours] == [sorted(each.headers()) for each in theirs]
    clean, doubted = ours[0].message, ours[2].message
    assert clean["Authentication-Results"]
    assert clean["X-Spam"] is None
    assert doubted["X-Spam"] == "yes"
    assert doubted["X-Spam-Score"]
    assert doubted["X-Spam-Status"]
