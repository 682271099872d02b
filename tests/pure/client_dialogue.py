"""What tests of the SMTP client machine say to it, and what they hear."""

from smtpd_ps.contract.values import Status
from smtpd_ps.pure.smtp_client import SmtpClient
from smtpd_ps.pure.smtp_client_events import ClientOptions, Finished, Mail, Ready

OK, TEMP, PERM = Status.OK, Status.TEMPFAIL, Status.PERMFAIL
PLAIN = ClientOptions("me.test")
BODY = b"Subject: x\r\n\r\nhi\r\n"


def say(machine: SmtpClient, *lines: bytes) -> list:
    return machine.receive(b"".join(line + b"\r\n" for line in lines))


def greeted(options: ClientOptions = PLAIN, *offers: bytes) -> SmtpClient:
    """A machine whose server has greeted and answered EHLO with `offers`."""
    machine = SmtpClient(options)
    say(machine, b"220 hello")
    hello = b"LHLO me.test\r\n" if options.lmtp else b"EHLO me.test\r\n"
    assert machine.take_output() == hello
    lines = [b"them", *offers]
    events = say(machine, *(b"250-" + line for line in lines[:-1]), b"250 " + lines[-1])
    assert events == [Ready()] or options.tls != "never" or options.user
    return machine


def mail(*rcpts: str, body: bytes | None = BODY, **more) -> Mail:
    return Mail("a@b.test", list(rcpts or ("x@y.test",)), body, len(body or b""), **more)


def answers(events: list) -> list:
    (finished,) = [event for event in events if isinstance(event, Finished)]
    return finished.answers
