"""config/units: delays and sizes (QUIRKS 21)."""

import pytest

from smtpd_ps.config.units import delay_secs, size_bytes


@pytest.mark.parametrize(
    ("text", "secs"),
    [
        ("1s", 1), ("2m", 120), ("4h", 14400), ("4d", 345600), ("007s", 7), ("10000d", 864_000_000),
        ("0s", None), ("4", None), ("d", None), ("4D", None), ("4 d", None), ("-4d", None), ("1.5d", None),
        ("4dd", None), ("4w", None), ("", None), ("99999999999s", None), ("11575d", None), ("٤d", None),
    ],
)  # fmt: skip
def test_delays(text: str, secs: int | None) -> None:
    """One positive number and s, m, h or d; nothing else."""
    assert delay_secs(text) == secs


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("10", 10), ("10B", 10), ("1k", 1024), ("35M", 36_700_160), ("35m", 36_700_160),
        ("1.5G", 1_610_612_736), (".5K", 512), ("1.", 1), ("1T", 2**40), ("1P", 2**50), ("1E", 2**60),
        ("0.1K", 102), ("7E", 7 * 2**60),
        ("10MB", None), ("M", None), ("", None), ("-1", None), ("1 M", None), ("8E", None), ("1.2.3", None),
        (".", None), ("0x10", None), ("1e3", None),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    """A number, fractions allowed, and one of B K M G T P E in either case (scan_scaled(3))."""
    assert size_bytes(text) == size
