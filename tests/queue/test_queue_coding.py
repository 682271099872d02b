"""Compressed and encrypted: what is on the disk, what comes back, and what damage does."""

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_rig import START_MS, Lines, envelope

from smtpd_ps.osdep.aes_gcm import Key
from smtpd_ps.queue.bodies import BodyFiles, WrongSize
from smtpd_ps.queue.importing import Importer
from smtpd_ps.queue.spool import open_spool
from smtpd_ps.queue.store.coding import Coder, WrongKey
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.protocol import Damaged, Group, Insert
from smtpd_ps.queue.store.records import DamagedRecord, StoredEnvelope, StoredMessage, checksum

KEY, OTHER = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"
BODY = b"Subject: a secret\r\n\r\n" + b"the quick brown fox\r\n" * 400
WAYS = [(False, True), (True, False), (True, True)]


def coder(compress: bool = True, encrypt: bool = True, key: bytes = KEY) -> Coder:
    return Coder(compress, Key(key) if encrypt else None)


def message(msgid: int, body: bytes = BODY, *, in_file: bool = False) -> StoredMessage:
    made = StoredEnvelope(envelope("hidden-recipient@example.org", sender="hidden-sender@example.com"), START_MS)
    return StoredMessage(1, msgid, START_MS, len(body), False, in_file, checksum(body), {msgid << 32 | 7: made})


def store_of(path: Path, how: Coder) -> EmbeddedStore:
    return EmbeddedStore(path / "queue.db", coder=how)


@pytest.mark.parametrize(("compress", "encrypt"), WAYS)
@given(data=st.binary(max_size=2000), msgid=st.integers(1, 2**31 - 1))
def test_what_is_coded_comes_back(compress: bool, encrypt: bool, data: bytes, msgid: int) -> None:
    """Whatever it is; None where it is best left as it is, never where it is to be encrypted."""
    how = coder(compress, encrypt)
    coded = how.encode("body", msgid, data)
    assert coded is not None or not encrypt
    assert coded is None or how.decode("body", msgid, coded) == data


@pytest.mark.parametrize(("compress", "encrypt"), WAYS)
def test_on_the_disk(tmp_path: Path, compress: bool, encrypt: bool) -> None:
    """Nothing of an encrypted message can be read in the database, a compressed one is smaller."""
    store = store_of(tmp_path, coder(compress, encrypt))
    store.write(Group([Insert(message(n), BODY) for n in range(1, 21)], [], []))
    assert [store.body(one) for one in store.scan(0, 100) if isinstance(one, StoredMessage)] == [BODY] * 20
    store.close()
    raw = (tmp_path / "queue.db").read_bytes()
    assert (b"hidden-" not in raw and b"quick brown" not in raw) == encrypt or compress
    assert not compress or len(raw) < 20 * len(BODY) // 2


def test_on_and_off_strands_nothing(tmp_path: Path) -> None:
    """Messages stored in each way are read by a queue that stores in another, and rewritten in its way."""
    ways = [Coder(), coder(True, False), coder(False, True), coder()]
    for number, how in enumerate(ways, 1):
        store = store_of(tmp_path, how)
        store.write(Group([Insert(message(number), BODY)], [], []))
        store.close()
    how = coder()
    how.compress = how.encrypt = False
    store = store_of(tmp_path, how)
    found = [one for one in store.scan(0, 100) if isinstance(one, StoredMessage)]
    assert [store.body(one) for one in found] == [BODY] * 4
    assert store.count_encrypted() == 2
    store.write(Group([], found, []))
    assert store.count_encrypted() == 0
    assert [store.body(one) for one in store.load([1, 2, 3, 4]) if isinstance(one, StoredMessage)] == [BODY] * 4
    store.close()


def test_nothing_can_take_the_place_of_another() -> None:
    """The message's id and the part are bound."""
    how = coder()
    coded = how.encode("body", 5, BODY)
    assert coded is not None
    for part, msgid in (("body", 6), ("record", 5)):
        with pytest.raises(DamagedRecord, match="not what was encrypted"):
            how.decode(part, msgid, coded)


def test_no_nonce_twice() -> None:
    """Two encodings of the same bytes differ, also when the counter of a run is used up."""
    how = coder(False)
    made = {how.encode("body", 5, b"x")[2:14] for _ in range(100)}
    how._count = 0xFFFFFFFE
    made |= {how.encode("body", 5, b"x")[2:14] for _ in range(100)}
    assert len(made) == 200


@given(st.binary(max_size=200))
def test_any_bytes_are_damage_and_not_a_crash(data: bytes) -> None:
    """What is not coded is a DamagedRecord."""
    with pytest.raises(DamagedRecord):
        coder().decode("body", 1, b"\xc1" + data)


def test_a_bomb_is_damage() -> None:
    """Few bytes that become very many."""
    how = coder(True, False)
    bomb = how.encode("body", 1, bytes(20 * 1024 * 1024))
    assert bomb is not None and len(bomb) < 200_000
    with pytest.raises(DamagedRecord, match="more than"):
        how.decode("body", 1, bomb)


# Files.


@pytest.mark.parametrize(("compress", "encrypt"), WAYS)
def test_large_bodies(rigs, tmp_path: Path, compress: bool, encrypt: bool) -> None:
    """A body that came in a file goes to delivery as it was, over a restart, and lies coded meanwhile."""
    body = b"Subject: large\r\n\r\n" + b"all work and no play\r\n" * 20_000
    how = coder(compress, encrypt)
    rig = rigs(tmp_path, store=store_of(tmp_path, how))
    rig.bodies.coder = how
    msgid = rig.accept_file(body=body)
    stored = (tmp_path / "bodies" / f"{msgid:08x}").read_bytes()
    assert b"all work" not in stored and (not compress or len(stored) < len(body) // 4)
    assert rig.jobs()[0].msgid == msgid
    with open(rig.delivery.fds.pop(), "rb") as file:
        assert file.read() == body
    bodies = BodyFiles(tmp_path / "bodies", how)
    (loaded,) = rig.store.load([msgid])
    fd = bodies.open_checked(loaded)
    with open(fd, "rb") as file:
        assert file.read() == body
    assert os.listdir(tmp_path / "bodies") == [f"{msgid:08x}"]
    bodies.close()
    rig.close()


def test_a_damaged_file_is_quarantined(rigs, tmp_path: Path) -> None:
    """A flipped bit anywhere in it; the queue goes on."""
    how = coder()
    rig = rigs(tmp_path, store=store_of(tmp_path, how))
    rig.bodies.coder = how
    draw = random.Random(5)
    for _ in range(20):
        msgid = rig.ids[0]
        rig.shared.scheduler.pause("mta")
        rig.accept_file(body=BODY * 20)
        path = tmp_path / "bodies" / f"{msgid:08x}"
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        rig.shared.scheduler.resume("mta")
        rig.queue.wake()
        rig.timers.turn()
        assert rig.jobs() == []
        (found,) = rig.store.load([msgid])
        assert isinstance(found, Damaged)
    assert rig.log.has("quarantine msgid=")
    rig.close()


def test_no_name_while_it_is_received(rigs, tmp_path: Path) -> None:
    """What smtp writes in the clear has no name, however its transaction ends; without encryption it has one."""
    directory = tmp_path / "bodies"
    bodies = BodyFiles(directory, coder())
    before = len(os.listdir("/dev/fd"))
    for msgid, ends in ((1, "refused"), (2, "aborted"), (3, "sealed"), (4, "encryption turned off")):
        fd = bodies.create(msgid)
        os.write(fd, BODY)
        os.close(fd)
        assert os.listdir(directory) == []
        match ends:
            case "refused":
                assert isinstance(bodies.seal([(msgid, 1)])[msgid], WrongSize)
            case "aborted":
                bodies.remove(msgid)
            case "sealed":
                assert bodies.seal([(msgid, len(BODY))]) == {}
                assert BODY not in (directory / f"{msgid:08x}").read_bytes()
                bodies.remove(msgid)
            case _:
                bodies.coder.compress = bodies.coder.encrypt = False
                assert bodies.seal([(msgid, len(BODY))]) == {}
                assert (directory / f"{msgid:08x}").read_bytes() == BODY
                bodies.remove(msgid)
        assert len(os.listdir("/dev/fd")) == before
    os.close(bodies.create(5))
    assert os.listdir(directory) == ["00000005"]
    bodies.close()


def test_leftovers_are_swept(tmp_path: Path) -> None:
    """Files that were being written when the process died are gone after the next start."""
    bodies = BodyFiles(tmp_path / "bodies", coder())
    for name in ("0000000a.coding", "0000000a.plain"):
        (tmp_path / "bodies" / name).write_bytes(b"x")
    assert bodies.sweep(lambda _msgid: True) == 0
    assert os.listdir(tmp_path / "bodies") == []
    bodies.close()


# The key.


def spool(path: Path, how: Coder | None = None) -> None:
    store, bodies = open_spool(path, Lines(), how)
    bodies.close()
    store.close()


def filled(path: Path, how: Coder) -> None:
    store, bodies = open_spool(path, Lines(), how)
    store.write(Group([Insert(message(9), BODY)], [], []))
    bodies.close()
    store.close()


def test_a_wrong_key_does_not_open_the_spool(tmp_path: Path) -> None:
    """And changes nothing: the right one still reads all."""
    filled(tmp_path, coder())
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(WrongKey, match="1 message encrypted with another key"):
        spool(tmp_path, coder(key=OTHER))
    with pytest.raises(WrongKey, match="give it with queue encryption"):
        spool(tmp_path)
    assert (tmp_path / "key").read_bytes() == before
    store, bodies = open_spool(tmp_path, Lines(), coder())
    (loaded,) = store.load([9])
    assert isinstance(loaded, StoredMessage) and store.body(loaded) == BODY
    bodies.close()
    store.close()


def test_without_the_key_nothing_is_taken_for_damaged(tmp_path: Path) -> None:
    """An import opens the store without it: what it cannot read stays as it is, and its id stays taken."""
    filled(tmp_path, coder())
    made = Importer(tmp_path, None, START_MS)
    old = b"version: 3\ndispatcher: a\ntype: mta\nsender: @\nrcpt: x@y.example\ndest: x@y.example\nctime: 1\n"
    assert made.take(9, b"Subject: x\n\nx\n", {1: old}) == 1
    made.close()
    store, bodies = open_spool(tmp_path, Lines(), coder())
    assert [one.msgid for one in store.scan(0, 100) if isinstance(one, StoredMessage)] == [9, 10]
    assert store.damaged(0, 100) == []
    bodies.close()
    store.close()


def test_a_flipped_bit_in_a_stored_body_or_record(rigs, tmp_path: Path) -> None:
    """Small bodies lie in the database: the message is quarantined, the next one is delivered."""
    how = coder()
    rig = rigs(tmp_path, store=store_of(tmp_path, how))
    rig.bodies.coder = how
    rig.shared.scheduler.pause("mta")
    first, second, third = (rig.accept(body=BODY) for _ in range(3))
    for msgid in (first, second, third):
        rig.queue.window.forget(rig.queue.window.held[msgid])
    db = rig.store._open
    for statement, msgid in (("UPDATE body SET data = ? WHERE msgid = ?", first),
                             ("UPDATE message SET record = ? WHERE msgid = ?", second)):  # fmt: skip
        table = statement.split()[1]
        column = "data" if table == "body" else "record"
        data = bytearray(db.execute(f"SELECT {column} FROM {table} WHERE msgid = ?", (msgid,)).fetchone()[0])
        data[len(data) // 2] ^= 4
        db.execute(statement, (bytes(data), msgid))
    rig.shared.scheduler.resume("mta")
    rig.queue.window.look_again()
    rig.queue.wake()
    rig.timers.turn()
    assert [job.msgid for job in rig.jobs()] == [third]
    assert {one.msgid for one in rig.store.damaged(0, 10)} == {first, second}
    rig.close()


def test_the_check_value_may_be_lost(tmp_path: Path) -> None:
    """Then the mail itself says whether the key is right."""
    filled(tmp_path, coder())
    (tmp_path / "key").unlink()
    with pytest.raises(WrongKey):
        spool(tmp_path, coder(key=OTHER))
    spool(tmp_path, coder())
    assert (tmp_path / "key").exists()


def test_an_empty_queue_takes_any_key(tmp_path: Path) -> None:
    """Another key, or none, where nothing encrypted is left."""
    spool(tmp_path, coder())
    spool(tmp_path, coder(key=OTHER))
    with pytest.raises(WrongKey):
        coder().check((tmp_path / "key").read_bytes())
    spool(tmp_path)
    assert not (tmp_path / "key").exists()


def test_salvage_of_an_encrypted_queue(tmp_path: Path) -> None:
    """A rotten database: what is intact is in the new one, encrypted as it was."""
    store, bodies = open_spool(tmp_path, Lines(), coder())
    for n in range(1, 41):
        store.write(Group([Insert(message(n), BODY)], [], []))
    bodies.close()
    store.close()
    path = tmp_path / "queue.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 + 50] ^= 255
    data[20:40] = bytes(20)
    path.write_bytes(data)
    log = Lines()
    store, bodies = open_spool(tmp_path, log, coder())
    whole = [one for one in store.scan(0, 100) if isinstance(one, StoredMessage)]
    assert log.has("messages salvaged") and len(whole) >= 30
    assert all(store.body(one) == BODY for one in whole)
    assert store.count_encrypted() >= len(whole)
    bodies.close()
    store.close()
    shutil.rmtree(tmp_path)
