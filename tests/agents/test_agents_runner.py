"""Commands and targets as an agent runs them: limits, ends, inputs, and what it refuses by itself."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd_ps.agents import commands, store
from smtpd_ps.agents.bodies import Item
from smtpd_ps.agents.file_target import append
from smtpd_ps.agents.forward_line import forward_names
from smtpd_ps.agents.runner import Runner
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Process, Status
from smtpd_ps.pure.expand_targets import TargetError
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.signals import watch_signals

BODY = b"Subject: x\r\n\r\nline\r\n"
HEADERS = b"Return-Path: <a@s.test>\nDelivered-To: r@d.test\n"


class Rig:
    """A runner, and delivery's end of its channel, in one loop."""

    def __init__(self, home: Path, **more: object) -> None:
        settings = AgentSettings(**{"user": "ann", "home": str(home), "action": "x", "kind": "mda", **more})  # type: ignore[arg-type]
        self.loop = Loop()
        self.results: list[m.AgentResult] = []
        self.runner = Runner(self.loop, settings)
        watch_signals(self.loop, [signal.SIGCHLD], self.runner.reap)
        ours, theirs = socket.socketpair()
        self.end = Channel(
            self.loop, theirs, Process.AGENT, Process.DELIVERY, self.runner.handlers(), lambda _why: None
        )
        self.runner.answers = self.end
        self.delivery = Channel(
            self.loop, ours, Process.DELIVERY, Process.AGENT, {m.AgentResult: self.results.append}, lambda _why: None
        )
        self.count = 0

    def job(self, body: bytes = BODY, sender: str = "a@s.test", target: str = "", **more: str) -> None:
        self.count += 1
        self.delivery.send(m.AgentJob(self.count, sender, "r@d.test", "ann@d.test", body, target=target, **more))

    def until(self, count: int) -> list[m.AgentResult]:
        self.wait(lambda: len(self.results) >= count)
        return self.results

    def wait(self, condition) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.loop.turn(0.02)


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator:
    """Makes rigs, and gives back what they hold."""
    made: list[Rig] = []
    handler = signal.getsignal(signal.SIGCHLD)

    def make(**more: object) -> Rig:
        made.append(Rig(tmp_path, **more))
        return made[-1]

    yield make
    for rig in made:
        rig.runner.end()
        rig.delivery.close()
        rig.end.close()
        rig.loop.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, handler)


def test_what_takes_too_long_is_killed_with_all_it_started(rigs, tmp_path):
    """At the limit the whole process group is killed, and the mail is tried again; other commands go on."""
    rig = rigs(mda_command="echo working; (trap '' TERM; echo $$ > child; sleep 1000) & echo $! > group; wait",
               command_limit_secs=1000)  # fmt: skip
    rig.job()
    rig.wait(lambda: (tmp_path / "group").exists() and (tmp_path / "group").read_text().endswith("\n"))
    rig.loop.now = lambda: time.monotonic() + 1001  # the limit is over
    (result,) = rig.until(1)
    assert (result.status, result.text) == (Status.TEMPFAIL, '4.3.0 terminated; timeout: "working"')
    child = int((tmp_path / "group").read_text())
    rig.wait(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends between opening and reading
        return False


def test_many_run_at_once_and_are_answered_as_they_end(rigs, tmp_path):
    """No command waits for another of the same agent."""
    rig = rigs(
        mda_command="case %{sender.user} in slow) until test -e go; do sleep 0.02; done;; esac; cat > %{sender.user}"
    )
    for sender in ("slow@s.test", "a@s.test", "b@s.test"):
        rig.job(sender=sender)
    assert {result.job for result in rig.until(2)} == {2, 3}
    (tmp_path / "go").touch()
    assert rig.until(3)[2].job == 1
    assert (tmp_path / "a").read_bytes() == HEADERS + b"Subject: x\n\nline\n"


@pytest.mark.parametrize("size", [0, 100, commands.IN_MEMORY_BYTES - 100, commands.IN_MEMORY_BYTES + 1, 3_000_000])
def test_the_input_is_a_whole_file_whatever_its_size(rigs, tmp_path, size):
    """Small ones in memory, large ones in a file without a name; LF line ends; nothing stays open or behind."""
    body = (b"x" * 98 + b"\r\n") * (size // 100)
    before = set(os.listdir("/proc/self/fd"))
    scratch = set(os.listdir(commands.SCRATCH))
    rig = rigs(mda_command="cat > out")
    opened = len(os.listdir("/proc/self/fd"))
    if len(body) > 60_000:
        fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
        os.write(fd, body)
        rig.delivery.send(m.AgentJobFile(1, "a@s.test", "r@d.test", "ann@d.test", len(body)), fd)
    else:
        rig.job(body)
    assert rig.until(1)[0].status == Status.OK
    assert (tmp_path / "out").read_bytes() == HEADERS + body.replace(b"\r\n", b"\n")
    assert len(os.listdir("/proc/self/fd")) == opened >= len(before)
    assert not {name for name in set(os.listdir(commands.SCRATCH)) - scratch if name.startswith("smtpd_ps.")}


def test_a_body_that_ends_early_starts_nothing(rigs, tmp_path):
    """A file shorter than the job says is no message: nothing runs, and the mail is tried again."""
    rig = rigs(mda_command="touch ran")
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    os.write(fd, b"short")
    rig.delivery.send(m.AgentJobFile(1, "", "r@d.test", "d@d.test", 500), fd)
    (result,) = rig.until(1)
    assert result.status == Status.TEMPFAIL and "the body ends after 5 of 500 bytes" in result.text
    assert not (tmp_path / "ran").exists()


def test_what_was_started_and_lives_on_is_not_waited_for(rigs):
    """A command that leaves a process behind with its output open has ended when it ends."""
    rig = rigs(mda_command="sleep 5 & echo said; exit 65")
    rig.job()
    (result,) = rig.until(1)
    assert (result.status, result.text) == (Status.PERMFAIL, '5.3.0 data format error: "said"')


def test_a_flood_of_output_is_read_and_dropped(rigs):
    """A command that writes without end blocks nobody and fills no memory; its last line is kept in part."""
    rig = rigs(mda_command="head -c 20000000 /dev/zero | tr '\\0' x; echo; echo '  last  '; exit 1")
    rig.job()
    assert rig.until(1)[0].text == '5.3.0 exit status 1: "last"'


def test_what_still_runs_at_the_end_is_ended(rigs, tmp_path):
    """TERM first, then KILL."""
    rig = rigs(mda_command="trap '' TERM; echo $$ > pid; while :; do sleep 1; done")
    rig.job()
    rig.wait(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    rig.runner.end()
    assert not _alive(int((tmp_path / "pid").read_text()))
    assert rig.until(1)[0].status == Status.TEMPFAIL


def test_targets_that_an_agent_refuses(rigs, tmp_path):
    """What is neither file nor command, leads upwards, or has a bad specifier: refused for good; what the
    user's own .forward does not name: later."""
    alias = rigs(kind="targets", source="alias")
    for target in ("", "ls", "/a/../b", "|x %{what}", "|", "|x %{sender:raw}"):
        alias.job(target=target, sender="`id`@s.test")
    assert {result.status for result in alias.until(6)} == {Status.PERMFAIL}
    alias.end.close()
    own = rigs(kind="targets", source="forward")
    own.job(target="|touch ran")
    assert own.until(1)[0].status == Status.TEMPFAIL
    assert "No such file" in own.results[0].text
    assert not (tmp_path / "ran").exists()


def test_the_forward_file_is_read_again(tmp_path):
    """Only a target that stands in it, and only where nobody else could have written it."""
    path = tmp_path / ".forward"
    path.write_text(f'ann@x.test, "|sort -a" # "|no"\n{tmp_path}/box\n')
    path.chmod(0o600)
    home = str(tmp_path)
    assert forward_names(home, "|sort -a") and forward_names(home, f"{tmp_path}/box")
    for other in ("|sort", "|no", "|sort -a ", f"{tmp_path}/bo", "ann@x.test"):
        assert not forward_names(home, other)
    path.chmod(0o620)
    with pytest.raises(TargetError):
        forward_names(home, "|sort -a")
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError):  # ELOOP, or EMLINK on FreeBSD
        forward_names(home, "|sort -a")
    path.unlink()
    path.mkdir()
    with pytest.raises(TargetError):
        forward_names(home, "|sort -a")


@pytest.mark.parametrize("plant", ["symlink", "hardlink", "directory", "fifo"])
def test_a_file_target_is_a_plain_file(tmp_path, plant):
    """Links and special files are not written, and wait for somebody to look."""
    target, box = tmp_path / "target", tmp_path / "box"
    target.write_text("precious")
    match plant:
        case "symlink":
            box.symlink_to(target)
        case "hardlink":
            os.link(target, box)
        case "directory":
            box.mkdir()
        case _:
            os.mkfifo(box)
    verdict = append(str(box), Item(m.AgentJob(1, "a@s.test", "r@d.test", "d@d.test", BODY)))
    assert verdict.status is Status.TEMPFAIL and str(box) in verdict.text
    assert target.read_text() == "precious"


def test_a_file_target_is_appended_to(tmp_path):
    """A file is made for its user alone, each message in the form of mbox; /dev/null takes everything."""
    box = tmp_path / "box"
    item = Item(m.AgentJob(1, "a@s.test", "r@d.test", "d@d.test", b"X: y\r\n\r\nFrom me\r\n"))
    assert [append(str(box), item).status for _ in range(2)] == [Status.OK] * 2
    assert box.stat().st_mode & 0o777 == 0o600
    assert box.read_text().count("From a@s.test ") == 2 and box.read_text().count("\n>From me\n\n") == 2
    assert append("/dev/null", item).status is Status.OK
    assert append(f"{tmp_path}/no/such", item).status is Status.TEMPFAIL


def test_the_store_that_wrappers_run(tmp_path, monkeypatch, capsys):
    """What stands in a wrapper as %{mda}: the input goes into the Maildir or the file as it is; never as root."""
    monkeypatch.setenv("SENDER", "a@s.test")
    box, maildir = tmp_path / "box", tmp_path / "50% mail"

    def run(*words: str, uid: int = 1000) -> int:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        message = tmp_path / "message"
        message.write_bytes(HEADERS + b"X-Spam: Yes\nReceived: x\n\nFrom\n")
        kept, given = os.dup(0), os.open(message, os.O_RDONLY)
        os.dup2(given, 0)
        try:
            return store.main(list(words))
        finally:
            os.dup2(kept, 0)
            os.close(kept)
            os.close(given)

    assert run("file", str(box)) == 0
    assert box.read_text().startswith("From a@s.test ") and "\nDelivered-To: r@d.test\nX-Spam" in box.read_text()
    assert run("maildir", str(maildir)) == 0 and run("maildir", "-j", str(maildir)) == 0
    (plain,), (junk,) = (maildir / "new").iterdir(), (maildir / ".Junk" / "new").iterdir()
    assert plain.read_bytes() == junk.read_bytes() == HEADERS + b"X-Spam: Yes\nReceived: x\n\nFrom\n"
    assert run("maildir", f"{box}/x") == 75
    assert "Not a directory" in capsys.readouterr().err
    for words in (("maildir",), ("file", "a", "b"), ("x", "y"), ()):
        assert run(*words) == 64
    assert run("file", str(box), uid=0) == 64


def test_no_interpreter_for_a_wrapper(rigs, tmp_path):
    """Where the user may not run our interpreter, a wrapped store waits instead of returning the mail."""
    missing = str(tmp_path / "python")
    rig = rigs(kind="targets", source="alias", wrapper="%{mda}", python=missing)
    rig.job(target=str(tmp_path / "box"))
    assert rig.until(1)[0].text == f"4.3.5 {missing} cannot be executed by ann"


def test_a_wrapped_file_is_stored_by_ours(rigs, tmp_path):
    """A wrapper stands before a file of an alias as well, and sees the message."""
    if os.geteuid() == 0:
        pytest.skip("the store refuses to run as root; tests/whole has it as a user")
    rig = rigs(kind="targets", source="alias", wrapper="sed s/line/seen/ | %{mda}", python=sys.executable)
    rig.job(target=str(tmp_path / "it's a box"))
    assert rig.until(1)[0].status == Status.OK
    assert "\nseen\n" in (tmp_path / "it's a box").read_text()
