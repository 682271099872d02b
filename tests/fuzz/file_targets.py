"""Targets for what is not SMTP: files and tables of the operator's and of users', lines of programs."""

from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES
from smtpd_ps.pure import cdb as databases
from smtpd_ps.pure import filter_protocol, table_protocol
from smtpd_ps.pure.expand_files import MAX_FORWARD_TARGETS, MAX_INCLUDE_TARGETS, parse_forward, parse_include
from smtpd_ps.pure.expand_targets import MAX_PROGRAM, Target, TargetError, parse_targets

_LOCAL_USER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-+")


def filter_lines(data: bytes) -> None:
    """A filter program's line is refused or means one thing; what it quotes cannot end a line of ours."""
    for line in data.split(b"\n"):
        try:
            registered = filter_protocol.parse_registration(line)
            assert registered.phases < 1 << len(FILTER_PHASES) and registered.events < 1 << len(FILTER_EVENTS)
            assert not registered.ready or not (registered.phases or registered.events)
        except filter_protocol.FilterProtocolError as error:
            assert str(error).isprintable() and len(str(error)) < 300
        try:
            found = filter_protocol.parse(line)
        except filter_protocol.FilterProtocolError as error:
            assert str(error).isprintable() and len(str(error)) < 300
            continue
        assert 0 <= found.session < 1 << 64
        match found:
            case filter_protocol.DataLine():
                assert 0 <= found.token < 1 << 64 and b"\n" not in found.line
                kept = filter_protocol.data_line(found.line)
                assert b"\r" not in kept and b"\0" not in kept and len(kept) <= len(line)
                assert filter_protocol.data_line(kept) == kept
            case filter_protocol.Result():
                assert 0 <= found.token < 1 << 64 and found.text.isprintable()
                assert bool(found.text) <= (found.answer in ("reject", "disconnect", "rewrite", "report"))
            case filter_protocol.Told():
                assert found.text.isprintable()
        text = line.decode("utf-8", "surrogateescape")
        for sent in (
            filter_protocol.request(1.5, "mail-from", found.session, 1, text, text),
            filter_protocol.report(1.5, "tx-mail", found.session, text),
        ):
            assert not any(byte < 32 for byte in sent)
            assert sent.count(b"|") <= 8 + 2 * line.count(b"|")


def table_lines(data: bytes) -> None:
    """A table program's line is refused or answers one request; a key never becomes two lines."""
    for line in data.split(b"\n"):
        try:
            assert table_protocol.registered(line) in (*table_protocol.SERVICES, None)
        except table_protocol.ProtocolError as error:
            assert str(error).isprintable() and len(str(error)) < 300
        try:
            sent = table_protocol.request("t", "lookup", 7, 1.5, "alias", line.decode("utf-8", "surrogateescape"))
        except table_protocol.KeyRefused as error:
            assert line.decode("utf-8", "replace") not in str(error) or len(line) < 5
        else:
            assert sent.endswith(b"|alias|00000007|" + line)
            assert not any(byte < 32 or byte == 127 for byte in sent)
        try:
            reply = table_protocol.parse_reply(line)
        except table_protocol.ProtocolError as error:
            assert str(error).isprintable() and len(str(error)) < 300
            continue
        assert 0 <= reply.number < 1 << 32
        assert "\0" not in reply.text and reply.text.encode() in line
        assert table_protocol.answers(reply, reply.operation)
        assert not (reply.operation in ("lookup", "fetch") and reply.status == "found" and not reply.text)


def cdb(data: bytes) -> None:
    """What was written is found; a file damaged anywhere gives values or CdbError, after bounded reading.

    The bytes are a number of changes, the changes (place, byte), and the records.
    """
    number = data[0] % 16 if data else 0
    changes, words = data[1 : 1 + 4 * number], data[1 + 4 * number :].split(b"\n")
    records = [(word.partition(b"=")[0], word.partition(b"=")[2]) for word in words]
    body = bytearray()
    writer = databases.CdbWriter(body.extend)
    for key, value in records:
        writer.add(key, value)
    header, end = writer.finish()
    file = header + bytes(body)
    assert len(file) == end
    first = dict(reversed(records))
    reader = databases.CdbReader(lambda at, size: file[at : at + size], end)
    assert all(reader.get(key) == value for key, value in first.items())
    assert reader.get(b"no\nsuch") is None
    assert list(reader.items()) == records

    damaged = bytearray(file)
    for at in range(0, len(changes) - 3, 4):
        if changes[at + 3] & 1:
            place = int.from_bytes(changes[at : at + 2]) % len(damaged)
        else:  # near what a record's hash table says
            place = 8 * (databases.cdb_hash(records[0][0]) & 255) + changes[at] % 8
        damaged[place] = changes[at + 2]
    if number > 12:
        del damaged[len(damaged) * 3 // 4 :]
    read_bytes = 0

    def read(at: int, size: int) -> bytes:
        nonlocal read_bytes
        assert at >= 0 and 0 <= size <= len(damaged) and at + size <= len(damaged)
        read_bytes += size
        return bytes(damaged[at : at + size])

    bound = 2 * len(damaged) * (len(damaged) // 8 + 3)
    try:
        reader = databases.CdbReader(read, len(damaged))
        for _key, _value in reader.items():
            pass
    except databases.CdbError as error:
        assert str(error).isprintable()
        return
    finally:
        assert read_bytes <= bound
    for key in (*first, b"", b"no\nsuch"):
        read_bytes = 0
        try:
            reader.get(key)
        except databases.CdbError as error:
            assert str(error).isprintable()
        assert read_bytes <= bound


def _check_target(target: Target) -> None:
    text = target.text
    match target.kind:
        case "user":
            assert text and _LOCAL_USER.issuperset(text)
        case "address":
            assert text.isascii() and text.isprintable() and text.count("@") == 1 and " " not in text
        case "error":
            assert text[0] in "45" and text[:3].isdigit() and text.isascii() and text.isprintable()
        case "file" | "include":
            assert text.startswith("/") and "\n" not in text
        case "command":
            assert text.strip() and "\n" not in text and len(text) <= MAX_PROGRAM


def expand_targets(data: bytes) -> None:
    """A table value is refused, or is a list of different targets of which none can become two lines."""
    text = data.decode("utf-8", "replace").replace("\n", " ").replace("\0", "")
    try:
        targets = parse_targets(text)
    except TargetError as error:
        assert str(error).isprintable()
        return
    assert len(set(targets)) == len(targets) <= text.count(",") + 1
    for target in targets:
        _check_target(target)


def forward_files(data: bytes) -> None:
    """A .forward is refused whole or gives targets, none of them a file to include; an included file the same."""
    for parse, most in ((parse_forward, MAX_FORWARD_TARGETS), (parse_include, MAX_INCLUDE_TARGETS)):
        try:
            found = parse(data)
        except TargetError as error:
            assert str(error).isprintable()
            continue
        assert len(set(found.targets)) == len(found.targets) <= most
        assert all("\n" not in note for note in found.notes)
        for target in found.targets:
            assert target.kind != "include"
            _check_target(target)
