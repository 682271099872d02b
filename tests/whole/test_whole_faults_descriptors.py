"""Too few descriptors: clients wait or hear 4xx, deliveries are tried again, nothing ends and nothing is lost."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.faults import NEED_ROOT, RELAY, cared_for, need, number_of, offer, text_of
from support.sink import Behaviour, sinking
from support.users import ensure_mail_user

pytestmark = [NEED_ROOT, pytest.mark.timeout(150)]


def limited(config: str, files: int) -> Daemon:
    """A daemon whose processes may hold so many descriptors each."""
    return Daemon(config, prefix=(need("prlimit"), f"--nofile={files}:{files}"))


def test_more_clients_than_descriptors() -> None:
    """Those beyond are told to come later, those inside are served, and afterwards everybody is."""
    with sinking() as sink, cared_for(limited(RELAY.replace("SINK", str(sink.port)), 80)) as daemon:
        daemon.start()
        clients = [socket.create_connection(("127.0.0.1", daemon.port), 20) for _ in range(120)]
        try:
            greetings = [client.recv(600)[:3] for client in clients]
            assert set(greetings) == {b"220", b"421"}
            assert greetings[0] == b"220"
            assert 10 <= greetings.count(b"220") <= 40
            clients[0].sendall(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
            clients[0].sendall(text_of(1, 300_000).encode() + b".\r\nQUIT\r\n")
            said = b""
            while b"\r\n221" not in said and (data := clients[0].recv(4096)):
                said += data
            assert b"250 2.0.0" in said
        finally:
            for client in clients:
                client.close()
        wait_until("a normal client is served", lambda: offer(daemon, 2, 200_000) == 250, 10)
        wait_until("both arrive", lambda: sorted(number_of(mail.data) for mail in sink.mails) == [1, 2])
        daemon.wait_empty()
        assert daemon.stop() == 0


def test_a_start_with_too_few_descriptors_says_so() -> None:
    """One line and exit status 1; no process is left."""
    with cared_for(limited(RELAY.replace("SINK", "9"), 24)) as daemon:
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 1
        daemon.wait_logged("Too many open files")


def send_all(daemon: Daemon, numbers: range, size_bytes: int, threads: int, rcpt: str = "b@example.com") -> set[int]:
    """Offer messages from several clients at once; the numbers that were accepted."""
    left, accepted, codes = iter(numbers), set(), set()
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            code = offer(daemon, number, size_bytes, rcpt)
            with lock:
                codes.add(code)
                if code == 250:
                    accepted.add(number)

    running = [threading.Thread(target=client) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert codes <= {250, 421, 451, 452}, codes
    return accepted


@pytest.mark.parametrize("files", [52, 64])
def test_large_bodies_with_few_descriptors(files: int) -> None:
    """A body needs a descriptor in smtp, queue and delivery: 250 means delivered all the same."""
    behaviour = Behaviour(slow_secs=0.02)
    with (
        sinking(behaviour=behaviour) as sink,
        cared_for(limited(RELAY.replace("SINK", str(sink.port)), files)) as daemon,
    ):
        daemon.start()
        accepted = send_all(daemon, range(120), 90_000, 30)
        assert accepted
        arrived: set[int] = set()

        def all_there() -> bool:
            daemon.ctl("schedule", "all")
            arrived.update(number_of(mail.data) for mail in list(sink.mails))
            return arrived == accepted

        wait_until("all that was accepted arrives", all_there, 60)
        daemon.wait_empty()
        assert len(sink.mails) == len(accepted), "delivered more than once"
        assert daemon.stop() == 0


@pytest.fixture
def mail_home() -> Iterator[Path]:
    """A folder that the mail user owns."""
    user = ensure_mail_user()
    home = Path(f"/var/tmp/sps-faults-{threading.get_native_id()}")
    home.mkdir()
    shutil.chown(home, user, user)
    yield home
    shutil.rmtree(home)


def test_agents_with_few_descriptors(mail_home: Path) -> None:
    """A batch of large messages for a Maildir: temporary failures at worst, and each message once."""
    config = f"""
table users {{ "@" = "{ensure_mail_user()}" }}
listen on 127.0.0.1 port {{port}}
action box maildir "{mail_home}/box" virtual <users>
match from any for domain "example.com" action box
"""
    with cared_for(limited(config, 52)) as daemon:
        daemon.start()
        accepted = send_all(daemon, range(80), 70_000, 6)
        accepted |= send_all(daemon, range(100, 200), 0, 6)

        def all_there() -> bool:
            daemon.ctl("schedule", "all")
            return daemon.queued() == 0

        wait_until("the queue is empty", all_there, 60)
        arrived = [number_of(path.read_bytes()) for path in (mail_home / "box/new").iterdir()]
        assert sorted(arrived) == sorted(accepted)
        assert not list((mail_home / "box/tmp").iterdir())
        assert daemon.stop() == 0
