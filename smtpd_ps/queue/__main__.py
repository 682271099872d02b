"""The queue process: `python -m smtpd_ps.queue`, started by the parent."""

import time
from pathlib import Path

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.queue.core import Queue
from smtpd_ps.queue.generations import Generations
from smtpd_ps.queue.reserve import Reserve
from smtpd_ps.queue.shared import Peers, Shared
from smtpd_ps.queue.spool import RESERVE, open_spool
from smtpd_ps.queue.store.coding import Coder, Key, WrongKey
from smtpd_ps.queue.store.embedded import warm_up
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.runtime.child import Child


def main() -> None:
    """Receive the set-up, be confined, open the spool, serve."""
    child = Child.boot(Process.QUEUE)
    assert isinstance(child.setup, m.QueueSetup)
    warm_up()
    settings = child.setup.settings
    coder = Coder(settings.compress, _key(child, child.setup.key) if settings.encrypt else None)
    child.confine()
    # Opened as _sps_queue, below the new root.
    directory = Path("/queue" if child.common.privileged else f"{child.common.root}/queue")
    try:
        store, bodies = open_spool(directory, child.log, coder)
    except WrongKey as error:
        child.fail(str(error))
    except (StoreError, OSError) as error:
        child.fail(f"cannot open the spool: {error}")
    peers = Peers()
    shared = Shared(
        settings, store, bodies, peers, child.loop, child.log,
        lambda: time.time_ns() // 1_000_000, child.fail, Reserve(directory / RESERVE),
    )  # fmt: skip
    queue = Queue(shared)
    peers.smtp = {}
    for part, paused in (("mda", child.setup.mda_paused), ("mta", child.setup.mta_paused)):
        if paused:
            shared.scheduler.pause(part)
    peers.control = child.channel(Process.CONTROL, queue.control_handlers())

    def begin() -> None:
        try:
            queue.start()
        except (StoreError, OSError) as error:
            child.fail(f"cannot read the spool: {error}")

    generations = Generations(queue, shared, child.join, begin)

    def drain(_message: m.Drain) -> None:
        child.enter_drain()
        queue.drain(lambda: child.parent.send(m.Drained()))

    child.serve({m.Drain: drain, m.NewPeer: generations.new_peer, m.QueueReload: generations.reload})
    try:
        store.close()
    except StoreError as error:  # what was committed is in the log of the database
        child.log.error(f"cannot close the spool: {error}")


def _key(child: Child, key: bytes) -> Key:
    """The key of queue encryption, with all that libcrypto loads for it."""
    from smtpd_ps.osdep.aes_gcm import Key as AesGcmKey  # only where it is wanted: it loads libcrypto
    from smtpd_ps.osdep.libcrypto import LibcryptoError

    try:
        return AesGcmKey(key)
    except (LibcryptoError, ValueError) as error:
        child.fail(f"queue encryption: {error}")


if __name__ == "__main__":
    main()
