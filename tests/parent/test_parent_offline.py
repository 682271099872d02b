"""The offline folder: what is taken, how much at once, what is left and for how long."""

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd_ps.contract.values import Process
from smtpd_ps.parent import offline as module
from smtpd_ps.parent.offline import MAX_RUNNING, STEP_FILES, Offline
from smtpd_ps.pure.offline_mail import EXIT_LATER, EXIT_REFUSED
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

ME = pwd.getpwuid(os.getuid())


class Started:
    """In the place of agents: processes that end when the test says so."""

    def __init__(self) -> None:
        self.pipes: dict[int, int] = {}  # by pid
        self.ends: list[socket.socket] = []
        self.total = 0

    def spawn(self, process: Process, keep_stderr: bool) -> tuple[int, socket.socket]:
        """As runtime.spawn.spawn."""
        assert process is Process.AGENT and keep_stderr
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(writer)
            os._exit((os.read(reader, 1) or b"\x4b")[0])
        os.close(reader)
        self.pipes[pid] = writer
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        self.total += 1
        return pid, ours

    def end(self, pid: int, status: int) -> None:
        """Let one end."""
        os.write(self.pipes[pid], bytes((status,)))
        os.close(self.pipes.pop(pid))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """No agent is started, and nobody is connected to."""
    fake = Started()
    monkeypatch.setattr(module, "spawn", fake.spawn)
    monkeypatch.setattr(module, "connect_lmtp", lambda _path: os.dup(0))
    monkeypatch.setattr(module, "STEP_SECS", 0.0)
    yield fake
    for writer in fake.pipes.values():
        os.close(writer)
    for end in fake.ends:
        end.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The offline folder."""
    path = tmp_path / "offline"
    path.mkdir()
    return path


def mail(folder: Path, number: int, mode: int = 0o600) -> Path:
    """A file with a name that sendmail gives."""
    path = folder / f"{number:032x}"
    path.write_bytes(b"x")
    path.chmod(mode)
    return path


def make(folder: Path, again_secs: float = 0.0) -> tuple[Loop, Offline]:
    """One that looks all the time, as whoever runs the tests."""
    loop = Loop()
    log = Log(Process.PARENT, True, 1)
    one = Offline(log, str(folder), "/socket", "mx.test", False, True, frozenset(), again_secs)
    one.start(loop)
    return loop, one


def turn(loop: Loop, one: Offline, condition: object) -> None:
    """Turn the loop until it is so."""
    assert callable(condition)
    for _ in range(2000):
        loop.turn(0.01)
        one.reap()
        if condition():
            return
    raise AssertionError("never")


def ended(started: Started, loop: Loop, one: Offline, status: int) -> None:
    """End all that run."""
    for pid in list(started.pipes):
        started.end(pid, status)
    turn(loop, one, lambda: not set(one.users()) - set(started.pipes))


def test_taken_and_removed(folder: Path, started: Started) -> None:
    """An agent of the owner; the file goes when the agent says that smtp has taken the message."""
    path = mail(folder, 1)
    loop, one = make(folder)
    turn(loop, one, lambda: one.users())
    assert set(one.users().values()) == {ME.pw_name} and path.exists()
    ended(started, loop, one, 0)
    assert not path.exists()
    one.end()


def test_not_more_than_five_at_once(folder: Path, started: Started) -> None:
    """The others wait, none is forgotten, and none is taken twice."""
    for number in range(2 * STEP_FILES):
        mail(folder, number)
    loop, one = make(folder)
    while list(folder.iterdir()):
        left = len(list(folder.iterdir()))
        turn(loop, one, lambda left=left: len(one.users()) == min(left, MAX_RUNNING))  # type: ignore[misc]
        assert len(started.pipes) <= MAX_RUNNING
        ended(started, loop, one, 0)
    assert started.total == 2 * STEP_FILES
    one.end()


@pytest.mark.parametrize("status", [EXIT_LATER, 70, 1])
def test_later(folder: Path, started: Started, status: int) -> None:
    """What smtp does not take now, and what an agent dies of, is tried again; the file stays."""
    path = mail(folder, 1)
    loop, one = make(folder)
    for times in range(1, 4):
        turn(loop, one, lambda times=times: started.total == times)  # type: ignore[misc]
        ended(started, loop, one, status)
        assert path.exists()
    one.end()


def test_refused(folder: Path, started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no mail is logged once and not tried again, until the file is another one."""
    path = mail(folder, 1)
    loop, one = make(folder)
    turn(loop, one, lambda: one.users())
    ended(started, loop, one, EXIT_REFUSED)
    for _ in range(50):
        loop.turn(0.01)
    assert started.total == 1 and capsys.readouterr().err.count("is left there") == 1
    path.unlink()
    mail(folder, 2).rename(path)
    turn(loop, one, lambda: started.total == 2)
    one.end()
    assert path.exists()


def test_what_is_no_mail(folder: Path, started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """Links, directories, pipes, other modes and names: named in the log once, never opened, never removed."""
    secret = folder.parent / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0o600)
    (folder / f"{1:032x}").symlink_to(secret)
    os.link(secret, folder / f"{2:032x}")
    (folder / f"{3:032x}").mkdir()
    os.mkfifo(folder / f"{4:032x}", 0o600)
    mail(folder, 5, 0o640)
    mail(folder, 6, 0o4600)
    mail(folder, 7).rename(folder / "x\ny")
    names = sorted(path.name for path in folder.iterdir())
    loop, one = make(folder)
    for _ in range(100):
        loop.turn(0.01)
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "is left there" in line]) == len(names) == len(said)
    assert started.total == 0 and sorted(path.name for path in folder.iterdir()) == names
    one.end()


def test_drafts(folder: Path, started: Started) -> None:
    """What sendmail has not finished is passed over, and removed after a day."""
    fresh, old = mail(folder, 1).rename(folder / f".{1:032x}"), mail(folder, 2).rename(folder / f".{2:032x}")
    os.utime(old, (1, 1))
    loop, one = make(folder)
    turn(loop, one, lambda: not old.exists())
    assert fresh.exists() and started.total == 0
    one.end()


def test_another_file_under_the_name(folder: Path, started: Started) -> None:
    """What the owner has put in the place of a message that was submitted is not removed."""
    path = mail(folder, 1)
    loop, one = make(folder)
    turn(loop, one, lambda: one.users())
    mail(folder, 2).rename(path)
    (pid,) = started.pipes
    started.end(pid, 0)
    turn(loop, one, lambda: pid not in one.users())
    assert path.exists()
    one.end()


def test_the_end(folder: Path, started: Started) -> None:
    """At the end agents are ended, what they had stays, and nothing is begun any more."""
    paths = [mail(folder, number) for number in range(3)]
    loop, one = make(folder)
    turn(loop, one, lambda: len(one.users()) == 3)
    one.end()
    assert not one.users() and all(path.exists() for path in paths)
    for _ in range(20):
        loop.turn(0.01)
    assert started.total == 3
    one.end()


def test_no_folder(tmp_path: Path, started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there is an error in the log, and looked for again."""
    loop, one = make(tmp_path / "offline")
    turn(loop, one, lambda: "No such file" in capsys.readouterr().err)
    (tmp_path / "offline").mkdir()
    mail(tmp_path / "offline", 1)
    turn(loop, one, lambda: started.total == 1)
    one.end()
