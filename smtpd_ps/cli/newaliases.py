"""newaliases(8): have changed aliases used. Databases are made anew, files read again by the daemon.

Runs as root; reads the configuration, and talks to the daemon where there is one.
"""

import getopt
import os
import sys
from collections.abc import Sequence

from smtpd_ps import osdep
from smtpd_ps.cli.arguments import default_config
from smtpd_ps.cli.ask import DaemonError, order
from smtpd_ps.cli.makemap import MapError, make
from smtpd_ps.config.load import load
from smtpd_ps.config.model import ConfigurationError, Table
from smtpd_ps.config.system import SystemEnvironment
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import paths

USAGE = "usage: newaliases_ps [-f file] [--state-dir dir]"
SUFFIX = ".db"


def _alias_tables(config: str) -> tuple[Table, ...]:
    """The tables in files that an action takes aliases from. Raises ConfigurationError."""
    conf = load(config, SystemEnvironment(osdep.interface_addresses, osdep.interface_group))
    return tuple(
        table for table in conf.tables.values() if table.path and "alias" in conf.table_uses.get(table.name, ())
    )


def _remake(table: Table) -> str:
    """Make the database of a table; what to say. Raises MapError, OSError."""
    if not table.path.endswith(SUFFIX):
        raise MapError((f'table "{table.name}": {table.path} does not end with {SUFFIX}, so its text is not known',))
    source = table.path.removesuffix(SUFFIX)
    return f"{source}: {make(source, table.path, 'aliases')} aliases"


def _reread(table: Table, state_dir: str | None) -> str:
    """Have the daemon read a table now; what to say. Raises DaemonError."""
    if not os.path.exists(paths(state_dir).control_socket):
        return f"{table.path}: smtpd_ps does not run, and will read it when it starts"
    return order(state_dir, m.UpdateTable(0, table.name)).text


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    try:
        given, rest = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "f:", ["state-dir="])
    except getopt.GetoptError as error:
        return _usage(str(error))
    if rest:
        return _usage(f"unexpected {rest[0]!r}")
    values = dict(given)
    if os.geteuid():
        return _fail("need root privileges")
    config = values.get("-f") or default_config()
    state_dir = values.get("--state-dir")
    try:
        conf_tables = _alias_tables(config)
    except ConfigurationError as error:
        return _fail(*(str(problem) for problem in error.problems if not problem.warning))
    if not conf_tables:
        return _fail(f"{config} has no alias table in a file or database")
    status = 0
    for table in conf_tables:
        try:
            if table.kind == "db":
                print(_remake(table))
            print(_reread(table, state_dir))
        except MapError as error:
            status = _fail(*error.errors)
        except OSError as error:
            status = _fail(f"{error.filename or table.path}: {error.strerror or error}")
        except DaemonError as error:
            status = _fail(str(error))
    return status


def _fail(*lines: str) -> int:
    for line in lines:
        print(f"newaliases_ps: {''.join(c if c.isprintable() else '?' for c in line)}", file=sys.stderr)
    return 1


def _usage(text: str) -> int:
    print(f"newaliases_ps: {text}\n{USAGE}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
