"""makemap: what goes in comes out, and what is wrong leaves everything as it was."""

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon import cli

from smtpd_ps.cli import makemap
from smtpd_ps.pure.table import TableError, parse_table


def run(*words: object) -> int:
    return makemap.main([str(word) for word in words])


def dumped(path: object) -> list[str]:
    return [line.decode() for line in makemap.dump(str(path))]


def test_a_map_and_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys in lower case, values as they are, in the order of the text; -U writes them with a tab between."""
    text = tmp_path / "map"
    text.write_text("# comment\n\nRoot: Bob\n  alice\t Carol, dave \n[::1] x # y\n")
    assert run(text) == 0
    assert capfd.readouterr() == ("", "")
    assert run("-U", tmp_path / "map.db") == 0
    assert capfd.readouterr().out == "root\tBob\nalice\tCarol, dave\n[::1]\tx # y\n"
    assert sorted(os.listdir(tmp_path)) == ["map", "map.db"]


def test_a_set_and_another_name(tmp_path: Path) -> None:
    """With -t set the whole line is the key; -o names the database; -d chooses nothing."""
    text = tmp_path / "list"
    text.write_text("Example.org\n*.example.net x\n")
    for kind in ("hash", "btree"):
        assert run("-d", kind, "-o", tmp_path / "other.db", "-t", "set", text) == 0
        assert dumped(tmp_path / "other.db") == ["example.org\n", "*.example.net x\n"]
    assert sorted(os.listdir(tmp_path)) == ["list", "other.db"]


def test_continued_lines(tmp_path: Path) -> None:
    """A backslash at the end joins two lines, also in a comment; errors name the first line of those."""
    text = tmp_path / "map"
    text.write_text("a: b, \\\n   c\n# no \\\nd e\nf \\\n\\\ng\nh i\\")
    assert run("-t", "aliases", text) == 0
    assert dumped(f"{text}.db") == ["a\tb,    c\n", "f\tg\n", "h\ti\n"]
    text.write_text("a b\nc \\\n\\\n\nd\n")
    with pytest.raises(makemap.MapError) as caught:
        makemap.make(str(text), f"{text}.db", "plain")
    assert caught.value.errors == (
        f"{text}:2: expected a value after the key", f"{text}:5: expected a value after the key",
    )  # fmt: skip


@given(
    st.lists(
        st.sampled_from(["a: b", "b c,", "  d", " , e", "\tf,", "# x,", "", "g h", "  i j", "k"]), max_size=8
    ).map(lambda lines: "".join(f"{line}\n" for line in lines).encode())
)  # fmt: skip
def test_a_text_means_what_it_means_as_a_file(data: bytes) -> None:
    """makemap and a table in a file read the same entries, those that go on in indented lines among them."""
    read: object
    try:
        read = dict(parse_table("t", data, "t", "map").entries)
    except TableError as error:
        read = error.errors
    made: object
    try:
        made = dict(makemap.entries(data.splitlines(keepends=True), "t", "plain"))
    except makemap.MapError as error:
        made = tuple(line for line in error.errors if "duplicate" not in line)
        if len(made) < len(error.errors) and isinstance(read, dict):
            return  # the one thing that a file may have, and its later entry holds
    assert made == read


@pytest.mark.parametrize(
    ("kind", "data", "errors"),
    [
        ("plain", b"a b\nA c\nd\n\xff x\n", [":2: duplicate entry for a", ":3: expected a value after the key",
                                            ":4: not UTF-8 text"]),
        ("set", b"a\nb\nA\n", [":3: duplicate entry for a"]),
        ("aliases", b"a b\nc d e\nf ,\n", [
            ":2: expected a user, an address, a file, a command or error:NNN text instead of 'd e'",
            ":3: expected a user, an address or another target"]),
        ("plain", b"[::1 x\n", [":1: expected ] after the address"]),
        ("plain", b"x\n" * 100, [f":{n}: expected a value after the key" for n in range(1, 21)]),
    ],
)  # fmt: skip
def test_errors_name_the_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, data: bytes, errors: list[str]
) -> None:
    """All of them, and the database that was there is still there, with nothing beside it."""
    text = tmp_path / "map"
    text.write_bytes(data)
    (tmp_path / "map.db").write_text("old")
    assert run(*(() if kind == "plain" else ("-t", kind)), text) == 1
    assert capsys.readouterr().err.splitlines() == [f"makemap_ps: {text}{error}" for error in errors]
    assert (tmp_path / "map.db").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["map", "map.db"]


def test_what_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, a file that is not there, one that somebody is writing, and what is no database for -U."""
    (tmp_path / "d").mkdir()
    (tmp_path / "t").write_text("a b\n")
    assert [run(tmp_path / "d"), run(tmp_path / "gone"), run("-U", tmp_path / "t"), run("-U", tmp_path / "gone")] == [
        1
    ] * 4
    with (tmp_path / "t").open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert run(tmp_path / "t") == 1
    assert run("-o", tmp_path / "no" / "x.db", tmp_path / "t") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"makemap_ps: {tmp_path}/d: is a directory",
        f"makemap_ps: {tmp_path}/gone: No such file or directory",
        f"makemap_ps: {tmp_path}/t: it was not made by makemap",
        f"makemap_ps: {tmp_path}/gone: No such file or directory",
        f"makemap_ps: {tmp_path}/t: is locked; somebody is writing it",
        f"makemap_ps: {tmp_path}/no/x.db: No such file or directory",
    ]


def test_an_empty_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Makes an empty map, with a warning."""
    (tmp_path / "t").write_text("# nothing\n")
    assert run(tmp_path / "t") == 0
    assert capsys.readouterr().err == f"makemap_ps: warning: empty map created: {tmp_path}/t.db\n"
    assert dumped(tmp_path / "t.db") == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-d", "dbm", "x"), "-d takes hash or btree, not dbm"),
        (("-t", "map", "x"), "-t takes aliases or set, not map"),
        ((), "one file is wanted"), (("a", "b"), "one file is wanted"), (("-x", "a"), "option -x not recognized"),
        (("-",), "-o is needed for standard input"), (("-d",), "option -d requires argument"),
    ],
)  # fmt: skip
def test_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str) -> None:
    """Words that make no command are told, with the usage."""
    assert run(*words) == 1
    assert capsys.readouterr().err == f"makemap_ps: {text}\n{makemap.USAGE}\n"


def test_owner_and_mode(tmp_path: Path) -> None:
    """The database of a secret text is as secret; one of standard input is for its owner alone."""
    text = tmp_path / "t"
    text.write_text("a b\n")
    text.chmod(0o640)
    if os.getuid() == 0:
        os.chown(text, 12, 34)
    assert run(text) == 0
    made, status = (tmp_path / "t.db").stat(), text.stat()
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o640, status.st_uid, status.st_gid)
    for words in (("-o", f"{tmp_path}/in.db", "-"), ("hash", f"{tmp_path}/two"), ("btree", f"{tmp_path}/three.db")):
        done = cli("makemap", *words, input="k v\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("in", "two", "three"):
        assert (tmp_path / f"{name}.db").stat().st_mode & 0o7777 == 0o600
        assert dumped(tmp_path / f"{name}.db") == ["k\tv\n"]


def test_the_new_one_comes_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on stable storage before it has its name, and the directory after that; who has the old one keeps it."""
    text, made = tmp_path / "t", tmp_path / "t.db"
    text.write_text("a old\n")
    assert run(text) == 0
    steps: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        steps.append(os.readlink(f"/proc/self/fd/{fd}").replace(str(tmp_path), "").split(".db.")[0])
        sync(fd)

    def renamed(old: str, new: str) -> None:
        steps.append(f"rename {os.path.basename(new)}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    text.write_text("a new\n")
    with made.open("rb") as old:
        before = old.read(10_000)
        assert run(text) == 0
        old.seek(0)
        assert old.read(10_000) == before
    assert steps == ["/t", "rename t.db", ""]
    assert dumped(made) == ["a\tnew\n"]


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_lines_of_any_bytes(lines: list[bytes]) -> None:
    """They give entries or MapError."""
    data = b"\n".join(lines).splitlines(keepends=True)
    for kind in ("plain", "set", "aliases"):
        try:
            made = list(makemap.entries(data, "t", kind))  # type: ignore[arg-type]
        except makemap.MapError as error:
            assert all(line.startswith("t:") for line in error.errors)
        else:
            assert len({key for key, _value in made}) == len(made)
