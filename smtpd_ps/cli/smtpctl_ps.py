"""smtpctl_ps(8): orders to the running daemon, and what needs none of it (encrypt, setup).

Runs as the operator, who must be root for all that talks to the daemon.
"""

import sys
from collections.abc import Sequence

from smtpd_ps.cli import shows
from smtpd_ps.cli.ask import DaemonError, order, parts
from smtpd_ps.cli.audit import run as run_audit
from smtpd_ps.cli.encrypt import encrypt
from smtpd_ps.cli.explain import explain
from smtpd_ps.cli.monitor import monitor
from smtpd_ps.cli.network_shows import network
from smtpd_ps.cli.setup import run_setup
from smtpd_ps.cli.words import Command, WordError, find
from smtpd_ps.contract import messages as m
from smtpd_ps.pure.address import domain_valid
from smtpd_ps.pure.table_values import parse_address

_PAIR = ("address", "for", "domain|*")
MAX_NAME = 255  # contract.values.Name
EXIT_USAGE = 255  # as OpenSMTPD's smtpctl for an unknown command


class IdError(Exception):
    """Not an envelope's or a message's id."""


def parse_id(word: str) -> tuple[int, int]:
    """(evpid, msgid): 16 hexadecimal digits name an envelope, 8 a message. Raises IdError."""
    try:
        number = int(word, 16)
    except ValueError:
        number = -1
    if number > 0 and len(word) <= 8:
        return 0, number
    if 0 < number < 2**63 and len(word) <= 16:
        return number, 0
    raise IdError(f"{word!r} is neither a message id (8 hexadecimal digits) nor an envelope id (16)")


class Commands:
    """The commands, bound to a state directory and an output form."""

    def __init__(self, state_dir: str | None, json: bool) -> None:
        self._state_dir = state_dir
        self._json = json

    def table(self) -> tuple[Command, ...]:
        """Every command there is."""
        return (
            Command(("audit",), self._audit),
            Command(("discover",), self._discover, ("id",)),
            Command(("encrypt",), lambda given: encrypt(given), ("[string]",)),
            Command(("explain",), lambda given: explain(self._state_dir, given, self._json), ("option", "...")),
            Command(("import",), self._import, ("directory", "[--key]", "[file]")),
            Command(("log", "brief"), lambda _given: self._order(m.SetLog(0, 0))),
            Command(("log", "verbose"), lambda _given: self._order(m.SetLog(0, 1))),
            Command(("monitor",), lambda _given: monitor(self._state_dir)),
            Command(("pause", "envelope"), lambda given: self._pause_envelope(given, True), ("id|all",)),
            Command(("pause", "mda"), lambda _given: self._order(m.Pause(0, "mda", True))),
            Command(("pause", "mta"), lambda _given: self._order(m.Pause(0, "mta", True))),
            Command(("pause", "mta", "from"), lambda given: self._block(given, True), _PAIR),
            Command(("pause", "smtp"), lambda _given: self._order(m.Pause(0, "smtp", True))),
            Command(("profile",), lambda given: self._trace(given, True, profile=True), ("imsg|queue",)),
            Command(("reload",), lambda _given: self._order(m.Reload(0))),
            Command(("remove",), self._remove, ("id|all",)),
            Command(("resume", "envelope"), lambda given: self._pause_envelope(given, False), ("id|all",)),
            Command(("resume", "mda"), lambda _given: self._order(m.Pause(0, "mda", False))),
            Command(("resume", "mta"), lambda _given: self._order(m.Pause(0, "mta", False))),
            Command(("resume", "mta", "from"), lambda given: self._block(given, False), _PAIR),
            Command(("resume", "route"), self._resume_route, ("number|all",)),
            Command(("resume", "smtp"), lambda _given: self._order(m.Pause(0, "smtp", False))),
            Command(("schedule",), self._schedule, ("id|all",)),
            Command(("setup",), self._setup, ("[--check]",)),
            Command(("show", "corrupt"), lambda _given: shows.corrupt(self._state_dir, self._json)),
            Command(("show", "envelope"), self._show_envelope, ("envelope-id",)),
            Command(("show", "filters"), lambda _given: shows.programs(self._state_dir, "filter", self._json)),
            Command(("show", "hosts"), lambda _given: network(self._state_dir, "hosts", self._json)),
            Command(("show", "hoststats"), lambda _given: network(self._state_dir, "hoststats", self._json)),
            Command(("show", "message"), self._show_message, ("id",)),
            Command(("show", "mta", "paused"), lambda _given: network(self._state_dir, "paused", self._json)),
            Command(("show", "queue"), self._show_queue, ("[message-id]",)),
            Command(("show", "relays"), lambda _given: network(self._state_dir, "relays", self._json)),
            Command(("show", "routes"), lambda _given: network(self._state_dir, "routes", self._json)),
            Command(("show", "stats"), lambda _given: shows.stats(self._state_dir, self._json)),
            Command(("show", "status"), lambda _given: shows.status(self._state_dir, self._json)),
            Command(("show", "tables"), lambda _given: shows.programs(self._state_dir, "table", self._json)),
            Command(("spf", "walk"), self._spf_walk, ("[-4|-6]", "[--resolver]", "[address:port]")),
            Command(("stop",), lambda _given: self._order(m.Stop(0))),
            Command(("top",), lambda _given: self._top()),
            Command(("trace",), lambda given: self._trace(given, True), ("subsystem",)),
            Command(("trace", "session"), self._follow, ("address|user|message-id",)),
            Command(("uncorrupt",), self._uncorrupt, ("message-id|all",)),
            Command(("unprofile",), lambda given: self._trace(given, False, profile=True), ("imsg|queue",)),
            Command(("untrace",), lambda given: self._trace(given, False), ("subsystem",)),
            Command(("update", "table"), self._update_table, ("name",)),
        )

    def _order(self, request: m.Message) -> int:
        done = order(self._state_dir, request)
        if done.text:
            print(done.text)
        return 0

    def _trace(self, given: Sequence[str], on: bool, profile: bool = False) -> int:
        if len(given[0]) > MAX_NAME:
            raise WordError("no subsystem has such a name")
        return self._order(m.Trace(0, given[0], on, profile))

    def _follow(self, given: Sequence[str]) -> int:
        from smtpd_ps.cli.follow import follow

        if not given[0] or len(given[0]) > MAX_NAME:
            raise WordError("expected an address, a user or a message id")
        return follow(self._state_dir, given[0])

    def _spf_walk(self, given: Sequence[str]) -> int:
        from smtpd_ps.cli.spf_walk import spf_walk  # brings the resolver, for this command alone

        return spf_walk(given)

    def _import(self, given: Sequence[str]) -> int:
        from smtpd_ps.cli.import_spool import import_spool  # brings the store, for this command alone

        return import_spool(self._state_dir, given)

    def _top(self) -> int:
        from smtpd_ps.cli.top import top  # brings termios and more, for this command alone

        return top(self._state_dir)

    def _audit(self, _given: Sequence[str]) -> int:
        def ask() -> list[m.ProcessRow | m.ProgramRow]:
            return list(parts(self._state_dir, m.ShowProcesses(0), m.ProcessRow, m.ProgramRow))

        return run_audit(ask, self._json, sys.stdout)

    def _setup(self, given: Sequence[str]) -> int:
        if list(given) not in ([], ["--check"]):
            raise WordError("setup takes only --check")
        return run_setup(self._state_dir, check=bool(given), out=sys.stdout)

    def _remove(self, given: Sequence[str]) -> int:
        evpid, msgid = (0, 0) if given[0] == "all" else parse_id(given[0])
        return self._count(m.Remove(0, evpid, msgid, everything=given[0] == "all"), "removed")

    def _count(self, request: m.Message, what: str) -> int:
        """`2 envelopes removed`, and what else there is to be said; exit 0 whatever the number (QUIRKS 50)."""
        done = order(self._state_dir, request)
        print(f"{done.count} envelope{'s' if done.count > 1 else ''} {what}")
        if done.text:
            print(done.text)
        return 0

    def _pause_envelope(self, given: Sequence[str], paused: bool) -> int:
        evpid, msgid = (0, 0) if given[0] == "all" else parse_id(given[0])
        return self._count(m.PauseEnvelope(0, paused, evpid, msgid), "paused" if paused else "resumed")

    def _discover(self, given: Sequence[str]) -> int:
        done = order(self._state_dir, m.Discover(0, *parse_id(given[0])))
        print(f"{done.count} envelope{'s' if done.count != 1 else ''} discovered")  # the plural of 0 as OpenSMTPD's
        return 0

    def _uncorrupt(self, given: Sequence[str]) -> int:
        evpid, msgid = (0, 0) if given[0] == "all" else parse_id(given[0])
        return self._count(m.Uncorrupt(0, msgid or evpid >> 32), "put back")

    def _schedule(self, given: Sequence[str]) -> int:
        evpid, msgid = (0, 0) if given[0] == "all" else parse_id(given[0])
        return self._count(m.Schedule(0, evpid, msgid), "scheduled")

    def _block(self, given: Sequence[str], blocked: bool) -> int:
        address, word, domain = given
        if word != "for":
            raise WordError(f"expected for, found {word}")
        try:
            source = parse_address(address)
        except ValueError as error:
            raise WordError(str(error)) from None
        if domain != "*" and not domain_valid(domain):
            raise WordError(f"expected a domain or *, found {domain}")
        return self._order(m.BlockRelay(0, source, "" if domain == "*" else domain.lower(), blocked))

    def _resume_route(self, given: Sequence[str]) -> int:
        if given[0] != "all" and not (given[0].isascii() and given[0].isdigit() and 0 < int(given[0]) < 2**63):
            raise WordError(f"a route is named by its number in show routes, or all: {given[0]}")
        done = order(self._state_dir, m.ResumeRoute(0, 0 if given[0] == "all" else int(given[0])))
        print(f"{done.count} route{'s' if done.count != 1 else ''} resumed")
        return 0

    def _update_table(self, given: Sequence[str]) -> int:
        if len(given[0]) > MAX_NAME:
            raise WordError(f"the name of a table has at most {MAX_NAME} characters")
        return self._order(m.UpdateTable(0, given[0]))

    def _show_envelope(self, given: Sequence[str]) -> int:
        evpid, _msgid = parse_id(given[0])
        if not evpid:
            raise IdError(f"{given[0]!r} is a message's id; an envelope's has 16 hexadecimal digits")
        return shows.envelope(self._state_dir, evpid, self._json)

    def _show_message(self, given: Sequence[str]) -> int:
        evpid, msgid = parse_id(given[0])
        return shows.message(self._state_dir, msgid or evpid >> 32, self._json)

    def _show_queue(self, given: Sequence[str]) -> int:
        msgid = 0
        if given:
            evpid, msgid = parse_id(given[0])
            msgid = msgid or evpid >> 32
        return shows.queue(self._state_dir, msgid, self._json)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    state_dir, json = None, False
    while words and words[0].startswith("--"):
        option = words.pop(0)
        if option == "--json":
            json = True
        elif option == "--state-dir" and words:
            state_dir = words.pop(0)
        else:
            return _usage(f"unexpected {option}")
    if "--json" in words:
        words.remove("--json")
        json = True
    try:
        command, given = find(Commands(state_dir, json).table(), words)
        return command.run(given)
    except WordError as error:
        return _usage(str(error))
    except IdError as error:
        print(f"smtpctl_ps: {error}", file=sys.stderr)
        return EXIT_USAGE
    except DaemonError as error:
        print(f"smtpctl_ps: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough
        return 1


def _usage(text: str) -> int:
    lines = "\n".join(f"    smtpctl_ps {command.usage}" for command in Commands(None, False).table())
    print(f"smtpctl_ps: {text}\nusage: smtpctl_ps [--state-dir dir] [--json] command\n{lines}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
