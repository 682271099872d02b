"""From a checked configuration to what each child gets: user, root, slice, files, sockets.

Runs in the parent before the first fork; parses nothing.
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
from smtpd_ps.parent.listeners import bind_listener, bind_unix
from smtpd_ps.parent.options import Options

_SYSTEM_FILES = (m.Asset("resolv.conf", "/etc/resolv.conf"), m.Asset("hosts", "/etc/hosts"))


def _setups(slices: Slices) -> Mapping[Process, m.Message]:
    return {
        Process.KEYS: m.KeysSetup(slices.keys),
        Process.CONTROL: m.ControlSetup(slices.control),
        Process.SMTP: m.SmtpSetup(slices.smtp),
        Process.LOOKUP: m.LookupSetup(slices.lookup),
        Process.QUEUE: m.QueueSetup(slices.queue),
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


def make_plans(
    slices: Slices, options: Options, paths: StatePaths, bind_patience_secs: float = 0.0
) -> dict[Process, SetupPlan]:
    """A plan for every child; listeners are bound here. Raises ListenError, KeyError (no user)."""
    setups = _setups(slices)
    plans = {}
    for process in CHILDREN:
        listeners: tuple[tuple[m.Listener, socket.socket], ...] = ()
        if process is Process.SMTP:
            listeners = tuple(
                (m.Listener(ls.index), bind_listener(ls, bind_patience_secs)) for ls in slices.smtp.listeners
            )
        elif process is Process.CONTROL:
            listeners = ((m.Listener(0), bind_unix(paths.control_socket, 0o600)),)
        plans[process] = SetupPlan(
            _common(process, options, paths), setups[process], _assets(process, slices), listeners
        )
    return plans
