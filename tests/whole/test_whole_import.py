"""smtpctl_ps import: from files as OpenSMTPD writes them to mail that is delivered."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

from support.daemon import Daemon, cli, running
from support.sink import sinking

CONFIG = """\
listen on 127.0.0.1 port {port}
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
"""
ENVELOPE = """\
version: 3
dispatcher: away
type: mta
sockaddr: local
sender: ann@example.com
rcpt: {0}
dest: {0}
ctime: {1}
"""


def old_spool(folder: Path, messages: int) -> Path:
    """A spool with as many messages, of two recipients each; the last of 300."""
    now = int((folder.parent).stat().st_mtime)
    for number in range(1, messages + 1):
        msgid = f"{number * 0x1000003 & 0xFFFFFFFF:08x}"
        path = folder / "queue" / msgid[:2] / msgid
        path.mkdir(parents=True)
        (path / "message").write_bytes(gzip.compress(f"Subject: {number}\n\n.a dot\nbody {number}\n".encode()))
        for rcpt in range(300 if number == messages else 2):
            text = ENVELOPE.format(f"r{rcpt}@away.example", now)
            (path / f"{msgid}{rcpt:08x}").write_bytes(gzip.compress(text.encode()))
    return folder


def do_import(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    return cli("smtpctl_ps", "--state-dir", str(daemon.state), "import", *words)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_import_and_delivery() -> None:
    """Refused while the daemon runs; each message once, however often it is done; the old spool stays as it
    was; what cannot be taken is named; everything imported is delivered.
    """
    with sinking() as sink, running(CONFIG) as daemon:
        old = old_spool(daemon.dir / "old", 5)
        bad = old / "queue" / "ab" / "abcdef01"
        bad.mkdir(parents=True)
        (bad / "message").write_bytes(b"Subject: x\n\nx\n")
        (bad / "abcdef0100000001").write_bytes(b"version: 1\n")
        link = old / "queue" / "ac" / "acacacac"
        link.mkdir(parents=True)
        os.symlink("/etc/shadow", link / "message")
        before = snapshot(old)
        done = do_import(daemon, str(old))
        assert done.returncode == 1 and "another smtpd_ps is running here; stop it first" in done.stderr
        daemon.stop()
        for said in ("5 messages with 308 envelopes imported, 0 were before, 2 not taken\n",
                     "0 messages with 0 envelopes imported, 5 were before, 2 not taken\n"):  # fmt: skip
            done = do_import(daemon, str(old))
            assert (done.stdout, done.returncode) == (said, 1), done.stderr
            assert "abcdef01: envelope abcdef0100000001: version '1', expected 3" in done.stderr
            assert "acacacac: Too many levels of symbolic links" in done.stderr
        assert snapshot(old) == before
        daemon.config = daemon.config.replace(":9", f":{sink.port}")
        daemon.start()
        daemon.wait_empty()
        subjects = sorted(mail.data.split(b"\r\n")[0] for mail in sink.mails for _ in mail.recipients)
        assert subjects == sorted([b"Subject: %d" % n for n in (1, 2, 3, 4) for _ in "12"] + [b"Subject: 5"] * 300)
        assert all(b"\r\n.a dot\r\nbody " in mail.data for mail in sink.mails)
        daemon.stop()
        assert do_import(daemon, str(old)).stdout.startswith("0 messages")
        daemon.start()
        assert daemon.queued() == 0
        shutil.rmtree(old)


def test_wrong_words(tmp_path: Path) -> None:
    """The key is never on the command line, and has its length."""
    key = tmp_path / "key"
    key.write_text("short\n")
    state = ("--state-dir", str(tmp_path / "state"))
    for words, status, said in (
        ((), 255, "import"),
        (("a", "b"), 255, "import takes a directory and --key file"),
        (("/nonexistent",), 1, "/nonexistent is no directory"),
        (("/tmp", "--key", str(key)), 1, "a key has 32 characters, found 5"),
        (("/tmp", "--key", "/nonexistent"), 1, "/nonexistent: No such file"),
    ):
        done = cli("smtpctl_ps", *state, "import", *words)
        assert done.returncode == status and said in done.stderr, done.stderr
