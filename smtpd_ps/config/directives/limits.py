"""The global settings: smtp, queue, bounce, srs, mta, mda, scheduler.

Runs in the parent and in `smtpd_ps -n`. A limit of OpenSMTPD's that governs something smtpd_ps
does not do is taken with a warning that it has no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from smtpd_ps.config.directives.tls_options import cipher_list
from smtpd_ps.config.model import Wrapper
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.config.units import delay_secs, size_bytes
from smtpd_ps.contract.values import MAX_INSTANCES
from smtpd_ps.pure.address import domain_valid
from smtpd_ps.pure.command_line import parse_command
from smtpd_ps.pure.format_specifier import FormatError

MAX_WARNINGS = 4
MAX_COMMAND = 2000  # bytes; contract.values.Line holds a few more characters
QUEUE_KEY_BYTES = 32
DAY_SECS = 86400
MAX_DEFERRED = 100_000
MAX_DOMAIN_LIMITS = 10_000  # contract.settings.DeliverySettings
MAX_SRS_DAYS = 1000  # an address carries ten bits of the day


@dataclass(frozen=True, slots=True)
class Limit:
    """`field` of Options that the limit sets; "" where smtpd_ps has nothing to limit.

    `neutral` is the value at which having no such throttle is just what was asked for.
    """

    field: str = ""
    least: int = 0
    most: int = 2**32 - 1
    neutral: int | None = None


_DELAY = Limit(neutral=0)
_NONE = Limit()

SMTP_LIMITS = {
    "max-mails": Limit("max_mails", 1),
    "max-rcpt": Limit("max_recipients", 1),
    "processes": Limit("smtp_processes", 1, MAX_INSTANCES),  # ours
}
MTA_LIMITS = {
    "processes": Limit("delivery_processes", 1, MAX_INSTANCES),  # ours
    "max-conn-per-host": Limit("max_connections_per_host", 1),
    "max-conn-per-route": Limit("max_connections_per_route", 1),
    "max-conn-per-source": Limit("max_connections_per_source", 1),
    "max-conn-per-connector": Limit("max_connections_per_connector", 1),
    "max-conn-per-relay": Limit("max_connections_per_relay", 1),
    "max-conn-per-domain": Limit("max_connections_per_domain", 1),
    "conn-delay-host": _DELAY,
    "conn-delay-route": _DELAY,
    "conn-delay-source": _DELAY,
    "conn-delay-connector": _DELAY,
    "conn-delay-relay": _DELAY,
    "conn-delay-domain": _DELAY,
    "reconn-delay-route": _DELAY,
    "session-mail-max": Limit("max_mails_per_connection", 1),
    "session-transaction-delay": _DELAY,
    "session-keepalive": Limit("keepalive_secs", 0, 10**9),
    "max-failures-per-session": Limit("max_failures_per_connection", 1),
    "max-mails-per-minute": Limit("max_mails_per_minute", 0, 1_000_000),  # ours
    "task-hiwat": _NONE,
    "task-lowat": _NONE,
    "task-release": _NONE,
}
DOMAIN_LIMITS = {name: limit for name, limit in MTA_LIMITS.items() if name != "processes"}
MDA_LIMITS = {
    "max-session": Limit("max_agents", 1),
    "max-session-per-user": Limit("max_sessions_per_user", 1),
    "task-hiwat": _NONE,
    "task-lowat": _NONE,
    "task-release": _NONE,
}
SCHEDULER_LIMITS = {
    "max-inflight": Limit("max_inflight", 1),
    "max-evp-batch-size": _NONE,
    "max-msg-batch-size": _NONE,
    "max-schedule": _NONE,
}


def _set(p: Parser, **changes: Any) -> None:
    p.draft.options = replace(p.draft.options, **changes)


def _subject(p: Parser, *known: str, unsupported: tuple[str, ...] = ()) -> Token:
    """The second word of a directive."""
    token = p.peek()
    if p.at(*unsupported):
        p.fail(token, f"{p.taken.text} {token.text} is not supported yet")
    if not p.at(*known):
        p.unexpected(" or ".join(f'"{word}"' for word in known), known)
    return p.advance()


def _limits(p: Parser, known: Mapping[str, Limit]) -> None:
    """`limit NAME NUMBER ...`."""
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        if known is MTA_LIMITS and p.at("inet4", "inet6"):
            _set(p, family=4 if p.advance().text == "inet4" else 6)
            continue
        field, number = _limit(p, known)
        if field:
            _set(p, **{field: number})


def _limit(p: Parser, known: Mapping[str, Limit]) -> tuple[str, int]:
    """One limit: its field, "" where smtpd_ps has nothing to limit, and the number."""
    owner, token = p.taken.text, p.peek()
    if token.kind is not Kind.WORD or token.text not in known:
        p.unexpected(f"a limit of {owner} ({', '.join(known)})", known)
    p.advance()
    limit = known[token.text]
    number = p.number(f"{owner} limit {token.text}", limit.least, limit.most)
    if not limit.field and number != limit.neutral:
        p.warn(token, f"{owner} limit {token.text} has no effect here: smtpd_ps has no such throttle")
    return limit.field, number


def _domain_limits(p: Parser) -> None:
    """`for domain NAME`, and limits in place of those that hold for all so far."""
    p.expect("domain")
    token = p.peek()
    domain = p.name("the name of a domain").lower()
    if not domain_valid(domain):
        p.report(token, f'expected a domain, found "{token.text}"')
    options = p.draft.options
    others = tuple(each for each in options.domain_limits if each.domain != domain)
    given = next((each for each in options.domain_limits if each.domain == domain), None)
    limits = given or structs.replace(options.mta_limits(), domain=domain)
    if given is None and len(others) >= MAX_DOMAIN_LIMITS:
        p.fail(token, f"at most {MAX_DOMAIN_LIMITS} domains have limits of their own")
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        if p.at("inet4", "inet6"):
            limits = structs.replace(limits, family=4 if p.advance().text == "inet4" else 6)
            continue
        field, number = _limit(p, DOMAIN_LIMITS)
        if field:
            limits = structs.replace(limits, **{field: number})
    _set(p, domain_limits=(*others, limits))


def delay(p: Parser, what: str) -> int:
    """A delay such as 4d, in seconds."""
    token = p.peek()
    if token.kind is Kind.NUMBER:
        p.unexpected(f"{what} with a unit: s, m, h or d")
    secs = delay_secs(p.string(what))
    if secs is None:
        p.report(token, f'{what} is a positive number and s, m, h or d, such as 4d: "{token.text}"')
        return 1
    return secs


def smtp(p: Parser) -> None:
    """`smtp ciphers`, `smtp limit`, `smtp max-message-size`, `smtp sub-addr-delim`."""
    match _subject(p, "ciphers", "limit", "max-message-size", "sub-addr-delim").text:
        case "ciphers":
            _set(p, ciphers=cipher_list(p))
        case "limit":
            _limits(p, SMTP_LIMITS)
        case "max-message-size":
            _message_size(p)
        case "sub-addr-delim":
            token = p.peek()
            char = p.string("one character in quotes")
            if len(char) != 1 or not char.isprintable() or not char.isascii() or char in " @":
                p.report(token, f'sub-addr-delim is one printable character, not a space or "@": "{char}"')
            else:
                _set(p, sub_address_delimiter=char)


def _message_size(p: Parser) -> None:
    token = p.peek()
    if token.kind is Kind.NUMBER:
        size = p.number("max-message-size", 0, 2**63 - 1)
    else:
        text = p.string("a size such as 35M")
        parsed = size_bytes(text)
        if parsed is None:
            p.report(token, f'a size is a number and one of B, K, M, G, T, P, E, such as 35M: "{text}"')
            return
        size = parsed
    _set(p, max_message_bytes=size)


def queue(p: Parser) -> None:
    """`queue compression`, `queue encryption [KEY]`, `queue ttl DELAY`."""
    match _subject(p, "compression", "encryption", "ttl").text:
        case "compression":
            _set(p, queue_compression=True)
        case "encryption":
            _set(p, queue_encryption=_queue_key(p))
        case "ttl":
            _set(p, queue_ttl_secs=delay(p, "the queue ttl"))


def _queue_key(p: Parser) -> str:
    """The key, "stdin" for standard input, "" for a prompt at the start."""
    token = p.peek()
    if token.kind in (Kind.NEWLINE, Kind.END):
        return ""
    key = p.string('the key of queue encryption, "stdin" or "-"')
    if key.lower() in ("stdin", "-"):
        return "stdin"
    if len(key.encode(errors="surrogateescape")) != QUEUE_KEY_BYTES:
        # Never with the key in it: this goes to logs.
        p.report(token, f"the key of queue encryption has {QUEUE_KEY_BYTES} characters, found {len(key)}")
    return key


def bounce(p: Parser) -> None:
    """`bounce warn-interval DELAY, ...`."""
    _subject(p, "warn-interval")
    first = p.peek()
    delays = [delay(p, "a warn-interval")]
    while p.accept(","):
        delays.append(delay(p, "a warn-interval"))
    if len(delays) > MAX_WARNINGS:
        p.report(first, f"at most {MAX_WARNINGS} warn-intervals, found {len(delays)}")
        return
    _set(p, warn_secs=tuple(delays))


def mta(p: Parser) -> None:
    """`mta limit [for domain NAME]`, `mta max-deferred NUMBER`."""
    if _subject(p, "limit", "max-deferred").text == "max-deferred":
        _set(p, max_deferred=p.number("mta max-deferred", 0, MAX_DEFERRED))
        return
    if p.accept("for"):
        _domain_limits(p)
    else:
        _limits(p, MTA_LIMITS)


def mda(p: Parser) -> None:
    """`mda limit`, `mda wrapper`."""
    if _subject(p, "limit", "wrapper").text == "limit":
        _limits(p, MDA_LIMITS)
    else:
        _wrapper(p)


def _wrapper(p: Parser) -> None:
    """`wrapper NAME COMMAND`."""
    where = p.where
    name = p.name("the name of a wrapper", blanks=True)
    known = p.draft.wrappers.get(name)
    if known is not None:
        p.draft.report(where, f'mda wrapper "{name}" is already declared at {known.where.path}:{known.where.line}')
    with p.draft.declaring("wrapper", name):
        token = p.peek()
        command = command_argument(p, "the command of a wrapper", wrapper=True)
    if command and "%{mda}" not in command.lower():
        p.warn(token, "a wrapper without %{mda} takes the place of the delivery itself")
    p.draft.wrappers.setdefault(name, Wrapper(name, command, where))


def command_argument(p: Parser, what: str, wrapper: bool = False) -> str:
    """A command with format specifiers; "" where it is reported."""
    token = p.peek()
    command = p.string(what, MAX_COMMAND)
    try:
        parse_command(command, wrapper)
    except FormatError as error:
        p.report(token, f"{what}: {error}")
        return ""
    return command


def scheduler(p: Parser) -> None:
    """`scheduler limit`."""
    _subject(p, "limit")
    _limits(p, SCHEDULER_LIMITS)


def srs(p: Parser) -> None:
    """`srs key SECRET`, `srs key backup SECRET`, `srs ttl DELAY`."""
    if _subject(p, "key", "ttl").text == "key":
        field = "srs_backup_key" if p.accept("backup") else "srs_key"
        _set(p, **{field: p.name("the secret of srs", blanks=True)})
        return
    token = p.peek()
    secs = delay(p, "the srs ttl")
    if not DAY_SECS <= secs <= MAX_SRS_DAYS * DAY_SECS:
        p.report(token, f'the srs ttl is at least 1d and at most {MAX_SRS_DAYS}d: "{token.text}"')
        return
    _set(p, srs_ttl_secs=secs)
