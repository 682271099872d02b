"""Read smtpd.conf: text in, a checked Configuration or every problem out.

Runs in the parent and in `smtpd_ps -n`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from smtpd_ps.config.dangers import find_dangers
from smtpd_ps.config.directives import PRODUCTIONS
from smtpd_ps.config.draft import Draft
from smtpd_ps.config.lexer import Macros
from smtpd_ps.config.model import Configuration, ConfigurationError, Pki, Problem, Relay, SocketListener, Where
from smtpd_ps.config.parser import Environment, Parser
from smtpd_ps.config.suggestion import suggestion

__all__ = ["Environment", "load"]

MAX_LISTENERS = 255  # contract.settings.SmtpSettings, the local socket being one more
MAX_PKI = 64
MAX_ACTIONS = 4096
MAX_TABLES = 4096
MAX_PROGRAMS = 100  # three pipes each, of lookup's 2,048 descriptors
MAX_RULES = 10_000
MAX_FILTERS = 1024
_LOOPBACK = ("127.0.0.1", "::1")


class _Cached:
    """The host's answers, asked for once."""

    def __init__(self, environment: Environment) -> None:
        self.read_text = environment.read_text
        self.interface_group = environment.interface_group
        self.resolve = environment.resolve
        self.service_port = environment.service_port
        self.hostname = environment.hostname
        self._interfaces = environment.interface_addresses()

    def interface_addresses(self) -> Mapping[str, tuple[str, ...]]:
        return self._interfaces


def load(path: str, environment: Environment, defines: Mapping[str, str] = MappingProxyType({})) -> Configuration:
    """Read the file at `path` and what it includes; `defines` are the macros of -D.

    Raises ConfigurationError with all problems found, in the order of the files.
    """
    host = _Cached(environment)
    draft = Draft(host.hostname())
    macros = Macros(dict(defines))
    Parser(path, draft, host, macros, PRODUCTIONS).parse()
    _check(draft, path)
    if any(not problem.warning for problem in draft.problems):
        raise ConfigurationError(tuple(draft.problems))
    for where, text in find_dangers(draft):
        draft.warn(where, text)
    addresses = (address for group in host.interface_addresses().values() for address in group)
    return Configuration(
        path=path,
        hostname=draft.hostname,
        tables=MappingProxyType(draft.tables),
        pki=MappingProxyType(
            {p.name: Pki(p.name, p.cert_path, p.key_path, p.where, p.dhe or "none") for p in draft.pki.values()}
        ),
        authorities=MappingProxyType(draft.authorities),
        listeners=tuple(draft.listeners),
        socket=draft.socket or SocketListener("", Where(path, 0)),
        actions=MappingProxyType(draft.actions),
        rules=tuple(draft.rules),
        options=draft.options,
        interface_addresses=tuple(dict.fromkeys((*addresses, *_LOOPBACK))),
        warnings=tuple(draft.problems),
        unused_macros=macros.unused(),
        table_uses=MappingProxyType({name: tuple(uses) for name, uses in draft.uses.items()}),
        filters=MappingProxyType(draft.filters),
        procs=MappingProxyType(draft.procs),
        admd=draft.admd,
        wrappers=MappingProxyType(draft.wrappers),
    )


def _check_declared(draft: Draft, where: Where, sort: str, name: str, known: Mapping[str, object]) -> None:
    if name and name not in known and (sort, name) not in draft.broken:
        draft.report(where, f'no {sort} is declared with the name "{name}"{suggestion(name, known)}')


def _check(draft: Draft, path: str) -> None:
    """What only the whole configuration shows."""
    for pki in draft.pki.values():
        if ("pki", pki.name) not in draft.broken:
            for what, file in (("cert", pki.cert_path), ("key", pki.key_path)):
                if not file:
                    draft.report(pki.where, f'pki "{pki.name}" has no {what}')
    for action in draft.actions.values():
        if isinstance(action.method, Relay):
            _check_declared(draft, action.where, "pki", action.method.pki, draft.pki)
            _check_declared(draft, action.where, "ca", action.method.ca, draft.authorities)
    counts = (
        ("addresses to listen on", sum(len(listener.addresses) for listener in draft.listeners), MAX_LISTENERS),
        ("pki", len(draft.pki), MAX_PKI),
        ("actions", len(draft.actions), MAX_ACTIONS),
        ("tables", len(draft.tables), MAX_TABLES),
        ("programs", sum(table.kind == "program" for table in draft.tables.values()), MAX_PROGRAMS),
        ("match rules", len(draft.rules), MAX_RULES),
        ("filters", len(draft.filters), MAX_FILTERS),
    )
    for what, count, most in counts:
        if count > most:
            draft.report(Where(path, 0), f"at most {most} {what}, found {count}")
    unreadable = any(problem.line == 0 and problem.path == path for problem in draft.problems)
    if not draft.rules_seen and not unreadable:
        draft.problems.append(Problem(path, 0, "there is no match rule, so no mail would be accepted"))
