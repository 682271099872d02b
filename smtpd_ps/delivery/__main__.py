"""The delivery process: `python -I -m smtpd_ps.delivery`, started by the parent."""

import time
from functools import partial

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.delivery.service import Delivery
from smtpd_ps.delivery.tls_clients import make_pumps, read_certificate
from smtpd_ps.runtime.child import Child
from smtpd_ps.runtime.signer import RemoteSigner

HEARD_SECS = 0.01  # until looking again whether queue has read all
# Kept free of bodies: an agent's channel, a connection and a copy of a body must still fit, or none ever leaves.
SPARE_FDS = 4


def main() -> None:
    """Boot, make TLS contexts while files can be read, be confined, deliver."""
    child = Child.boot(Process.DELIVERY)
    assert isinstance(child.setup, m.DeliverySetup)
    settings = child.setup.settings
    certificates = {asset.name: read_certificate(fd) for asset, fd in child.assets if asset.kind == "cert"}
    authorities = {asset.name: read_certificate(fd) for asset, fd in child.assets if asset.kind == "ca"}
    keys = child.peer(Process.KEYS)
    try:
        signer = partial(RemoteSigner, keys, Process.DELIVERY, child.fail)
        make_pump = make_pumps(settings, certificates, signer, authorities)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be one line in the log
        child.fail(f"TLS: {error}")
    time.localtime()
    delivery = Delivery(child.loop, child.log, settings, make_pump, time.time, child.setup.instance)
    child.confine()
    queue = child.channel(Process.QUEUE, {m.Deliver: delivery.deliver, m.DeliverFile: delivery.deliver_file})
    queue.spare_fds = SPARE_FDS
    lookup = child.channel(Process.LOOKUP, {m.Route: delivery.route, m.OutgoingHooks: delivery.outgoing_hooks})
    control = child.channel(
        Process.CONTROL,
        {
            m.ShowStats: delivery.show_stats,
            m.ShowNetwork: delivery.network_desk.show,
            m.ResumeRoute: delivery.network_desk.resume,
            m.BlockRelay: delivery.network_desk.block,
        },
    )
    delivery.outcomes.send = queue.send
    delivery.ask_lookup = delivery.reporting.send = lookup.send
    delivery.answer_control = delivery.network_desk.answer = control.send
    delivery.heard.try_now = queue.send

    def drain(_message: m.Drain) -> None:
        child.enter_drain()
        delivery.drain()

    def retire(_message: m.Retire) -> None:
        child.enter_retirement()
        delivery.retire()

    def drained() -> None:
        delivery.outcomes.flush()
        queue.flush()
        if queue.pending_bytes:  # queue must hear all outcomes, or it tries again
            child.loop.call_later(HEARD_SECS, drained)
            return
        child.parent.send(m.Drained())

    delivery.drained = drained
    delivery.agents.ask = delivery.dials.ask = lambda message: child.parent.send(message)
    delivery.start()
    child.serve(
        {
            m.Drain: drain,
            m.Retire: retire,
            m.AgentReady: delivery.agents.ready,
            m.AgentRefused: delivery.agent_refused,
            m.LmtpConnected: delivery.dials.connected,
        }
    )


if __name__ == "__main__":
    main()
