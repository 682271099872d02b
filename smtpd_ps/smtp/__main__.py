"""The smtp process: `python -I -m smtpd_ps.smtp`, started by the parent."""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.limits import open_files
from smtpd_ps.runtime.child import Child
from smtpd_ps.runtime.signer import RemoteSigner
from smtpd_ps.smtp.server import SmtpServer
from smtpd_ps.smtp.tls_listeners import make_pumps, read_pem_files


def main() -> None:
    """Receive the set-up, make TLS contexts while keys answers, be confined, serve."""
    child = Child.boot(Process.SMTP)
    assert isinstance(child.setup, m.SmtpSetup)
    settings = child.setup.settings
    keys = child.peer(Process.KEYS)
    try:
        files = read_pem_files(child.assets)
        pumps = make_pumps(settings, files, lambda: RemoteSigner(keys, Process.SMTP, child.fail))
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be one line in the log
        child.fail(f"TLS: {error}")
    # Control says when to accept: so a reload cannot undo a pause, not even for a moment.
    server = SmtpServer(child.loop, child.log, settings, child.setup.seat, pumps, child.fail, paused=True)
    child.confine()
    server.lookup = child.channel(Process.LOOKUP, server.lookup_handlers())
    server.queue = child.channel(Process.QUEUE, server.queue_handlers())
    server.control = child.channel(Process.CONTROL, server.control_handlers())
    for listener, sock in child.listeners:
        server.listen(listener.index, sock)
    server.fit_into(open_files())
    server.start()

    def drain(_message: m.Drain) -> None:
        child.enter_drain()
        server.drain(lambda: child.parent.send(m.Drained()))

    def retire(_message: m.Retire) -> None:
        child.enter_retirement()
        server.retire(lambda: child.parent.send(m.Drained()))
        child.parent.send(m.Retired())

    child.serve({m.Drain: drain, m.Retire: retire})


if __name__ == "__main__":
    main()
