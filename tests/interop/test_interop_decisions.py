"""The same mail to Debian's OpenSMTPD 6.8 and to us, with the same configurations, tables and users.

Each line of a `.cases` file in decisions/ is one session: client address, listener, HELO, sender,
recipient. The replies must have the same codes, and the message must end in the same places.
What differs is listed here with its reason, and stands in DIFFERENCES.md.
"""

import email
import functools
import pwd
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from decisions.differences import DIFFERENT
from support.daemon import Daemon, free_port, wait_until
from support.homes import HOMES, empty_homes, make_homes, remove_homes
from support.opensmtpd import opensmtpd
from support.sink import Sink, sinking

FOLDER = Path(__file__).parent / "decisions"
WORLDS = ("rules", "expansion", "forward")
SINKS = "ABC"
SETTLE_SECS = 60.0
SHOWN = (b"Return-Path:", b"Delivered-To:", b"X-Environment:")
LATER = "@later.test"  # stays queued


@dataclass(frozen=True)
class Case:
    """One line."""

    world: str
    client: str
    listener: int
    helo: str
    sender: str
    recipient: str

    @property
    def name(self) -> str:
        """What it is called here and in decisions/differences.py."""
        return f"{self.world} {self.client} {self.listener} {self.helo} {self.sender} {self.recipient}"


@dataclass
class Result:
    """What the client was told, and where the message went."""

    replies: tuple[str, ...] = ()
    places: list[str] = field(default_factory=list)


Outcomes = tuple[dict[Case, Result], dict[Case, Result]]  # theirs and ours


def cases(world: str) -> list[Case]:
    """Of a world's file."""
    lines = (line.split() for line in (FOLDER / f"{world}.cases").read_text().splitlines())
    return [Case(world, line[0], int(line[1]), *line[2:]) for line in lines if line and line[0] != "#"]


class World:
    """Folders, ports and sinks that a configuration names."""

    def __init__(self, scratch: Path, sinks: dict[str, Sink], lmtp: Sink) -> None:
        self.scratch, self.sinks, self.lmtp = scratch, sinks, lmtp
        self.ports = (free_port(), free_port())

    def text(self, world: str) -> str:
        """The configuration with what is of this run filled in."""
        anna = pwd.getpwnam("spsanna")
        words = {f"SINK{name}": str(sink.port) for name, sink in self.sinks.items()}
        words |= {"PORT2": str(self.ports[1]), "PORT": str(self.ports[0]), "LMTP": str(self.lmtp.port)}
        words |= {"DIR": str(self.scratch / "tables"), "HOME": str(HOMES), "UID": str(anna.pw_uid)}
        words |= {"GID": str(anna.pw_gid)}
        return re.sub(r"(?<!\$)\b[A-Z]+2?\b", lambda m: words.get(m[0], m[0]), (FOLDER / f"{world}.conf").read_text())

    def play(self, case: Case, token: str) -> tuple[str, ...]:
        """The replies to one session."""
        with socket.create_connection(
            ("127.0.0.1", self.ports[case.listener - 1]), 30, source_address=(case.client, 0)
        ) as sock:
            stream = sock.makefile("rb")
            sender = "" if case.sender == "<>" else case.sender
            told = [_reply(stream)]
            for line in (f"EHLO {case.helo}", f"MAIL FROM:<{sender}>", f"RCPT TO:<{case.recipient}>", "DATA"):
                sock.sendall(line.encode() + b"\r\n")
                told.append(_reply(stream))
                if told[-1][0] not in "23":
                    break
            else:
                sock.sendall(f"X-Token: {token}\r\nFrom: a@b.test\r\nTo: c@d.test\r\n\r\nhello\r\n.\r\n".encode())
                told.append(_reply(stream))
            sock.sendall(b"QUIT\r\n")
            return tuple(told)

    def places(self) -> dict[str, list[str]]:
        """Where each message is, by its token."""
        found: dict[str, list[str]] = {}

        def note(data: bytes, place: str) -> None:
            match = re.search(rb"^X-Token: (\S+)", data, re.M)
            if match:
                found.setdefault(match[1].decode(), []).append(place)

        for name, sink in (*self.sinks.items(), ("LMTP", self.lmtp)):
            for mail in sink.mails:
                for recipient in mail.recipients:
                    note(mail.data, f"{name} <{mail.sender}> <{recipient}>{_subject(mail.data)}")
        for path in HOMES.rglob("*"):
            if path.is_file() and path.name not in (".forward", "there"):
                content = path.read_bytes()
                where = re.sub(r"\.\d+$", "", str(path.relative_to(HOMES)))
                if path.parent.name in ("new", "cur", "tmp"):
                    where = str(path.parent.relative_to(HOMES))
                head = content.split(b"\n\n")[0]
                headers = [line.decode() for line in head.split(b"\n") if line.startswith(SHOWN)]
                note(content, " ".join([where, *headers]))
        for places in found.values():
            places.sort()
        return found


def _subject(data: bytes) -> str:
    subject = email.message_from_bytes(data).get("Subject", "")
    return f" {subject}" if subject else ""


def _reply(stream: object) -> str:
    """The last line: code and, where there is one, the enhanced code."""
    while True:
        line = stream.readline().decode()  # type: ignore[attr-defined]
        if not line or line[3:4] != "-":
            break
    match = re.match(r"(\d{3})(?: (\d\.\d+\.\d+))?", line)
    return " ".join(part for part in match.groups() if part) if match else f"closed{line!r}"


def _run(world: World, name: str, queued: object) -> dict[Case, Result]:
    """Play all cases of a world against what listens now."""
    assert callable(queued)
    results = {}
    for number, case in enumerate(cases(name)):
        results[case] = Result(world.play(case, f"t{number}."))
    later = sum(case.recipient.endswith(LATER) for case in results)
    wait_until("nothing is under way any more", lambda: queued() == later, SETTLE_SECS)
    places = world.places()
    for number, result in enumerate(results.values()):
        result.places = places.get(f"t{number}.", [])
    return results


def compare(name: str, scratch: Path) -> Outcomes:
    """Play one world to them and then to us."""
    make_homes()
    with ExitStack() as stack:
        sinks = {letter: stack.enter_context(sinking()) for letter in SINKS}
        lmtp = stack.enter_context(sinking(lmtp=True))
        world = World(scratch, sinks, lmtp)
        shutil.copytree(FOLDER, scratch / "tables", dirs_exist_ok=True)
        text = world.text(name)
        with opensmtpd(scratch / "theirs", text, world.ports[0]) as peer:
            theirs = _run(world, name, peer.queued)
        empty_homes()
        for sink in (*sinks.values(), lmtp):
            sink.mails.clear()
        daemon = Daemon(text)
        daemon.port, daemon.port2 = world.ports
        try:
            daemon.start()
            ours = _run(world, name, daemon.queued)
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log, daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
        return theirs, ours


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Callable[[str], Outcomes]]:
    """Of both servers, by world; each world is played once."""
    scratch = Path("/var/tmp") / f"sps-decisions-{free_port()}"
    scratch.mkdir(mode=0o755)
    try:
        yield functools.cache(lambda name: compare(name, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        remove_homes()


@pytest.mark.parametrize("case", [case for world in WORLDS for case in cases(world)], ids=lambda case: case.name)
def test_same_decision(outcomes: Callable[[str], Outcomes], case: Case) -> None:
    """The same codes at every step, and the same places; or the difference that is explained."""
    theirs, ours = (each[case] for each in outcomes(case.world))
    expected = DIFFERENT.get(case.name)
    if expected is None:
        assert (ours.replies, ours.places) == (theirs.replies, theirs.places)
        return
    assert (ours.replies, ours.places) != (theirs.replies, theirs.places), "no longer different: take it off the list"
    assert expected.replies is None or ours.replies[-1].startswith(expected.replies), expected.why
    assert expected.places is None or ours.places == list(expected.places), expected.why
