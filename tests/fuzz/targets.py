"""What is fuzzed: a function a target, which takes any bytes and fails where a rule does not hold.

`make fuzz` feeds them with coverage-guided input; tests/fuzz/test_fuzz_corpora.py with what is kept.
A process of ours that parses what strangers send gets its target here.
"""

import ipaddress
import re
from collections.abc import Callable
from email.utils import getaddresses

import file_targets
from sessions import clean_lines, pieces, session

from smtpd_ps.pure import address, header_addresses, proxy_header, smtp_header, smtp_parameters, xtext
from smtpd_ps.pure.ere import Ere
from smtpd_ps.pure.ere_syntax import EreError
from smtpd_ps.pure.smtp_data import DataReader

_END = b"\r\n.\r\n"


def commands(data: bytes) -> None:
    """A session takes any bytes: it answers in whole lines of ASCII, in bounded number, and never raises.
    What it says does not depend on how the bytes were cut.
    """
    whole, cut = session(), session()
    whole.say(data)
    assert len(whole.received) <= 400 + 700 * (data.count(b"\n") + 1)
    clean_lines(whole.received)
    for piece in pieces(data):
        if not cut.closed:
            cut.say(piece)
    if not whole.tls_wanted:  # bytes behind STARTTLS are refused where they come with it, and TLS where they do not
        assert cut.received == whole.received
        assert cut.stored == whole.stored


def data(data: bytes) -> None:
    """One message ends at the first CRLF.CRLF and nowhere else; cutting changes nothing."""
    reader = DataReader(1_000_000)
    body = reader.feed(data)
    end = (b"\r\n" + data).find(_END)
    assert reader.done == (end >= 0)
    if end >= 0:
        assert reader.rest == data[end + 3 :]
        lines = data[:end].split(b"\r\n")[:-1]
        assert body == b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)
    cut = DataReader(1_000_000)
    out, left = b"", b""
    for piece in pieces(data):
        if cut.done:
            left += piece
        else:
            out += cut.feed(piece)
            left = cut.rest
    assert (cut.done, cut.faults, cut.size_bytes, cut.eight_bit) == (
        reader.done, reader.faults, reader.size_bytes, reader.eight_bit)  # fmt: skip
    if reader.done:
        assert (out, left) == (body, reader.rest)


def addresses(data: bytes) -> None:
    """What is taken for an address is one line of printable characters with one domain, and stays what it is."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        path = address.parse_path(text, "mx.example.com", null_allowed=True)
    except address.AddressError:
        return
    if path:
        assert address.mailbox_valid(path)
        assert path == address.parse_path(path, "other.example")
        assert path.isprintable() and " " not in path and "<" not in path and ">" not in path
    address.helo_valid(text)


def header(data: bytes) -> None:
    """A header is taken or refused; Bcc leaves no trace."""
    block = data.replace(b"\r\n\r\n", b"\r\n") + b"\r\n\r\n"
    try:
        found = smtp_header.examine(block)
    except (smtp_header.HeaderError, smtp_header.LoopError):
        return
    kept = smtp_header.without_bcc(block[: found.end])
    assert not kept.lower().startswith(b"bcc:") and b"\nbcc:" not in kept.lower()
    assert len(kept) <= found.end


def helo(data: bytes) -> None:
    """What is taken for a name fits into a log line and a Received header."""
    name = data.decode("utf-8", "surrogateescape")
    if address.helo_valid(name):
        assert name.isprintable() and " " not in name


def patterns(data: bytes) -> None:
    """A pattern is refused or matches in bounded time; it never raises anything else."""
    text, _, subject = data.decode("utf-8", "replace").partition("\n")
    try:
        pattern = Ere([text])
    except EreError:
        return
    pattern.search(subject[:500])


_TRANSACTION = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\n"


def chunks(data: bytes) -> None:
    """However a message is cut into chunks, and those into segments, it is taken as it is or refused once, and the
    session knows where each chunk ends. The first byte chooses whether a header comes first.
    """
    message = (b"A: b\r\n\r\n" if data[:1] > b"@" else b"") + data[1:]
    parts = [message] if data[:1] == b"a" else list(pieces(message))
    sent = b"".join(b"BDAT %d\r\n%b" % (len(part), part) for part in parts) + b"BDAT 0 LAST\r\nNOOP\r\n"
    whole = session(_TRANSACTION, max_errors=10**6)
    cut = session(_TRANSACTION, max_errors=10**6)
    whole.say(sent)
    for piece in pieces(sent):
        cut.say(piece)
    assert (cut.received, cut.stored) == (whole.received, whole.stored)
    lines = clean_lines(whole.received)
    assert len(lines) == len(parts) + 2 and lines[-1] == "250 2.0.0 Ok", lines
    if whole.stored:
        (stored,) = whole.stored
        assert lines[-2].startswith("250 2.0.0 00000001 ")
        kept = message if message[-2:] == b"\r\n" or not message else message + b"\r\n"
        if re.search(rb"(?im)^(bcc|from|to|cc)[ \t]*:", message):  # of which the header may have to change
            kept = (b"\r\n" + kept).partition(b"\r\n\r\n")[2]
        assert stored.endswith(kept)
        assert b"\0" not in message and not re.search(rb"(?<!\r)\n|\r(?!\n)", message)
    else:
        assert sum(line.startswith(("5", "4")) for line in lines) >= 1
    if len(data) > 1:  # an argument of any form: refused, or exactly that many bytes are swallowed
        argument = data[:30].partition(b"\r\n")[0].replace(b"\n", b"")
        odd = session(_TRANSACTION)
        odd.say(b"BDAT " + argument + b"\r\n" + b"NOOP\r\n" * 3)
        clean_lines(odd.received)
        if re.fullmatch(rb"0+( +LAST)?", argument) and len(argument) < 18:
            assert odd.received.endswith(b"250 2.0.0 Ok\r\n" * 3)


def proxy(data: bytes) -> None:
    """A header is refused, or gives an address in its one canonical form; how long it is, its first 16 bytes say."""
    fixed = data[: proxy_header.FIXED_BYTES].ljust(proxy_header.FIXED_BYTES, b"\0")
    try:
        size = proxy_header.rest_bytes(fixed)
    except proxy_header.ProxyError as error:
        assert str(error).isprintable()
        return
    assert fixed.startswith(b"\r\n\r\n\0\r\nQUIT\n") and size == int.from_bytes(fixed[14:]) <= 4096
    rest = data[16 : 16 + size].ljust(size, b"\xff")
    source = proxy_header.source_address(fixed, rest)
    assert (source == "") == (fixed[12] == 0x20)
    if source not in ("", "local"):
        parsed = ipaddress.ip_address(source)
        assert str(parsed) == source and not getattr(parsed, "ipv4_mapped", None)
        assert parsed.packed in rest[:16]
    assert source == proxy_header.source_address(fixed, rest[:36] if fixed[13] != 0x31 else rest)  # not of the TLVs


def parameters(data: bytes) -> None:
    """What stands behind MAIL and RCPT is refused in one clean line, or is bounded xtext."""
    text = "".join(c for c in data.decode("utf-8", "replace") if c.isprintable())
    for dsn in (True, False):
        try:
            mail = smtp_parameters.mail_parameters(text, 1000, dsn)
            assert mail.ret in ("", "FULL", "HDRS") and len(mail.envid) <= smtp_parameters.MAX_ENVID
            assert xtext.is_xtext(mail.envid) and (dsn or not (mail.ret or mail.envid))
            _readable(mail.envid)
        except smtp_parameters.ParameterError as error:
            assert len(clean_lines(error.reply)) == 1 and error.reply[:1] in b"45"
        try:
            notify, orcpt = smtp_parameters.rcpt_parameters(text, dsn)
            assert 0 <= notify < 16 and (not notify & 1 or notify == 1) and len(orcpt) <= smtp_parameters.MAX_ORCPT
            assert dsn or not (notify or orcpt)
            kind, _, shown = orcpt.partition(";")
            assert xtext.is_xtext(kind) and xtext.is_xtext(shown)
            _readable(shown)
        except smtp_parameters.ParameterError as error:
            assert len(clean_lines(error.reply)) == 1 and error.reply[:1] in b"45"
    smtp_parameters.declares_utf8(text)


def _readable(coded: str) -> None:
    """xtext stands for one string, which written as xtext stands for the same."""
    plain = xtext.decode_xtext(coded)
    again = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in plain)
    assert xtext.is_xtext(again) and xtext.decode_xtext(again) == plain


def masquerade(data: bytes) -> None:
    """A From that is masqueraded shows the sender and nobody else, and what is not an address field stays."""
    block = data.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
    if block[-2:] != b"\r\n":
        block += b"\r\n"
    try:
        header = smtp_header.examine(block)
    except (smtp_header.HeaderError, smtp_header.LoopError):
        return
    block = block[: header.end]
    sender = "me@own.example"
    changed = header_addresses.AddressFields("mx.test", sender).rewrite(block, header.fields)
    again = smtp_header.examine(changed)
    assert again.end == len(changed) and len(again.fields) == len(header.fields)
    froms = sum(is_from for is_from, _start, _end in header.fields)
    assert len(changed) <= len(block) + header_addresses.MAX_GROWTH_BYTES + (len(sender) + 1) * froms
    for (is_from, start, end), (_, old_start, old_end) in zip(
        sorted(again.fields, key=lambda field: field[1]),
        sorted(header.fields, key=lambda field: field[1]),
        strict=True,
    ):
        value, old = changed[start:end], block[old_start:old_end]
        if is_from:
            assert sender.encode() in value
            shown = [where for _name, where in getaddresses([value.decode("latin-1")]) if "@" in where]
            assert set(shown) <= {sender}, shown
        else:
            assert value.replace(b"@mx.test", b"") == old.replace(b"@mx.test", b"")
    assert _between(changed, again.fields) == _between(block, header.fields)
    assert header_addresses.AddressFields("mx.test", sender).rewrite(changed, again.fields) == changed


def _between(block: bytes, fields: list[tuple[bool, int, int]]) -> list[bytes]:
    """What stands between the address fields."""
    found, done = [], 0
    for _is_from, start, end in sorted(fields, key=lambda field: field[1]):
        found.append(block[done:start])
        done = end
    return [*found, block[done:]]


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        commands,
        data,
        addresses,
        header,
        helo,
        patterns,
        chunks,
        proxy,
        parameters,
        masquerade,
        file_targets.filter_lines,
        file_targets.table_lines,
        file_targets.cdb,
        file_targets.expand_targets,
        file_targets.forward_files,
    )
}
