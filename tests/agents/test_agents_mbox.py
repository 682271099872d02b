"""The mbox store: whole messages or nothing, under lock."""

import errno
import fcntl
import itertools
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.agents import mbox as subject
from smtpd_ps.agents.bodies import Item
from smtpd_ps.agents.line_ends import ToLf, ToMbox
from smtpd_ps.agents.mbox import MailboxGone, Mbox
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Status


@pytest.fixture
def box(tmp_path):
    path = tmp_path / "ann"
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    yield path, Mbox(fd)
    os.close(fd)


def job(number: int, body: bytes, sender: str = "a@s.test") -> Item:
    return Item(m.AgentJob(number, sender, "ann@d.test", "ann@d.test", body))


def test_messages_are_appended_in_mbox_form(box):
    """From line, our headers, LF, quoted From lines, a blank line at the end."""
    path, mbox = box
    results = mbox.store([job(1, b"S: x\r\n\r\nFrom here\r\n>From\r\nFro\r\n"), job(2, b"\r\nno end", "")])
    assert [(r.job, r.status) for r in results] == [(1, Status.OK), (2, Status.OK)]
    text = re.sub(rb"^(From \S+) .*$", rb"\1 DATE", path.read_bytes(), flags=re.M)
    assert text == (
        b"From a@s.test DATE\nReturn-Path: <a@s.test>\nDelivered-To: ann@d.test\n"
        b"S: x\n\n>From here\n>From\nFro\n\n"
        b"From MAILER-DAEMON DATE\nDelivered-To: ann@d.test\n\nno end\n\n"
    )


def test_a_failed_write_leaves_the_old_size(box, monkeypatch):
    """The disk fills up in the middle of a message: it is cut off again, and the mail waits."""
    path, mbox = box
    path.write_bytes(b"From x\n\nold\n\n")
    real = os.write

    def write(fd, data):
        if len(data) > 100:
            real(fd, bytes(data)[:50])
            raise OSError(errno.ENOSPC, "x")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    (result,) = mbox.store([job(1, b"x" * 500)])
    assert (result.status, result.text) == (Status.TEMPFAIL, "No space left on device")
    assert path.read_bytes() == b"From x\n\nold\n\n"


def test_a_failed_sync_takes_everything_back(box, monkeypatch):
    """What may not be on stable storage is not kept."""
    path, mbox = box

    def fsync(_fd):
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(os, "fsync", fsync)
    results = mbox.store([job(1, b"a\r\n"), job(2, b"b\r\n")])
    assert {r.status for r in results} == {Status.TEMPFAIL}
    assert path.read_bytes() == b""


def test_a_half_written_line_is_ended_first(box):
    """A mailbox that does not end in a line end gets one, so that our From line is seen."""
    path, mbox = box
    path.write_bytes(b"From x\n\nhalf")
    mbox.store([job(1, b"a\r\n")])
    assert path.read_bytes().startswith(b"From x\n\nhalf\n\nFrom a@s.test ")


def test_a_locked_mailbox_is_temporary(box, monkeypatch):
    """Another program keeps its lock: the mail waits, nothing is written."""
    path, mbox = box
    monkeypatch.setattr(subject, "LOCK_SECS", 0.0)
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        (result,) = mbox.store([job(1, b"a\r\n")])
    assert (result.status, path.read_bytes()) == (Status.TEMPFAIL, b"")


def test_a_removed_mailbox_is_noticed(box):
    """A mail program that replaced the file must not lose our mail in the old one."""
    path, mbox = box
    path.unlink()
    with pytest.raises(MailboxGone):
        mbox.store([job(1, b"a\r\n")])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(points)]


PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"From ", b"F", b"From", b" ", b"x"])).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 10_000)))
def test_line_ends_do_not_depend_on_the_cuts(data, cuts):
    """Converting in pieces gives what converting at once gives."""
    lf, mbox = ToLf(), ToMbox()
    assert b"".join(lf.feed(c) for c in cut(data, cuts)) + lf.finish() == data.replace(b"\r\n", b"\n")
    start = b"X: y\r\n"
    out = b"".join(mbox.feed(c) for c in cut(start + data, cuts)) + mbox.finish()
    whole = (start + data).replace(b"\r\n", b"\n").replace(b"\nFrom ", b"\n>From ")
    assert out == whole + (b"\n" if whole.endswith(b"\n") else b"\n\n")
