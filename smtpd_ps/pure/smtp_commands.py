"""The commands of the SMTP server: one table, one function a command.

Runs in smtp on the bytes of remote clients, made text before: printable ASCII without line ends.
Codes, words and order of the checks are OpenSMTPD's (QUIRKS "SMTP", FEATURES A9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smtpd_ps.contract import messages as m
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.address import AddressError, helo_valid, parse_path
from smtpd_ps.pure.sasl import MAX_PASSWORD, MAX_USER, SaslError, decode_plain, decode_text
from smtpd_ps.pure.smtp_parameters import NONE, ParameterError, declares_utf8, mail_parameters, rcpt_parameters
from smtpd_ps.pure.smtp_service import Phase, State

if TYPE_CHECKING:
    from smtpd_ps.pure.smtp_session import ServerSession

Run = Callable[["ServerSession", str | None], None]


@dataclass(frozen=True, slots=True)
class Command:
    """A row: what runs it, in which phases, whether it must stand alone on its line, and whether it brings no mail
    nearer, so that a session has a budget of them.
    """

    run: Run
    phases: int  # of Phase
    bare: bool = False
    idle: bool = False


def _helo(session: ServerSession, name: str | None) -> None:
    if name is None:
        session.refuse(say.HELO_WITHOUT_NAME)
    elif not helo_valid(name):
        session.refuse(say.BAD_HELO)
    else:
        session.filtered("helo", name, "", _helo_agreed)


def _helo_agreed(session: ServerSession, name: str, _rest: str) -> None:
    if _identify(session, name, extended=False):
        session.reply(_hello(session, name, " "))


def _ehlo(session: ServerSession, name: str | None) -> None:
    if name is None:
        session.refuse(say.EHLO_WITHOUT_NAME)
    elif not helo_valid(name):
        session.refuse(say.BAD_HELO)
    else:
        session.filtered("ehlo", name, "", _ehlo_agreed)


def _ehlo_agreed(session: ServerSession, name: str, _rest: str) -> None:
    if _identify(session, name, extended=True):
        extensions = session.service.extensions(session.secure, session.authenticated)
        session.reply(_hello(session, name, "-") + extensions)


def _identify(session: ServerSession, name: str, extended: bool) -> bool:
    """RFC 5321 4.1.4: a repeated EHLO is taken, and resets."""
    if session.filters is not None and not helo_valid(name):  # a filter rewrote it
        session.refuse(say.BAD_HELO)
        return False
    session.drop_transaction()
    session.helo = name
    session.report("link-identify", "EHLO" if extended else "HELO", name)
    session.extended = extended
    session.phase = Phase.READY
    return True


def _hello(session: ServerSession, name: str, mark: str) -> bytes:
    return f"250{mark}{session.hostname} Hello {name} [{session.address}], pleased to meet you\r\n".encode()


def _starttls(session: ServerSession, argument: str | None) -> None:
    if session.secure:
        session.refuse(say.SECURED_ALREADY)
    elif not session.service.offers_starttls(secure=False):
        session.refuse(say.NOT_SUPPORTED)
    elif argument is not None:
        session.refuse(say.NO_PARAMETERS)
    else:
        session.filtered("starttls", "", "", _starttls_agreed)


def _starttls_agreed(session: ServerSession, _parameter: str, _rest: str) -> None:
    session.state = State.HANDSHAKE


def _auth(session: ServerSession, argument: str | None) -> None:
    if session.authenticated:
        session.refuse(say.AUTHENTICATED_ALREADY)
    elif not session.service.offers_auth(session.secure, authenticated=False):
        session.refuse(say.NOT_SUPPORTED)
    elif session.service.passwords_stopped(session.address):
        session.refuse(say.AUTH_STOPPED)
    elif not argument:
        session.refuse(say.PARAMETERS_MISSING)
    else:
        mechanism, _, response = argument.partition(" ")
        session.filtered("auth", mechanism, response.strip(" "), _auth_agreed)


def _auth_agreed(session: ServerSession, mechanism: str, response: str) -> None:
    start = _MECHANISMS.get(mechanism.upper())
    if start is None:
        words = f'5.7.4 Security features not supported: AUTH method "{mechanism[:40]}" not supported'
        session.refuse(say.reply(504, words))
    else:
        start(session, response)


def _auth_plain(session: ServerSession, response: str) -> None:
    session.state = State.AUTH_PLAIN
    if response:
        authenticate(session, response.encode("ascii"))
    else:
        session.reply(say.SEND_RESPONSE)


def _auth_login(session: ServerSession, response: str) -> None:
    session.state = State.AUTH_USER
    if response:
        user_given(session, response.encode("ascii"))
    else:
        session.reply(say.SEND_USER)


_MECHANISMS: dict[str, Callable[[ServerSession, str], None]] = {"PLAIN": _auth_plain, "LOGIN": _auth_login}


def authenticate(session: ServerSession, response: bytes) -> None:
    """A PLAIN response has come; "*" cancels and is as bad as bad base64: 501 (RFC 4954 4)."""
    try:
        session.user, password = decode_plain(response)
    except SaslError:
        _bad_response(session)
    else:
        _ask(session, password)


def user_given(session: ServerSession, response: bytes) -> None:
    """The user name of LOGIN has come."""
    try:
        session.user = decode_text(response, MAX_USER)
    except SaslError:
        _bad_response(session)
    else:
        session.state = State.AUTH_PASSWORD
        session.reply(say.SEND_PASSWORD)


def password_given(session: ServerSession, response: bytes) -> None:
    """The password of LOGIN has come."""
    try:
        password = decode_text(response, MAX_PASSWORD)
    except SaslError:
        _bad_response(session)
    else:
        _ask(session, password)


def _bad_response(session: ServerSession) -> None:
    session.state = State.COMMAND
    session.refuse(say.BAD_RESPONSE)


def _ask(session: ServerSession, password: str) -> None:
    session.state = State.AUTH_WAIT
    table = session.service.listener.auth_table
    session.send(m.AuthRequest(session.id, table, session.user, password))


def _mail(session: ServerSession, argument: str | None) -> None:
    if argument is None or argument[:5].upper() != "FROM:":
        session.refuse(say.UNRECOGNIZED)
        return
    service = session.service
    if service.listener.tls == "require" and not session.secure:
        session.refuse(say.STARTTLS_FIRST)
        return
    if service.listener.auth == "require" and not session.authenticated:
        session.refuse(say.AUTH_FIRST)
        return
    if session.mails >= service.settings.max_mails:
        session.refuse(say.TOO_MANY_MAILS)
        return
    try:
        path, options = _cut_path(argument[5:])
        if session.filters is not None:
            _sender(session, path, options)  # filters see no bad one
    except AddressError:
        session.refuse(say.BAD_SENDER)
        return
    session.filtered("mail-from", path, options, _mail_agreed)


def _mail_agreed(session: ServerSession, path: str, options: str) -> None:
    service = session.service
    parameters = NONE
    try:
        sender = _sender(session, path, options)
        if options:
            parameters = mail_parameters(options, service.settings.max_message_bytes, service.listener.dsn)
    except AddressError:
        session.refuse(say.BAD_SENDER if path.isascii() or declares_utf8(options) else say.SENDER_NEEDS_UTF8)
        return
    except ParameterError as error:
        session.refuse(error.reply)
        return
    msgid = service.take_id()
    if msgid is None:
        session.refuse(say.NO_MESSAGE_ID)
        return
    session.begin_transaction(sender, msgid, parameters)


def _sender(session: ServerSession, path: str, options: str) -> str:
    """Raises AddressError."""
    utf8 = not path.isascii() and declares_utf8(options)
    return parse_path(path, session.hostname, null_allowed=True, utf8=utf8)


def _rcpt(session: ServerSession, argument: str | None) -> None:
    if argument is None or argument[:3].upper() != "TO:":
        session.refuse(say.UNRECOGNIZED)
        return
    transaction = session.transaction
    assert transaction is not None
    if transaction.accepted + len(transaction.slots) >= session.service.settings.max_recipients:
        session.refuse(say.TOO_MANY_RECIPIENTS)
        return
    try:
        path, options = _cut_path(argument[3:])
        if session.filters is not None:
            parse_path(path, session.hostname, utf8=transaction.parameters.utf8)
    except AddressError:
        session.refuse(say.BAD_RECIPIENT)
        return
    session.filtered("rcpt-to", path, options, _rcpt_agreed)


def _rcpt_agreed(session: ServerSession, path: str, options: str) -> None:
    assert session.transaction is not None
    utf8 = session.transaction.parameters.utf8
    notify, orcpt = 0, ""
    try:
        recipient = parse_path(path, session.hostname, utf8=utf8)
        if options:
            notify, orcpt = rcpt_parameters(options, session.service.listener.dsn)
    except AddressError:
        session.refuse(say.BAD_RECIPIENT if utf8 or path.isascii() else say.RECIPIENT_NEEDS_UTF8)
        return
    except ParameterError as error:
        session.refuse(error.reply)
        return
    session.ask_recipient(recipient, notify, orcpt)


def _cut_path(argument: str) -> tuple[str, str]:
    """What stands between "<" and ">", and the options behind. Raises AddressError."""
    argument = argument.lstrip(" ")
    end = argument.find(">")
    if argument[:1] != "<" or end < 0:
        raise AddressError("no path in angle brackets")
    options = argument[end + 1 :]
    if options and options[0] != " ":
        raise AddressError("no blank after the path")
    return argument[1:end], options.strip(" ")


def _data(session: ServerSession, _argument: str | None) -> None:
    assert session.transaction is not None
    if not session.transaction.accepted:
        session.refuse(say.NO_RECIPIENT)
    else:
        session.filtered("data", "", "", _data_agreed)


def _data_agreed(session: ServerSession, _parameter: str, _rest: str) -> None:
    session.data_wanted()


def _bdat(session: ServerSession, argument: str | None) -> None:
    session.chunk_wanted(argument or "")


def _rset(session: ServerSession, _argument: str | None) -> None:
    session.filtered("rset", "", "", _rset_agreed)


def _rset_agreed(session: ServerSession, _parameter: str, _rest: str) -> None:
    session.reply(say.RESET)
    session.drop_transaction()


def _noop(session: ServerSession, argument: str | None) -> None:
    session.filtered("noop", argument or "", "", _noop_agreed)


def _noop_agreed(session: ServerSession, _parameter: str, _rest: str) -> None:
    session.reply(say.OK)


def _help(session: ServerSession, _argument: str | None) -> None:
    session.reply(say.HELP)


def _wiz(session: ServerSession, _argument: str | None) -> None:
    session.refuse(say.NO_JOKES)


def _quit(session: ServerSession, _argument: str | None) -> None:
    session.filtered("quit", "", "", _quit_agreed)


def _quit_agreed(session: ServerSession, _parameter: str, _rest: str) -> None:
    session.end("quit", say.BYE)


COMMANDS: dict[str, Command] = {
    "HELO": Command(_helo, Phase.ANY, idle=True),
    "EHLO": Command(_ehlo, Phase.ANY, idle=True),
    "STARTTLS": Command(_starttls, Phase.READY),
    "AUTH": Command(_auth, Phase.READY),
    "MAIL": Command(_mail, Phase.READY),
    "RCPT": Command(_rcpt, Phase.MAIL),
    "DATA": Command(_data, Phase.MAIL, bare=True),
    "BDAT": Command(_bdat, Phase.ANY | Phase.REFUSED),
    "RSET": Command(_rset, Phase.GREETED, bare=True, idle=True),
    "NOOP": Command(_noop, Phase.ANY, idle=True),
    "HELP": Command(_help, Phase.ANY, bare=True, idle=True),
    "QUIT": Command(_quit, Phase.ANY | Phase.REFUSED, bare=True),
    "WIZ": Command(_wiz, Phase.ANY),
}
