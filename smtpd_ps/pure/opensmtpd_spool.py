"""What OpenSMTPD keeps in its spool, for the import of one: envelopes of version 3, and bodies.

Pure; runs in the confined importer; parses files of another program, which strangers' mail is in. An envelope
file has `key: value` lines (OpenSMTPD's envelope.c); a message file has lines that end in LF.
"""

import re
from dataclasses import dataclass, field

from smtpd_ps.contract.values import Client, Dsn, Envelope, Notify

VERSION = "3"
MAX_ENVELOPE_BYTES = 65_536
MAX_TEXT = 2000
_NOTIFY = ((1, Notify.SUCCESS), (2, Notify.FAILURE), (4, Notify.DELAY), (8, Notify.NEVER))
_FLAGS = frozenset({"authenticated", "bounce", "internal", "enqueued"})
_BARE_CR = re.compile(rb"\r(?!\n)")


class BadEnvelope(Exception):
    """Not an envelope of version 3; the text says why."""


@dataclass(frozen=True, slots=True)
class OldEnvelope:
    """An envelope and its history. Times are Unix seconds; `bounce` is "" or failed, delayed, delivered."""

    envelope: Envelope
    created_secs: int
    last_try_secs: int = 0
    tries: int = 0
    text: str = ""
    bounce: str = ""
    keys: frozenset[str] = field(default_factory=frozenset)  # that were there


def parse_envelope(data: bytes) -> OldEnvelope:
    """An envelope file, decrypted and decompressed. Raises BadEnvelope."""
    values = _values(data)
    if values.get("version") != VERSION:
        raise BadEnvelope(f"version {values.get('version', 'missing')!r}, expected {VERSION}")
    kind = values.get("type", "")
    if kind not in ("mda", "mta", "bounce"):
        raise BadEnvelope(f"type {kind!r}")
    if not values.get("dispatcher"):
        raise BadEnvelope("no dispatcher")
    flags = set(re.split(r"[ ,|]+", values["flags"])) if values.get("flags") else set()
    if flags - _FLAGS:
        raise BadEnvelope(f"flags {values['flags']!r}")
    sender = _address(values, "sender")
    user = values.get("mda-user", "")
    command = values.get("mda-exec", "")
    return OldEnvelope(
        Envelope(
            _short(values["dispatcher"], 255), sender, _needed(values, "rcpt"), _needed(values, "dest"),
            _short(user, 255), _client(values, "authenticated" in flags, sender), _dsn(values),
            internal="bounce" in flags, target=_target(command), target_source="forward" if command else "",
            forwarded="internal" in flags,
        ),
        _number(values, "ctime"), _number(values, "last-try"), _number(values, "retry", 0xFFFF),
        values.get("errorline", "")[:MAX_TEXT], values.get("bounce-type", "failed") if kind == "bounce" else "",
        frozenset(values),
    )  # fmt: skip


def _values(data: bytes) -> dict[str, str]:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise BadEnvelope(f"longer than {MAX_ENVELOPE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadEnvelope("not text: compressed or encrypted with another key?") from None
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if not line:
            continue
        key, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", key.strip()):
            raise BadEnvelope(f"a line without a key: {line[:80]!r}")
        if not value.strip().isprintable():
            raise BadEnvelope(f"control characters in {key.strip().lower()}")
        values[key.strip().lower()] = value.strip()
    return values


def _short(text: str, most: int) -> str:
    if len(text) > most:
        raise BadEnvelope(f"a value of {len(text)} characters")
    return text


def _address(values: dict[str, str], key: str) -> str:
    text = _short(values.get(key, ""), 520)
    return "" if text == "@" else text


def _needed(values: dict[str, str], key: str) -> str:
    address = _address(values, key)
    if "@" not in address:
        raise BadEnvelope(f"{key} {address!r}")
    return address


def _number(values: dict[str, str], key: str, most: int = 1 << 40) -> int:
    text = values.get(key, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 13 or int(text) > most:
        raise BadEnvelope(f"{key} {text!r}")
    return int(text)


def _client(values: dict[str, str], authenticated: bool, sender: str) -> Client:
    address = values.get("sockaddr", "local").removeprefix("[").removesuffix("]").removeprefix("IPv6:")
    user = values.get("username", "") or sender if authenticated else ""
    return Client(
        _short(address, 255), _short(values.get("hostname", ""), 255), _short(values.get("helo", ""), 255),
        _short(user, 255), _short(values.get("tag", ""), 255),
    )  # fmt: skip


def _dsn(values: dict[str, str]) -> Dsn:
    given = _number(values, "dsn-notify", 15)
    notify = sum(int(ours) for theirs, ours in _NOTIFY if given & theirs)
    ret = values.get("dsn-ret", "").upper()
    if ret not in ("", "FULL", "HDRS"):
        raise BadEnvelope(f"dsn-ret {ret!r}")
    return Dsn(notify, _short(values.get("dsn-orcpt", ""), 500), ret, _short(values.get("dsn-envid", ""), 100))


def _target(command: str) -> str:
    """A command of an alias or a .forward; both stand in mda-exec."""
    return f"|{_short(command, 2000)}" if command else ""


def network_body(data: bytes) -> bytes:
    """A stored message with lines that end in CRLF; a CR of its own becomes a line end."""
    return _BARE_CR.sub(b"\n", data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
