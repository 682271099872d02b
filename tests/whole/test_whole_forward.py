""".forward files, included files, userbases, expand-only and forward-only, with the whole daemon and real users."""

import os
import pwd
import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.sink import Sink, sinking
from support.users import ensure_user_with_home

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: users with homes")
MESSAGE = "From: a@client.test\r\nSubject: s\r\n\r\nbody\r\n"
CONFIG = """
table aliases file:{dir}/aliases
table people file:{dir}/people
listen on 127.0.0.1 port {port}
action users maildir alias <aliases>
action hosted maildir userbase <people>
action none expand-only alias <aliases>
action away forward-only alias <aliases>
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain "users.test" action users
match from any for domain "virtual.test" action hosted
match from any for domain "none.test" action none
match from any for domain "away.test" action away
match from local for any action out
"""
ALIASES = """\
# of the tests
list: :include:{dir}/members, root@outside.test
broken: :include:{dir}/missing
team: spsfwda,
prog: "|cat > {dir}/programs/command", {dir}/programs/file
"""


class Place:
    """A running daemon, two users, and the server to which everything outside goes."""

    def __init__(self, daemon: Daemon, sink: Sink, homes: dict[str, Path]) -> None:
        self.daemon, self.sink, self.homes = daemon, sink, homes

    def forward(self, user: str, text: str | bytes, mode: int = 0o600) -> Path:
        """Write that user's .forward."""
        path = self.homes[user] / ".forward"
        path.unlink(missing_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        shutil.chown(path, user, user)
        path.chmod(mode)
        return path

    def rcpt(self, recipient: str) -> tuple[int, str]:
        """The reply to this recipient, up to the recipient itself."""
        with self.daemon.smtp() as client:
            client.ehlo()
            client.mail("a@client.test")
            code, text = client.rcpt(recipient)
            return code, text.decode().removesuffix(f": <{recipient}>")

    def send(self, recipient: str) -> None:
        """A mail to it, accepted and delivered."""
        with self.daemon.smtp() as client:
            client.sendmail("a@client.test", [recipient], MESSAGE)
        self.daemon.wait_empty()

    def box(self, user: str) -> int:
        """How many mails came, which are then gone."""
        new = self.homes[user] / "Maildir" / "new"
        mails = list(new.iterdir()) if new.exists() else []
        for mail in mails:
            mail.unlink()
        return len(mails)

    def outside(self) -> list[str]:
        """Who outside got mail, and is then forgotten."""
        found = [recipient for mail in self.sink.mails for recipient in mail.recipients]
        self.sink.mails.clear()
        return sorted(found)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    homes = {user: ensure_user_with_home(user) for user in ("spsfwda", "spsfwdb")}
    with sinking() as sink:
        daemon = Daemon(CONFIG.replace("SINK", str(sink.port)))
        (daemon.dir / "aliases").write_text(ALIASES.replace("{dir}", str(daemon.dir)))
        people = (f"vera 23456:23456:{daemon.dir}/vera", "rob 0:0:/root", f"low: 99:99:{daemon.dir}/low", "")
        (daemon.dir / "people").write_text("\n".join(people))
        (daemon.dir / "members").write_text("# members\nspsfwda\nspsfwdb, x@outside.test\nrubbish here\n")
        for name, uid in (("vera", 23456), ("low", 99)):
            (daemon.dir / name).mkdir(mode=0o700)
            os.chown(daemon.dir / name, uid, uid)
        (daemon.dir / "programs").mkdir(mode=0o700)
        shutil.chown(daemon.dir / "programs", "_sps_alias")
        try:
            daemon.start()
            yield Place(daemon, sink, {**homes, "vera": daemon.dir / "vera"})
            assert daemon.stop() == 0, daemon.log[-4000:]
            assert "Traceback" not in daemon.log, daemon.log[-8000:]
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
    for home in homes.values():
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def _fresh(place: Place) -> Iterator[None]:
    """Each test begins with no .forward, and with what lookup knew of the last one expired."""
    yield
    for home in place.homes.values():
        path = home / ".forward"
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        home.chmod(0o700)
        for name in ("command", "file"):
            (home / name).unlink(missing_ok=True)
    for recipient in ("spsfwda@users.test", "spsfwdb@users.test", "vera@virtual.test"):
        wait_until("lookup has forgotten them", lambda one=recipient: "without .forward" in explained(place, one))
        settled(place, recipient, 250)
    place.daemon.wait_empty()
    for user in place.homes:
        place.box(user)
    place.outside()


def settled(place: Place, recipient: str, code: int) -> str:
    """Wait until the reply has this code (what lookup knows is two seconds old at most); its text."""
    wait_until(f"{code} for {recipient}", lambda: place.rcpt(recipient)[0] == code)
    return place.rcpt(recipient)[1]


def arrives(place: Place, recipient: str, condition: object) -> None:
    """Send mail until `condition()` holds after one of them."""
    assert callable(condition)

    def sent() -> bool:
        place.send(recipient)
        return bool(condition())

    wait_until(f"the .forward counts for {recipient}", sent)


def test_elsewhere(place: Place) -> None:
    """To an address outside, with the user's own rules no longer asked; nothing stays here."""
    place.forward("spsfwda", "x@outside.test # comment\n")
    arrives(place, "spsfwda+tag@users.test", lambda: place.outside() == ["x@outside.test"])
    place.box("spsfwda")
    place.send("spsfwda@users.test")
    assert (place.box("spsfwda"), place.outside()) == (0, ["x@outside.test"])


def test_a_copy_here_and_another_user(place: Place) -> None:
    """Own name with and without a backslash, and somebody else's."""
    place.forward("spsfwda", "\\spsfwda\nspsfwdb@users.test\n")
    arrives(place, "spsfwda@users.test", lambda: place.box("spsfwdb") == 1)
    place.box("spsfwda")
    place.send("spsfwda@users.test")
    assert (place.box("spsfwda"), place.box("spsfwdb")) == (1, 1)


def test_loops(place: Place) -> None:
    """Own address, and two users who name each other: 524, at once."""
    place.forward("spsfwda", "spsfwda@users.test\n")
    assert settled(place, "spsfwda@users.test", 524) == "5.2.4 Mailing list expansion problem"
    place.forward("spsfwda", "spsfwdb\n")
    place.forward("spsfwdb", "spsfwda\n")
    settled(place, "spsfwdb@users.test", 524)


def test_unsafe_files(place: Place) -> None:
    """Writable by others, a link, a FIFO, a device, of somebody else: 524, and nothing hangs."""
    path = place.forward("spsfwda", "x@outside.test\n", 0o666)
    settled(place, "spsfwda@users.test", 524)
    path.unlink()
    settled(place, "spsfwda@users.test", 250)
    path.symlink_to(place.forward("spsfwdb", "x@outside.test\n"))
    settled(place, "spsfwda@users.test", 524)
    path.unlink()
    os.mkfifo(path, 0o600)
    shutil.chown(path, "spsfwda")
    assert place.rcpt("spsfwda@users.test")[0] == 524
    path.unlink()
    place.forward("spsfwda", "x@outside.test\n")
    place.homes["spsfwda"].chmod(0o770)
    assert place.rcpt("spsfwda@users.test")[0] == 524
    place.daemon.wait_logged("others may write to this file")


def test_sticky_home_and_a_huge_file(place: Place) -> None:
    """424: the file is being written, or is too long to be one."""
    place.homes["spsfwda"].chmod(0o1700)
    assert settled(place, "spsfwda@users.test", 424) == "4.2.4 Mailing list expansion problem"
    place.homes["spsfwda"].chmod(0o700)
    place.forward("spsfwda", "#" * 100_000)
    settled(place, "spsfwda@users.test", 424)
    place.forward("spsfwda", b"\xff\xfe rubbish\n")
    settled(place, "spsfwda@users.test", 424)


def test_home_made_secret(place: Place) -> None:
    """A home that the user cannot enter: a temporary failure, and its .forward is not read as root."""
    place.forward("spsfwda", "x@outside.test\n")
    place.homes["spsfwda"].chmod(0o000)
    settled(place, "spsfwda@users.test", 424)


def test_root(place: Place) -> None:
    """Root's may send mail on, and may name no command."""
    path = Path(pwd.getpwnam("root").pw_dir) / ".forward"
    if path.exists():
        pytest.skip("root has a .forward here")
    try:
        path.write_text("|/bin/true\n")
        path.chmod(0o600)
        settled(place, "root@users.test", 451)
        place.daemon.wait_logged("root's .forward may not name a command")
        path.write_text("admin@outside.test\n")
        settled(place, "root@users.test", 250)
        place.send("root@users.test")
        assert place.outside() == ["admin@outside.test"]
    finally:
        path.unlink()


def test_included_members(place: Place) -> None:
    """The members of a list in a file, which may change while the daemon runs; a missing file is temporary."""
    place.send("list@users.test")
    assert (place.box("spsfwda"), place.box("spsfwdb")) == (1, 1)
    assert place.outside() == ["root@outside.test", "x@outside.test"]
    place.daemon.wait_logged("line 4")
    (place.daemon.dir / "members").write_text("y@outside.test\n")
    arrives(place, "list@users.test", lambda: "y@outside.test" in place.outside())
    assert place.rcpt("broken@users.test") == (424, "4.2.4 Mailing list expansion problem")
    place.daemon.wait_logged("missing: No such file")


def test_expand_only_and_forward_only(place: Place) -> None:
    """Mail is for lists, or for elsewhere, and for no mailbox."""
    assert settled(place, "spsfwda@none.test", 524) == "5.2.4 Mailing list expansion problem"
    assert settled(place, "spsfwda@away.test", 424) == "4.2.4 Mailing list expansion problem"
    settled(place, "team@none.test", 524)
    place.forward("spsfwda", "x@outside.test\n")
    for domain in ("none.test", "away.test"):
        settled(place, f"spsfwda@{domain}", 250)
        place.send(f"spsfwda@{domain}")
        assert place.outside() == ["x@outside.test"]
    place.forward("spsfwda", "\\spsfwda\n")
    settled(place, "spsfwda@none.test", 524)
    settled(place, "spsfwda@away.test", 424)


def test_userbase(place: Place) -> None:
    """Users of a table alone exist, have a .forward, and are never root."""
    assert place.rcpt("spsfwda@virtual.test") == (550, "Invalid recipient")
    assert place.rcpt("rob@virtual.test")[0] == 424
    place.daemon.wait_logged("user rob: uid 0 is below 100")
    assert place.rcpt("low@virtual.test")[0] == 424
    place.send("vera+x@virtual.test")
    (mail,) = (place.homes["vera"] / "Maildir" / "new").iterdir()
    assert mail.stat().st_uid == mail.stat().st_gid == 23456
    assert "Delivered-To: vera+x@virtual.test" in mail.read_text()
    path = place.homes["vera"] / ".forward"
    path.write_text("x@outside.test\n")
    os.chown(path, 23456, 23456)
    path.chmod(0o600)
    arrives(place, "vera@virtual.test", lambda: place.outside() == ["x@outside.test"])


def test_programs_of_users(place: Place) -> None:
    """Commands and files of a .forward are the user's, of the system or of a userbase, whatever the action."""
    for user, recipient in (("spsfwda", "spsfwda@users.test"), ("vera", "vera@virtual.test"),
                            ("spsfwdb", "spsfwdb@none.test")):  # fmt: skip
        home = place.homes[user]
        path = home / ".forward"
        path.write_text(f'"|id -u > {home}/command; cat >> {home}/command"\n{home}/file\n')
        os.chown(path, home.stat().st_uid, home.stat().st_gid)
        path.chmod(0o600)

        def came(home: Path = home) -> bool:
            return (home / "command").exists() and (home / "file").exists()

        wait_until("the .forward counts", lambda recipient=recipient: place.rcpt(recipient)[0] == 250)
        arrives(place, recipient, came)
        uid = home.stat().st_uid
        assert (home / "command").read_text().startswith(f"{uid}\n")
        assert "Subject: s\n" in (home / "command").read_text()
        assert (home / "file").stat().st_uid == uid
        assert (home / "file").read_text().startswith("From ")


def test_programs_of_aliases(place: Place) -> None:
    """Those of an alias are a user's who owns nothing else, also where an action has no mailboxes."""
    folder = place.daemon.dir / "programs"
    for domain in ("users.test", "none.test"):
        place.send(f"prog@{domain}")
        for name in ("command", "file"):
            assert (folder / name).owner() == "_sps_alias"
            assert "Subject: s\n" in (folder / name).read_text()
            (folder / name).unlink()
    assert place.rcpt("prog@away.test") == (451, "Temporary failure")


def explained(place: Place, recipient: str) -> str:
    return place.daemon.ctl("explain", "--from", "192.0.2.1", "--sender", "a@b.test", "--rcpt", recipient)


def test_explain(place: Place) -> None:
    """Each step: the file included, the .forward found or refused, the userbase, the program; nothing is delivered."""
    place.forward("spsfwda", '"|/bin/prog -x, y"\nfar@outside.test\n')
    settled(place, "spsfwda@away.test", 451)
    text = explained(place, "spsfwda@users.test")
    assert ".forward: |/bin/prog -x, y, far@outside.test" in text
    assert "|/bin/prog -x, y, user spsfwda" in text
    assert "spsfwdb: a user without .forward" in explained(place, "spsfwdb@users.test")
    assert "has uid 23456, gid 23456 and home" in explained(place, "vera@virtual.test")
    place.forward("spsfwdb", "x@outside.test\n", 0o666)
    settled(place, "spsfwdb@users.test", 524)
    assert "others may write to this file" in explained(place, "spsfwdb@users.test")
    assert "/members" in explained(place, "list@users.test")
    assert place.daemon.queued() == 0
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        place.send("spsfwdb@users.test")
