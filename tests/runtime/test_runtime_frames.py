"""The frame reader: who may say what, in which phase, with which descriptors."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.codec import HEADER, ContractViolation, encode
from smtpd_ps.runtime.frames import FrameReader, check_outgoing

COMMIT = m.Commit(1, 2, 3, False, b"body")
ABORT = m.Abort(1, 2)


def reader(sender: Process = Process.SMTP, phase: Phase = Phase.RUN) -> FrameReader:
    return FrameReader(sender, Process.QUEUE, phase)


@given(st.lists(st.integers(1, 40)))
def test_any_chunking_gives_the_same_messages(cuts: list[int]) -> None:
    """Where the stream is cut does not matter."""
    stream = encode(COMMIT) + encode(ABORT) + encode(COMMIT)
    unit = reader()
    got, at = [], 0
    for size in [*cuts, len(stream)]:
        got += [message for message, _fds in unit.feed(stream[at : at + size])]
        at += size
    assert got == [COMMIT, ABORT, COMMIT]
    assert unit.empty


@pytest.mark.parametrize("sender", [Process.DELIVERY, Process.LOOKUP, Process.CONTROL])
def test_only_the_declared_sender_may(sender: Process) -> None:
    """Commit is smtp's alone: delivery, lookup and control saying it is a violation."""
    with pytest.raises(ContractViolation, match="may not send"):
        reader(sender).feed(encode(COMMIT))


def test_phase_is_checked() -> None:
    """Nothing of the run phase is taken while setting up."""
    with pytest.raises(ContractViolation, match="phase"):
        reader(phase=Phase.SETUP).feed(encode(COMMIT))


def test_length_is_checked_before_the_bytes_arrive() -> None:
    """A header announcing more than the message's bound is refused at once, not buffered."""
    number, _length, _peer, _pid = HEADER.unpack(encode(ABORT)[:16])
    with pytest.raises(ContractViolation, match="length"):
        reader().feed(HEADER.pack(number, 10_000, 0, 0))


@pytest.mark.parametrize("length", [0, 15])
def test_length_below_the_header_is_refused(length: int) -> None:
    """A length that cannot be is refused."""
    with pytest.raises(ContractViolation, match="length"):
        reader().feed(HEADER.pack(38, length, 0, 0))


def test_a_mark_without_need_is_refused() -> None:
    """A message that carries no descriptor may not claim one."""
    number, length, _peer, _pid = HEADER.unpack(encode(ABORT)[:16])
    with pytest.raises(ContractViolation, match="mark"):
        reader().feed(HEADER.pack(number, length | 1 << 31, 0, 0) + encode(ABORT)[16:])


def test_a_descriptor_reaches_its_message() -> None:
    """Descriptors are queued and taken by the marked frames, in order."""
    unit = FrameReader(Process.QUEUE, Process.SMTP, Phase.RUN)
    first, second = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    try:
        got = unit.feed(encode(m.BodyFile(1, 1)) + encode(m.BodyFile(1, 2)), [first, second])
        assert [fds for _message, fds in got] == [(first,), (second,)]
    finally:
        os.close(first)
        os.close(second)


def test_a_missing_descriptor_is_a_violation() -> None:
    """A frame that should carry a descriptor and does not is refused."""
    with pytest.raises(ContractViolation, match="without its descriptor"):
        FrameReader(Process.QUEUE, Process.SMTP, Phase.RUN).feed(encode(m.BodyFile(1, 1)))


def test_descriptors_of_a_violation_are_closed() -> None:
    """A misbehaving peer leaks nothing into us."""
    fd = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(ContractViolation):
        reader().feed(b"\xff" * 16, [fd])
    with pytest.raises(OSError):
        os.fstat(fd)


def test_outgoing_is_checked_too() -> None:
    """A process cannot send what it has no route for, in the wrong phase, or with stray descriptors."""
    hop = (Process.SMTP, Process.QUEUE)
    check_outgoing(COMMIT, hop, Phase.RUN, 0)
    for bad in (
        lambda: check_outgoing(m.Deliver(()), hop, Phase.RUN, 0),
        lambda: check_outgoing(COMMIT, hop, Phase.SETUP, 0),
        lambda: check_outgoing(COMMIT, hop, Phase.RUN, 1),
        lambda: check_outgoing(COMMIT, (Process.SMTP, Process.DELIVERY), Phase.RUN, 0),
    ):
        with pytest.raises(ContractViolation):
            bad()


@given(st.binary(max_size=200))
def test_garbage_streams_only_violate(data: bytes) -> None:
    """Any bytes are messages, an unfinished message, or a ContractViolation."""
    try:
        reader().feed(data)
    except ContractViolation:
        return
