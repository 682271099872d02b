"""The control process: `python -m smtpd_ps.control`, started by the parent."""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.control.desk import Desk
from smtpd_ps.control.door import Door
from smtpd_ps.runtime.child import Child


def main() -> None:
    """Receive the set-up, be confined, serve."""
    child = Child.boot(Process.CONTROL)
    assert isinstance(child.setup, m.ControlSetup)
    child.confine()
    desk = Desk(child.log, child.loop.now())
    for peer in (Process.QUEUE, Process.SMTP, Process.DELIVERY, Process.LOOKUP):
        desk.attach(peer, child.channel(peer, desk.handlers(peer)))
    door = Door(child.loop, child.log, desk, child.setup.settings.allowed_uid)
    for _listener, sock in child.listeners:
        door.open(sock)
    child.serve(desk.handlers(Process.PARENT), on_parent=lambda channel: desk.attach(Process.PARENT, channel))


if __name__ == "__main__":
    main()
