"""One daemon for the hostile clients of all files here; its health is checked after each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_servers import Outgoing, World
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, wait_until
from support.hostile import Target, Watch
from support.sink import sinking
from support.users import ensure_daemon_users, ensure_mail_user

CONFIG = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
table submitters "{dir}/submitters"
listen on socket
listen on 127.0.0.1 port {port} tls pki mxkey hostname mx.test
listen on ::1 port {port} tls pki mxkey hostname mx.test
listen on 127.0.0.1 port {port2} tls-require pki mxkey auth <submitters> hostname mx.test
mta limit session-keepalive 1
action out relay host "smtp+notls://127.0.0.1:SINK"
match from any for domain example.com action out
match auth from any for any action out
"""


@pytest.fixture(scope="session")
def running_target() -> Iterator[Target]:
    """One daemon for the tests that attack it as clients."""
    if os.getuid() != 0:
        pytest.skip("needs root: counts the descriptors of processes that are not dumpable")
    ensure_daemon_users()
    with sinking() as sink:
        daemon = Daemon(CONFIG.replace("SINK", str(sink.port)))
        try:
            write_acme(daemon.dir / "acme", make_key("ecdsa"))
            hashed = cli("smtpctl_ps", "encrypt", "correct horse").stdout.strip()
            (daemon.dir / "submitters").write_text(f"alice {hashed}\n")
            (daemon.dir / "submitters").chmod(0o600)
            daemon.start()
            target = Target(daemon, sink, Watch(daemon))
            yield target
            wait_until(
                "delivery gives its connections back",
                lambda: target.watch.fd_count("delivery") <= target.watch.descriptors["delivery"],
            )
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()


@pytest.fixture
def target(running_target: Target) -> Iterator[Target]:
    """The daemon, whose health is checked after each test."""
    running_target.sink.mails.clear()
    yield running_target
    running_target.watch.check()


OUTGOING = """
mta limit session-keepalive 1
table users {{ "@" = "USER" }}
listen on 127.0.0.1 port {port} hostname mx.test
action back relay host "smtp+notls://127.0.0.1:SINK"
action lists lmtp "LMTP" rcpt-to virtual <users>
action out relay
match from any for domain "client.test" action back
match from any for domain "lmtp.test" action lists
match from any for any action out
"""


@pytest.fixture(scope="session")
def running_outgoing() -> Iterator[Outgoing]:
    """One daemon for the tests of hostile servers and name servers."""
    if os.getuid() != 0:
        pytest.skip("needs root: the servers listen on port 25 of loopback addresses")
    ensure_daemon_users()
    world = World()
    folder = Path("/var/tmp") / f"sps-hostile-{os.getpid()}"
    folder.mkdir()
    lmtp = str(folder / "lmtp")
    with sinking() as sink:
        config = OUTGOING.replace("SINK", str(sink.port)).replace("LMTP", lmtp).replace("USER", ensure_mail_user())
        daemon = Daemon(config.replace("{{", "{").replace("}}", "}"), resolver=f"127.0.0.1:{world.dns.port}")
        try:
            daemon.start()
            watch = Watch(daemon)
            yield Outgoing(daemon, sink, watch, world, lmtp)
            wait_until(
                "delivery gives its connections back",
                lambda: watch.fd_count("delivery") <= watch.descriptors["delivery"],
            )
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
            world.close()
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


@pytest.fixture
def outgoing(running_outgoing: Outgoing) -> Iterator[Outgoing]:
    """That daemon, whose health is checked after each test."""
    running_outgoing.sink.mails.clear()
    yield running_outgoing
    running_outgoing.watch.check()
