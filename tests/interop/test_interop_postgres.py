"""table-postgres with a PostgreSQL of Debian's, in a scratch directory, over its Unix socket."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from smtpd_ps.pure.table_protocol import Operation, Reply, Service, handshake, parse_reply, registered, request

SCHEMA = """
CREATE TABLE aliases (name text, target text);
INSERT INTO aliases VALUES ('team', 'anna'), ('team', 'bob@example.org');
CREATE TABLE users (name text, hash text, uid integer, gid integer, home text);
INSERT INTO users VALUES ('anna', '$2b$x', 1000, 1001, '/home/anna');
CREATE TABLE sources (address inet);
INSERT INTO sources VALUES ('192.0.2.1'), ('192.0.2.2');
CREATE TABLE domains (domain text);
INSERT INTO domains VALUES ('example.org');
"""
CONFIG = """
conninfo host={host} user=postgres dbname=postgres
connections 2
query_alias SELECT target FROM aliases WHERE name = $1 ORDER BY target;
query_domain SELECT domain FROM domains WHERE domain = $1
query_userinfo SELECT uid, gid, home FROM users WHERE name = $1
query_credentials SELECT name, hash FROM users WHERE name = $1
query_string SELECT 1 FROM pg_sleep($1::float)
query_mailaddr INSERT INTO domains VALUES ($1) RETURNING domain
fetch_source SELECT host(address) FROM sources ORDER BY address
"""


class Server:
    """A server with a data directory of its own, run as the user postgres."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        assert found, "not installed: postgresql (make interop installs it)"
        self._bin, self.folder = found[-1].parent, folder
        shutil.chown(folder, "postgres")
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "--no-sync", "-U", "postgres")
        self._process: subprocess.Popen[bytes] | None = None

    def _run(self, *argv: str) -> None:
        subprocess.run(
            [str(self._bin / argv[0]), *argv[1:]], user="postgres", group="postgres", extra_groups=[], cwd=self.folder,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder),
                 "-c", "listen_addresses=", "-c", "fsync=off"],
                user="postgres", group="postgres", extra_groups=[], stdout=log, stderr=log, cwd=self.folder,
                env={"LC_ALL": "C"},
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connection():
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def connection(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True)

    def stop(self) -> None:
        """At once: connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None


class Program:
    """table-postgres after its handshake."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "smtpd_ps.programs.table_postgres", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._say(*handshake("people", "0"))
        self.services = list(iter(lambda: registered(self._line()), None))

    def _say(self, *lines: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(b"".join(line + b"\n" for line in lines))
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self._process.stderr and self._process.stderr.read()
        return line.rstrip(b"\n")

    def send(self, number: int, operation: Operation, service: Service | None = None, key: str = "") -> None:
        self._say(request("people", operation, number, 1.5, service, key))

    def reply(self) -> Reply:
        return parse_reply(self._line())

    def ask(self, operation: Operation, service: Service | None = None, key: str = "") -> tuple[str, str]:
        self.send(1, operation, service, key)
        reply = self.reply()
        return reply.status, reply.text

    def end(self) -> str:
        _out, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return errors.decode()


@pytest.fixture
def server(scratch: Path) -> Iterator[Server]:
    folder = scratch / "postgres"
    folder.mkdir()
    made = Server(folder)
    made.start()
    try:
        with made.connection() as connection:
            connection.execute(SCHEMA)
        yield made
    finally:
        made.stop()


@pytest.fixture
def program(server: Server) -> Iterator[Program]:
    path = server.folder / "conf"
    path.write_text(CONFIG.replace("{host}", str(server.folder)))
    made = Program(path)
    yield made
    assert "Traceback" not in made.end()


def test_table_postgres(server: Server, program: Program) -> None:
    """Every kind of query; keys are parameters, nothing can be written, slow queries hold up no other."""
    assert set(program.services) == {"alias", "domain", "userinfo", "credentials", "string", "mailaddr", "source"}
    assert program.ask("lookup", "alias", "team") == ("found", "anna, bob@example.org")
    assert program.ask("lookup", "alias", "' OR 1=1 --") == ("not-found", "")
    assert program.ask("lookup", "userinfo", "anna") == ("found", "1000:1001:/home/anna")
    assert program.ask("lookup", "credentials", "anna") == ("found", "anna:$2b$x")
    assert [program.ask("fetch", "source")[1] for _ in range(3)] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
    assert program.ask("check", "mailaddr", "evil.example") == ("error", "the database says 25006")
    assert program.ask("check", "domain", "evil.example") == ("not-found", "")
    assert program.ask("check", "string", "not a number") == ("error", "the database says 22P02")
    program.send(1, "check", "string", "1.5")
    program.send(2, "check", "domain", "example.org")
    assert [program.reply().number for _ in range(2)] == [2, 1]


def test_a_database_that_comes_and_goes(server: Server, program: Program) -> None:
    """Failures while it is away, and answers from the first request after it is back."""
    assert program.ask("check", "domain", "example.org") == ("found", "")
    server.stop()
    server.start()
    assert program.ask("check", "domain", "example.org") == ("found", "")
    server.stop()
    assert program.ask("check", "domain", "example.org") == ("error", "the database cannot be reached")
    server.start()
    assert program.ask("check", "domain", "example.org") == ("found", "")
    assert program.ask("update") == ("found", "")
    assert program.ask("lookup", "alias", "team") == ("found", "anna, bob@example.org")


def test_a_password_that_everybody_can_read(tmp_path: Path) -> None:
    """Such a file is refused, and so is one that says not how to connect."""
    argv = [sys.executable, "-I", "-m", "smtpd_ps.programs.table_postgres"]
    for number, (text, mode, why) in enumerate((
        ("conninfo host=x password=y\nquery_alias SELECT $1\n", 0o644, "every user can read it"),
        ("conninfo rubbish\nquery_alias SELECT $1\n", 0o600, "no connection string"),
        ("query_alias SELECT $1\n", 0o600, "conninfo is missing"),
        ("conninfo host=x\nconnections 0\nquery_alias SELECT $1\n", 0o600, "a number from 1 to 64"),
    )):  # fmt: skip
        path = tmp_path / str(number)
        path.write_text(text)
        os.chmod(path, mode)
        done = subprocess.run(
            [*argv, str(path)], capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, b"") and why in done.stderr.decode()
