"""table-sqlite: its configuration, values, read-only access, and replaced or broken databases."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd_ps.filterkit import StopProgram, TableFailure
from smtpd_ps.programs.sql_queries import MAX_ROWS, SqlConfigError, parse, value
from smtpd_ps.programs.table_sqlite import SqliteTable
from smtpd_ps.pure.table_protocol import Service, handshake, request

SCHEMA = """
CREATE TABLE aliases (name TEXT, target TEXT);
INSERT INTO aliases VALUES ('team', 'anna'), ('team', 'bob@example.org'), ('root', 'anna');
CREATE TABLE users (name TEXT, hash TEXT, uid INTEGER, gid INTEGER, home TEXT);
INSERT INTO users VALUES ('anna', '$2b$x', 1000, 1001, '/home/anna');
CREATE TABLE sources (address TEXT);
INSERT INTO sources VALUES ('192.0.2.1'), ('192.0.2.2');
CREATE TABLE domains (domain TEXT);
INSERT INTO domains VALUES ('example.org');
"""
CONFIG = """
# a comment
dbpath {path}
query_alias SELECT target FROM aliases WHERE name = ?;
query_domain SELECT domain FROM domains WHERE domain = ?1
query_userinfo SELECT uid, gid, home FROM users WHERE name = ?1
query_credentials SELECT name, hash FROM users WHERE name = ?
fetch_source SELECT address FROM sources ORDER BY address
"""


def database(path: Path, schema: str = SCHEMA) -> Path:
    made = sqlite3.connect(path)
    made.executescript(schema)
    made.close()
    return path


MADE: list[SqliteTable] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Python 3.13 minds connections that were forgotten."""
    yield
    for made in MADE:
        made.close()
    MADE.clear()


def table(tmp_path: Path, config: str = CONFIG, schema: str = SCHEMA) -> SqliteTable:
    path = database(tmp_path / "a b?.db", schema)
    (tmp_path / "conf").write_text(config.replace("{path}", str(path)))
    made = SqliteTable(str(tmp_path / "conf"))
    MADE.append(made)
    made.ready()
    return made


@pytest.mark.parametrize("service, key, expected", [
    ("alias", "team", "anna, bob@example.org"), ("alias", "root", "anna"), ("alias", "nobody", None),
    ("alias", "' OR 1=1 --", None), ("userinfo", "anna", "1000:1001:/home/anna"), ("credentials", "anna", "anna:$2b$x"),
])  # fmt: skip
def test_lookups(tmp_path: Path, service: Service, key: str, expected: str | None) -> None:
    """Rows in the syntax of table(5); a key is never part of a query."""
    assert table(tmp_path).lookup(service, key) == expected


def test_checks_fetches_and_services(tmp_path: Path) -> None:
    """What is offered is what there are queries for; a fetch goes round."""
    made = table(tmp_path)
    assert set(made.services) == {"alias", "domain", "userinfo", "credentials", "source"}
    assert (made.check("domain", "example.org"), made.check("domain", "example.net")) == (True, False)
    assert [made.fetch("source") for _ in range(3)] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
    with pytest.raises(TableFailure, match="no query"):
        made.lookup("mailaddr", "x")
    with pytest.raises(TableFailure, match="no fetch_alias"):
        made.fetch("alias")


def test_nothing_can_be_written(tmp_path: Path) -> None:
    """Whatever the configuration says."""
    made = table(tmp_path, CONFIG + "query_string INSERT INTO domains VALUES (?) RETURNING domain\n")
    with pytest.raises(TableFailure, match="readonly"):
        made.check("string", "evil.example")
    assert made.check("domain", "evil.example") is False


def test_a_replaced_database_is_opened_anew(tmp_path: Path) -> None:
    """Without being told; one that is gone is a failure until it is back."""
    made = table(tmp_path)
    other = SCHEMA.replace("example.org", "example.net")
    path = tmp_path / "a b?.db"
    database(tmp_path / "new", other).replace(path)
    assert made.check("domain", "example.net")
    path.rename(tmp_path / "away")
    with pytest.raises(TableFailure):
        made.check("domain", "example.net")
    (tmp_path / "away").rename(path)
    assert made.check("domain", "example.net")


def test_update_reads_the_queries_again(tmp_path: Path) -> None:
    """Services cannot change without a reload."""
    made = table(tmp_path)
    path = tmp_path / "conf"
    text = path.read_text()
    path.write_text(text.replace("domain = ?1", "domain = lower(?1)"))
    made.update()
    assert made.check("domain", "EXAMPLE.org")
    for wrong, why in ((text + "query_string SELECT 1\n", "takes a reload"), ("rubbish x\n", "unknown word")):
        path.write_text(wrong)
        with pytest.raises(TableFailure, match=why):
            made.update()
    assert made.check("domain", "example.org")


@pytest.mark.parametrize("line, why", [
    ("query_alias SELECT broken", "no such column"),
    ("query_alias SELECT target FROM missing WHERE name=?", "no such table"),
    ("query_alias SELECT target FROM aliases", "Incorrect number of bindings"),
])  # fmt: skip
def test_queries_that_cannot_be_asked(tmp_path: Path, line: str, why: str) -> None:
    """The program does not start."""
    with pytest.raises(StopProgram, match=why):
        table(tmp_path, f"dbpath {{path}}\n{line}\n")


@pytest.mark.parametrize("text, why", [
    ("", "dbpath is missing"), ("dbpath /x", "no query"), ("dbpath", "conf:1: dbpath has no value"),
    ("dbpath /x\nquery_what SELECT 1", "conf:2: unknown word 'query_what'"), ("fetch_alias SELECT 1", "unknown word"),
    ("query_auth SELECT 1", "unknown word"), ("dbpath /x\ndbpath /y", "conf:2: dbpath stands there twice"),
    ("query_alias a\nquery_alias b", "stands there twice"), ("conninfo x", "unknown word"),
])  # fmt: skip
def test_configurations_that_are_none(text: str, why: str) -> None:
    """With file and line."""
    with pytest.raises(SqlConfigError, match=why):
        parse(text, "conf", ("dbpath",))


@pytest.mark.parametrize("service, rows, why", [
    ("userinfo", [(1, 2)], "2 columns, not 1 or 3"), ("alias", [(None,)], "NoneType"), ("alias", [(b"x",)], "bytes"),
    ("credentials", [("a",), ("b",)], "more than one row"), ("alias", [("a",)] * (MAX_ROWS + 1), "more than 1000 rows"),
    ("alias", [("secret", "b")], "2 columns, not 1"),
])  # fmt: skip
def test_rows_that_are_no_value(service: Service, rows: list[tuple[object, ...]], why: str) -> None:
    """The error quotes none of them."""
    with pytest.raises(TableFailure, match=why) as error:
        value(service, rows)
    assert "secret" not in str(error.value)


def test_the_program(tmp_path: Path) -> None:
    """Over its pipes; and arguments that are none."""
    table(tmp_path)
    argv = [sys.executable, "-I", "-m", "smtpd_ps.programs.table_sqlite"]
    lines = [*handshake("t", "0"), request("t", "lookup", 1, 0, "alias", "team"), request("t", "fetch", 2, 0, "source")]
    argument = str(tmp_path / "conf")
    done = subprocess.run([*argv, argument], input=b"\n".join([*lines, b""]), capture_output=True, check=True)
    assert done.stdout.splitlines()[-2:] == [
        b"lookup-result|00000001|found|anna, bob@example.org",
        b"fetch-result|00000002|found|192.0.2.1",
    ]
    for words, status, text in (((), 2, b"usage: "), (("/none",), 1, b"table-sqlite: /none: No such file")):
        ended = subprocess.run([*argv, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert (ended.returncode, ended.stdout) == (status, b"") and ended.stderr.startswith(text)
