"""`smtpctl_ps show hosts|hoststats|relays|routes` and `show mta paused`: OpenSMTPD's formats (QUIRKS 47), or JSON.

Runs in the operator's command; prints what the control process answered.
"""

import sys

import msgspec

from smtpd_ps.cli.ask import parts
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.messages.network import NetworkPart
from smtpd_ps.pure.duration import duration_text

_KINDS: tuple[type["Row"], ...] = (m.HostRow, m.RouteRow, m.RelayRow, m.HostStatRow, m.BlockRow)
Row = m.HostRow | m.RouteRow | m.RelayRow | m.HostStatRow | m.BlockRow


def _secs(secs: int | None) -> str:
    return "-" if secs is None else duration_text(secs)


def _source(address: str) -> str:
    return address or "[]"


def lines(row: Row) -> list[str]:
    """What is printed of a row."""
    match row:
        case m.HostRow():
            connected = f"nconn={row.connections} lastconn={_secs(row.connected_secs)}"
            return [f"{row.address} {row.name} refcount={row.routes} {connected}"]
        case m.RouteRow():
            flags = ("N" if row.is_new else "-") + ("D" if row.disabled else "-")
            queued = "Q" if not row.connections and row.penalty else "-"  # kept only for its penalty
            return [
                f"{row.route}. {_source(row.source)} <-> {row.address} ({row.name}) {flags}{queued}- "
                f"nconn={row.connections} nerror={row.errors} penalty={row.penalty} timeout={_secs(row.wait_secs)}"
            ]
        case m.RelayRow():
            relay = (
                f"{row.text} refcount={row.tasks + row.connections} ntask={row.tasks} nconn={row.connections} "
                f"lastconn={_secs(row.connected_secs)} timeout=- wait={row.waits_for}"
            )
            return [relay] + [
                f"  connector {_source(each.source)} refcount={each.connections} nconn={each.connections} "
                f"lastconn={_secs(each.connected_secs)} timeout=- flags={each.flags}"
                for each in row.connectors
            ]
        case m.HostStatRow():
            return [f"{row.domain}|{row.told_secs}|{row.text}"]
        case m.BlockRow():
            return [f"{row.source} -> {row.domain or '*'}"]


def network(state_dir: str | None, part: NetworkPart, json: bool) -> int:
    """Print the rows of one part."""
    for row in parts(state_dir, m.ShowNetwork(0, part), *_KINDS):
        if json:
            record = {name: getattr(row, name) for name in row.__struct_fields__ if name != "client"}
            if isinstance(row, m.RelayRow):
                names = ("source", "connections", "connected_secs", "flags")
                record["connectors"] = [{name: getattr(each, name) for name in names} for each in row.connectors]
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        else:
            for line in lines(row):
                print(line)
    return 0
