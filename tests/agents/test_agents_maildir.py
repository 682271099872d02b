"""The Maildir store: complete and synced before visible, synced before answered."""

import errno
import os
import stat

import pytest

from smtpd_ps.agents import maildir as subject
from smtpd_ps.agents.bodies import Item
from smtpd_ps.agents.maildir import Maildir
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.maildir_name import MaildirNames

BODY = b"Subject: x\r\n\r\nline\r\n.dot\r\nlast\r\n"


def store(home, path: str = "", host: str = "mx/1:2") -> Maildir:
    settings = AgentSettings("ann", str(home), "box", "maildir", path, host)
    ticks = iter(range(10**18, 2 * 10**18, 1))
    return Maildir(settings, MaildirNames(77, host), lambda: next(ticks))


def job(number: int, body: bytes = BODY, sender: str = "a@s.test", dest: str = "ann@d.test") -> Item:
    return Item(m.AgentJob(number, sender, dest, dest, body))


def new(home, folder: str = "Maildir") -> list[bytes]:
    return [path.read_bytes() for path in sorted((home / folder / "new").iterdir())]


def test_messages_are_stored_with_headers_and_lf(tmp_path):
    """~/Maildir is made, mode 0700; each message has our header lines and LF line ends, mode 0600."""
    results = store(tmp_path).store([job(1), job(2, sender="")])
    assert {(r.job, r.status, r.text) for r in results} == {(1, Status.OK, "Delivered"), (2, Status.OK, "Delivered")}
    text = BODY.replace(b"\r\n", b"\n")
    assert sorted(new(tmp_path)) == sorted(
        [
            b"Return-Path: <a@s.test>\nDelivered-To: ann@d.test\n" + text,
            b"Delivered-To: ann@d.test\n" + text,
        ]
    )
    assert list((tmp_path / "Maildir" / "tmp").iterdir()) == []
    assert (tmp_path / "Maildir" / "cur").is_dir()
    for folder in ("", "tmp", "new", "cur"):
        assert stat.S_IMODE((tmp_path / "Maildir" / folder).stat().st_mode) == 0o700
    for path in (tmp_path / "Maildir" / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.name.endswith(".mx\\0571\\0722") and "P77Q" in path.name


def test_a_large_batch_is_stored_whole(tmp_path):
    """More messages than may be open at once, in one batch."""
    results = store(tmp_path).store([job(n, b"X: %d\r\n\r\n" % n) for n in range(100)])
    assert sorted(r.job for r in results) == list(range(100))
    assert {r.status for r in results} == {Status.OK}
    assert len(new(tmp_path)) == 100


def test_sync_order(tmp_path, monkeypatch):
    """Every file is synced before any is renamed into new, and new is synced after the last rename."""
    calls = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd):
        calls.append("dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def rename(*args, **kwargs):
        calls.append("rename")
        real_rename(*args, **kwargs)

    box = store(tmp_path)
    box.store([job(1)])
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    box.store([job(2), job(3)])
    assert calls == ["file", "file", "rename", "rename", "dir"]


@pytest.mark.parametrize("broken", ["write", "fsync", "rename"])
def test_a_failing_disk_is_temporary_and_shows_nothing(tmp_path, monkeypatch, broken):
    """No space, an I/O error: TEMPFAIL with the system's words, nothing in new, nothing left in tmp."""
    box = store(tmp_path)
    box.store([])
    subject.make_folder(f"{tmp_path}/Maildir")

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(os, broken, fail)
    (result,) = box.store([job(1)])
    monkeypatch.undo()
    assert (result.status, result.text) == (Status.TEMPFAIL, "No space left on device")
    assert new(tmp_path) == []
    assert list((tmp_path / "Maildir" / "tmp").iterdir()) == []


def test_a_large_body_comes_from_its_descriptor(tmp_path):
    """All of it, CRLF converted also where two reads meet; one that is too short is refused."""
    body = b"S: x\r\n\r\n" + b"0123456789\r\n" * 60_000
    path = tmp_path / "body"
    path.write_bytes(body)

    def item(number: int, size: int) -> Item:
        return Item(m.AgentJobFile(number, "", "a@b", "a@b", size), os.open(path, os.O_RDONLY))

    items = [item(1, len(body)), item(2, len(body) + 1)]
    results = {r.job: r for r in store(tmp_path).store(items)}
    for each in items:
        each.close()
    assert results[1].status is Status.OK
    assert results[2].status is Status.TEMPFAIL and "ends after" in results[2].text
    assert new(tmp_path) == [b"Delivered-To: a@b\n" + body.replace(b"\r\n", b"\n")]


def test_specifiers_choose_the_folder(tmp_path):
    """The path is expanded for each message, and what a stranger wrote cannot leave it."""
    box = store(tmp_path, f"{tmp_path}/boxes/%{{dest.domain}}/%{{dest.user:lowercase}}")
    (tmp_path / "boxes").mkdir()
    results = box.store([job(1, dest="Ann@d.test"), job(2, dest="../x@d.test"), job(3, dest="..@d.test")])
    told = {r.job: r.status for r in results}
    assert told == {1: Status.OK, 2: Status.OK, 3: Status.PERMFAIL}
    assert len(new(tmp_path, "boxes/d.test/ann")) == 1
    assert len(new(tmp_path, "boxes/d.test/..:x")) == 1


def test_a_bad_specifier_is_permanent(tmp_path):
    """As OpenSMTPD: a path that cannot be expanded is a permanent failure."""
    (result,) = store(tmp_path, "~/%{nonsense}").store([job(1)])
    assert result.status is Status.PERMFAIL and "nonsense" in result.text


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_made_is_temporary(tmp_path):
    """A fault of this host is never a bounce."""
    (tmp_path / "closed").mkdir(mode=0o500)
    (result,) = store(tmp_path, f"{tmp_path}/closed/Maildir").store([job(1)])
    assert result.status is Status.TEMPFAIL and "Permission denied" in result.text


def test_a_file_in_the_way_is_temporary(tmp_path):
    """Something that is no folder where the Maildir should be."""
    (tmp_path / "Maildir").write_text("")
    (result,) = store(tmp_path).store([job(1)])
    assert result.status is Status.TEMPFAIL and "Not a directory" in result.text
