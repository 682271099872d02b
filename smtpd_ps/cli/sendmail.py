"""sendmail(8): take a message from a local program and hand it to the daemon.

Runs as whoever calls it, without any right of its own: over the daemon's local socket, or, where that does
not answer, through the offline folder. Reads the caller's bytes and the daemon's replies.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

from smtpd_ps.cli.offline_files import keep
from smtpd_ps.cli.program import Exit, complain, entry_of_caller, full_name, read_message, show
from smtpd_ps.cli.sendmail_options import USAGE, Mode, Options, OptionsError, parse_options
from smtpd_ps.contract.installation import paths
from smtpd_ps.contract.values import Dsn, Status
from smtpd_ps.pure import mail_draft
from smtpd_ps.pure.mail_draft import Draft, DraftError
from smtpd_ps.pure.offline_mail import MAX_RECIPIENTS, Envelope, OfflineError
from smtpd_ps.pure.received import date_text
from smtpd_ps.pure.smtp_client_events import Answer, ClientOptions, Mail
from smtpd_ps.pure.smtp_client_replies import printable
from smtpd_ps.runtime.smtp_dialogue import Dialogue, DialogueError

PROGRAM = "sendmail"
TIMEOUT_SECS = 300.0  # for each answer of the daemon (RFC 5321 4.5.3.2)
CONNECT_SECS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status, one of sysexits(3)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse_options(words)
    except OptionsError as error:
        complain(PROGRAM, str(error))
        print(USAGE, file=sys.stderr)
        return Exit.USAGE
    state = ["--state-dir", options.state_dir] if options.state_dir else []
    match options.mode:
        case Mode.ALIASES:
            from smtpd_ps.cli.newaliases import main as newaliases  # brings the configuration, for this alone

            return newaliases(state)
        case Mode.QUEUE:
            from smtpd_ps.cli.mailq import main as mailq  # brings all of smtpctl_ps, for this alone

            return mailq(state)
        case Mode.RUN_QUEUE:
            complain(PROGRAM, "-q: the daemon sends what is queued by itself")
            return Exit.SOFTWARE
        case Mode.SMTP:
            from smtpd_ps.cli.smtp_relay import relay

            return relay(paths(options.state_dir).submission_socket)
        case Mode.SEND:
            try:
                return _send(options)
            except KeyboardInterrupt:
                complain(PROGRAM, "interrupted")
                return Exit.TEMPFAIL


def _send(options: Options) -> int:
    try:
        draft = mail_draft.read_draft(read_message())
        envelope = _envelope(options, draft)
        message = b"".join(mail_draft.compose(draft, _from_value(options, envelope.sender), _now()))
    except OSError as error:
        complain(PROGRAM, f"standard input: {error.strerror}")
        return Exit.IOERR
    except DraftError as error:
        complain(PROGRAM, str(error))
        return Exit.DATAERR
    if not envelope.recipients:
        complain(PROGRAM, "no recipients")
        return Exit.USAGE
    places = paths(options.state_dir)
    status = _submit(places.submission_socket, envelope, message, options.verbose)
    if status != Exit.TEMPFAIL:
        return status
    return _keep(places.offline, envelope, message, options.verbose)


def _envelope(options: Options, draft: Draft) -> Envelope:
    """Raises DraftError."""
    found: list[str] = []
    for word in options.recipients:
        found += mail_draft.parse_addresses(os.fsencode(word), "recipient")
    if options.read_recipients:
        found += mail_draft.recipients(draft)
    recipients = tuple(dict.fromkeys(found))
    if len(recipients) > MAX_RECIPIENTS:
        raise DraftError(f"more than {MAX_RECIPIENTS} recipients")
    sender = options.sender
    if sender is None:
        sender = mail_draft.author(draft) or _caller(options)
    return Envelope(
        sender, recipients, options.notify, options.ret, options.envid,
        eight_bit=not all(field.isascii() for _name, field in draft.fields) or not draft.body.isascii(),
    )  # fmt: skip


def _caller(options: Options) -> str:
    entry = entry_of_caller(not options.no_login)
    return entry.pw_name if entry is not None else "anonymous"


def _from_value(options: Options, sender: str) -> bytes:
    """What From shows where the message has none: the caller's name too, unless another address was given."""
    name = options.name
    if name is None:
        entry = entry_of_caller(not options.no_login) if options.sender is None else None
        name = "".join(char for char in full_name(entry) if char.isprintable()) if entry is not None else ""
    return mail_draft.mailbox(name, sender or _caller(options))


def _now() -> str:
    local = time.localtime()
    return date_text(int(time.mktime(local)), local.tm_gmtoff, local.tm_zone)


def _submit(path: str, envelope: Envelope, message: bytes, verbose: bool) -> Exit:
    """Hand it over, for all recipients or none. TEMPFAIL: it is to be kept."""
    dialogue = None
    try:
        dialogue = Dialogue(_connect(path), ClientOptions("localhost"), None, _show if verbose else None, abandon=bool)
        dialogue.open()
        dsn = Dsn(envelope.notify, "", envelope.ret, envelope.envid)
        recipients = list(envelope.recipients)
        finished = dialogue.send(
            Mail(envelope.sender, recipients, None, len(message), envelope.eight_bit, [dsn] * len(recipients)),
            (message,),
        )
    except (OSError, DialogueError) as error:
        if isinstance(error, DialogueError) and not error.temporary:
            complain(PROGRAM, str(error))
            return Exit.UNAVAILABLE
        if verbose:
            show(f"smtpd_ps does not take it now: {error}")
        return Exit.TEMPFAIL
    finally:
        if dialogue is not None:
            dialogue.close()
    return _judge(recipients, finished.answers)


def _judge(recipients: Sequence[str], answers: Sequence[Answer | None]) -> Exit:
    refused = []
    for recipient, answer in zip(recipients, answers, strict=True):
        if answer is not None and answer[0] is Status.PERMFAIL:
            refused.append(recipient)
            complain(PROGRAM, f"{recipient}: {answer[1]}")
    if refused:
        return Exit.NOUSER if len(refused) < len(recipients) else Exit.UNAVAILABLE
    taken = all(answer is not None and answer[0] is Status.OK for answer in answers)
    return Exit.OK if taken else Exit.TEMPFAIL


def _connect(path: str) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECS)
        sock.connect(path)
        sock.settimeout(TIMEOUT_SECS)
    except OSError:
        sock.close()
        raise
    return sock


def _keep(folder: str, envelope: Envelope, message: bytes, verbose: bool) -> int:
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)  # leaves no half file behind
        name = keep(folder, envelope, (message,))
    except OfflineError as error:
        complain(PROGRAM, str(error))
        return Exit.DATAERR
    except OSError as error:
        complain(PROGRAM, f"smtpd_ps does not take the message now, and it cannot be kept: {folder}: {error.strerror}")
        return Exit.TEMPFAIL
    if verbose:
        show(f"kept for later as {name}")
    return Exit.OK


def _show(sent: bytes, received: bytes) -> None:
    mark, data = (">>>", sent) if sent else ("<<<", received)
    for line in data.splitlines():
        show(f"{mark} {printable(line)}")


if __name__ == "__main__":
    sys.exit(main())
