"""Files and commands that aliases and .forward files name: whose user they have, and that the agent looks itself."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running, wait_until
from support.users import ensure_mail_user
from test_whole_mda import Box, script

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: targets have the rights of other users")
MESSAGE = "From: a@client.test\r\nTo: b@example.com\r\nSubject: {0}\r\n\r\nFrom {0}\r\n"
CONFIG = """
table aliases file:{dir}/aliases
table people { %(user)s = "%(uid)d:%(gid)d:%(home)s" }
listen on 127.0.0.1 port {port}
action here maildir "%(home)s/Maildir" userbase <people> alias <aliases>
match from any for domain "example.com" action here
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Box]:
    """The home of a mail user."""
    user = ensure_mail_user()
    entry = pwd.getpwnam(user)
    path = Path("/var/tmp") / f"sps-target-{os.getpid()}-{tmp_path.name}"
    path.mkdir(mode=0o755)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    yield Box(path, user)
    for folder, _folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


@pytest.fixture
def drop(tmp_path: Path) -> Iterator[Box]:
    """A folder that everyone may write, as the alias user has none."""
    path = Path("/var/tmp") / f"sps-drop-{os.getpid()}-{tmp_path.name}"
    path.mkdir()
    path.chmod(0o777)
    yield Box(path, "_sps_alias")
    for name in os.listdir(path):
        (path / name).unlink()
    path.rmdir()


def configured(home: Box, aliases: str) -> Daemon:
    entry = pwd.getpwnam(home.user)
    text = CONFIG % {"user": home.user, "uid": entry.pw_uid, "gid": entry.pw_gid, "home": home.path}
    daemon = Daemon(text)
    (daemon.dir / "aliases").write_text(aliases)
    return daemon


def forward(home: Box, text: str) -> None:
    path = home.path / ".forward"
    path.write_text(text)
    entry = pwd.getpwnam(home.user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(0o600)


def send(daemon: Daemon, rcpt: str, subject: str) -> None:
    with daemon.smtp() as client:
        client.sendmail("a@client.test", [rcpt], MESSAGE.format(subject))


def test_aliases_have_a_user_of_their_own(home: Box, drop: Box) -> None:
    """Commands and files of an alias table run and are written as _sps_alias, who owns nothing: not what the
    recipient has, and no file that others made first."""
    it = script(drop, f'id -un > {drop.path}/who; echo "$1" >> {drop.path}/who; cat > {drop.path}/message')
    victim = drop.path / "victim"
    (drop.path / "link").symlink_to(victim)
    aliases = f"""
run: "|{it} %{{sender.user}}"
keep: {drop.path}/box
linked: {drop.path}/link
mine: {home.path}/box
nowhere: /dev/null
"""
    daemon = configured(home, aliases)
    try:
        daemon.start()
        for name in ("run", "keep", "keep", "nowhere"):
            send(daemon, f"{name}@example.com", name)
        daemon.wait_empty()
        for name in ("linked", "mine"):
            send(daemon, f"{name}@example.com", name)
        wait_until("both are refused", lambda: daemon.log.count("result=TempFail") == 2)
        assert daemon.queued() == 2
        assert daemon.stop() == 0
    finally:
        daemon.remove()
    assert drop.read("who") == "_sps_alias\na\n"
    assert drop.read("message").startswith("Return-Path: <a@client.test>\nDelivered-To: run@example.com\n")
    box = drop.path / "box"
    assert box.owner() == "_sps_alias" and stat.S_IMODE(box.stat().st_mode) == 0o600
    assert box.read_text().count("From a@client.test ") == 2 and box.read_text().count("\n>From keep\n") == 2
    assert not victim.exists() and not (home.path / "box").exists()


def test_a_forward_file_runs_as_its_user(home: Box, drop: Box) -> None:
    """A command and a file of a .forward are the user's own, in that user's home; and a mail that waits is
    not given to a command that the file does not name any more."""
    it = script(drop, f"""
id -un > {drop.path}/who; pwd >> {drop.path}/who; echo $HOME $USER >> {drop.path}/who
test -e {drop.path}/ready || exit 75
""")  # fmt: skip
    forward(home, f'"|{it}", {home.path}/box\n')
    daemon = configured(home, "none: /dev/null\n")
    try:
        daemon.start()
        send(daemon, f"{home.user}@example.com", "one")
        wait_until("the command wants it later", lambda: "result=TempFail" in daemon.log)
        assert drop.read("who") == f"{home.user}\n{home.path}\n{home.path} {home.user}\n"
        wait_until("the file is written", lambda: home.there("box"))
        forward(home, f"{home.path}/box\n")
        (drop.path / "ready").touch()
        daemon.schedule_until("the agent refuses", lambda: "does not name this file or command" in daemon.log)
        assert daemon.queued() == 1
        forward(home, f'"|{it}"\n')
        daemon.schedule_until("the queue is empty", lambda: daemon.queued() == 0)
        assert daemon.stop() == 0
    finally:
        daemon.remove()
    assert (home.path / "box").owner() == home.user


def test_junk_goes_where_a_filter_says(home: Box) -> None:
    """`maildir junk` files what a filter of ours marked; what a client says of its mail does not count."""
    config = f"""
filter spam phase mail-from match mail-from regex {{ "^junk@" }} junk
listen on 127.0.0.1 port {{port}} filter spam
action here maildir "{home.path}/Maildir" junk user {home.user}
match from any for domain "example.com" action here
"""
    with running(config) as daemon:
        for sender in ("junk@client.test", "good@client.test"):
            with daemon.smtp() as client:
                client.sendmail(sender, [f"{home.user}@example.com"], "X-Spam: Yes\r\nX-Spam-Flag: YES\r\n\r\nx\r\n")
        daemon.wait_empty()
        assert "result=PermFail" not in daemon.log, daemon.log
    (junk,) = (home.path / "Maildir" / ".Junk" / "new").iterdir()
    (good,) = (home.path / "Maildir" / "new").iterdir()
    assert "Return-Path: <junk@" in junk.read_text() and "Return-Path: <good@" in good.read_text()
