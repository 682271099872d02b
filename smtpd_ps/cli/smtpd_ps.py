"""smtpd_ps(8): read the configuration, check it, become the daemon. Runs as root, becomes the parent."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from smtpd_ps import __version__, osdep
from smtpd_ps.cli.arguments import UsageError, parse_options
from smtpd_ps.cli.queue_key import KeyProblem, key_at_start, refuse_reload
from smtpd_ps.cli.setup import ensure_state, missing_users
from smtpd_ps.cli.state_lock import hold
from smtpd_ps.config.compile import Slices, compile_settings
from smtpd_ps.config.files import check_files, check_programs
from smtpd_ps.config.load import load
from smtpd_ps.config.model import Configuration, ConfigurationError, Problem
from smtpd_ps.config.system import SystemEnvironment
from smtpd_ps.contract.installation import ACCOUNTS, paths
from smtpd_ps.contract.values import Process
from smtpd_ps.keys.check import check_pair
from smtpd_ps.parent.daemon import Daemon
from smtpd_ps.parent.generation import Plan
from smtpd_ps.parent.generations import ReloadRefused
from smtpd_ps.parent.listeners import ListenError, Listeners, bind_unix
from smtpd_ps.parent.offline import Offline
from smtpd_ps.parent.options import Options
from smtpd_ps.parent.plan import make_plan
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.title import set_title

OLD_CHILDREN_SECS = 10.0  # for the children of a daemon that was killed to follow it

USAGE = """\
smtpd_ps {version}
usage: smtpd_ps [-dFhnv] [-D macro=value] [-f file] [-P mda|mta|smtp] [-T subsystem]
                [--resolver address:port] [--state-dir dir] [--unprivileged]"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status (0 done, 1 refused or failed, 64 usage)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        parsed = parse_options(arguments)
    except UsageError as error:
        print(f"smtpd_ps: {error}\n{USAGE.format(version=__version__)}", file=sys.stderr)
        return 64
    if parsed.help:
        print(USAGE.format(version=__version__))
        return 0
    options = parsed.options
    configuration = read_configuration(options)
    if configuration is None:
        return 1
    if parsed.check_only:
        if options.verbose:
            _show(configuration)
        return check_pairs(configuration)
    refusal = refuse_start(options)
    if refusal:
        print(f"smtpd_ps: {refusal}", file=sys.stderr)
        return 1
    try:
        queue_key = key_at_start(configuration.options)
    except KeyProblem as error:
        print(f"smtpd_ps: {error}", file=sys.stderr)
        return 1
    return start(options, compile_configuration(options, configuration, queue_key))


def compile_configuration(options: Options, configuration: Configuration, queue_key: bytes = b"") -> Slices:
    """What each process gets. Raises ConfigurationError."""
    return compile_settings(
        configuration,
        resolver=options.resolver,
        allowed_uid=os.getuid(),
        socket_path=paths(options.state_dir).submission_socket,
        queue_key=queue_key,
    )


def read_configuration(options: Options) -> Configuration | None:
    """The configuration, its warnings printed; None, its errors printed."""
    configuration, problems = examine(options)
    _print(problems)
    return configuration


def examine(options: Options) -> tuple[Configuration | None, Sequence[Problem]]:
    """The configuration, and what is to be said of it; None where that makes it unusable."""
    environment = SystemEnvironment(osdep.interface_addresses, osdep.interface_group)
    try:
        configuration = load(options.config_path, environment, options.defines)
    except ConfigurationError as error:
        return None, error.problems
    privileged = not options.unprivileged and os.getuid() == 0
    found = (*check_files(configuration), *check_programs(configuration, privileged))
    problems = (*configuration.warnings, *(configuration.unused_macros if options.verbose else ()), *found)
    return (None if any(not problem.warning for problem in found) else configuration), problems


def load_again(options: Options, listeners: Listeners, log: Log, queue_key: bytes = b"") -> Plan:
    """For a reload: the configuration as it is now, read and checked by the code of the start.

    Raises ReloadRefused with all that is wrong with it.
    """
    try:
        configuration, problems = examine(replace(options, verbose=log.verbose))
        for problem in problems:
            if problem.warning:
                log.warning(str(problem))
        if configuration is None:
            raise ReloadRefused("\n".join(str(problem) for problem in problems if not problem.warning))
        refusal = refuse_reload(configuration.options, queue_key)
        if refusal:
            raise ReloadRefused(refusal)
        slices = compile_configuration(options, configuration)
        sockets = listeners.prepare(slices.smtp.listeners)
        return make_plan(
            slices, replace(options, verbose=log.verbose, paused=frozenset()), paths(options.state_dir), sockets
        )
    except ConfigurationError as error:
        raise ReloadRefused("\n".join(str(problem) for problem in error.problems)) from None
    except (ListenError, OSError, KeyError) as error:
        raise ReloadRefused(str(error)) from None


def _print(problems: Sequence[Problem]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)


def _show(configuration: Configuration) -> None:
    """The configuration as understood on standard output, which then is a configuration itself."""
    from smtpd_ps.config.print import print_configuration  # for this only; the daemon's parent stays small

    sys.stdout.flush()
    sys.stdout.buffer.write(print_configuration(configuration).encode(errors="surrogateescape"))
    sys.stdout.buffer.flush()


def check_pairs(configuration: Configuration) -> int:
    """For -n, which ends afterwards: do certificate and key of each pki belong together?

    The daemon's parent never does this, because it must not hold keys; its keys process does.
    """
    found = 0
    for pki in configuration.pki.values():
        try:
            text = check_pair(Path(pki.cert_path).read_bytes(), Path(pki.key_path).read_bytes())
        except OSError as error:
            text = str(error)
        if text:
            found = 1
            _print([Problem(pki.where.path, pki.where.line, f'pki "{pki.name}": {text}')])
    if not found:
        print("configuration OK", file=sys.stderr)
    return found


def refuse_start(options: Options) -> str:
    """Why the daemon cannot start here; "" when it can."""
    if options.unprivileged and os.getuid() == 0:
        return "--unprivileged is for trying smtpd_ps out without root; as root run it without"
    if not options.unprivileged:
        if os.getuid() != 0:
            return "need root (or --unprivileged, to try it out without separation of users)"
        missing = missing_users()
        if missing:
            return f"these users are missing: {' '.join(missing)}; smtpctl_ps setup creates them"
    return ""


def start(options: Options, slices: Slices) -> int:
    """Make the state directories, bind, go to the background unless told otherwise, serve."""
    state = paths(options.state_dir)
    options = replace(options, config_path=os.path.abspath(options.config_path))  # a reload finds it again
    listeners = Listeners()
    osdep.close_from(3)  # whatever the caller left open is not for the daemon
    try:
        ensure_state(options.state_dir, privileged=not options.unprivileged)
        lock = hold(state)
        # A pid file is left by a daemon that was killed: its children may be about to end.
        killed = os.path.lexists(state.pid_file)
        sockets = listeners.prepare(slices.smtp.listeners, OLD_CHILDREN_SECS if killed else 0.0)
        plan = make_plan(slices, options, state, sockets)
        control_socket = bind_unix(state.control_socket, 0o600)
    except (OSError, ListenError) as error:
        print(f"smtpd_ps: {error}", file=sys.stderr)
        return 1
    detach = _Detach() if not options.foreground else None
    log = Log(Process.PARENT, options.log_to_stderr, options.verbose)
    sys.excepthook = log.uncaught
    tracing.attach(log.trace)
    tracing.set_mask(options.traces)
    _write_pid(state.pid_file, log)
    set_title("parent")
    if options.unprivileged:
        log.warning("unprivileged mode: processes share one user, nothing is chrooted; not for real mail")
    forbidden_users = frozenset(("root", *(account.name for account in ACCOUNTS)))
    daemon = Daemon(
        log=log,
        plan=plan,
        load=lambda: load_again(options, listeners, log, slices.queue_key),
        listeners=listeners,
        control_socket=control_socket,
        privileged=not options.unprivileged,
        foreground=options.log_to_stderr,
        forbidden_users=forbidden_users,
        on_serving=detach.done if detach else lambda: None,
        offline=Offline(
            log,
            state.offline,
            state.submission_socket,
            plan.hostname,
            not options.unprivileged,
            options.log_to_stderr,
            forbidden_users - {"root"},
        ),
    )
    try:
        return daemon.run()
    finally:
        for path in (state.pid_file, state.control_socket, state.submission_socket):
            _remove(path, log)
        os.close(lock)


def _write_pid(path: str, log: Log) -> None:
    """On a full disk the daemon starts all the same: what it delivers makes room."""
    try:
        Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        log.warning(f"no pid file: {error}")


def _remove(path: str, log: Log) -> None:
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:  # the file system became read-only
        log.warning(f"left behind: {error}")


class _Detach:
    """Go to the background; the foreground ends 0 once the daemon serves, 1 if it never does."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        if os.fork():
            os.close(self._writer)
            os._exit(0 if os.read(reader, 1) else 1)
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")

    def done(self) -> None:
        """The daemon serves: let the foreground end and drop the terminal."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._writer, b".")
        os.close(self._writer)


if __name__ == "__main__":
    sys.exit(main())
