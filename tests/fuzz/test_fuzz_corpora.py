"""The fuzzing targets with the inputs that are kept, and with a few thousand random ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS

CORPORA = Path(__file__).parent / "corpora"
KEPT = [(name, path) for name in TARGETS for path in sorted((CORPORA / name).glob("*"))]
WORDS = [
    b"\r\n", b".", b"\r", b"\n", b"\0", b"MAIL FROM:<a@b.c>", b"RCPT TO:<d@e.f>", b"DATA", b"EHLO x", b"STARTTLS",
    b"AUTH", b" SIZE=1", b"Bcc: x", b"Received:", b": ", b"@", b"<", b">", b'"', b"[", b"]", b"*", b"\xc3\xa9", b"\xff",
]  # fmt: skip
BYTES = st.lists(st.sampled_from(WORDS) | st.binary(max_size=20), max_size=30).map(b"".join)


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}-{path.name[:12]}" for name, path in KEPT])
def test_kept(name: str, path: Path) -> None:
    """What once reached a corner of the code still keeps to the rules."""
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_random(target: Callable[[bytes], None]) -> None:
    """So does what hypothesis makes of words of the trade."""

    @settings(max_examples=300, deadline=None)
    @given(BYTES)
    def check(data: bytes) -> None:
        target(data)

    check()


def test_every_target_has_a_corpus() -> None:
    """`make fuzz` begins where the last one ended."""
    assert {name for name, _path in KEPT} == set(TARGETS)
