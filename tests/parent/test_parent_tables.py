"""The parent's part in reading a table again: a name comes in, a descriptor goes to lookup."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.tables import TableFiles
from smtpd_ps.runtime.log import Log


class Told:
    def __init__(self, paths: dict[str, str], *databases: str) -> None:
        self.said: list[tuple[Process, m.Message, tuple[int, ...]]] = []
        self.files = TableFiles(Log(Process.PARENT, foreground=True), paths, self.tell, frozenset(databases))

    def tell(self, process: Process, message: m.Message, *fds: int) -> None:
        self.said.append((process, message, fds))

    def take(self) -> tuple[Process, m.Message, tuple[int, ...]]:
        (one,) = self.said
        self.said.clear()
        return one


def test_the_file_of_the_configuration_is_handed_over(tmp_path: Path) -> None:
    """Lookup gets a descriptor to read, its verdict goes to the operator who asked."""
    path = tmp_path / "t"
    path.write_text("a b\n")
    told = Told({"t": str(path)})
    told.files.update(m.UpdateTable(5, "t"))
    process, message, (fd,) = told.take()
    assert (process, message) == (Process.LOOKUP, m.TableFile(5, "t"))
    assert os.read(fd, 10) == b"a b\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)
    told.files.read(m.TableRead(5, False, "/t:1: bad"))
    assert told.take() == (Process.CONTROL, m.Done(5, False, "/t:1: bad"), ())
    told.files.update(m.UpdateTable(6, "t"))
    os.close(told.take()[2][0])
    told.files.read(m.TableRead(6, True, "table t: 1 entry"))
    assert told.take() == (Process.CONTROL, m.Done(6, True, "table t: 1 entry"), ())


def test_lookup_cannot_speak_to_an_operator_who_did_not_ask(tmp_path: Path) -> None:
    """A verdict that nobody waits for, or a second one, goes nowhere."""
    path = tmp_path / "t"
    path.write_text("a b\n")
    told = Told({"t": str(path)})
    told.files.read(m.TableRead(5, True, "hello"))
    assert told.said == []
    told.files.update(m.UpdateTable(5, "t"))
    os.close(told.take()[2][0])
    told.files.read(m.TableRead(5, True))
    told.take()
    told.files.read(m.TableRead(5, True))
    assert told.said == []


def test_only_tables_of_the_configuration(tmp_path: Path) -> None:
    """A name that is none, also one that looks like a path, opens nothing."""
    for name in ("u", str(tmp_path), "../t", ""):
        told = Told({"t": str(tmp_path / "t")})
        told.files.update(m.UpdateTable(1, name))
        assert told.take() == (Process.CONTROL, m.Done(1, False, f"no table {name} in a file is in use"), ())


def test_what_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    """A missing file, a directory, and a pipe, which does not make root wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    told = Told({"gone": str(tmp_path / "gone"), "dir": str(tmp_path), "pipe": str(tmp_path / "pipe")})
    before = set(os.listdir("/dev/fd"))
    for name, reason in (
        ("gone", "No such file or directory"),
        ("dir", "is not a regular file"),
        ("pipe", "is not a regular file"),
    ):
        told.files.update(m.UpdateTable(1, name))
        process, message, fds = told.take()
        assert process is Process.CONTROL
        assert isinstance(message, m.Done)
        assert not message.ok
        assert message.text == f"{told.files.paths[name]}: {reason}"
        assert fds == ()
    assert set(os.listdir("/dev/fd")) <= before  # others' may be collected meanwhile


def test_a_database_that_was_made_anew_is_handed_over(tmp_path: Path) -> None:
    """Seen by its device, inode, size or time; once for each change; nobody is answered."""
    path = tmp_path / "t.db"
    path.write_text("one")
    told = Told({"t": str(path), "other": str(path)}, "t")
    told.files.look()
    assert told.said == []
    for number, change in enumerate((lambda: path.write_text("longer"), lambda: replace(path, "two"))):
        change()
        told.files.look()
        process, message, (fd,) = told.take()
        assert (process, message) == (Process.LOOKUP, m.TableFile(0, "t"))
        assert os.read(fd, 10) == (b"longer", b"two")[number]
        os.close(fd)
        told.files.look()
        told.files.read(m.TableRead(0, number == 0, "damaged", "t"))
        told.files.read(m.TableRead(0, True, "again", "t"))  # nobody asked
        told.files.read(m.TableRead(0, True, "", "other"))
        assert told.said == []


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_a_database_that_is_gone_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What lookup has stays in use; when the file is there again it is handed over."""
    path = tmp_path / "t.db"
    path.write_text("one")
    told = Told({"t": str(path)}, "t")
    path.unlink()
    told.files.look()
    told.files.look()
    assert capsys.readouterr().err.count(f"table t stays as it was: {path} is gone") == 1
    path.mkdir()
    told.files.look()
    told.files.look()
    assert capsys.readouterr().err.count(f"table t stays as it was: {path}: is not a regular file") == 1
    path.rmdir()
    path.write_text("two")
    told.files.look()
    os.close(told.take()[2][0])
    assert told.said == []


def test_nothing_is_watched_without_need(tmp_path: Path) -> None:
    """Without a database there is no timer, and with one none after the end."""
    later: list[object] = []
    loop = SimpleNamespace(call_later=lambda _secs, call: later.append(call))
    path = tmp_path / "t"
    path.write_text("a")
    Told({"t": str(path)}).files.watch(loop)  # type: ignore[arg-type]
    assert later == []
    told = Told({"t": str(path)}, "t")
    told.files.watch(loop)  # type: ignore[arg-type]
    assert len(later) == 1
    told.files.end()
    told.files.watch(loop)  # type: ignore[arg-type]
    assert len(later) == 1
