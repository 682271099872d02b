"""A spool that Debian's OpenSMTPD wrote, imported: plain, compressed, encrypted, and both."""

import smtplib
import socket
import subprocess
from pathlib import Path

import pytest
from support.daemon import cli, free_port, running, wait_until
from support.peers import answers, foreground
from support.sink import sinking

from bench.packages import Packages
from bench.room import bench_accounts, furnish

KEY = "0123456789abcdef0123456789abcdef"
OLD = """\
{lines}listen on 127.0.0.1 port {port} hostname old.test
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
"""
OURS = """\
listen on 127.0.0.1 port {port}
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
"""
_ENTER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'
SMALL = "Subject: small\r\n\r\n.dot and \xe9\r\nthe end\r\n".encode("latin-1")
LARGE = b"Subject: large\r\n\r\n" + b"all work and no play\r\n" * 10_000


def old_spool(folder: Path, lines: str) -> Path:
    """Start OpenSMTPD in a mount name space of its own, give it mail, stop it; its spool."""
    tree = Packages(folder / "packages").tree("opensmtpd")
    spool, run = folder / "spool", folder / "run"
    for path in (folder, spool, run):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    mounts = [
        *furnish(folder / "etc", bench_accounts(("opensmtpd", "opensmtpq"))),
        (spool, Path("/var/spool")), (run, Path("/run")),
        (tree / "usr/libexec", Path("/usr/libexec")), (tree / "var/lib", Path("/var/lib")),
    ]  # fmt: skip
    port = free_port()
    conf = folder / "old.conf"
    conf.write_text(OLD.format(lines=lines, port=port))
    pairs = [str(path) for pair in mounts for path in pair]
    argv = ["unshare", "--mount", "sh", "-ec", _ENTER, "room", *pairs, "--", str(tree / "usr/sbin/smtpd"), "-d"]
    with foreground([*argv, "-f", str(conf)], folder / "old.log"):
        wait_until("OpenSMTPD's banner", lambda: answers(socket.AF_INET, ("127.0.0.1", port)))
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test") as client:
            wishes = {"mail_options": ["RET=HDRS", "ENVID=abc"], "rcpt_options": ["NOTIFY=FAILURE"]}
            client.sendmail("ann@example.com", ["x@away.example", "y@away.example"], SMALL, **wishes)
            client.sendmail("ann@example.com", ["z@away.example"], LARGE)
    return spool / "smtpd"


@pytest.mark.parametrize(
    "lines",
    ["", "queue compression\n", f'queue encryption "{KEY}"\n', f'queue compression\nqueue encryption "{KEY}"\n'],
    ids=["plain", "compressed", "encrypted", "both"],
)
def test_their_spool_becomes_ours(scratch: Path, lines: str) -> None:
    """Every recipient's mail arrives as it was given to OpenSMTPD, with what its sender asked for."""
    old = old_spool(scratch / "old", lines)
    key = scratch / "key"
    key.write_text(f"{KEY}\n")
    with sinking() as sink, running(OURS) as daemon:
        daemon.stop()
        words = ("import", str(old), *(("--key", str(key)) if "encryption" in lines else ()))
        done: subprocess.CompletedProcess[str] = cli("smtpctl_ps", "--state-dir", str(daemon.state), *words)
        assert done.stdout == "2 messages with 3 envelopes imported, 0 were before, 0 not taken\n", done.stderr
        daemon.start()
        rows = [line.split("|") for line in daemon.ctl("show", "queue").splitlines()]
        assert sorted(row[5] for row in rows) == ["x@away.example", "y@away.example", "z@away.example"]
        wished = daemon.ctl("show", "envelope", next(row[0] for row in rows if row[5] == "x@away.example"))
        assert "dsn-notify: FAILURE\n" in wished and "dsn-ret: HDRS\n" in wished and "dsn-envid: abc\n" in wished
        daemon.config = daemon.config.replace(":9", f":{sink.port}")
        daemon.write_config()
        daemon.ctl("reload")
        daemon.schedule_until("the queue is empty", lambda: daemon.queued() == 0)
        arrived = sorted(rcpt for mail in sink.mails for rcpt in mail.recipients)
        assert arrived == ["x@away.example", "y@away.example", "z@away.example"]
        for mail in sink.mails:
            body = mail.data.partition(b"Subject: ")[2].partition(b"\r\n\r\n")[2]
            wanted = LARGE if mail.recipients == ["z@away.example"] else SMALL
            assert body == wanted.partition(b"\r\n\r\n")[2]
