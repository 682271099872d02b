"""The same few functions on every system: confine, inspect, peer credentials, interfaces.

Runs in every process; `inspect` in smtpctl_ps. The platform module is chosen once, here.
"""

import sys
from typing import TYPE_CHECKING

from smtpd_ps.osdep.descriptors import close_from
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.interfaces import interface_addresses
from smtpd_ps.osdep.memory import give_back

if sys.platform.startswith("linux"):
    from smtpd_ps.osdep.linux import confine, interface_group, peer_credentials
elif sys.platform.startswith("openbsd"):
    from smtpd_ps.osdep.openbsd import confine, interface_group, peer_credentials
elif sys.platform.startswith("freebsd"):
    from smtpd_ps.osdep.freebsd import confine, interface_group, peer_credentials
else:
    raise ImportError(f"smtpd_ps cannot confine its processes on {sys.platform}")

if TYPE_CHECKING:
    from smtpd_ps.pure.audit import Observation

__all__ = (
    "confine",
    "ConfineError",
    "inspect",
    "processes",
    "system_warnings",
    "peer_credentials",
    "interface_addresses",
    "interface_group",
    "close_from",
    "give_back",
)


def inspect(pid: int) -> "Observation":
    """What the system shows of process `pid`. Needs root to see all. Raises ProcessLookupError.

    Imported here so that daemon processes do not carry it.
    """
    if sys.platform.startswith("linux"):
        from smtpd_ps.osdep.linux_inspect import inspect as look
    else:
        from smtpd_ps.osdep.bsd_inspect import inspect as look
    return look(pid)


def processes() -> dict[int, int]:
    """Every process of the system with its parent, by pid."""
    if sys.platform.startswith("linux"):
        from smtpd_ps.osdep.linux_inspect import processes as look
    else:
        from smtpd_ps.osdep.bsd_inspect import processes as look
    return look()


def system_warnings() -> tuple[str, ...]:
    """What this system cannot enforce of the policies, for `audit` to say."""
    if sys.platform.startswith("linux"):
        from smtpd_ps.osdep.linux_inspect import system_warnings as look

        return look()
    return ()
