"""Resource limits of a policy, the same on every system. Runs in a child before it is confined."""

import resource

from smtpd_ps.contract.policy import Policy
from smtpd_ps.osdep.errors import ConfineError

NUMBERS = {"core": resource.RLIMIT_CORE, "nofile": resource.RLIMIT_NOFILE}


def open_files() -> int:
    """How many descriptors this process may hold."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def set_limits(policy: Policy) -> tuple[str, ...]:
    """Set soft and hard limits; returns warnings where the daemon was started with less.

    Raises ConfineError when a limit did not take.
    """
    warnings = []
    for limit in policy.limits:
        number = NUMBERS[limit.resource]
        _soft, hard = resource.getrlimit(number)
        value = limit.value if hard == resource.RLIM_INFINITY else min(limit.value, hard)
        if value < limit.value:
            warnings.append(f"limit {limit.resource} is {value}, {limit.value} wanted")
        resource.setrlimit(number, (value, value))
        if resource.getrlimit(number) != (value, value):
            raise ConfineError(f"limit {limit.resource} did not take")
    return tuple(warnings)
