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
    desk = Desk(child.log, child.loop.now(), child.setup.smtp_paused)
    desk.attach(Process.QUEUE, child.channel(Process.QUEUE, desk.handlers(Process.QUEUE)))
    door = Door(child.loop, child.log, desk, child.setup.settings.allowed_uid)

    def new_peer(message: m.NewPeer, fd: int) -> None:
        process, seat = message.process, message.seat
        handlers = desk.handlers(process, seat)
        desk.attach(process, child.join(process, fd, handlers, lambda: desk.detach(process, seat)), seat)

    def reload(message: m.ControlReload) -> None:
        desk.serve(message.generation)
        while child.listeners:  # the first generation serves: there is someone to ask
            door.open(child.listeners.pop()[1])

    child.serve(
        {**desk.handlers(Process.PARENT), m.NewPeer: new_peer, m.ControlReload: reload},
        on_parent=lambda channel: desk.attach(Process.PARENT, channel),
    )


if __name__ == "__main__":
    main()
