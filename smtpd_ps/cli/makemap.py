"""makemap(8): a table database from a text file, or back; in one step, so that no half of one is ever seen.

Runs as the operator; parses the operator's file, one line at a time.
"""

import fcntl
import getopt
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

from smtpd_ps.pure.cdb import HEADER_BYTES, CdbError
from smtpd_ps.pure.expand_targets import TargetError, parse_targets
from smtpd_ps.pure.table import MAX_ERRORS, TableKind, goes_on, parse_entry
from smtpd_ps.pure.table_db import TableDbWriter, open_table_db

USAGE = "usage: makemap_ps [-U] [-d hash|btree] [-o dbfile] [-t aliases|set] file"
MAX_LINE_BYTES = 1 << 20  # with its continuations
_BLANK = b" \t\n\v\f\r"
_BUFFER_BYTES = 1 << 20

MapType = Literal["plain", "aliases", "set"]


class MapError(Exception):
    """Why there is no database. `errors` are lines; nothing was changed."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.errors))


def logical_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines joined where one ends with a backslash, comments too; each with the number of its first."""
    parts: list[bytes] = []
    first = size = 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip(b"\r\n")
        first = first if parts else number
        joined = line.endswith(b"\\")
        parts.append(line[:-1] if joined else line)
        size += len(line)
        if joined and size <= MAX_LINE_BYTES:
            continue
        yield first, b"".join(parts)
        parts.clear()
        size = 0
    if parts:
        yield first, b"".join(parts)


def _continued(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Stripped lines of a mapping, with those that go on in indented ones (aliases(5)) joined as in a table's file."""
    number, line = 0, b""
    for following, raw in lines:
        if line and not line.startswith(b"#") and len(line) <= MAX_LINE_BYTES and goes_on(line, raw):
            line += b" " + raw.strip(_BLANK)
            continue
        if line:
            yield number, line
        number, line = following, raw.strip(_BLANK)
    if line:
        yield number, line


def entries(lines: Iterable[bytes], path: str, kind: MapType) -> Iterator[tuple[str, str]]:
    """Keys, in lower case, and values. Raises MapError at the end for all bad lines, up to MAX_ERRORS."""
    errors: list[str] = []
    seen: set[str] = set()
    table: TableKind = "list" if kind == "set" else "map"
    whole = logical_lines(lines)
    stripped = ((n, raw.strip(_BLANK)) for n, raw in whole) if kind == "set" else _continued(whole)
    for number, line in stripped:
        if not line or line.startswith(b"#"):
            continue
        try:
            if len(line) > MAX_LINE_BYTES:
                raise ValueError("the line is too long")
            _kind, key, value = parse_entry(line, table)
            key = key.lower()
            if key in seen:
                raise ValueError(f"duplicate entry for {key}")
            if kind == "aliases" and not parse_targets(value):
                raise TargetError("expected a user, an address or another target")
        except ValueError as error:
            errors.append(f"{path}:{number}: {error}")
            if len(errors) == MAX_ERRORS:
                break
            continue
        seen.add(key)
        yield key, value
    if errors:
        raise MapError(errors)


def write_database(source: BinaryIO, path: str, target: str, kind: MapType, carry: bool) -> int:
    """Make `target` of the open text; the number of entries. Raises MapError, OSError; then the old one stays.

    `carry`: the new file gets the owner and mode of the text; otherwise it is for its owner alone.
    """
    directory = os.path.dirname(target) or "."
    try:
        fd, temporary = tempfile.mkstemp(prefix=f"{os.path.basename(target)}.", dir=directory)
    except OSError as error:
        raise MapError((f"{target}: {error.strerror}",)) from None
    try:
        with open(fd, "wb", _BUFFER_BYTES) as out:
            if carry:
                status = os.fstat(source.fileno())
                os.fchown(fd, status.st_uid, status.st_gid)
                os.fchmod(fd, status.st_mode & 0o777)
            out.write(bytes(HEADER_BYTES))
            writer = TableDbWriter(out.write, "list" if kind == "set" else "map")
            for key, value in entries(source, path, kind):
                writer.add(key, value)
            header = writer.finish()
            out.seek(0)
            out.write(header)
            out.flush()
            os.fsync(fd)
        os.rename(temporary, target)
    except CdbError as error:
        raise MapError((f"{path}: {error}",)) from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    _sync_directory(directory)
    return writer.entries


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make(path: str, target: str, kind: MapType) -> int:
    """Make `target` of the text file at `path`, "-" for standard input; the number of entries. Raises as above."""
    if path == "-":
        return write_database(sys.stdin.buffer, "-", target, kind, carry=False)
    if os.path.isdir(path):
        raise MapError((f"{path}: is a directory",))
    with open(path, "rb") as source:
        try:
            fcntl.flock(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MapError((f"{path}: is locked; somebody is writing it",)) from None
        return write_database(source, path, target, kind, carry=True)


def dump(path: str) -> Iterator[bytes]:
    """The lines `key<tab>value` of a database. Raises MapError, OSError."""
    with open(path, "rb") as file:
        fd = file.fileno()
        try:
            db = open_table_db(lambda position, size: os.pread(fd, size, position), os.fstat(fd).st_size)
            for key, value in db.cdb.items():
                yield key + b"\t" + value + b"\n" if db.kind == "map" else key + b"\n"
        except CdbError as error:
            raise MapError((f"{path}: {error}",)) from None


@dataclass(frozen=True, slots=True)
class _Arguments:
    file: str
    output: str
    kind: MapType = "plain"
    dump: bool = False


class _Usage(Exception):
    """The arguments make no command."""


def _arguments(words: Sequence[str]) -> _Arguments:
    try:
        given, rest = getopt.getopt(list(words), "d:o:t:U")
    except getopt.GetoptError as error:
        raise _Usage(str(error)) from None
    values = dict(given)
    if values.get("-d", "hash") not in ("hash", "btree"):
        raise _Usage(f"-d takes hash or btree, not {values['-d']}")
    kinds: dict[str, MapType] = {"aliases": "aliases", "set": "set"}
    if "-t" in values and values["-t"] not in kinds:
        raise _Usage(f"-t takes aliases or set, not {values['-t']}")
    output = values.get("-o", "")
    if len(rest) == 2 and not output and rest[0] in ("hash", "btree"):
        # As sendmail's makemap is called: the type, the map, and the text on standard input.
        output = rest[1] if rest[1].endswith(".db") else f"{rest[1]}.db"
        rest = ["-"]
    if len(rest) != 1:
        raise _Usage("one file is wanted")
    if rest[0] == "-" and not output and "-U" not in values:
        raise _Usage("-o is needed for standard input")
    kind = kinds[values["-t"]] if "-t" in values else "plain"
    return _Arguments(rest[0], output or f"{rest[0]}.db", kind, "-U" in values)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    try:
        arguments = _arguments(sys.argv[1:] if argv is None else argv)
    except _Usage as error:
        print(f"makemap_ps: {error}\n{USAGE}", file=sys.stderr)
        return 1
    try:
        if arguments.dump:
            sys.stdout.buffer.writelines(dump(arguments.file))
            sys.stdout.buffer.flush()
            return 0
        if not make(arguments.file, arguments.output, arguments.kind):
            print(f"makemap_ps: warning: empty map created: {arguments.output}", file=sys.stderr)
    except MapError as error:
        for line in error.errors:
            print(f"makemap_ps: {_printable(line)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough
        return 1
    except OSError as error:
        print(f"makemap_ps: {error.filename or arguments.file}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


if __name__ == "__main__":
    sys.exit(main())
