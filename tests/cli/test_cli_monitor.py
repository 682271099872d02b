"""What `monitor` and `top` make of the counters."""

from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.cli.monitor import HEADER, Digest, digest, line
from smtpd_ps.cli.top import page

COUNTERS = {
    "bounce.envelope": 1, "scheduler.delivery.loop": 0, "scheduler.delivery.ok": 5, "scheduler.delivery.permfail": 2,
    "scheduler.delivery.tempfail": 3, "scheduler.envelope": 4, "scheduler.envelope.expired": 0,
    "scheduler.envelope.incoming": 10, "scheduler.envelope.removed": 1, "smtp.session": 2,
    "smtp.session.closed": 7, "smtp.session.opened": 9, "uptime": 3723,
}  # fmt: skip


def test_the_line_is_opensmtpds() -> None:
    """13 numbers in its columns (QUIRKS 48): the first and fourth of now, the others of the time between."""
    now = digest(COUNTERS, 1)
    first = line(COUNTERS, now.since(Digest()))
    assert first == "   2    9    7     4   10    7    5       3       2    0      0      1      1"
    assert [int(word) for word in first.split()] == [2, 9, 7, 4, 10, 7, 5, 3, 2, 0, 0, 1, 1]
    assert line(COUNTERS, now.since(now)).split() == ["2", "0", "0", "4", *["0"] * 9]
    assert len(HEADER.splitlines()[1].split()) == 13


def test_nothing_is_negative() -> None:
    """Counters that a retired generation takes with it do not run backwards."""
    fewer = COUNTERS | {"smtp.session.opened": 1, "smtp.session.closed": 0}
    assert digest(fewer, 1).since(digest(COUNTERS, 1)).connected == 0


@given(st.integers(1, 300), st.integers(1, 100))
def test_a_screen_is_never_overfull(columns: int, rows: int) -> None:
    """No line is wider than the window, and the last row stays free."""
    made = page(COUNTERS, {}, 1.0, columns, rows)
    assert len(made) <= max(0, rows - 1) and all(len(text) <= columns for text in made)


def test_the_screen() -> None:
    """Every counter with its change a second."""
    text = "\n".join(page(COUNTERS | {"scheduler.delivery.ok": 25}, COUNTERS, 2.0, 100, 40))
    assert "up 1h2m3s" in text
    assert "scheduler.delivery.ok              25  +10/s" in text
    assert all(name in text for name in COUNTERS if name != "uptime")
