"""Databases as tables in lookup."""

import os
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest

from smtpd_ps.cli.makemap import make
from smtpd_ps.contract.messages import Greet, SenderQuery, SenderReply
from smtpd_ps.contract.settings import (
    ConditionSettings,
    FilterSettings,
    ListenerTables,
    RuleSettings,
    TableSettings,
    TableUse,
)
from smtpd_ps.lookup.credentials import schemes_in
from smtpd_ps.lookup.listener_tables import ListenerDesk
from smtpd_ps.lookup.sessions import Sessions
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.lookup.table_db import read_db
from smtpd_ps.pure.cdb import HEADER_BYTES
from smtpd_ps.pure.filter_rules import Facts as FilterFacts
from smtpd_ps.pure.filter_rules import Filters, Verdict, run
from smtpd_ps.pure.match_rules import UNSURE, Facts, RuleBook, Source
from smtpd_ps.pure.table import Table, TableError, TableUnreadable, from_settings, parse_table
from smtpd_ps.pure.table_db import TableDbWriter

_numbers = count()


def database(directory: Path, text: str, kind: str = "plain") -> Path:
    source = directory / f"t{next(_numbers)}"
    source.write_text(text)
    make(str(source), f"{source}.db", kind)  # type: ignore[arg-type]
    return Path(f"{source}.db")


def read(path: Path, *uses: TableUse) -> Table:
    return read_db("t", os.open(path, os.O_RDONLY), str(path), uses)


def decided(table: Table, kind: str, facts: Facts | None, source: Source | None = None, regex: bool = False) -> bool:
    rule = RuleSettings((ConditionSettings(kind, table="t", regex=regex),), "yes", 1)  # type: ignore[arg-type]
    book = RuleBook((rule,), {"t": table}, (), (), "+")
    return book.view(source or Source("192.0.2.9")).match(facts or Facts("", False, "", "", "")) is not None


def test_entries(tmp_path: Path) -> None:
    """Found in any case; all can be gone through; the descriptor goes with the table."""
    table = read(database(tmp_path, "Root: Bob\nlist a@b.org, c\nmüller x\n"), "alias")
    assert (table.kind, len(table.entries)) == ("map", 3)
    assert [table.get(key) for key in ("ROOT", "list", "Müller", "nobody", "\udc80")] == [
        "Bob", "a@b.org, c", "x", None, None,
    ]  # fmt: skip
    assert dict(table.entries) == {"root": "Bob", "list": "a@b.org, c", "müller": "x"}
    assert "root" in table.entries
    before = len(os.listdir("/dev/fd"))
    del table
    assert len(os.listdir("/dev/fd")) == before - 1


DOMAINS = ["example.org", "*.example.net", "192.0.2.1", "a.b"]
ADDRESSES = ["user", "@example.org", "other@example.net", "tag+ged@x.org", "a@*.example.com", "last@"]
NETWORKS = ["192.0.2.0/24", "198.51.100.7", "2001:db8::1", "[2001:db8:1::]/48", "local", "2001:db8:0:0::2"]


@pytest.mark.parametrize("domain", ["example.org", "a.example.net", "a.b.example.net", "b.c", "192.0.2.1", ""])
def test_domains_as_in_memory(tmp_path: Path, domain: str) -> None:
    """A rule decides by a database as by the same list in a file, globs among them."""
    compare(tmp_path, DOMAINS, "for-domain", Facts("", False, "", "", domain), None)


@pytest.mark.parametrize(
    "sender",
    ["user@x.org", "user+t@x.org", "any@example.org", "other@example.net", "tag+ged@x.org", "tag@x.org",
     "a@b.example.com", "a@example.com", "last@y.org", "", "b@z.org"],
)  # fmt: skip
def test_addresses_as_in_memory(tmp_path: Path, sender: str) -> None:
    """Users, domains and addresses, with tags and globs."""
    compare(tmp_path, ADDRESSES, "mail-from", Facts("", False, sender, "", ""), None)


@pytest.mark.parametrize(
    "address",
    ["192.0.2.77", "198.51.100.7", "198.51.100.8", "::ffff:198.51.100.7", "2001:db8::1", "2001:0db8::1",
     "2001:db8:1::5", "2001:db8::2", "2001:db8::3", "local"],
)  # fmt: skip
def test_networks_as_in_memory(tmp_path: Path, address: str) -> None:
    """Networks, and addresses however they are written."""
    compare(tmp_path, NETWORKS, "from-src", None, Source(address))


def compare(directory: Path, keys: Iterable[str], kind: str, facts: Facts | None, source: Source | None) -> None:
    text = "".join(f"{key}\n" for key in keys)
    stored = read(database(directory, text, "set"))
    known = parse_table("t", text.encode(), "/t", "list")
    assert stored.kind == "list"
    assert decided(stored, kind, facts, source) is decided(known, kind, facts, source)


def test_words_and_patterns(tmp_path: Path) -> None:
    """Tags are looked up, patterns are all read, the keys of a mapping are a list."""
    tags = read(database(tmp_path, "inside x\noutside y\n"), "string")
    assert decided(tags, "tag", None, Source("192.0.2.9", "inside"))
    assert not decided(tags, "tag", None, Source("192.0.2.9", "other"))
    patterns = read(database(tmp_path, "^mx[0-9]\n(a|b)$\n", "set"), "regex")
    assert decided(patterns, "helo", Facts("mx7.x.org", False, "", "", ""), regex=True)
    assert not decided(patterns, "helo", Facts("mail.x.org", False, "", "", ""), regex=True)


@pytest.mark.parametrize(
    ("text", "kind", "use", "error"),
    [
        ("a\n", "set", "alias", "made by makemap -t set, but a mapping of keys to values is needed"),
        ("ok\n(b\n", "set", "regex", '"(b" is not a regular expression: "(" without ")" at character 1'),
        ("lmtp://a\n", "set", "relayhosts", '"lmtp://a": lmtp:// needs a port'),
        ("mx\n", "set", "source", 'expected an IP address, found "mx"'),
    ],
)
def test_not_good_for_its_use(tmp_path: Path, text: str, kind: str, use: TableUse, error: str) -> None:
    """A list where a mapping is needed, and keys that are read whole and are wrong."""
    path = database(tmp_path, text, kind)
    before = set(os.listdir("/dev/fd"))
    with pytest.raises(TableError) as caught:
        read(path, use)
    assert caught.value.errors == (f"{path}: {error}",)
    caught.value.__traceback__ = None
    del caught
    assert set(os.listdir("/dev/fd")) == before


def test_damage_is_told(tmp_path: Path) -> None:
    """A text in its place, a part of it, a changed byte, an empty file."""
    path = database(tmp_path, "a b\nc d\n")
    good = path.read_bytes()
    for data, text in (
        (b"a b\n", "it was not made by makemap"), (b"", "it was not made by makemap"),
        (good[:-1], "it was not made by makemap"),
        (good[:HEADER_BYTES] + b"\7" + good[HEADER_BYTES + 1 :], "it is damaged"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(TableError) as caught:
            read(path)
        assert caught.value.errors == (f"{path}: {text}",)


def test_a_file_that_is_changed_under_us(tmp_path: Path) -> None:
    """It cannot be read, which is told; a rule that depends on it is unsure, so that nobody gets by it."""
    path = database(tmp_path, "a.org\n", "set")
    table = read(path)
    path.write_bytes(b"")
    with pytest.raises(TableUnreadable, match="the file is shorter than it was"):
        table.get("a.org")
    nets = read(database(tmp_path, "192.0.2.7\n", "set"))
    rule = RuleSettings((ConditionSettings("from-src", table="t"),), "", 1)
    book = RuleBook((rule,), {"t": nets}, (), (), "+")
    assert book.view(Source("192.0.2.7")).match(Facts("", False, "", "", "")) is rule
    for file in tmp_path.glob("*.db"):
        file.write_bytes(b"")
    assert book.view(Source("192.0.2.7")).match(Facts("", False, "", "", "")) is UNSURE


def test_hash_schemes_are_known_without_reading_all(tmp_path: Path) -> None:
    """What is needed to check its passwords is loaded before confinement, as for a file."""
    table = read(database(tmp_path, "a $6$salt$hash\nb $2b$05$x\nc plain\nd $argon2id$v=1\ne $sha1$x\n"), "credentials")
    assert schemes_in({"t": table}) == {"$6$", "$2b$", "$argon2", "$"}
    assert schemes_in({"t": from_settings_of({"a": "plain"})}) == frozenset()


def from_settings_of(entries: dict[str, str]) -> Table:
    return from_settings(TableSettings("t", "inline", "map", tuple(entries.items())))


def test_many_entries_cost_no_memory(tmp_path: Path) -> None:
    """With 200,000 entries a table is opened and asked within the memory of one chunk."""
    path = tmp_path / "many.db"
    with path.open("wb") as out:
        out.write(bytes(HEADER_BYTES))
        writer = TableDbWriter(out.write, "map")
        for number in range(200_000):
            writer.add(f"user{number}@example.org", f"u{number}")
        header = writer.finish()
        out.seek(0)
        out.write(header)
    tracemalloc.start()
    try:
        table = read(path, "virtual")
        assert len(table.entries) == 200_000
        for number in range(0, 200_000, 997):
            assert table.get(f"user{number}@example.org") == f"u{number}"
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000
    assert most < 4_000_000


class Broken(Mapping[str, str]):
    """The entries of a database that cannot be read any more."""

    def __getitem__(self, key: str) -> str:
        raise TableUnreadable("/t.db: Input/output error")

    def __iter__(self) -> Iterator[str]:
        raise TableUnreadable("/t.db: Input/output error")

    def __len__(self) -> int:
        return 1


BROKEN = Table("t", "map", Broken(), ())


@pytest.mark.parametrize(
    ("condition", "decision", "answer"),
    [
        ("mail-from", "reject", ("reject", "451 4.4.3 Temporary failure, try again later")),
        ("src", "disconnect", ("disconnect", "421 4.4.3 Temporary failure, try again later")),
        ("helo", "bypass", ("proceed", "")),
    ],
)
def test_a_filter_over_what_cannot_be_read(condition: str, decision: str, answer: tuple[str, str]) -> None:
    """It refuses for now, or is left out: nothing gets by because of a failing disk."""
    phase = {"mail-from": "mail-from", "src": "connect", "helo": "helo"}[condition]
    settings = FilterSettings("f", (), phase, condition, False, "t", False, decision, "550 no")  # type: ignore[arg-type]
    steps = Filters([settings], {"t": BROKEN}, "+").steps("f", phase)  # type: ignore[arg-type]
    facts = FilterFacts("192.0.2.9", "", True, None, "h.example", "a@b.example", "x")
    verdict = run(steps, facts, [])
    assert isinstance(verdict, Verdict)
    assert (verdict.answer, verdict.text) == answer
    assert verdict.filter == ("f" if decision != "bypass" else "")


def test_senders_and_names_that_cannot_be_read() -> None:
    """smtp hears that nobody can say who may send, and greets with the name it has."""
    told: list[object] = []
    warned: list[str] = []
    sessions = Sessions(RuleBook((), {}, (), (), "+"), TableAsking())
    session = sessions.open(1, "192.0.2.9", "")
    assert session is not None
    sessions.authenticated(session, "bob")
    listener = ListenerTables(0, "192.0.2.1", hostnames="t", senders="t")
    desk = ListenerDesk([listener], sessions, {"t": BROKEN}, "+", TableAsking(), told.append, warned.append)
    desk.opened(1, session, 0)
    desk.requested(SenderQuery(1, 1, "a@b.example"))
    desk.use({"t": Table("t", "map", {"bob": "a b"})})  # as a database may hold
    desk.requested(SenderQuery(1, 2, "a@b.example"))
    assert told == [Greet(1, ""), SenderReply(1, 1, "error"), SenderReply(1, 2, "error")]
    assert warned == [
        "/t.db: Input/output error", "table t, user bob: /t.db: Input/output error",
        'table t, user bob: expected user@domain, @domain or user, found "a b"',
    ]  # fmt: skip
