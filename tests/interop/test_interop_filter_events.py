"""One filter program that registers for everything, under Debian's OpenSMTPD 6.8 and under us.

filter_events/sessions.py is said to both, with the same configuration. The filter must hear the same: reports
and requests with their parameters, in the same order. Lines of messages go their own way through 6.8, so they
are compared by themselves. Masked are what names the server, times, ids, tokens, ports and sizes. What differs
else is in filter_events/differences.py with its reason, and in DIFFERENCES.md.
"""

import difflib
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from filter_events.differences import DIFFERENT, NOT_IN_6_8, OTHER_LINES
from filter_events.sessions import GONE, PIPELINED, SESSIONS, Step
from support.daemon import Daemon, free_port, wait_until
from support.opensmtpd import opensmtpd
from support.sink import sinking

SCRIPT = Path(__file__).parents[1] / "support/filters/recording.py"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
CONFIG = """
smtp max-message-size 5000
table three {{ "three@list.test" = "x@ours.test, y@ours.test, z@ours.test" }}
proc rec "{python} {script} {record}"
filter everything proc rec
listen on 127.0.0.1 port {port} hostname mx.test filter everything
action out relay host "smtp://127.0.0.1:{sink}"
action list lmtp "/nowhere" virtual <three>
match from any for domain "list.test" action list
match from any for domain "ours.test" action out
"""
DATA_LINE = "filter data-line|"
Heard = dict[str, list[str]]  # by session of SESSIONS


def say(port: int, steps: tuple[Step, ...]) -> None:
    """Play one session."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock, sock.makefile("rb") as stream:
        replies(stream, 1)
        for step in steps:
            if step is GONE:
                return
            lines = (step,) if isinstance(step, str) else step
            sock.sendall("".join(line if line.endswith("\n") else f"{line}\r\n" for line in lines).encode())
            if not replies(stream, sum(not line.endswith("\n") for line in lines)):
                return
        assert stream.read() == b"", "more than one reply to a command"


def replies(stream: IO[bytes], count: int) -> bool:
    """Read so many replies; whether there were as many before the server closed the connection."""
    for _ in range(count):
        while (line := stream.readline())[3:4] == b"-":
            pass
        if not line:
            return False
    return True


def play(port: int, record: Path, version: str, sessions: dict[str, tuple[Step, ...]]) -> Heard:
    """Play sessions, one after the other; what the filter has heard of each."""
    heard: Heard = {}
    for name, steps in sessions.items():
        begin = record.stat().st_size
        say(port, steps)
        wait_until(f"the end of session {name!r}", lambda: b"|link-disconnect|" in tail(record, begin))  # noqa: B023
        lines = tail(record, begin).decode().splitlines()
        heard[name] = [masked(line, version) for line in lines]
    return heard


def hello(record: Path) -> list[str]:
    """What the program was told when it started."""
    return [line for line in record.read_text().splitlines() if line.startswith("config|")]


def tail(path: Path, begin: int) -> bytes:
    """What was added since it had `begin` bytes."""
    with path.open("rb") as file:
        file.seek(begin)
        return file.read()


def masked(line: str, version: str) -> str:
    """A line without what no two runs have in common: "filter commit|"."""
    kind, its_version, time, subsystem, what, session, *rest = line.split("|", 6)
    assert its_version == version, line
    assert re.fullmatch(r"[0-9]+\.[0-9]{6}", time), line
    assert subsystem == "smtp-in", line
    assert re.fullmatch(r"[0-9a-f]{16}", session), line
    text = rest[0] if rest else ""
    if kind == "filter":
        token, _, text = text.partition("|")
        assert re.fullmatch(r"[0-9a-f]{16}", token), line
    if what == "tx-envelope":
        assert re.fullmatch(r"([0-9a-f]{8})\|\1[0-9a-f]{8}", text), line
        text = "M|E"
    elif what.startswith("tx-"):
        text = re.sub(r"^[0-9a-f]{8}", "M", text)
    if what == "tx-commit":
        text = re.sub(r"[0-9]+$", "SIZE", text)
    if what == "link-connect":
        text = re.sub(r":[0-9]+", ":PORT", text)
    if what == "data-line":
        text = re.sub(r"id [0-9a-f]{8}\b", "id M", text)
        text = re.sub(r"^\t[A-Z][a-z]{2}, .*", "\tDATE", text)
    text = re.sub(r"^(250 2\.0\.0) [0-9a-f]{8} ", r"\1 M ", text)
    text = re.sub(r"\b(smtpd_ps|OpenSMTPD)\b", "SERVER", text)
    return f"{kind} {what}|{text}" if rest else f"{kind} {what}"


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[Heard, Heard, Heard]]:
    """By their filter and by ours, of pipelined sessions last."""
    scratch = Path("/var/tmp") / f"sps-filter-events-{free_port()}"
    scratch.mkdir(mode=0o755)
    shutil.copy(SCRIPT, scratch / "filter.py")
    try:
        with sinking() as sink:
            port = free_port()

            def text(record: Path) -> str:
                record.touch()
                record.chmod(0o666)
                return CONFIG.format(
                    python=PYTHON, script=scratch / "filter.py", record=record, port=port, sink=sink.port
                )

            record = scratch / "theirs.record"
            with opensmtpd(scratch / "theirs", text(record), port):
                wait_until("the filter has heard of the first look", lambda: b"|link-disconnect|" in tail(record, 0))
                theirs = play(port, record, "0.6", SESSIONS)
                theirs[""] = hello(record)
            record = scratch / "ours.record"
            daemon = Daemon(text(record))
            daemon.port = port
            try:
                daemon.start()
                wait_until("the filter has heard of the first look", lambda: b"|link-disconnect|" in tail(record, 0))
                ours = play(port, record, "0.7", SESSIONS)
                pipelined = play(port, record, "0.7", PIPELINED)
                ours[""] = hello(record)
                assert daemon.stop() == 0
                assert "Traceback" not in daemon.log, daemon.log
            finally:
                if daemon.process and daemon.process.poll() is None:
                    daemon.process.kill()
                    daemon.process.wait(10)
                daemon.remove()
        yield theirs, ours, pipelined
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def of(lines: list[str], kind: str) -> list[str]:
    """Those that begin so."""
    return [line for line in lines if line.startswith(kind)]


def events(lines: list[str]) -> list[str]:
    """Without lines of messages, and what 6.8 has no word for."""
    return [line for line in lines if not line.startswith(DATA_LINE) and line not in NOT_IN_6_8]


def data_lines(lines: list[str]) -> list[str]:
    """Of messages; they come after the filter has agreed to DATA, and before it is asked about the end."""
    found = [at for at, line in enumerate(lines) if line.startswith(DATA_LINE)]
    if found:
        assert lines.index("report filter-response|data|proceed") < found[0]
    ends = [at for at, line in enumerate(lines) if line == "filter commit|"]
    if len(ends) == 1:
        assert found[-1] < ends[0]
    return [lines[at] for at in found]


def changes(theirs: list[str], ours: list[str]) -> tuple[str, ...]:
    """What is to be done to theirs to have ours."""
    return tuple(line for line in difflib.ndiff(theirs, ours) if line[0] in "+-")


@pytest.mark.parametrize("name", SESSIONS)
def test_same_events(heard: tuple[Heard, Heard, Heard], name: str) -> None:
    """The same reports and requests in the same order, and lines of messages; or the difference that is explained."""
    theirs, ours = heard[0][name], heard[1][name]

    assert changes(events(theirs), events(ours)) == DIFFERENT.get(name, ("", ()))[1]
    if name in OTHER_LINES:
        assert data_lines(ours) != data_lines(theirs), "no longer different: take it off the list"
    else:
        assert data_lines(ours) == data_lines(theirs)


def test_the_refused_recipient_is_not_named(heard: tuple[Heard, Heard, Heard]) -> None:
    """6.8 writes the recipient that was asked for last into Received, also where it was refused."""
    theirs, ours, _ = heard
    assert "filter data-line|\tfor <b@elsewhere.test>;" in theirs["a refused recipient"]
    assert "filter data-line|\tfor <b@ours.test>;" in ours["a refused recipient"]


@pytest.mark.parametrize("name", PIPELINED)
def test_pipelined(heard: tuple[Heard, Heard, Heard], name: str) -> None:
    """A pipelined session has the same events, but that a recipient may be asked about before another's reply."""
    _, ours, pipelined = heard
    assert sorted(pipelined[name]) == sorted(ours[name])
    for kind in ("filter ", "report protocol-client", "report protocol-server", "report tx-"):
        assert of(pipelined[name], kind) == of(ours[name], kind)


def test_handshake(heard: tuple[Heard, Heard, Heard]) -> None:
    """The same keys in the same order; 6.8 does not say which version of the protocol it speaks."""
    theirs, ours = ([line.split("|")[1] for line in each[""]] for each in heard[:2])
    assert ours == ["smtpd-version", "protocol", "smtp-session-timeout", "subsystem", "admd", "ready"]
    assert theirs == [key for key in ours if key != "protocol"]
