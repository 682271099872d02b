"""A full or unwritable spool: senders hear 4xx, nothing accepted is lost, and no restart is needed."""

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.faults import (
    ENCRYPTED,
    NEED_ROOT,
    RELAY,
    cared_for,
    mount,
    need,
    number_of,
    offer,
    on_small_disk,
    text_of,
    unmount,
)
from support.sink import Behaviour, Sink, sinking

pytestmark = [NEED_ROOT, pytest.mark.timeout(120)]

MIB = 1024 * 1024


def fill(state: Path, left_bytes: int = 0) -> Path:
    """Take all room but `left_bytes` with a file of somebody else's."""
    path = state / "ballast"
    with path.open("wb") as file:
        while True:
            room = os.statvfs(state)
            try:
                if (take := room.f_bavail * room.f_frsize - left_bytes) > 0:
                    os.posix_fallocate(file.fileno(), 0, take)
            except OSError as error:  # the daemon has taken some of it meanwhile
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return path


def numbers(sink: Sink) -> list[int]:
    """What arrived, in order."""
    return [number_of(mail.data) for mail in sink.mails]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("lines", ["", ENCRYPTED], ids=["plain", "encrypted"])
def test_a_full_disk_refuses_mail_and_drains(lines: str) -> None:
    """Small and large bodies hear 452; what was accepted is delivered, and that alone makes room for new mail."""
    with (
        sinking(behaviour=Behaviour(slow_secs=0.1)) as sink,
        on_small_disk(lines + RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon,
    ):
        daemon.start()
        daemon.ctl("pause", "mta")  # nothing is tried, so nothing but new mail is written meanwhile
        accepted, number, full = set(), 0, 0
        while full < 6 and number < 400:
            number += 1
            code = offer(daemon, number, 300_000 if number % 2 else 30_000)
            assert code in (250, 452), (code, daemon.log[-3000:])
            accepted |= {number} if code == 250 else set()
            full += code == 452
        assert full == 6 and len(accepted) > 20
        assert (daemon.state / "spool/queue/reserve").exists()
        fill(daemon.state)  # before anything leaves, or the ballast takes the room that is made
        daemon.ctl("resume", "mta")
        for late in range(1000, 1010):  # small ones may still fit into the room that the database has
            code = offer(daemon, late, late % 2 * 200_000)
            assert code in (250, 452)
            accepted |= {late} if code == 250 else set()
        # Where no more room is left to decrypt one more at the same time, its turn comes five seconds later.
        wait_until("the accepted mail arrives", lambda: set(numbers(sink)) == accepted, 90)
        daemon.wait_empty()
        assert len(sink.mails) == len(accepted), "delivered more than once"
        wait_until("new mail is taken", lambda: offer(daemon, 2000, 300_000) == 250)
        assert offer(daemon, 2001) == 250
        wait_until("new mail arrives", lambda: {2000, 2001} <= set(numbers(sink)))
        daemon.wait_empty()
        assert list((daemon.state / "spool/queue/bodies").iterdir()) == []
        assert daemon.stop() == 0


def test_schedule_on_a_disk_without_a_byte_left() -> None:
    """Where not even the room kept back is there, `schedule all` still has everything delivered, once."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, on_small_disk(RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon:
        daemon.start()
        for number in range(30):
            assert offer(daemon, number, number % 3 * 40_000) == 250
        wait_until("all were tried", lambda: daemon.log.count("TempFail") >= 30)
        (daemon.state / "spool/queue/reserve").unlink()
        ballast = fill(daemon.state)
        behaviour.data = "250 ok"
        daemon.schedule_until("all of it arrives", lambda: sorted(numbers(sink)) == list(range(30)))
        ballast.unlink()
        daemon.wait_empty()
        assert sorted(numbers(sink)) == list(range(30))
        assert daemon.stop() == 0


def test_a_start_on_a_full_disk() -> None:
    """The daemon starts, delivers what it has, and thereby makes room."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, on_small_disk(RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon:
        daemon.start()
        for number in range(60):
            assert offer(daemon, number, 100_000) == 250
        assert daemon.stop() == 0
        fill(daemon.state)
        daemon.start()
        assert daemon.queued() == 60
        behaviour.data = "250 ok"
        daemon.schedule_until("all of it arrives", lambda: sorted(numbers(sink)) == list(range(60)))
        daemon.wait_empty()
        assert daemon.stop() == 0


def test_room_that_vanishes_after_recipients_were_taken() -> None:
    """452 at the end of DATA, small and large, where the disk filled up after RCPT; nothing of it is kept."""
    with sinking() as sink, on_small_disk(RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon:
        daemon.start()
        for size_bytes in (60_000, 400_000):
            with daemon.smtp() as client:
                client.ehlo()
                client.mail("a@client.test")
                assert client.rcpt("b@example.com")[0] == 250
                ballast = fill(daemon.state)
                try:
                    code, text = client.data(text_of(7, size_bytes))
                    assert (code, text[:5]) == (452, b"4.3.1"), (code, text)
                finally:
                    ballast.unlink()
        assert daemon.queued() == 0
        assert list((daemon.state / "spool/queue/bodies").iterdir()) == []
        wait_until("mail is taken again", lambda: offer(daemon, 1, 400_000) == 250)
        wait_until("it arrives", lambda: numbers(sink) == [1])
        daemon.wait_empty()
        assert daemon.stop() == 0


def test_deliveries_and_bounces_while_the_disk_is_full() -> None:
    """Outcomes wait in memory: nothing is delivered twice, and every bounce comes once there is room."""
    behaviour = Behaviour(data="451 4.3.0 later", rcpt={"bad@example.com": "550 5.1.1 no such user"})
    with sinking(behaviour=behaviour) as sink, on_small_disk(RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon:
        daemon.start()
        behaviour.rcpt["bad@example.com"] = "451 4.1.1 later"
        for number in range(20):
            assert offer(daemon, number) == 250
            assert offer(daemon, 100 + number, rcpt="bad@example.com") == 250
        assert daemon.queued() == 40
        wait_until("all were tried", lambda: daemon.log.count("TempFail") >= 40)
        daemon.ctl("pause", "mta")  # or all may be over before the disk is full
        behaviour.data, behaviour.rcpt["bad@example.com"] = "250 ok", "550 5.1.1 no such user"
        daemon.ctl("schedule", "all")
        ballast = fill(daemon.state)
        daemon.ctl("resume", "mta")
        wait_until("a commit fails", lambda: "changes failed" in daemon.log, 20)
        wait_until("the mail arrives", lambda: sum(bool(mail.sender) for mail in list(sink.mails)) >= 20)
        time.sleep(2.5)  # the commit is tried again twice
        ballast.unlink()
        wait_until("mail and bounces arrive", lambda: len(sink.mails) >= 40, 40)
        daemon.wait_empty()
        plain = [number_of(mail.data) for mail in sink.mails if mail.sender]
        assert sorted(plain) == list(range(20))
        bounces = [mail for mail in sink.mails if not mail.sender]
        assert sorted(number_of(mail.data) for mail in bounces) == list(range(100, 120))
        assert daemon.stop() == 0


def test_a_spool_that_becomes_read_only() -> None:
    """4xx while it lasts, mail in the queue is kept, and mail is taken again afterwards; never a restart."""
    with sinking() as sink, on_small_disk(RELAY.replace("SINK", str(sink.port)), 24 * MIB) as daemon:
        daemon.start()
        assert offer(daemon, 1) == 250
        queue_dir, queue = daemon.state / "spool/queue", daemon.pids()["queue"]
        # What is open has no room, and what is opened anew is on a read-only file system.
        mount("--bind", str(queue_dir), str(queue_dir))
        try:
            mount("-o", "remount,bind,ro", str(queue_dir))
            with daemon.smtp() as client:
                client.ehlo()
                assert client.mail("a@client.test")[0] == 250
                assert client.rcpt("b@example.com")[0] == 250
                ballast = fill(daemon.state)
                assert client.data(text_of(9, 60_000))[0] == 452
            ballast.unlink()
            wait_until("the look at the free room is renewed", lambda: offer(daemon, 100) == 451)
            codes = {offer(daemon, 101 + n, n % 2 * 200_000) for n in range(8)}
            assert codes <= {451, 452}, codes
            assert "stopped" not in daemon.log
        finally:
            unmount(queue_dir)
        wait_until("mail is taken again", lambda: offer(daemon, 2, 200_000) == 250)
        assert offer(daemon, 3) == 250
        wait_until("all of it arrives", lambda: sorted(numbers(sink)) == [1, 2, 3])
        daemon.wait_empty()
        assert daemon.pids()["queue"] == queue
        assert daemon.stop() == 0


@pytest.mark.parametrize("when", ["running", "stopped"])
def test_a_file_system_that_gives_up(when: str, tmp_path: Path) -> None:
    """The kernel makes a faulty ext4 read-only under the daemon: 4xx; after the repair all that was accepted comes."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run([need("mkfs.ext4"), "-q", "-F", str(image)], check=True)
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, cared_for(Daemon(RELAY.replace("SINK", str(sink.port)))) as daemon:
        daemon.state.mkdir()
        mount("-o", "loop,errors=remount-ro", str(image), str(daemon.state))
        try:
            daemon.state.chmod(0o711)
            daemon.start()
            accepted = {number for number in range(30) if offer(daemon, number, number % 3 * 50_000) == 250}
            assert len(accepted) == 30
            if when == "stopped":
                assert daemon.stop() == 0
            mount("-o", "remount,abort", str(daemon.state))
            if when == "running":
                codes = {offer(daemon, 100 + n, n % 2 * 200_000) for n in range(6)}
                assert codes <= {451, 452}, codes
                daemon.queued()
                assert daemon.stop() == 0, daemon.log[-3000:]
            subprocess.run(["umount", str(daemon.state)], check=True)
            mount("-o", "loop", str(image), str(daemon.state))
            behaviour.data = "250 ok"
            daemon.start()
            daemon.schedule_until("all that was accepted arrives", lambda: accepted <= set(numbers(sink)), 40)
            daemon.wait_empty()
            assert daemon.stop() == 0
        finally:
            unmount(daemon.state)


def test_a_start_on_a_read_only_spool_says_so() -> None:
    """The daemon ends 1 with one line that names the spool; made writable again, it starts."""
    with on_small_disk(RELAY.replace("SINK", "9"), 24 * MIB) as daemon:
        daemon.start()
        assert offer(daemon, 1) == 250
        assert daemon.stop() == 0
        mount("-o", "remount,ro", str(daemon.state))
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 1
        daemon.wait_logged("Read-only file system")
        mount("-o", "remount,rw", str(daemon.state))
        daemon.start()
        assert daemon.queued() == 1
        assert daemon.stop() == 0
