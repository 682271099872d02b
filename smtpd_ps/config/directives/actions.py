"""`action`: what is done with mail.

Runs in the parent and in `smtpd_ps -n`. `METHODS` maps the word after the name to a production;
relay is in a module of its own.
"""

from collections.abc import Callable

from smtpd_ps.config.directives.limits import command_argument, delay
from smtpd_ps.config.directives.relay import relay
from smtpd_ps.config.directives.tables import table_argument
from smtpd_ps.config.model import Action, ExpandOnly, ForwardOnly, Lmtp, Maildir, Mbox, Mda, Method, Relay
from smtpd_ps.config.parser import MAX_PATH, Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.pure.format_specifier import FormatError, parse_format
from smtpd_ps.pure.relay_url import RelayUrlError, parse_host_port

MAX_SOCKET_PATH = 103  # sun_path of the BSDs less the closing NUL; Linux has 107
LMTP_PORT = 25  # mail.lmtp's default
_LOCAL_OPTIONS = ("alias", "ttl", "user", "userbase", "virtual", "wrapper")


def maildir(p: Parser) -> Method:
    """`maildir [path] [junk]`."""
    path = _maildir_path(p) if p.peek().kind is Kind.WORD else ""
    return Maildir(path, p.accept("junk") is not None)


def _maildir_path(p: Parser) -> str:
    token = p.peek()
    path = p.string("the path of a maildir", MAX_PATH)
    if not path:
        p.report(token, "the path of a maildir may not be empty")
    elif ".." in path.split("/"):
        p.report(token, f'the path of a maildir may not lead upwards: "{path}"')
    try:
        parse_format(path)
    except FormatError as error:
        p.report(token, str(error))
    if not path.startswith(("/", "~/", "%{user.directory}")):
        path = f"~/{path}"  # OpenSMTPD's MDA runs in the user's home
        if len(path.encode(errors="replace")) > MAX_PATH:
            p.report(token, f"the path of a maildir is longer than {MAX_PATH} bytes")
    return path


def mbox(_p: Parser) -> Method:
    """`mbox`."""
    return Mbox()


def lmtp(p: Parser) -> Method:
    """`lmtp destination [rcpt-to]`."""
    token = p.peek()
    destination = p.name("an absolute socket path or host:port", MAX_PATH)
    if destination.startswith("/"):
        if len(destination.encode()) > MAX_SOCKET_PATH:
            p.report(token, f"the path of a socket has at most {MAX_SOCKET_PATH} bytes")
    else:
        try:
            host, port = parse_host_port(destination, LMTP_PORT)
            destination = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        except RelayUrlError as error:
            p.report(token, str(error))
    return Lmtp(destination, p.accept("rcpt-to") is not None)


def mda(p: Parser) -> Method:
    """`mda COMMAND`."""
    return Mda(command_argument(p, "the command of an mda"))


def expand_only(_p: Parser) -> Method:
    """`expand-only`."""
    return ExpandOnly()


def forward_only(_p: Parser) -> Method:
    """`forward-only`."""
    return ForwardOnly()


METHODS: dict[str, Callable[[Parser], Method]] = {
    "expand-only": expand_only,
    "forward-only": forward_only,
    "lmtp": lmtp,
    "maildir": maildir,
    "mbox": mbox,
    "mda": mda,
    "relay": relay,
}
_WITHOUT_USER: dict[type[Method], str] = {Mbox: "mbox", ExpandOnly: "expand-only", ForwardOnly: "forward-only"}


_WITHOUT_WRAPPER: dict[type[Method], str] = {Mbox: "mbox", Lmtp: "lmtp"}


def action(p: Parser) -> None:
    """`action NAME METHOD [options] [ttl DELAY]`."""
    where = p.where
    name = p.name("the name of an action", blanks=True)
    known = p.draft.actions.get(name)
    if known is not None:
        p.draft.report(where, f'action "{name}" is already declared at {known.where.path}:{known.where.line}')
    with p.draft.declaring("action", name):
        method, options = _method_and_options(p)
    made = Action(
        name, method, options.alias, options.virtual, options.user, options.ttl_secs, where, options.userbase,
        options.wrapper,
    )  # fmt: skip
    p.draft.actions.setdefault(name, made)


def _method_and_options(p: Parser) -> "tuple[Method, _Options]":
    token = p.peek()
    if not p.at(*METHODS):
        p.unexpected(f"what the action does ({', '.join(METHODS)})", METHODS)
    p.advance()
    method = METHODS[token.text](p)
    options = _Options()
    words = ("ttl",) if isinstance(method, Relay) else _LOCAL_OPTIONS
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        options.take(p, p.option(token.text, words, frozenset()), method)
    return method, options


class _Options:
    """The options of an action as they come."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self.alias = self.virtual = self.userbase = self.user = self.wrapper = ""
        self.ttl_secs = 0

    def take(self, p: Parser, option: Token, method: Method) -> None:
        if option.text in self._given:
            p.report(option, f"{option.text} is already given for this action")
        elif "ttl" in self._given:
            p.report(option, f"{option.text} must come before ttl")
        self._given.add(option.text)
        match option.text:
            case "alias":
                self.alias = table_argument(p, "alias", "alias", programs=True)
            case "virtual":
                self.virtual = table_argument(p, "virtual", "virtual", programs=True)
            case "userbase":
                self.userbase = table_argument(p, "userbase", "userinfo", programs=True)
            case "user":
                self.user = p.name("the name of a user")
                if type(method) in _WITHOUT_USER:
                    p.report(option, f"user cannot be given with {_WITHOUT_USER[type(method)]}")
            case "wrapper":
                self._wrapper(p, option, method)
            case "ttl":
                self.ttl_secs = delay(p, "the ttl")
        if {"alias", "virtual"} <= self._given and option.text in ("alias", "virtual"):
            p.report(option, "alias and virtual exclude each other")

    def _wrapper(self, p: Parser, option: Token, method: Method) -> None:
        token = p.peek()
        self.wrapper = p.name("the name of a wrapper", blanks=True)
        if type(method) in _WITHOUT_WRAPPER:
            p.report(option, f"wrapper cannot be given with {_WITHOUT_WRAPPER[type(method)]}, which is no command here")
        elif self.wrapper not in p.draft.wrappers and ("wrapper", self.wrapper) not in p.draft.broken:
            p.report(token, f'mda wrapper "{self.wrapper}" is not declared{suggestion(self.wrapper, p.draft.wrappers)}')
