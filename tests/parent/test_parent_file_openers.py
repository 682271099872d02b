"""The parent's part in .forward and included files: who may have what opened, and what is safe."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dns_server import run_until
from support.users import ensure_mail_user

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Account, Process
from smtpd_ps.parent import file_openers
from smtpd_ps.parent.accounts import UID_FLOOR, Userbases
from smtpd_ps.parent.file_openers import FileOpeners
from smtpd_ps.parent.user_files import Identity
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: files are opened as other users")
ACTIONS = {
    "system": ActionSettings("system", "maildir"),
    "virtual": ActionSettings("virtual", "maildir", userbase_table="people"),
}
NOBODY = 65534
OWNER = 12345


class Answers:
    """What lookup hears."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.said: list[tuple[m.Message, tuple[int, ...]]] = []
        log = Log(Process.PARENT, foreground=True)
        self.openers = FileOpeners(
            self.loop, log, ACTIONS, Identity(NOBODY, NOBODY), lambda message, *fds: self.said.append((message, fds)),
            frozenset({"root", "_sps_queue"}),
        )  # fmt: skip

    def take(self) -> tuple[m.Message, bytes | None]:
        """The one answer, and what can be read from its descriptor."""
        run_until(self.loop, lambda: bool(self.said))
        ((message, fds),) = self.said
        self.said.clear()
        if not fds:
            return message, None
        assert not os.get_inheritable(fds[0])
        with os.fdopen(fds[0], "rb") as file:
            return message, file.read()

    def forward(self, home: Path, uid: int = OWNER) -> tuple[m.Message, bytes | None]:
        self.openers.forward(m.ForwardOpen(7, "virtual", "u", Account(uid, 100, str(home))))
        return self.take()


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made

    def gone() -> bool:
        made.openers.reap()
        return not made.openers.busy

    run_until(made.loop, gone)  # no child is left behind


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of OWNER that others may not write to."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.stat().st_mode & 0o005 != 0o005:
            directory.chmod(directory.stat().st_mode | 0o055)
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    os.chown(made, OWNER, 100)
    return made


def write(path: Path, data: bytes = b"x@away.net\n", uid: int = OWNER, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    os.chown(path, uid, 100)
    path.chmod(mode)
    return path


def text_of(message: m.Message, verdict: str) -> str:
    assert isinstance(message, m.ForwardNone), message
    assert (message.query, message.verdict) == (7, verdict)
    return message.text


def test_a_users_file(answers: Answers, home: Path) -> None:
    """The bytes come through a pipe, whoever else may not read them."""
    write(home / ".forward")
    assert answers.forward(home) == (m.ForwardFile(7, False), b"x@away.net\n")


def test_without_a_file_no_child_is_made(answers: Answers, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The common case costs two looks at names: no file, no home."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child"))
    assert text_of(answers.forward(home)[0], "none") == ""
    assert text_of(answers.forward(home / "gone")[0], "none") == ""


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_may_write(answers: Answers, home: Path, mode: int) -> None:
    """Refused for good, with the reason."""
    write(home / ".forward", mode=mode)
    assert "others may write to this file" in text_of(answers.forward(home)[0], "refused")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_home_that_others_may_write(answers: Answers, home: Path, mode: int) -> None:
    """The same: they could put another file in its place."""
    write(home / ".forward")
    home.chmod(mode)
    assert "others may write to this directory" in text_of(answers.forward(home)[0], "refused")


@pytest.mark.parametrize("uid", [OWNER + 1, 0])
def test_file_of_somebody_else(answers: Answers, home: Path, uid: int) -> None:
    """A link made to a file of another user says nothing for this one."""
    write(home / ".forward", uid=uid, mode=0o644)
    assert "not the user's own" in text_of(answers.forward(home)[0], "refused")


def test_sticky_home(answers: Answers, home: Path) -> None:
    """The user is changing the file: a temporary failure, whether or not there is one."""
    home.chmod(0o1700)
    assert "sticky" in text_of(answers.forward(home)[0], "temporary")
    write(home / ".forward")
    assert "sticky" in text_of(answers.forward(home)[0], "temporary")


def test_what_is_no_file(answers: Answers, home: Path) -> None:
    """A link, a FIFO, a device, a directory: refused, and nobody waits for them."""
    path = home / ".forward"
    secret = write(home / "secret")
    path.symlink_to(secret)
    text_of(answers.forward(home)[0], "refused")
    path.unlink()
    os.mkfifo(path, 0o600)
    os.chown(path, OWNER, 100)
    assert "regular" in text_of(answers.forward(home)[0], "refused")
    path.unlink()
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.chown(path, OWNER, 100)
    text_of(answers.forward(home)[0], "refused")
    path.unlink()
    path.mkdir()
    os.chown(path, OWNER, 100)
    text_of(answers.forward(home)[0], "refused")
    (home / "file").touch()
    text_of(answers.forward(home / "file")[0], "refused")


def test_size(answers: Answers, home: Path) -> None:
    """Under 4096 bytes."""
    write(home / ".forward", b"#" * 4096)
    assert "4096" in text_of(answers.forward(home)[0], "temporary")
    write(home / ".forward", b"#" * 4095)
    assert answers.forward(home)[1] == b"#" * 4095
    write(home / ".forward", b"")
    assert answers.forward(home)[1] == b""


def test_a_file_that_the_user_cannot_read(answers: Answers, home: Path) -> None:
    """Nothing is opened with root's rights: a temporary failure."""
    write(home / ".forward", mode=0o000)
    assert "Permission denied" in text_of(answers.forward(home)[0], "temporary")


@pytest.mark.parametrize(
    ("uid", "gid", "home", "why"),
    [(0, 100, "/h", "uid 0"), (UID_FLOOR - 1, 100, "/h", "below"), (OWNER, 0, "/h", "gid 0"),
     (OWNER, 100, "h", "absolute"), (OWNER, 100, "/h/../x", "absolute")],
)  # fmt: skip
def test_accounts_that_lookup_may_not_name(answers: Answers, uid: int, gid: int, home: str, why: str) -> None:
    """Root, low uids and odd homes are refused whatever lookup says."""
    answers.openers.forward(m.ForwardOpen(7, "virtual", "u", Account(uid, gid, home)))
    assert why in text_of(answers.take()[0], "temporary")


@pytest.mark.parametrize("action", ["system", "gone"])
def test_account_for_an_action_without_userbase(answers: Answers, home: Path, action: str) -> None:
    """A userbase is smtpd.conf's word, not lookup's."""
    write(home / ".forward")
    answers.openers.forward(m.ForwardOpen(7, action, "u", Account(OWNER, 100, str(home))))
    assert "no userbase" in text_of(answers.take()[0], "temporary")


def test_users_of_the_system(answers: Answers, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """passwd says who they are; unknown ones are absent, the daemon's own have none."""
    user = ensure_mail_user()
    entry = pwd.getpwnam(user)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    write(home / ".forward", uid=entry.pw_uid)

    def passwd_entry(name: str) -> pwd.struct_passwd:
        found = pwd.getpwnam(user if name == "_sps_queue" else name)
        return pwd.struct_passwd((name, "x", found.pw_uid, found.pw_gid, "", str(home), ""))

    monkeypatch.setattr(file_openers, "passwd_entry", passwd_entry)
    answers.openers.forward(m.ForwardOpen(7, "system", user))
    assert answers.take() == (m.ForwardFile(7, False), b"x@away.net\n")
    answers.openers.forward(m.ForwardOpen(7, "system", "no-such-user-here"))
    text_of(answers.take()[0], "absent")
    answers.openers.forward(m.ForwardOpen(7, "system", "a\0b"))
    text_of(answers.take()[0], "absent")
    answers.openers.forward(m.ForwardOpen(7, "system", "_sps_queue"))
    text_of(answers.take()[0], "none")
    os.chown(home, 0, 0)
    write(home / ".forward", uid=0)
    answers.openers.forward(m.ForwardOpen(7, "system", "root"))
    assert answers.take()[0] == m.ForwardFile(7, True)


def test_a_child_that_does_not_answer(answers: Answers, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is bounded, and so is their number; all are answered."""
    write(home / ".forward")
    monkeypatch.setattr(file_openers, "DEADLINE_SECS", 0.3)
    monkeypatch.setattr(file_openers, "MAX_CHILDREN", 2)
    monkeypatch.setattr(file_openers, "MAX_WAITING", 1)
    monkeypatch.setattr(file_openers, "open_forward", lambda _home, _uid: os.read(os.pipe()[0], 1))
    for number in range(4):
        answers.openers.forward(m.ForwardOpen(number, "virtual", "u", Account(OWNER, 100, str(home))))

    def all_said() -> bool:
        answers.openers.reap()
        return len(answers.said) == 4

    run_until(answers.loop, all_said)
    told = [message for message, _fds in answers.said]
    assert all(isinstance(message, m.ForwardNone) and message.verdict == "temporary" for message in told)
    assert told[0].query == 3  # type: ignore[attr-defined]
    answers.said.clear()


def test_the_child_cannot_signal_the_parents_loop(
    answers: Answers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may send signals to a process of that uid: they end it, and do not reach the parent's wake-up pipe."""
    import signal

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        write(home / ".forward")
        monkeypatch.setattr(file_openers, "open_forward", lambda _home, _uid: os.kill(os.getpid(), signal.SIGTERM) or 0)
        text_of(answers.forward(home)[0], "temporary")
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_the_child_is_the_user_and_nothing_else(answers: Answers, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ids and groups are the user's, and of descriptors there is one."""
    write(home / ".forward")

    def look(_home: str, _uid: int) -> int:
        status = Path("/proc/self/status").read_text()
        reader, writer = os.pipe()
        lines = [line for line in status.splitlines() if line.startswith(("Uid", "Gid", "Groups", "CapEff"))]
        open_fds = [fd for fd in range(64) if Path(f"/proc/self/fd/{fd}").is_symlink()]
        os.write(writer, "\n".join([*lines, str(open_fds)]).encode())
        return reader

    monkeypatch.setattr(file_openers, "open_forward", look)
    _message, said = answers.forward(home)
    assert said is not None
    lines = [line.split() for line in said.decode().splitlines()]
    assert lines[0][1:] == [str(OWNER)] * 4
    assert lines[1][1:] == ["100"] * 4
    assert lines[2][1:] == ["100"]
    assert int(lines[3][1], 16) == 0
    assert lines[4][3:] in (["3,", "4,", "5]"], ["3,", "4,", "5,", "6]"])  # the answer's, and those of this look


def test_included_files(answers: Answers, tmp_path: Path, home: Path) -> None:
    """With lookup's rights, and no others: what it may not read, what is no file, what is no path."""
    path = tmp_path / "list"
    path.write_bytes(b"alice\n" * 2000)
    answers.openers.include(m.IncludeOpen(7, str(path)))
    message, said = answers.take()
    assert (message, said) == (m.IncludeFile(7), b"alice\n" * 2000)
    path.chmod(0o600)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for name, why in ((str(path), "Permission denied"), (str(fifo), "not a regular file"), ("list", "absolute"),
                      (str(tmp_path / "gone"), "No such file"), ("/a\0b", "absolute")):  # fmt: skip
        answers.openers.include(m.IncludeOpen(7, name))
        message, said = answers.take()
        assert isinstance(message, m.IncludeNone), name
        assert why in message.text
        assert said is None


def test_userbases() -> None:
    """Lookup's word for a user is taken only where it may be; silence is a temporary failure."""
    loop = Loop()
    asked: list[m.UserbaseQuery] = []
    told: list[tuple[Account | None, str]] = []
    userbases = Userbases(loop, ACTIONS, asked.append)

    def ask(info: Account | None, temporary: bool = False) -> tuple[Account | None, str]:
        userbases.ask("virtual", "bob", lambda account, why: told.append((account, why)))
        userbases.answered(m.UserbaseInfo(asked[-1].query, info, temporary))
        userbases.answered(m.UserbaseInfo(asked[-1].query, info, temporary))
        return told.pop()

    bob = Account(5000, 5000, "/v/bob")
    assert ask(bob) == (bob, "")
    assert (asked[0].action, asked[0].user) == ("virtual", "bob")
    assert ask(None) == (None, "")
    assert ask(None, True)[1] != ""
    assert ask(Account(0, 5000, "/root")) == (None, "uid 0 is below 100")
    assert told == []
