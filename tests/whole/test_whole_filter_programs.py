"""Filter programs in the real daemon: what they are sent, what their answers do, and every fault."""

import contextlib
import re
import shutil
import smtplib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.sink import Sink, sinking

SCRIPT = Path(__file__).parent.parent / "support" / "filters" / "recording.py"
# One that a user without rights can run: that of the tests may lie in somebody's home.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
MESSAGE = "Subject: x\r\n\r\nbody\r\n.dot\r\n"
CONFIG = """
admd here.example
proc rec "PYTHON SCRIPT {dir}/record OPTIONS"
filter p proc rec FAILURE
listen on 127.0.0.1 port {port} filter p
listen on 127.0.0.1 port {port2}
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain "ours.test" action out
"""


@contextlib.contextmanager
def filtering(options: str = "", failure: str = "", config: str = CONFIG) -> Iterator[tuple[Daemon, Sink]]:
    """A daemon whose first listener has the recording filter, and a sink behind it."""
    with sinking() as sink:
        text = config.replace("PYTHON", PYTHON).replace("SCRIPT", "{dir}/filter.py").replace("OPTIONS", options)
        daemon = Daemon(text.replace("FAILURE", failure).replace("SINK", str(sink.port)))
        shutil.copy(SCRIPT, daemon.dir / "filter.py")
        record = daemon.dir / "record"
        record.touch()
        record.chmod(0o666)
        try:
            daemon.start(wait=False)
            wait_until("the second listener", lambda: greets(daemon))
            yield daemon, sink
            assert daemon.stop() == 0, daemon.log[-4000:]
            assert "Traceback" not in daemon.log, daemon.log[-8000:]
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()


def greets(daemon: Daemon) -> bool:
    """Whether the listener without a filter says 220."""
    try:
        with daemon.smtp(daemon.port2) as client:
            return client.noop()[0] == 250
    except OSError:
        return False


def recorded(daemon: Daemon) -> list[str]:
    """The lines that the filter got: times, sessions, tokens and message ids masked."""
    text = (daemon.dir / "record").read_text()
    text = re.sub(r"(\|tx-envelope\|[0-9a-f]{16}\|([0-9a-f]{8})\|)\2[0-9a-f]{8}\b", r"\1E", text)
    masked = re.sub(r"\|[0-9]+\.[0-9]{6}\|", "|T|", text)
    masked = re.sub(r"\|[0-9a-f]{16}(?=[|\n])", "|#", masked)
    masked = re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:P", masked)
    masked = re.sub(r"\|(tx-[a-z]+)\|#\|[0-9a-f]{8}", r"|\1|#|M", masked)
    return masked.splitlines()


def short(lines: list[str]) -> list[str]:
    """Without what all lines begin with."""
    return [line.replace("|0.7|T|smtp-in|", " ").replace("|#", "") for line in lines if not line.startswith("config")]


EVENTS = """\
report link-connect|localhost|pass|127.0.0.1:P|127.0.0.1:P
filter connect|localhost|127.0.0.1
report filter-response|connected|proceed
report protocol-server|220 HOST ESMTP smtpd_ps
report link-greeting|HOST
report protocol-client|ehlo client.test
filter ehlo|client.test
report filter-response|ehlo|proceed
report link-identify|EHLO|client.test
report protocol-server|250-HOST Hello client.test [127.0.0.1], pleased to meet you
"""
MAIL = """\
report protocol-client|mail FROM:<a@client.test>
filter mail-from|a@client.test
report filter-response|mail-from|proceed
report protocol-server|250 2.0.0 Ok
report tx-begin|M
report tx-mail|M|ok|a@client.test
report protocol-client|rcpt TO:<b@elsewhere.test>
filter rcpt-to|b@elsewhere.test
report filter-response|rcpt-to|proceed
report protocol-server|550 Invalid recipient: <b@elsewhere.test>
report tx-rcpt|M|permfail|b@elsewhere.test
report protocol-client|rcpt TO:<b@ours.test>
filter rcpt-to|b@ours.test
report filter-response|rcpt-to|proceed
report tx-envelope|M|E
report protocol-server|250 2.1.5 Destination address valid: Recipient ok
report tx-rcpt|M|ok|b@ours.test
report protocol-client|data
filter data|
report filter-response|data|proceed
report protocol-server|354 Enter mail, end with "." on a line by itself
report tx-data|M|ok
filter data-line|Received: from client.test (localhost [127.0.0.1])
filter data-line|	by HOST (smtpd_ps) with ESMTP id ID
filter data-line|	for <b@ours.test>;
filter data-line|	DATE
filter data-line|Subject: x
filter data-line|
filter data-line|body
filter data-line|..dot
filter data-line|.
report protocol-client|.
filter commit|
report filter-response|commit|proceed
report protocol-server|250 2.0.0 ID Message accepted for delivery
report tx-commit|M|SIZE
report tx-reset|M
report protocol-client|mail FROM:<a@client.test>
filter mail-from|a@client.test
report filter-response|mail-from|proceed
report protocol-server|250 2.0.0 Ok
report tx-begin|M
report tx-mail|M|ok|a@client.test
report protocol-client|rset
filter rset|
report filter-response|rset|proceed
report protocol-server|250 2.0.0 Reset state
report tx-rollback|M
report tx-reset|M
report protocol-client|noop
filter noop|
report filter-response|noop|proceed
report protocol-server|250 2.0.0 Ok
report protocol-client|quit
filter quit|
report filter-response|quit|proceed
report protocol-server|221 2.0.0 Bye
report link-disconnect
"""


def test_a_program_sees_a_session_in_its_order() -> None:
    """Handshake, every event and every request of a plain session with a mail (QUIRKS 54 and 55)."""
    with filtering() as (daemon, sink):
        with daemon.smtp() as client:
            client.ehlo("client.test")
            client.mail("a@client.test")
            client.rcpt("b@elsewhere.test")
            client.rcpt("b@ours.test")
            assert client.data(MESSAGE)[0] == 250
            client.mail("a@client.test")
            client.rset()
            client.noop()
            client.quit()
        wait_until("it arrives", lambda: bool(sink.mails))
        wait_until("the end", lambda: "link-disconnect" in (daemon.dir / "record").read_text())
        lines = recorded(daemon)
        assert lines[:6] == [
            "config|smtpd-version|smtpd_ps 0.1.0", "config|protocol|0.7", "config|smtp-session-timeout|300",
            "config|subsystem|smtp-in", "config|admd|here.example", "config|ready",
        ]  # fmt: skip
        assert lines[7].startswith("filter|0.7|T|smtp-in|connect|#|#|")
        hostname = re.search(r"link-greeting\|#\|(.*)", "\n".join(lines))
        assert hostname is not None
        masked = "\n".join(short(lines)).replace(hostname[1], "HOST")
        masked = re.sub(r"(id |2\.0\.0 )[0-9a-f]{8}\b", r"\1ID", masked)
        masked = re.sub(r"\t[A-Z][a-z]{2}, .*", "\tDATE", masked)
        masked = re.sub(r"(tx-commit\|M\|)[0-9]+", r"\1SIZE", masked) + "\n"
        first, _, rest = masked.partition("report protocol-server|250-8BITMIME\n")
        extensions, help_, rest = rest.partition("report protocol-server|250 HELP\n")
        assert first.splitlines() == EVENTS.splitlines()
        assert help_
        assert extensions.count("\n") == extensions.count("report protocol-server|250-")
        assert rest.splitlines() == MAIL.splitlines()
        assert sink.mails[0].data.startswith(b"Received: from client.test (localhost [127.0.0.1])\r\n")
        shown = daemon.ctl("show", "filters")
        assert "rec" in shown
        assert "running" in shown
        assert sink.mails[0].data.endswith(b"\r\n\r\nbody\r\n.dot\r\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("'ehlo=reject|550 5.7.1 no'", (550, b"5.7.1 no")),
        ("'ehlo=disconnect|554 go'", (554, b"go")),
        ("'ehlo=reject|421 busy'", (421, b"busy")),
        ("'ehlo=reject|nonsense'", (421, b"4.3.0 Internal server error")),
        ("'ehlo=rewrite|other.test'", (250, b"Hello other.test")),
        ("'ehlo=report|seen'", (250, b"Hello client.test")),
        ("ehlo=junk", (250, b"Hello client.test")),
    ],
)
def test_answers(options: str, expected: tuple[int, bytes]) -> None:
    """Each answer at one phase."""
    with filtering(options.replace("'", "'")) as (daemon, _sink), contextlib.suppress(smtplib.SMTPServerDisconnected):
        with daemon.smtp() as client:
            code, text = client.ehlo("client.test")
            assert code == expected[0]
            assert expected[1] in text
        if "report" in options:
            lines = "\n".join(recorded(daemon))
            assert "report|0.7|T|smtp-in|filter-report|#|proc|rec|seen" in lines


def test_junk_rewrites_and_lines_that_a_program_changes() -> None:
    """The mark stands above what a program adds; the body is what the program made of it."""
    with filtering("upper data=junk 'rcpt-to=rewrite|<c@ours.test>'") as (daemon, sink):
        with daemon.smtp() as client:
            client.ehlo("client.test")
            client.sendmail("a@client.test", ["b@ours.test"], MESSAGE)
        wait_until("it arrives", lambda: bool(sink.mails))
        assert sink.mails[0].recipients == ["c@ours.test"]
        assert sink.mails[0].data.startswith(b"X-Spam: Yes\r\nRECEIVED: FROM CLIENT.TEST")
        assert b"\r\nSUBJECT: X\r\n" in sink.mails[0].data
        assert sink.mails[0].data.endswith(b"\r\n\r\nBODY\r\n.DOT\r\n")


@pytest.mark.parametrize("options", ["", "hold"])
def test_a_large_message(options: str) -> None:
    """35 MiB, the largest that is taken, come through whole, whether the program passes lines on at once or at
    the end; nobody grows by it.
    """
    body = "".join(f"{number:08} {'x' * 66}\r\n" for number in range(476_000))
    with filtering(f"only=data-line {options}".strip()) as (daemon, sink):
        before = {title: rss_kib(pid) for title, pid in daemon.pids().items()}
        with daemon.smtp() as client:
            client.sock.settimeout(120)
            client.ehlo("client.test")
            client.sendmail("a@client.test", ["b@ours.test"], f"Subject: x\r\n\r\n{body}")
        peaks = {title: peak_kib(pid) for title, pid in daemon.pids().items()}
        wait_until("it arrives", lambda: bool(sink.mails), 120)
        assert sink.mails[0].data.endswith(body.encode())
        for title in ("smtp", "lookup", "queue"):
            assert peaks[title] - before[title] < 20_000, (title, before, peaks)
        for title, pid in daemon.pids().items():
            if "filter.py" not in Path(f"/proc/{pid}/cmdline").read_text():  # the program may keep all of it
                assert peak_kib(pid) - before[title] < 60 * 1024, (title, before, peak_kib(pid))


def rss_kib(pid: int) -> int:
    return _status(pid, "VmRSS")


def peak_kib(pid: int) -> int:
    return _status(pid, "VmHWM")


def _status(pid: int, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


FAULTS = [
    ("exit-at=ehlo", "ended: exit status 3"),
    ("rubbish-at=ehlo", "not a line of smtpd-filters"),
    ("twice-at=ehlo", "an answer that nobody waits for"),
    ("token-at=ehlo", "an answer that nobody waits for"),
    ("flood-at=ehlo", "a line of more than"),
]


@pytest.mark.parametrize(("fault", "logged"), FAULTS)
@pytest.mark.parametrize("failure", ["", "on-failure accept"])
def test_faults(fault: str, logged: str, failure: str) -> None:
    """The client is answered 451, or not at all disturbed where the configuration says so; others never are;
    the fault is logged with the program's name, and the program started again.
    """
    with filtering(fault, failure) as (daemon, _sink):
        with daemon.smtp() as client:
            code, text = client.ehlo("client.test")
            if "twice" not in fault:
                assert code == (250 if failure else 451), text
        with daemon.smtp(daemon.port2) as client:
            assert client.ehlo()[0] == 250
        wait_until("the log", lambda: logged in daemon.log)
        wait_until("a new run", lambda: daemon.log.count("filter rec started") == 2)


def test_a_message_lost_with_its_program() -> None:
    """The program ends in the middle of a message: 451, nothing is stored; the next session has the next run."""
    with filtering("only=data-line exit-at=data-line") as (daemon, _sink):
        with daemon.smtp() as client:
            client.ehlo("client.test")
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail("a@client.test", ["b@ours.test"], MESSAGE)
            assert refused.value.smtp_code == 451
            assert client.noop()[0] == 250
        assert daemon.queued() == 0
        wait_until("a new run", lambda: daemon.log.count("filter rec started") == 2)
        with daemon.smtp(daemon.port2) as client:
            client.sendmail("a@client.test", ["b@ours.test"], MESSAGE)


def test_a_message_cut_short_by_its_program() -> None:
    """A program that ends the message before it has seen all of it: 451."""
    with filtering("only=data-line early-end") as (daemon, _sink), daemon.smtp() as client:
        client.ehlo("client.test")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@client.test", ["b@ours.test"], "Subject: x\r\n\r\n" + "x\r\n" * 100_000)
        assert refused.value.smtp_code == 451


CHAIN = """
proc one "PYTHON SCRIPT {dir}/record only=data-line upper"
proc two "PYTHON SCRIPT {dir}/record 'mail-from=reject|550 two' no-data"
filter first proc one
filter again proc one
filter second proc two
filter friend phase mail-from match mail-from "friend@client.test" bypass
listen on 127.0.0.1 port {port} filter { first, friend, second }
listen on 127.0.0.1 port {port2} filter again
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain "ours.test" action out
"""


def test_chains_of_programs_and_builtin_filters() -> None:
    """In their order; one program serves two filters."""
    with filtering(config=CHAIN) as (daemon, sink):
        with daemon.smtp() as client:
            client.ehlo("client.test")
            assert client.mail("a@client.test")[0] == 550
            client.sendmail("friend@client.test", ["b@ours.test"], MESSAGE)
        with daemon.smtp(daemon.port2) as client:
            client.sendmail("a@client.test", ["b@ours.test"], MESSAGE)
        wait_until("both arrive", lambda: len(sink.mails) == 2)
        assert all(b"\r\nBODY\r\n" in mail.data for mail in sink.mails)


OUTGOING = (
    CONFIG.replace("{port} filter p\n", "{port}\n")
    .replace(':SINK"\n', ':SINK" filter p\n')
    .replace("OPTIONS", "outgoing")
)


def test_a_program_is_told_of_what_goes_out() -> None:
    """`relay filter`: the session to the next host, from link-connect to link-disconnect, in its order."""
    with filtering(config=OUTGOING) as (daemon, sink):
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["b@ours.test"], MESSAGE)
        wait_until("it arrives", lambda: bool(sink.mails))
        wait_until("the end", lambda: "link-disconnect" in (daemon.dir / "record").read_text())
        text = (daemon.dir / "record").read_text()
        lines = recorded(daemon)
        session = re.search(r"\|link-connect\|([0-9a-f]{16})\|", text)
        assert session is not None
        daemon.wait_logged(f"{session[1]} mta connected")
    assert [line for line in lines if "subsystem" in line] == ["config|subsystem|smtp-out"]
    head = "report|0.7|T|smtp-out|"
    assert all(line.startswith(("config|", head)) for line in lines)
    told = [line.removeprefix(head).replace("|#", "", 1) for line in lines if line.startswith(head)]
    others = [re.sub(r"(tx-commit\|M\|)[0-9]+", r"\1SIZE", line) for line in told if not line.startswith("protocol-")]
    assert told[0].startswith("link-connect|127.0.0.1|pass|127.0.0.1:P|127.0.0.1:P")
    assert "protocol-client|DATA" in told
    assert "protocol-client|." in told
    assert any(line.startswith("protocol-server|220 ") for line in told)
    kinds = [line.partition("|")[0] for line in others]
    assert kinds[:3] == ["link-connect", "link-greeting", "link-identify"]
    assert others[3:] == [
        "tx-begin|M", "tx-mail|M|ok|a@client.test", "tx-envelope|M|E", "tx-rcpt|M|ok|b@ours.test", "tx-data|M|ok",
        "tx-commit|M|SIZE", "tx-reset|M", "link-disconnect",
    ]  # fmt: skip
