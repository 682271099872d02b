"""An OpenSMTPD spool taken into ours."""

import gzip
import os
from pathlib import Path

import pytest
from queue_rig import START_MS

from smtpd_ps.osdep.aes_gcm import Key
from smtpd_ps.queue.importing import Importer, NotTaken
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.records import EnvelopeState, StoredMessage

KEY = b"0123456789abcdef0123456789abcdef"
BODY = b"Subject: old\n\nfrom the old spool\n"
ENVELOPE = """\
version: 3
dispatcher: away
type: {type}
sockaddr: 192.0.2.1
sender: ann@example.com
rcpt: {rcpt}
dest: {rcpt}
ctime: 1690000000
retry: 1
"""


def envelope(rcpt: str = "x@away.example", kind: str = "mta", more: str = "") -> bytes:
    return (ENVELOPE.format(rcpt=rcpt, type=kind) + more).encode()


def encrypted(data: bytes, key: bytes = KEY) -> bytes:
    nonce = os.urandom(12)
    return b"\x01" + nonce + Key(key).encrypt(nonce, b"", data)


def importer(path: Path, key: bytes | None = None) -> Importer:
    return Importer(path, Key(key) if key else None, START_MS)


def stored(path: Path) -> list[StoredMessage]:
    store = EmbeddedStore(path / "queue.db")
    found = [one for one in store.scan(0, 100) if isinstance(one, StoredMessage)]
    store.close()
    return found


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("seal", [bytes, encrypted])
def test_all_ways_of_storing(tmp_path: Path, pack, seal) -> None:
    """Plain, compressed, encrypted, both."""
    one = importer(tmp_path, KEY)
    assert one.take(0x1234, seal(pack(BODY)), {0x1234 << 32 | 9: seal(pack(envelope()))}) == 1
    one.close()
    (message,) = stored(tmp_path)
    (made,) = message.envelopes.values()
    assert (message.msgid, message.created_ms, made.tries) == (0x1234, 1690000000_000, 1)
    assert (made.envelope.dest, made.due_ms, made.state) == ("x@away.example", START_MS, EnvelopeState.PENDING)
    store = EmbeddedStore(tmp_path / "queue.db")
    assert store.body(message) == BODY.replace(b"\n", b"\r\n")
    store.close()


def test_a_message_is_imported_once(tmp_path: Path) -> None:
    """Also by another run, also when it has left our queue, also when a run was killed before it was noted."""
    body, envelopes = BODY, {1: envelope()}
    one = importer(tmp_path)
    assert one.take(7, body, envelopes) == 1
    assert one.take(7, body, envelopes) == 0
    one.close()
    os.truncate(tmp_path / "imported", 0)
    one = importer(tmp_path)
    assert one.take(7, body, envelopes) == 0
    one.close()
    assert len(stored(tmp_path)) == 1
    (tmp_path / "queue.db").unlink()
    one = importer(tmp_path)
    assert one.take(7, body, envelopes) == 0
    one.close()
    assert stored(tmp_path) == []


def test_ids_that_are_taken(tmp_path: Path) -> None:
    """Theirs have 32 bits, ours 31: two may want the same, and both are kept."""
    one = importer(tmp_path)
    assert one.take(7, BODY, {1: envelope()}) == 1
    assert one.take(7 | 1 << 31, BODY + b"other\n", {1: envelope()}) == 1
    one.close()
    assert [message.msgid for message in stored(tmp_path)] == [7, 8]


def test_a_large_message(tmp_path: Path) -> None:
    """Its body becomes a file, over one that a killed run left."""
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies" / "00000007").write_bytes(b"half")
    one = importer(tmp_path)
    body = BODY + b"line\n" * 30_000
    one.take(7, body, {1: envelope("a@x.example"), 2: envelope("b@x.example")})
    one.close()
    (message,) = stored(tmp_path)
    assert message.in_file and len(message.envelopes) == 2
    assert (tmp_path / "bodies" / "00000007").read_bytes() == body.replace(b"\n", b"\r\n")


def test_bounces_under_way(tmp_path: Path) -> None:
    """A failure is told to its sender; a delay notice is not, because the mail itself waits beside it."""
    one = importer(tmp_path)
    failed = envelope("f@x.example", "bounce", "bounce-type: failed\nerrorline: 550 no\n")
    one.take(7, BODY, {1: failed, 2: envelope("d@x.example", "bounce", "bounce-type: delayed\n")})
    one.close()
    (message,) = stored(tmp_path)
    (made,) = message.envelopes.values()
    assert (made.state, made.text, made.envelope.dest) == (EnvelopeState.FAILED, "550 no", "f@x.example")


@pytest.mark.parametrize(
    ("key", "body", "one", "why"),
    [
        (None, BODY, b"", "version"),
        (None, encrypted(BODY), envelope(), "it is encrypted: give the key"),
        (KEY, encrypted(BODY, KEY[::-1]), envelope(), "not encrypted with this key"),
        (KEY, encrypted(BODY)[:-1], envelope(), "not encrypted with this key"),
        (None, gzip.compress(BODY)[:-9], envelope(), "cut off"),
        (None, b"\x1f\x8bxxxxxxxxxxx", envelope(), "not compressed as OpenSMTPD does"),
        (None, gzip.compress(BODY), gzip.compress(b"\0" * 100_000), "very large"),
        (None, BODY, envelope("nobody"), "rcpt"),
    ],
)
def test_what_is_not_taken(tmp_path: Path, key: bytes | None, body: bytes, one: bytes, why: str) -> None:
    """It is said why, and nothing is stored or remembered."""
    made = importer(tmp_path, key)
    with pytest.raises(NotTaken, match=why):
        made.take(7, body, {7 << 32 | 1: one})
    made.close()
    assert stored(tmp_path) == [] and (tmp_path / "imported").read_bytes() == b""


def test_without_envelopes(tmp_path: Path) -> None:
    """A body alone is no mail."""
    made = importer(tmp_path)
    with pytest.raises(NotTaken, match="no envelope"):
        made.take(7, BODY, {})
    made.close()
