"""From a checked configuration to what each child gets: user, root, slice, files, sockets.

Runs in the parent, at the start and at each reload; parses nothing.
"""

import os
import pwd
import socket
from collections.abc import Mapping

from smtpd_ps.config.compile import Slices
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import StatePaths
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.routes import CHILDREN
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.children import SetupPlan
from smtpd_ps.parent.generation import Plan
from smtpd_ps.parent.options import Options

_SYSTEM_FILES = (m.Asset("resolv.conf", "/etc/resolv.conf"), m.Asset("hosts", "/etc/hosts"))


def _setups(slices: Slices, paused: frozenset[str]) -> Mapping[Process, m.Message]:
    return {
        Process.KEYS: m.KeysSetup(slices.keys),
        Process.CONTROL: m.ControlSetup(slices.control, "smtp" in paused),
        Process.SMTP: m.SmtpSetup(slices.smtp),
        Process.LOOKUP: m.LookupSetup(slices.lookup),
        Process.QUEUE: m.QueueSetup(slices.queue, slices.queue_key, "mda" in paused, "mta" in paused),
        Process.DELIVERY: m.DeliverySetup(slices.delivery),
    }


def _common(process: Process, options: Options, paths: StatePaths) -> m.Common:
    policy = POLICIES[process]
    root = paths.spool if policy.root == "spool" else paths.empty
    privileged = not options.unprivileged
    uid, gid = os.getuid(), os.getgid()
    if privileged:
        entry = pwd.getpwnam(policy.user)
        uid, gid = entry.pw_uid, entry.pw_gid
    return m.Common(
        root=root,
        uid=uid,
        gid=gid,
        verbose=options.verbose,
        foreground=options.log_to_stderr,
        privileged=privileged,
        user=policy.user if privileged else "",
    )


def _assets(process: Process, slices: Slices) -> tuple[tuple[m.Asset, str], ...]:
    assets = [(m.Asset(plan.kind, plan.name), plan.path) for plan in slices.assets if plan.process is process]
    if process is Process.LOOKUP:
        assets += [(asset, asset.name) for asset in _SYSTEM_FILES if os.path.exists(asset.name)]
    return tuple(assets)


def make_plan(slices: Slices, options: Options, paths: StatePaths, sockets: tuple[socket.socket, ...]) -> Plan:
    """What a generation and, at the start, queue and control are made from. Raises KeyError (no user).

    `sockets` are those of smtp's listeners, in their order.
    """
    setups = _setups(slices, options.paused)
    return Plan(
        children={
            process: SetupPlan(_common(process, options, paths), setups[process], _assets(process, slices))
            for process in CHILDREN
        },
        actions=slices.actions,
        tables={asset.name: asset.path for asset in slices.assets if asset.kind == "table"},
        hostname=slices.smtp.hostname,
        sub_address_delimiter=slices.lookup.sub_address_delimiter,
        queue=slices.queue,
        listeners=tuple(
            (m.Listener(listener.index), sock) for listener, sock in zip(slices.smtp.listeners, sockets, strict=True)
        ),
        counts=slices.counts,
        programs=slices.programs,
        databases=frozenset(table.name for table in slices.lookup.tables if table.source == "db"),
    )
