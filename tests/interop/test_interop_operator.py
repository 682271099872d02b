"""The operator's commands beside Debian's OpenSMTPD: the same mail, the same words, the answers field by field.

What differs is listed here with its reason, and in docs/DIFFERENCES.md; a difference that is listed and is
none any more fails too.
"""

import contextlib
import re
import shutil
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.daemon import Daemon, cli, free_port, running, wait_until
from support.opensmtpd import OpenSMTPD, opensmtpd
from support.sink import Behaviour, sinking

CONFIG = """\
listen on 127.0.0.1 port {port} hostname mx.test
action "away" relay host "smtp://127.0.0.1:SINK"
match from any for domain "away.example" action "away"
"""
EVPID = "0123456789abcdef"  # of no envelope
Said = tuple[int, str, str]  # status, standard output, standard error

FIELDS = (
    "evpid", "family", "kind", "flags", "sender", "rcpt", "dest", "created", "expires", "last try", "tries", "state",
    "seconds", "error",
)  # fmt: skip
# What the fields of show queue look like. Ids, times and what is said of them are never the same twice.
OUGHT = {"evpid": r"[0-9a-f]{16}", "created": r"\d{10}", "expires": r"\d{10}", "last try": r"\d+",
         "seconds": r"\d+"}  # fmt: skip

# Keys of `show stats` that only one has by then, and why.
NOT_OURS = {
    "queue.evpcache.load.hit": "a cache of envelopes that we do not have",
    "queue.evpcache.load.missed": "a cache of envelopes that we do not have",
    "queue.evpcache.size": "a cache of envelopes that we do not have",
    "queue.evpcache.update.hit": "a cache of envelopes that we do not have",
    "scheduler.ramqueue.envelope": "its scheduler's own tables",
    "scheduler.ramqueue.hold": "its scheduler's own tables",
    "scheduler.ramqueue.hold-release": "its scheduler's own tables",
    "scheduler.ramqueue.message": "its scheduler's own tables",
    "scheduler.ramqueue.update": "its scheduler's own tables",
}

# Lines of `show envelope` that only one prints, or that are not the same, and why.
ENVELOPE_NOT_OURS = {
    "smtpname": "the name of the listener is in the Received header",
    "esc-class": "in the error line",
    "esc-code": "in the error line",
    "last-bounce": "warnings are counted and not dated",
    "errorline": "only where there is an error",
    "dsn-notify": "a number; ours are the words, where there are any",
}
ENVELOPE_NOT_THEIRS = {
    "evpid": "it is in the name of the file",
    "msgid": "it is in the name of the file",
    "size": "known from the file",
    "relay": "who said the last error",
    "next-try": "kept by the scheduler alone",
    "errorline": "see above",
}
ENVELOPE_DIFFERS = {
    "version": "ours counts from 1",
    "ctime": "of each",
    "last-try": "of each",
    "ttl": "the default of the action, not 0",
    "retry": "theirs is written later",
    "errorline": "what they said to each",
}


@dataclass(frozen=True)
class Pair:
    """Both servers, with one mail to a host that says 451 and one from the null sender."""

    theirs: OpenSMTPD
    ours: Daemon

    def ask(self, *words: str) -> tuple[Said, Said]:
        """What each says."""
        done = cli("smtpctl_ps", "--state-dir", str(self.ours.state), *words)
        return self.theirs.ctl(*words), (done.returncode, done.stdout, done.stderr)

    def lines(self, *words: str) -> tuple[list[str], list[str]]:
        """The lines that each prints."""
        theirs, ours = self.ask(*words)
        assert (theirs[0], ours[0]) == (0, 0), (theirs, ours)
        return theirs[1].splitlines(), ours[1].splitlines()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both mails tried once, by both. For all tests, of which the one that removes them is the last."""
    folder = Path(tempfile.mkdtemp(prefix="sps-operator-", dir="/var/tmp"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(sinking(behaviour=Behaviour(data="451 4.3.0 come later"))) for _ in range(2)]
        port = free_port()
        config = CONFIG.replace("SINK", str(sinks[0].port)).replace("{port}", str(port))
        theirs = stack.enter_context(opensmtpd(folder / "theirs", config, port))
        ours = stack.enter_context(running(CONFIG.replace("SINK", str(sinks[1].port))))
        for sender in ("<>", "<ann@example.com>"):
            for each in (port, ours.port):
                with smtplib.SMTP("127.0.0.1", each, local_hostname="client.test", timeout=30) as client:
                    client.ehlo()
                    assert client.docmd(f"MAIL FROM:{sender}")[0] == 250
                    assert client.docmd("RCPT TO:<x@away.example>")[0] == 250
                    assert client.data("Subject: x\r\n\r\nx\r\n")[0] == 250
        made = Pair(theirs, ours)
        wait_until("both were tried", lambda: tries(made.lines("show", "queue")) == ["1", "1", "1", "1"])
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def tries(both: tuple[list[str], list[str]]) -> list[str]:
    """Of all envelopes."""
    return [line.split("|")[10] for lines in both for line in lines]


def by_sender(lines: list[str]) -> dict[str, list[str]]:
    """Rows of show queue."""
    return {line.split("|")[4]: line.split("|") for line in lines}


def test_show_queue(pair: Pair) -> None:
    """14 fields, the same but for ids and times; theirs shows the time of acceptance as
    expiry and no last try, ours are true.
    """
    theirs, ours = (by_sender(lines) for lines in pair.lines("show", "queue"))
    assert theirs.keys() == ours.keys() == {"@", "ann@example.com"}
    for sender, their_row in theirs.items():
        our_row = ours[sender]
        assert len(their_row) == len(our_row) == len(FIELDS)
        for name, mine, other in zip(FIELDS, our_row, their_row, strict=True):
            if name in OUGHT:
                assert re.fullmatch(OUGHT[name], mine) and re.fullmatch(OUGHT[name], other), (name, mine, other)
            else:
                assert mine == other, (name, mine, other)
        assert their_row[8] == their_row[7]
        assert int(our_row[8]) - int(our_row[7]) == 4 * 86400
        assert abs(int(our_row[12]) - int(their_row[12])) < 60  # both wait some 400 seconds


def test_a_paused_envelope_and_status(pair: Pair) -> None:
    """The flag, the words about it, and what is paused."""
    theirs, ours = (by_sender(lines)["@"][0] for lines in pair.lines("show", "queue"))
    for words, said in ((("pause", "envelope"), "1 envelope paused"), (("resume", "envelope"), "1 envelope resumed")):
        assert pair.theirs.ctl(*words, theirs)[1] == pair.ours.ctl(*words, ours) == f"{said}\n"
        flags = [by_sender(lines)["@"][3] for lines in pair.lines("show", "queue")]
        assert flags == (["suspend"] * 2 if "pause" in words else ["", ""])
    assert len(set(map(tuple, pair.lines("show", "status")))) == 1
    for part in ("mda", "mta", "smtp"):
        pair.ask("pause", part)
        status = pair.lines("show", "status")
        pair.ask("resume", part)
        assert status[0] == status[1] and f"{part.upper()} paused" in status[0]


def test_show_stats(pair: Pair) -> None:
    """Each of their keys is ours, but for those listed; sorted; the numbers that mean mail are the same."""
    theirs, ours = pair.lines("show", "stats")
    assert ours == sorted(ours, key=lambda line: line.split("=")[0])
    there, here = (dict(line.split("=", 1) for line in lines) for lines in (theirs, ours))
    missing = there.keys() - here.keys()
    assert missing <= NOT_OURS.keys(), missing - NOT_OURS.keys()
    assert not here.keys() & NOT_OURS.keys()
    for key in ("scheduler.envelope", "scheduler.delivery.tempfail", "smtp.session"):
        assert here[key] == there[key], key
    assert re.fullmatch(r"(\d+[dhm])*\d+s", here["uptime.human"])


def shape(line: str) -> str:
    """A line with what is never the same twice replaced: numbers, times, the relay's port."""
    line = re.sub(r"\) \S{4} ", ") FLAG ", line).replace("localhost", "NAME").replace("(127.0.0.1)", "(NAME)")
    return re.sub(r"\d+[dhms](?:\d+[dhms])*|\d+|(?<==)-(?= |$)", "N", line)


@pytest.mark.parametrize("words", ["routes", "hosts"])
def test_routes_and_hosts(pair: Pair, words: str) -> None:
    """The same text but for numbers, times and flags; a host has the name that it was asked for by, or
    its address, and theirs the name that its address has.
    """
    theirs, ours = ([shape(line) for line in lines] for lines in pair.lines("show", words))
    ours = [re.sub(r"^N\.N\.N\.N N\.N\.N\.N ", "N.N.N.N NAME ", line) for line in ours]
    assert theirs and theirs == ours


def test_hoststats(pair: Pair) -> None:
    """Domain, time and the last reply."""
    theirs, ours = pair.lines("show", "hoststats")
    assert len(ours) == 1 and re.fullmatch(r"away\.example\|\d{10}\|451 4\.3\.0 come later", ours[0]), ours
    assert all(re.fullmatch(r"\S+\|\d{10}\|.*", line) for line in theirs), theirs


def test_relays(pair: Pair) -> None:
    """The same keys in the same order, for the relay and for each connector; the name of the relay is our own."""
    for line in [*pair.lines("show", "relays")[0], *pair.lines("show", "relays")[1]]:
        keys = re.findall(r" (\w+)=", line)
        if line.startswith("  connector "):
            assert keys == ["refcount", "nconn", "lastconn", "timeout", "flags"], line
        else:
            assert keys == ["refcount", "ntask", "nconn", "lastconn", "timeout", "wait"], line
            assert re.match(r"\[relay:[^]]+\] ", line), line


def test_show_envelope(pair: Pair) -> None:
    """Their keys and values, but for those listed with the reason."""
    theirs, ours = (by_sender(lines) for lines in pair.lines("show", "queue"))
    for sender in theirs:
        there, here = (
            dict(line.partition(": ")[::2] for line in text.splitlines())
            for text in (pair.theirs.ctl("show", "envelope", theirs[sender][0])[1],
                         pair.ours.ctl("show", "envelope", ours[sender][0]))
        )  # fmt: skip
        assert there.keys() - here.keys() <= ENVELOPE_NOT_OURS.keys(), there.keys() - here.keys()
        assert here.keys() - there.keys() <= ENVELOPE_NOT_THEIRS.keys(), here.keys() - there.keys()
        different = {key for key in there.keys() & here.keys() if there[key] != here[key]}
        assert different <= ENVELOPE_DIFFERS.keys(), {k: (there[k], here[k]) for k in different}


REFUSED = ("frobnicate", "show", "show sta", "show envelope xyz", "remove", "remove xyz", "pause", "resume route x")


@pytest.mark.parametrize("words", REFUSED)
def test_misuse(pair: Pair, words: str) -> None:
    """255, nothing on standard output, and what is possible on standard error."""
    for status, out, err in pair.ask(*words.split()):
        assert (status, out) == (255, "") and err, words


def test_monitor(pair: Pair) -> None:
    """The same header, byte for byte, and 13 numbers in the same columns."""

    def columns(argv: list[str], read: Callable[[str], None]) -> None:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            process.wait(2.5)
        except subprocess.TimeoutExpired:
            process.terminate()  # what a shell puts into the background ignores SIGINT
        read(process.communicate(timeout=20)[0])

    ours = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpctl_ps", "--state-dir", str(pair.ours.state), "monitor"]
    heads, rows = [], []
    monitor = f"timeout -s INT 2.5 {pair.theirs.smtpctl} monitor"  # on a terminal: into a pipe it is buffered
    for argv in (pair.theirs.command("script", "-qec", monitor, "/dev/null"),
                 ours):  # fmt: skip
        said: list[str] = []
        columns(argv, said.append)
        lines = said[0].replace("\r", "").replace("^C", "").splitlines()
        heads.append(lines[:2])
        rows.append(lines[2])
    assert heads[0] == heads[1]
    assert [len(row.split()) for row in rows] == [13, 13]
    assert [found.end() for found in re.finditer(r"\d+", rows[0])] == [
        found.end() for found in re.finditer(r"\d+", rows[1])
    ]


SAME: tuple[str, ...] = (
    f"remove {EVPID}", f"schedule {EVPID}", f"pause envelope {EVPID}", f"discover {EVPID}", "remove all",
)  # fmt: skip
FAILING = (f"show envelope {EVPID}", "show message 01234567", "update table nothing", "trace nothing")
# Their "command succeeded" is nothing here: no news is good news.
SILENT = ("log verbose", "log brief", "trace smtp", "untrace smtp", "profile imsg", "unprofile imsg", "pause mda",
          "resume mda", "pause mta from 192.0.2.1 for away.example")  # fmt: skip


def test_what_orders_say(pair: Pair) -> None:
    """The same words and status for counts, the same status for failures; success is silent with us."""
    for words in SAME:
        theirs, ours = pair.ask(*words.split())
        assert theirs == ours, words
    for words in FAILING:
        theirs, ours = pair.ask(*words.split())
        assert theirs[0] == ours[0] == 1 and ours[1] == "" and ours[2].startswith("smtpctl_ps: "), (theirs, ours)
    for words in SILENT:
        theirs, ours = pair.ask(*words.split())
        assert theirs == (0, "command succeeded\n", "") and ours == (0, "", ""), (words, theirs, ours)
    assert len(set(map(tuple, pair.lines("show", "mta", "paused")))) == 1
