"""What each use asks of its table."""

from typing import get_args

import pytest

from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.table import Table, TableError
from smtpd_ps.pure.table_uses import USES, checked, kinds_for, parse_file


def read(data: bytes, *uses: TableUse) -> Table:
    return parse_file("t", data, "/t", uses)


def errors(data: bytes, *uses: TableUse) -> tuple[str, ...]:
    with pytest.raises(TableError) as caught:
        read(data, *uses)
    return caught.value.errors


def test_every_use_is_there() -> None:
    """The contract's uses and the table of what they ask are the same, and each can be satisfied."""
    assert set(USES) == set(get_args(TableUse))
    assert all(kinds_for((use,)) for use in USES)


GOOD: list[tuple[TableUse, bytes, str]] = [
    ("alias", b"root: bob, alice\n", "map"),
    ("virtual", b"@example.org bob\n", "map"),
    ("userinfo", b"bob 1000:1000:/home/bob\n", "map"),
    ("credentials", b"bob $6$x$y\n", "map"),
    ("relay-credentials", b"label bob:secret\n", "map"),
    ("domain", b"example.org\n*.example.org\n", "list"),
    ("netaddr", b"2001:db8::/32\n10.0.0.0/8\n[2001:db8::]/32\nlocal\n", "list"),
    ("mailaddr", b"bob@example.org\n@example.net\n", "list"),
    ("mailaddr", b"bob@example.org: x\n", "map"),
    ("string", b"tag\n", "list"),
    ("user", b"bob: hash\n", "map"),
    ("regex", b"[0-9]+: .*\n", "list"),
    ("relayhosts", b"smtp://mx:26\nmx2\n", "list"),
    ("relayhost", b"example.org: smtp://mx:26\n", "map"),
    ("source", b"2001:db8::1\n192.0.2.1\n", "list"),
    ("addrname", b"192.0.2.1 mx.example.org\n[2001:DB8::1] mx6.example.org\n", "map"),
    ("mailaddrmap", b"bob bob@example.org, @example.net\n", "map"),
]


@pytest.mark.parametrize(("use", "data", "kind"), GOOD)
def test_good_files(use: TableUse, data: bytes, kind: str) -> None:
    """A file as table(5) describes it for the use; an empty one is of the kind that is needed."""
    table = read(data, use)
    assert (table.kind, len(table.entries)) == (kind, data.count(b"\n"))
    assert read(b"# nothing\n", use).kind in USES[use].kinds


BAD: list[tuple[TableUse, bytes, str]] = [
    ("alias", b"# @list\n", "/t:1: this makes the table a list, where a mapping is needed"),
    ("alias", b"\nroot\n", '/t:2: a key without a value, where a mapping is needed ("key: value")'),
    ("domain", b"example.org x\n", "/t:1: a key and a value, where a list is needed, one key a line "
                                   '("# @list" above says that it is one)'),
    ("string", b"a: b\n", "/t:1: a key and a value, where a list is needed, one key a line "
                          '("# @list" above says that it is one)'),
    ("userinfo", b"a 1:1:/a\nb 1:1\n", '/t:2: expected uid:gid:home, found "1:1"'),
    ("relay-credentials", b"a b:c\nb x\n", "/t:2: expected user:password, or a password of at least three characters"),
    ("netaddr", b"10/8\nmx\n", '/t:2: "mx" is not an address or a network such as 192.0.2.0/24'),
    ("regex", b"a\n(b\n", '/t:2: "(b" is not a regular expression: "(" without ")" at character 1'),
    ("relayhosts", b"lmtp://a\n", '/t:1: "lmtp://a": lmtp:// needs a port'),
    ("relayhost", b"a lmtp://a\n", '/t:1: "lmtp://a": lmtp:// needs a port'),
    ("source", b"::1\nmx\n", '/t:2: expected an IP address, found "mx"'),
    ("addrname", b"mx mx\n", '/t:1: expected an IP address, found "mx"'),
    ("addrname", b"192.0.2.1 a b\n", '/t:1: expected a host name, found "a b"'),
    ("mailaddrmap", b"a b c\n", '/t:1: expected user@domain, @domain or user, found "b c"'),
]  # fmt: skip


@pytest.mark.parametrize(("use", "data", "error"), BAD)
def test_bad_files(use: TableUse, data: bytes, error: str) -> None:
    """The line is named, and what was expected."""
    assert errors(data, use) == (error,)


def test_addresses_as_keys_are_stored_in_one_form() -> None:
    """So that an address is found however the file writes it."""
    assert dict(read(b"[2001:DB8:0::1] a\n", "addrname").entries) == {"2001:db8::1": "a"}
    table = Table("t", "map", {"[::1]": "localhost"})
    assert dict(checked(table, ("addrname",)).entries) == {"::1": "localhost"}


def test_two_uses_of_one_table() -> None:
    """A table must be good for both; a list and a mapping at once is impossible."""
    assert kinds_for(("mailaddr", "virtual")) == ("map",)
    assert kinds_for(("domain", "virtual")) == ()
    assert read(b"a@b.org x\n", "mailaddr", "virtual").kind == "map"
    assert errors(b"a@b.org\n", "mailaddr", "virtual") == (
        '/t:1: a key without a value, where a mapping is needed ("key: value")',
    )
    assert errors(b"(\n", "domain", "regex") == (
        '/t:1: "(" is not a regular expression: an empty pattern or branch at character 2',
    )
