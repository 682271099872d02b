"""table(5) files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.settings import TableSettings
from smtpd_ps.pure import table as tables


def parse(data: bytes) -> tables.Table:
    return tables.parse_table("t", data, "/etc/t")


def test_map_forms() -> None:
    """A key ends at a blank or a colon; blanks before the value go; keys are lower-cased, values not."""
    table = parse(b"John.Doe@Example.COM Cyrus\nroot:admin\n  dave: \t Eve, f \n[::1]  localhost\r\n")
    assert table.kind == "map"
    assert dict(table.entries) == {
        "john.doe@example.com": "Cyrus", "root": "admin", "dave": "Eve, f", "[::1]": "localhost",
    }  # fmt: skip
    assert table.get("JOHN.DOE@example.com") == "Cyrus"
    assert table.get("nobody") is None


def test_values_go_on() -> None:
    """An indented line after a comma, or that begins with one, belongs to the entry above (aliases(5))."""
    table = parse(b"staff: ann,\n  ben\n\t, cid,\n dan\nroot: ann\n  other: ben\nlast: eve,\n# no\n  x y\n")
    assert dict(table.entries) == {
        "staff": "ann, ben , cid, dan", "root": "ann", "other": "ben", "last": "eve,", "x": "y"
    }  # fmt: skip
    with pytest.raises(tables.TableError, match="/etc/t:4: the line is too long"):
        parse(b"a: b,\n c\n\nbig: x,\n" + b" yyyyyyyyy,\n" * 300)
    assert list(parse(b"# @list\na b,\n c\n").entries) == ["a b,", "c"]
    assert list(parse(b"a\nb c,\n d\n").entries) == ["a", "b c,", "d"]


def test_list_takes_the_whole_line() -> None:
    """In a list the whole line is the key."""
    table = parse(b"# hosts\n\nExample.org\n*.example.org x\n10.0.0.0/8\n")
    assert (table.kind, list(table.entries)) == ("list", ["example.org", "*.example.org x", "10.0.0.0/8"])


def test_list_comment() -> None:
    """`# @list` before the first entry makes a list; after it, it is a comment like any other."""
    assert parse(b"#  @list \n::1\n").kind == "list"
    assert parse(b"a b\n# @list\nc d\n").kind == "map"
    assert parse(b"# @list of things\na b\n").kind == "map"


def test_empty_file_is_a_map_unless_marked() -> None:
    """QUIRKS 24."""
    assert parse(b"").kind == "map"
    assert parse(b"# nothing\n\n").kind == "map"
    assert parse(b"# @list\n").kind == "list"


def test_later_duplicate_holds() -> None:
    """Of two entries with one key the later holds."""
    assert parse(b"a 1\nA 2\n").get("a") == "2"


def test_hash_in_a_value_stays() -> None:
    """Only a line that starts with # is a comment."""
    assert parse(b"a b # c\n").get("a") == "b # c"


def test_all_bad_lines_are_named() -> None:
    """Every bad line is named with path and line number, and the good ones do not hide it."""
    with pytest.raises(tables.TableError) as caught:
        parse(b"a b\nlonely\n: x\n[::1 x\n\xff\xfe x\nn\0 x\n" + b"k" * 2000 + b" v\n")
    assert [error.split(": ")[0] for error in caught.value.errors] == [f"/etc/t:{n}" for n in range(2, 8)]
    assert "expected a value" in caught.value.errors[0]
    assert "expected a key" in caught.value.errors[1]


def test_errors_are_bounded() -> None:
    """A file of rubbish names its first lines only."""
    with pytest.raises(tables.TableError) as caught:
        parse(b"a b\n" + b"bad\n" * 1000)
    assert len(caught.value.errors) == tables.MAX_ERRORS


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the bound is refused whole."""
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10)
    with pytest.raises(tables.TableError, match="larger than 10 bytes"):
        parse(b"a b\n" * 3)


def test_inline() -> None:
    """Keys of inline tables are case-insensitive as well."""
    table = tables.from_settings(TableSettings("t", "inline", "map", (("Postmaster", "Root"),)))
    assert table.get("POSTMASTER") == "Root"


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Any file parses or is refused with TableError."""
    try:
        table = parse(data)
    except tables.TableError as error:
        assert error.errors
    else:
        assert all(key == key.lower() and key for key in table.entries)
