"""The command line of smtpd_ps(8), as values. Runs in the parent before it serves."""

import getopt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smtpd_ps.parent.options import Options
from smtpd_ps.runtime import tracing

_CONFIG_PATHS = ("/etc/mail/smtpd.conf", "/usr/local/etc/mail/smtpd.conf", "/etc/smtpd.conf")

_PARTS = ("mda", "mta", "smtp")


class UsageError(Exception):
    """The words make no command."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed command line."""

    options: Options
    check_only: bool
    help: bool


def default_config() -> str:
    """The first of the usual places that has a configuration, else the first of them."""
    return next((path for path in _CONFIG_PATHS if Path(path).exists()), _CONFIG_PATHS[0])


def parse_options(arguments: Sequence[str]) -> Parsed:
    """Parse the arguments after the program's name. Raises UsageError."""
    try:
        given, rest = getopt.gnu_getopt(
            list(arguments), "dFhnvf:D:P:T:", ["state-dir=", "unprivileged", "resolver=", "help", "version"]
        )
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    if rest:
        raise UsageError(f"unexpected {rest[0]!r}")
    flags = {name for name, _value in given}
    values = dict(given)
    traces = 0
    paused: set[str] = set()
    for name, value in given:
        if name == "-T":
            bits = tracing.SUBSYSTEMS.get(value)
            if bits is None:
                raise UsageError(f"-T {value}: known are {' '.join(tracing.SUBSYSTEMS)}")
            traces |= bits
        elif name == "-P":
            if value not in _PARTS:
                raise UsageError(f"-P {value}: known are {' '.join(_PARTS)}")
            paused.add(value)
    defines = {}
    for name, value in given:
        if name == "-D":
            macro, equals, text = value.partition("=")
            if not equals or not macro:
                raise UsageError(f"-D wants macro=value, not {value!r}")
            defines[macro] = text
    state_dir = values.get("--state-dir")
    options = Options(
        config_path=values.get("-f") or default_config(),
        defines=defines,
        state_dir=os.path.abspath(state_dir) if state_dir else None,
        log_to_stderr="-d" in flags,
        foreground="-d" in flags or "-F" in flags,
        verbose=sum(1 for name, _value in given if name == "-v"),
        unprivileged="--unprivileged" in flags,
        resolver=values.get("--resolver", ""),
        traces=traces,
        paused=frozenset(paused),
    )
    return Parsed(options, check_only="-n" in flags, help=bool(flags & {"-h", "--help", "--version"}))
