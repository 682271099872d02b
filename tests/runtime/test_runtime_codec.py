"""Frames: what the codec refuses."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import BY_NUMBER, BY_TYPE
from smtpd_ps.runtime.codec import FD_MARK, HEADER, HEADER_BYTES, ContractViolation, decode, encode

COMMIT = m.Commit(session=1, transaction=2, msgid=3, eight_bit=False, body=b"x" * 100)
NUMBER = BY_TYPE[m.Commit].number


def payload(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def test_a_frame_carries_the_imsg_header() -> None:
    """Type, length of the whole frame, peerid, pid; no descriptor mark on a message without one."""
    frame = encode(COMMIT, pid=7)
    assert HEADER.unpack(frame[:HEADER_BYTES]) == (NUMBER, len(frame), 0, 7)


def test_the_mark_is_set_on_messages_with_descriptors() -> None:
    """The top bit of the length says that a descriptor comes along."""
    assert HEADER.unpack(encode(m.BodyFile(1, 2))[:HEADER_BYTES])[1] & FD_MARK


def test_round_trip() -> None:
    """What is encoded decodes to an equal message."""
    assert decode(NUMBER, encode(COMMIT)[HEADER_BYTES:]) == COMMIT


@pytest.mark.parametrize(
    "bad",
    [
        payload(1, 2, 3, False, b"x", 9),
        payload(1, 2, 3, False),
        payload("1", 2, 3, False, b"x"),
        payload(-1, 2, 3, False, b"x"),
        payload(1, 2**32, 3, False, b"x"),
        payload(1, 2, 3, False, b"x" * 65537),
        payload(1, 2, 3, 1, b"x"),
        payload(1, 2, 3, False, b"x") + b"\0",
        payload(1, 2, 3, False, b"x")[:-1],
        msgspec.msgpack.encode({"session": 1}),
        b"",
    ],
    ids=[
        "extra field",
        "missing field",
        "wrong type",
        "negative",
        "over 32 bits",
        "body over its bound",
        "int as bool",
        "trailing byte",
        "truncated",
        "a map",
        "empty",
    ],
)
def test_malformed_payloads_are_refused(bad: bytes) -> None:
    """Types, bounds, field count and length are all exact."""
    with pytest.raises(ContractViolation):
        decode(NUMBER, bad)


def test_unknown_type_is_refused() -> None:
    """A number outside the contract is no message."""
    with pytest.raises(ContractViolation):
        decode(9999, b"\x90")


@given(st.binary(max_size=300), st.sampled_from(sorted(BY_NUMBER)))
def test_garbage_never_raises_anything_else(data: bytes, number: int) -> None:
    """Any bytes either decode or raise ContractViolation."""
    try:
        decode(number, data)
    except ContractViolation:
        return


def test_a_message_over_its_own_bound_is_not_sent() -> None:
    """The sender refuses what the receiver would."""
    with pytest.raises(ContractViolation):
        encode(m.Done(0, True, "x" * 20_000))
