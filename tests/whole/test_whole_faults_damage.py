"""Damage in the spool: the daemon starts and delivers everything else; the damaged entry is quarantined and logged."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.faults import CODED, RELAY, cared_for, number_of, offer
from support.sink import Behaviour, sinking

from smtpd_ps.queue.store.embedded import wal_frames
from smtpd_ps.queue.store.records import CODED_MARK

pytestmark = pytest.mark.timeout(120)

MESSAGES = 24
LARGE = {3, 9, 15}


def flip(path: Path, place: int, bit: int = 3) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def damage_page_type(queue: Path) -> None:
    """The first byte of a leaf of the database."""
    data = (queue / "queue.db").read_bytes()
    leaves = [at for at in range(4096, len(data), 4096) if data[at] == 0x0D]
    flip(queue / "queue.db", leaves[len(leaves) // 2])


def damage_record(queue: Path) -> None:
    """A sender's name in an envelope."""
    flip(queue / "queue.db", (queue / "queue.db").read_bytes().rindex(b"a@client.test") + 2, 0)


def damage_body(queue: Path) -> None:
    """A letter of a small body."""
    flip(queue / "queue.db", (queue / "queue.db").read_bytes().index(b"padding of message") + 3, 0)


def damage_header(queue: Path) -> None:
    """The first byte of the database."""
    flip(queue / "queue.db", 0)


def damage_index(queue: Path) -> None:
    """An inner or leaf page of the schedule."""
    data = (queue / "queue.db").read_bytes()
    flip(queue / "queue.db", next(at for at in range(4096, len(data), 4096) if data[at] in b"\x02\x0a") + 4, 2)


def damage_log(queue: Path) -> None:
    """A frame in the first third of the write-ahead log, as a kill left it."""
    with (queue / "queue.db-wal").open("rb") as log:
        frames = len(wal_frames(log.fileno()))
    assert frames > 8
    flip(queue / "queue.db-wal", 32 + frames // 3 * 4120 + 1000)


def damage_file(queue: Path) -> None:
    """A byte of a large body."""
    path = sorted((queue / "bodies").iterdir())[0]
    flip(path, path.stat().st_size // 2)


def shorten_file(queue: Path) -> None:
    """The end of a large body."""
    path = sorted((queue / "bodies").iterdir())[1]
    os.truncate(path, path.stat().st_size // 2)


def remove_file(queue: Path) -> None:
    """The whole of a large body."""
    sorted((queue / "bodies").iterdir())[2].unlink()


def damage_coded_body(queue: Path) -> None:
    """A byte of a small body that is compressed and encrypted."""
    with contextlib.closing(sqlite3.connect(queue / "queue.db")) as store:
        (body,) = store.execute("SELECT data FROM body LIMIT 1").fetchone()
    assert body[:1] == CODED_MARK
    flip(queue / "queue.db", (queue / "queue.db").read_bytes().index(body[:200]) + len(body[:200]) // 2)


def damage_coded_record(queue: Path) -> None:
    """A byte of an encrypted record of envelopes."""
    with contextlib.closing(sqlite3.connect(queue / "queue.db")) as store:
        (record,) = store.execute("SELECT record FROM message LIMIT 1").fetchone()
    assert record[:1] == CODED_MARK
    flip(queue / "queue.db", (queue / "queue.db").read_bytes().index(record) + len(record) // 2)


CODED_DAMAGES = [
    (damage_page_type, 0),
    (damage_coded_record, 1),
    (damage_coded_body, 1),
    (damage_log, 1),
    (damage_file, 1),
    (shorten_file, 1),
]


@pytest.mark.parametrize(("damage", "lost"), CODED_DAMAGES)
def test_a_damaged_spool_that_is_encrypted(damage: object, lost: int) -> None:
    """Compression and encryption make no difference: a wrong byte costs the message that it is in, and no other."""
    spoiled_and_delivered(damage, lost, CODED)


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (damage_page_type, 0),
        (damage_record, 1),
        (damage_body, 1),
        (damage_header, 0),
        (damage_index, 0),
        (damage_log, 1),
        (damage_file, 1),
        (shorten_file, 1),
        (remove_file, 1),
    ],
)
def test_a_damaged_spool(damage: object, lost: int) -> None:
    """Everything but what the damage hit is delivered, once; the queue goes on to take mail."""
    spoiled_and_delivered(damage, lost)


def spoiled_and_delivered(damage: object, lost: int, lines: str = "") -> None:
    """Fill a queue, damage it, and see what is delivered."""
    assert callable(damage)
    behaviour = Behaviour(data="451 4.3.0 later")
    with (
        sinking(behaviour=behaviour) as sink,
        cared_for(Daemon(lines + RELAY.replace("SINK", str(sink.port)))) as daemon,
    ):
        daemon.start()
        for number in range(MESSAGES):
            assert offer(daemon, number, 90_000 if number in LARGE else 500 + number * 300) == 250
        if damage is damage_log:
            pids = daemon.pids()
            os.kill(pids["queue"], 9)  # first: it would close its store in order when others are gone
            for pid in pids.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            assert daemon.process is not None
            daemon.process.wait(10)
            daemon.wait_gone(pids)
        else:
            assert daemon.stop() == 0
        damage(daemon.state / "spool/queue")
        behaviour.data = "250 ok"
        daemon.start()
        daemon.schedule_until("the others arrive", lambda: len(sink.mails) >= MESSAGES - lost)
        daemon.wait_empty()
        arrived = [number_of(mail.data) for mail in sink.mails]
        assert len(arrived) == len(set(arrived)), "delivered twice"
        assert daemon.log.count("quarantine msgid=") == MESSAGES - len(arrived) <= lost, daemon.log[-3000:]
        assert offer(daemon, 500) == 250
        wait_until("new mail arrives", lambda: number_of(sink.mails[-1].data) == 500)
        daemon.wait_empty()
        assert daemon.stop() == 0


def test_a_body_file_deleted_under_the_running_daemon() -> None:
    """It is quarantined when its turn comes; the daemon goes on, and the operator can remove it."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, cared_for(Daemon(RELAY.replace("SINK", str(sink.port)))) as daemon:
        daemon.start()
        for number in range(4):
            assert offer(daemon, number, 90_000) == 250
        wait_until("all were tried", lambda: daemon.log.count("TempFail") >= 4)
        gone = sorted((daemon.state / "spool/queue/bodies").iterdir())[0]
        gone.unlink()
        behaviour.data = "250 ok"
        daemon.schedule_until("the others arrive", lambda: len(sink.mails) == 3)
        wait_until("it is quarantined", lambda: f"quarantine msgid={gone.name} reason=no body file" in daemon.log)
        daemon.ctl("remove", gone.name)
        daemon.wait_empty()
        assert daemon.stop() == 0
