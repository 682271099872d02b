"""Filter and table programs: run as their users with nothing of the daemon's, and started again when they end."""

import contextlib
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import wait_until
from support.users import ensure_daemon_users

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ProgramSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.programs import LEAVE_SECS, LONGEST_DELAY_SECS, STABLE_SECS, Programs
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Timer

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")


class Clock:
    """The loop, as far as it is used here, with a clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay_secs: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.time + delay_secs, callback))
        return self.timers[-1]

    def sleep(self, secs: float) -> None:
        time.sleep(secs)
        self.time += secs

    def advance(self, secs: float) -> None:
        self.time += secs
        due = [timer for timer in self.timers if timer.live and timer.when <= self.time]
        self.timers = [timer for timer in self.timers if timer.live and timer not in due]
        for timer in due:
            timer.run()

    @property
    def waiting(self) -> list[float]:
        return [timer.when - self.time for timer in self.timers if timer.live]


class World:
    """The programs of one generation; lookup is the test."""

    def __init__(self, *settings: ProgramSettings, privileged: bool = False) -> None:
        self.clock = Clock()
        self.told: list[tuple[m.Message, tuple[int, ...]]] = []
        self.programs = Programs(
            self.clock, Log(Process.PARENT, foreground=True), settings, privileged,  # type: ignore[arg-type]
            lambda message, *fds: self.told.append((message, fds)),
        )  # fmt: skip

    def start(self) -> list[tuple[int, int, int]]:
        """Their pipes."""
        return [pipes for _message, pipes in self.programs.start()]

    def reap(self) -> None:
        """Until none runs."""

        def none() -> bool:
            self.programs.reap()
            return not self.programs.running

        wait_until("the programs have ended", none)

    def close(self) -> None:
        self.programs.end()
        for _message, fds in self.told:
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)


@pytest.fixture
def worlds() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*settings: ProgramSettings, privileged: bool = False) -> World:
        made.append(World(*settings, privileged=privileged))
        return made[-1]

    yield make
    for world in made:
        world.close()


def program(*words: str, **more: object) -> ProgramSettings:
    return ProgramSettings("f", "filter", words, **more)  # type: ignore[arg-type]


def python(code: str, **more: object) -> ProgramSettings:
    return program(sys.executable, "-I", "-c", code, **more)


def read_all(fd: int) -> str:
    data = b""
    while more := os.read(fd, 65536):
        data += more
    os.close(fd)
    return data.decode()


def test_it_has_its_three_descriptors_and_a_clean_environment(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the daemon's is inherited: no variable, no socket, no terminal, no working folder, no signal."""
    monkeypatch.setenv("SECRET", "in the parent's environment")
    code = (
        "import os,signal,sys\n"
        "print(sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), oct(os.umask(0)))\n"
        "print([fd for fd in range(3, 256) if os.path.exists(f'/proc/self/fd/{fd}')])\n"
        "print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0], "
        "open('/proc/self/status').read().split('SigBlk:')[1].split()[0])\n"
        "sys.stderr.write('an error')\n"
        "print(sys.stdin.read())\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ((input_fd, output_fd, error_fd),) = worlds(python(code)).start()
        os.write(input_fd, b"what lookup says")
        os.close(input_fd)
        lines = read_all(output_fd).splitlines()
    assert lines[0] == "['HOME', 'LC_ALL', 'PATH'] / True 0o77"
    assert lines[1] == "[]"
    ignored, blocked = (int(text, 16) for text in lines[2].split())
    assert not blocked and not ignored & (1 << signal.SIGHUP - 1 | 1 << signal.SIGTERM - 1)
    assert lines[3] == "what lookup says"
    assert read_all(error_fd) == "an error"


@as_root
@pytest.mark.parametrize("kind", ["filter", "table"])
def test_it_runs_as_the_user_of_its_kind_for_good(worlds: Callable[..., World], kind: str) -> None:
    """Real, effective and saved, no group beside, and no way back."""
    ensure_daemon_users()
    settings = ProgramSettings("x", kind, ("/bin/sh", "-c", "grep -E '^(Uid|Gid|Groups):' /proc/self/status"))  # type: ignore[arg-type]
    world = worlds(settings, privileged=True)
    ((input_fd, output_fd, error_fd),) = world.start()
    user = pwd.getpwnam(f"_sps_{kind}")
    (row,) = world.programs.rows(5, 1)
    assert (row.client, row.kind, row.index, row.user, row.group) == (5, kind, 1, f"_sps_{kind}", f"_sps_{kind}")
    uid, gid = user.pw_uid, user.pw_gid
    assert read_all(error_fd) == ""
    assert [line.split()[1:] for line in read_all(output_fd).splitlines()] == [
        [str(uid)] * 4,
        [str(gid)] * 4,
        [str(gid)],
    ]
    os.close(input_fd)


@as_root
def test_its_chroot_is_entered(worlds: Callable[..., World], tmp_path: Path) -> None:
    """A command is looked for below it; one that is not there is not started."""
    world = worlds(program("/bin/sh", user="nobody", chroot=str(tmp_path)), privileged=True)
    assert world.start() == []
    assert not world.programs.running
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        settings = program("/bin/sh", "-c", "exit 3", user="nobody", chroot="/")
    else:
        (tmp_path / "sh").write_bytes(busybox.read_bytes())
        (tmp_path / "sh").chmod(0o755)
        tmp_path.chmod(0o755)
        settings = program("/sh", "-c", "echo $(pwd) /*", user="nobody", chroot=str(tmp_path))
    second = worlds(settings, privileged=True)
    ((input_fd, output_fd, error_fd),) = second.start()
    assert read_all(output_fd) in ("/ /sh\n", "")
    assert read_all(error_fd) == ""
    os.close(input_fd)


def test_a_command_that_cannot_be_executed_says_so_on_its_standard_error(
    worlds: Callable[..., World], tmp_path: Path
) -> None:
    """Lookup logs it with the program's name."""
    path = tmp_path / "broken"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    world = worlds(program(str(path)))
    ((input_fd, output_fd, error_fd),) = world.start()
    assert "No such file" in read_all(error_fd)
    assert read_all(output_fd) == ""
    os.close(input_fd)
    world.programs.serve()
    world.reap()
    ((message, _fds),) = world.told
    assert isinstance(message, m.ProgramGone) and message.text == "ended: exit status 127"


def test_it_is_started_again_with_back_off(worlds: Callable[..., World]) -> None:
    """1 s, doubled each time up to a minute; after it has run for a while from the start again."""
    world = worlds(program("/bin/false"))
    world.start()
    world.programs.serve()
    delays = []
    for _ in range(9):
        world.reap()
        message, _fds = world.told[-1]
        assert isinstance(message, m.ProgramGone)
        (delay_secs,) = world.clock.waiting
        assert message.restart_secs == int(delay_secs)
        delays.append(delay_secs)
        world.clock.advance(delay_secs)
        started, fds = world.told[-1]
        assert isinstance(started, m.Program) and len(fds) == 3 and started.instance == message.instance + 1
    assert delays == [1, 2, 4, 8, 16, 32, LONGEST_DELAY_SECS, LONGEST_DELAY_SECS, LONGEST_DELAY_SECS]
    world.clock.time += STABLE_SECS
    world.reap()
    assert world.clock.waiting == [1]


def test_what_happens_before_lookup_serves_is_told_when_it_does(worlds: Callable[..., World]) -> None:
    """Its set-up takes the programs that were counted, and nothing else."""
    world = worlds(program("/bin/false"), ProgramSettings("t", "table", ("/no/such/program",)))
    assert len(world.start()) == 1
    world.reap()
    world.clock.advance(100)
    assert world.told == [] and world.clock.waiting == []
    world.programs.serve()
    assert {(message.kind, message.text[:11]) for message, _ in world.told} == {  # type: ignore[attr-defined]
        ("filter", "ended: exit"),
        ("table", "cannot be s"),
    }
    assert world.clock.waiting == [1, 1]


def test_one_that_lookup_gives_up_is_ended_and_started_again(worlds: Callable[..., World]) -> None:
    """Told politely after a while, then killed, with all that it has started."""
    code = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    world = worlds(python(code))
    ((_input_fd, output_fd, _error_fd),) = world.start()
    world.programs.serve()
    assert os.read(output_fd, 10) == b"up\n"
    (row,) = world.programs.rows(0, 0)
    for message in (
        m.ProgramFailed("filter", "f", 2), m.ProgramFailed("filter", "g", 1), m.ProgramFailed("table", "f", 1),
    ):  # fmt: skip
        world.programs.failed(message)
    assert world.clock.waiting == [], "an earlier run, and programs that are not in smtpd.conf"
    world.programs.failed(m.ProgramFailed("filter", "f", 1))
    world.programs.failed(m.ProgramFailed("filter", "f", 1))
    assert world.clock.waiting == [LEAVE_SECS]
    world.clock.advance(LEAVE_SECS)
    os.kill(row.pid, 0)
    world.clock.advance(LEAVE_SECS)
    world.reap()
    message, _fds = world.told[0]
    assert isinstance(message, m.ProgramGone) and message.text == "ended: killed by signal 9"
    assert world.clock.waiting == [1]


def test_when_lookup_is_gone_none_is_started_again(worlds: Callable[..., World]) -> None:
    """One that leaves at the end of its input needs no signal."""
    world = worlds(program("/bin/cat"), ProgramSettings("t", "table", ("/bin/false",)))
    pipes = world.start()
    world.programs.serve()
    world.programs.release()
    for fds in pipes:
        for fd in fds:
            os.close(fd)
    world.reap()
    assert world.told == [] and world.clock.waiting == []


@pytest.mark.parametrize("text", ["exec cat", "sleep 600"])
def test_the_end_of_the_daemon_leaves_none(worlds: Callable[..., World], text: str) -> None:
    """Whatever they do."""
    world = worlds(program("/bin/sh", "-c", text))
    world.start()
    (row,) = world.programs.rows(0, 0)
    world.programs.end()
    assert not world.programs.running
    with pytest.raises(ProcessLookupError):
        os.kill(row.pid, 0)
