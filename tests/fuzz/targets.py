"""What is fuzzed: a function a target, which takes any bytes and fails where a rule does not hold.

`make fuzz` feeds them with coverage-guided input; tests/fuzz/test_fuzz_corpora.py with what is kept.
A process of ours that parses what strangers send gets its target here.
"""

from collections.abc import Callable, Iterator

from smtp_dialogue import FakeWorld, make_service

from smtpd_ps.pure import address, smtp_header
from smtpd_ps.pure.ere import Ere
from smtpd_ps.pure.ere_syntax import EreError
from smtpd_ps.pure.smtp_data import DataReader

_END = b"\r\n.\r\n"


def _pieces(data: bytes) -> Iterator[bytes]:
    """The same bytes, cut where their own values say."""
    at = 0
    while at < len(data):
        size = 1 + data[at] % 7
        yield data[at : at + size]
        at += size


def commands(data: bytes) -> None:
    """A session takes any bytes: it answers in whole lines of ASCII, in bounded number, and never raises.
    What it says does not depend on how the bytes were cut.
    """
    whole = FakeWorld(make_service())
    whole.start()
    whole.say(data)
    assert len(whole.received) <= 400 + 700 * (data.count(b"\n") + 1)
    for line in whole.received.split(b"\r\n")[:-1]:
        assert line[:3].isdigit() and line.isascii() and all(byte >= 32 for byte in line), line
    cut = FakeWorld(make_service())
    cut.start()
    for piece in _pieces(data):
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
    for piece in _pieces(data):
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


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (commands, data, addresses, header, helo, patterns)
}
