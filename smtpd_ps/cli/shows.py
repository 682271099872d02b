"""What `smtpctl_ps show` prints: OpenSMTPD's formats (QUIRKS 46-49), or JSON.

Runs in the operator's command; prints what the control process answered.
"""

import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from smtpd_ps.cli.ask import DaemonError, NoDaemon, parts
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import ProgramKind, envelope_id_text, message_id_text


def _json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def queue_line(row: m.QueueRow) -> str:
    """One line of `show queue`: 14 fields; the null sender shows as "@"."""
    fields = (
        envelope_id_text(row.evpid), row.family, row.kind, row.flags, row.sender or "@", row.rcpt, row.dest,
        row.created_secs, row.expires_secs, row.last_try_secs, row.tries, row.state, row.wait_secs, row.error,
    )  # fmt: skip
    return "|".join(str(field) for field in fields)


def _queue_rows(state_dir: str | None, msgid: int) -> Iterator[m.QueueRow]:
    try:
        yield from parts(state_dir, m.ShowQueue(0, msgid), m.QueueRow)
    except NoDaemon:
        from smtpd_ps.cli.offline_queue import offline_rows, store_at_rest  # brings the store, for this alone

        path = store_at_rest(state_dir)
        if path is None:
            raise
        try:
            yield from offline_rows(path, msgid)
        except OSError as error:
            raise DaemonError(f"{path}: {error.strerror}") from None


def queue(state_dir: str | None, msgid: int, json: bool) -> int:
    """List the queue, streamed; from the store itself, only read, where no daemon runs."""
    for row in _queue_rows(state_dir, msgid):
        if json:
            record = {name: getattr(row, name) for name in row.__struct_fields__ if name != "client"}
            _json(record | {"evpid": envelope_id_text(row.evpid)})
        else:
            print(queue_line(row))
    return 0


def corrupt(state_dir: str | None, json: bool) -> int:
    """List the damaged messages: id, envelopes as far as known, reason."""
    for row in parts(state_dir, m.ShowCorrupt(0), m.CorruptRow):
        msgid = message_id_text(row.msgid)
        if json:
            _json({"msgid": msgid, "envelopes": row.envelopes, "reason": row.reason})
        else:
            print(f"{msgid}|{row.envelopes}|{row.reason}")
    return 0


def envelope(state_dir: str | None, evpid: int, json: bool) -> int:
    """Print one envelope, `key: value` a line."""
    text = "".join(part.text for part in parts(state_dir, m.ShowEnvelope(0, evpid), m.TextPart))
    if json:
        _json(dict(line.split(": ", 1) for line in text.splitlines() if ": " in line))
    else:
        sys.stdout.write(text)
    return 0


def message(state_dir: str | None, msgid: int, json: bool) -> int:
    """Print one message as it was received; in JSON as text, or in base64 where it is not UTF-8."""
    if json:
        data = b"".join(part.data for part in parts(state_dir, m.ShowMessage(0, msgid), m.BytesPart))
        record: dict[str, Any] = {"msgid": message_id_text(msgid), "size": len(data)}
        try:
            _json(record | {"message": data.decode()})
        except UnicodeDecodeError:
            _json(record | {"base64": data})
        return 0
    for part in parts(state_dir, m.ShowMessage(0, msgid), m.BytesPart):
        sys.stdout.buffer.write(part.data)
    sys.stdout.flush()
    return 0


def human_secs(secs: int) -> str:
    """Seconds as OpenSMTPD prints uptime.human: 1d2h3m4s."""
    minutes, second = divmod(secs, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    shown = ((day, "d"), (hour, "h"), (minute, "m"), (second, "s"))
    return "".join(f"{number}{unit}" for number, unit in shown if number) or "0s"


def stats(state_dir: str | None, json: bool) -> int:
    """Print every counter, `key=value` a line, sorted."""
    values: dict[str, int | str] = {}
    for part in parts(state_dir, m.ShowStats(0), m.Counters):
        values |= dict(part.values)
    if "uptime" in values:
        values["uptime.human"] = human_secs(int(values["uptime"]))
    if json:
        _json(dict(sorted(values.items())))
    else:
        for name, value in sorted(values.items()):
            print(f"{name}={value}")
    return 0


def status(state_dir: str | None, json: bool) -> int:
    """Print which parts run and which are paused."""
    lines = "".join(part.text for part in parts(state_dir, m.ShowStatus(0), m.TextPart)).splitlines()
    if json:
        _json(dict(line.split(" ", 1) for line in sorted(lines)))
    else:
        for line in sorted(lines):
            print(line)
    return 0


def programs(state_dir: str | None, kind: ProgramKind, json: bool) -> int:
    """Print how each filter or table program does, a line each."""
    for row in parts(state_dir, m.ShowPrograms(0, kind), m.ProgramState):
        restarts = max(0, row.starts - 1)
        if json:
            record = {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("client", "starts")}
            _json(record | {"restarts": restarts})
            continue
        latencies = "/".join(f"{usecs / 1000:.1f}" for usecs in (row.p50_usecs, row.p95_usecs, row.p99_usecs))
        print(
            f"{row.name}: {row.state}, {restarts} restarts, {row.in_flight} in flight, {row.asked} asked, "
            f"{row.failed} failed, latency {latencies} ms (50/95/99 %), offers {row.offers or 'nothing'}"
        )
    return 0
