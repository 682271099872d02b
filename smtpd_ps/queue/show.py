"""How an envelope is shown to the operator.

Runs in queue. Formats: QUIRKS 46 (`show queue`), and `smtpctl show envelope`'s key: value lines.
"""

from typing import Literal

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Notify, envelope_id_text, message_id_text
from smtpd_ps.queue.shared import ACTION_GONE, Shared
from smtpd_ps.queue.store.records import EnvelopeState, StoredEnvelope, StoredMessage


def _family(address: str) -> Literal["inet4", "inet6", "local"]:
    if address in ("", "local"):
        return "local"
    return "inet6" if ":" in address else "inet4"


def _flags(stored: StoredEnvelope, on_hold: bool = False) -> str:
    envelope = stored.envelope
    flags = (
        ("bounce", envelope.internal), ("auth", bool(envelope.client.user)), ("internal", envelope.forwarded),
        ("suspend", stored.paused), ("hold", on_hold),
    )  # fmt: skip
    return ",".join(name for name, given in flags if given)


def _kind(shared: Shared, stored: StoredEnvelope) -> Literal["mda", "mta", "bounce"]:
    if stored.state is not EnvelopeState.PENDING:
        return "bounce"
    return "mta" if shared.key_of(stored)[0] == "mta" else "mda"


def queue_row(
    shared: Shared, client: int, message: StoredMessage, evpid: int, stored: StoredEnvelope,
    flying_since_ms: int | None, on_hold: bool, now_ms: int,
) -> m.QueueRow:  # fmt: skip
    """One line of `show queue`. `flying_since_ms`: delivery has it since then; `on_hold`: its route has no room."""
    envelope = stored.envelope
    expires_ms = shared.expires_ms(stored, message.created_ms)
    flying = flying_since_ms is not None
    wait_ms = stored.next_try_ms - now_ms if flying_since_ms is None else now_ms - flying_since_ms
    return m.QueueRow(
        client, evpid, _family(envelope.client.address), _kind(shared, stored), _flags(stored, on_hold),
        envelope.sender, envelope.rcpt, envelope.dest, message.created_ms // 1000, expires_ms // 1000,
        stored.last_try_ms // 1000, stored.tries, "inflight" if flying else "pending",
        max(0, wait_ms) // 1000, _error(shared, stored, flying),
    )  # fmt: skip


def offline_row(message: StoredMessage, evpid: int, stored: StoredEnvelope, now_ms: int) -> m.QueueRow:
    """The same of a store that no daemon serves. When it expires is the configuration's to say: 0."""
    envelope = stored.envelope
    kind: Literal["mda", "mta", "bounce"] = "mda" if envelope.user or envelope.target else "mta"
    return m.QueueRow(
        0, evpid, _family(envelope.client.address), kind if stored.state is EnvelopeState.PENDING else "bounce",
        _flags(stored), envelope.sender, envelope.rcpt, envelope.dest, message.created_ms // 1000, 0,
        stored.last_try_ms // 1000, stored.tries, "offline", max(0, stored.next_try_ms - now_ms) // 1000, stored.text,
    )  # fmt: skip


def _error(shared: Shared, stored: StoredEnvelope, flying: bool) -> str:
    """What keeps it here. That no action delivers it any more is said at once, not at its next try."""
    waits = stored.state is EnvelopeState.PENDING and not flying
    return ACTION_GONE if waits and stored.envelope.action not in shared.actions else stored.text


def _notify(value: int) -> str:
    return ",".join(one.name or "" for one in Notify if value & one)


def envelope_text(shared: Shared, message: StoredMessage, evpid: int, stored: StoredEnvelope) -> str:
    """`key: value` lines; keys without a value are left out."""
    envelope, client, dsn = stored.envelope, stored.envelope.client, stored.envelope.dsn
    ttl_secs = (shared.expires_ms(stored, message.created_ms) - message.created_ms) // 1000
    pairs = (
        ("version", message.version),
        ("evpid", envelope_id_text(evpid)),
        ("msgid", message_id_text(message.msgid)),
        ("dispatcher", envelope.action),
        ("type", _kind(shared, stored)),
        ("tag", client.tag),
        ("flags", _flags(stored)),
        ("helo", client.helo),
        ("hostname", client.name),
        ("sockaddr", client.address),
        ("user", envelope.user),
        ("auth-user", client.user),
        ("sender", envelope.sender or "@"),
        ("rcpt", envelope.rcpt),
        ("dest", envelope.dest),
        ("target", envelope.target),
        ("size", message.size_bytes),
        ("ctime", message.created_ms // 1000),
        ("last-try", stored.last_try_ms // 1000),
        ("next-try", stored.next_try_ms // 1000),
        ("ttl", ttl_secs),
        ("retry", stored.tries),
        ("dsn-notify", _notify(dsn.notify)),
        ("dsn-orcpt", dsn.orcpt),
        ("dsn-ret", dsn.ret),
        ("dsn-envid", dsn.envid),
        ("relay", stored.relay),
        ("errorline", stored.text),
    )
    return "".join(f"{key}: {value}\n" for key, value in pairs if value != "")


def status_text(shared: Shared) -> str:
    """`MDA running`, `MTA paused`."""
    paused = set(shared.scheduler.paused)
    return "".join(f"{part.upper()} {'paused' if part in paused else 'running'}\n" for part in ("mda", "mta"))
