"""A database that has rotted: every message whose own bytes are intact is still delivered."""

import os
import random
import shutil
from pathlib import Path

import pytest
from queue_rig import START_MS, Lines, envelope

from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.spool import open_spool
from smtpd_ps.queue.store.embedded import EmbeddedStore, wal_frames
from smtpd_ps.queue.store.protocol import Damaged, Group, Insert, Store, StoreError
from smtpd_ps.queue.store.records import DamagedRecord, StoredEnvelope, StoredMessage, checksum

MESSAGES = 60


def body_of(msgid: int) -> bytes:
    size = (50, 900, 5000, 30_000)[msgid % 4]
    return f"Subject: {msgid}\r\n\r\n".encode() + bytes([65 + msgid % 26]) * size


def message(msgid: int) -> StoredMessage:
    body = body_of(msgid)
    made = StoredEnvelope(envelope(f"user{msgid}@example.org"), START_MS + msgid)
    return StoredMessage(1, msgid, START_MS, len(body), False, False, checksum(body), {msgid << 32 | 7: made})


def ids() -> list[int]:
    return [1000 * number + number % 7 + 1 for number in range(MESSAGES)]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thirds of the messages are in the database's file, one in its log; others came and went."""
    directory = tmp_path_factory.mktemp("spool")
    store = EmbeddedStore(directory / "queue.db")
    every = ids()
    gone = [msgid + 500 for msgid in every]
    half = 2 * len(every) // 3
    for at in range(0, half, 5):
        these = every[at : at + 5] + gone[at : at + 5]
        store.write(Group([Insert(message(msgid), body_of(msgid)) for msgid in these], [], []))
        store.write(Group([], [], gone[at : at + 5]))
    store.tidy(idle=True)
    for msgid in every[half:]:
        store.write(Group([Insert(message(msgid), body_of(msgid))], [], []))
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(directory / name, directory / f"{name}.copy")
    store.close()
    return directory


def fresh(spool: Path, tmp_path: Path, name: str = "s") -> Path:
    """A spool of its own, as a kill leaves it."""
    directory = tmp_path / name
    directory.mkdir()
    for each in ("queue.db", "queue.db-wal"):
        shutil.copy(spool / f"{each}.copy", directory / each)
    return directory


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def intact(store: Store) -> set[int]:
    """Messages that would be delivered, each compared with what was stored."""
    found = set()
    for loaded in store.scan(0, 10_000):
        if isinstance(loaded, Damaged):
            continue
        try:
            body = store.body(loaded)
        except DamagedRecord:
            continue
        assert body == body_of(loaded.msgid)
        assert loaded.envelopes == message(loaded.msgid).envelopes
        found.add(loaded.msgid)
    due = {one.msgid for one in store.due(START_MS * 2, None, 10_000)}
    assert found <= due, "kept and never due"
    return found


def survivors(directory: Path) -> tuple[set[int], Lines]:
    log = Lines()
    store, bodies = open_spool(directory, log)
    found = intact(store)
    store.write(Group([Insert(message(77), body_of(77))], [], []))  # and new mail is taken
    assert intact(store) == found | {77}
    store.close()
    bodies.close()
    return found, log


def test_an_undamaged_spool_is_left_alone(spool: Path, tmp_path: Path) -> None:
    """A kill's log is taken over; nothing is salvaged, nothing set aside."""
    directory = fresh(spool, tmp_path)
    found, log = survivors(directory)
    assert found == set(ids())
    assert log.lines == []
    assert sorted(os.listdir(directory)) == ["bodies", "queue.db"]


@pytest.mark.parametrize("name", ["queue.db", "queue.db-wal"])
@pytest.mark.parametrize("seed", range(4))
def test_one_bit_costs_one_message_at_most(spool: Path, tmp_path: Path, name: str, seed: int) -> None:
    """Wherever it flips, in any page or its header, the daemon starts and has all the others."""
    dice = random.Random(f"{name}{seed}")
    size = (spool / f"{name}.copy").stat().st_size
    for turn in range(40):
        directory = fresh(spool, tmp_path, str(turn))
        # Half of them where the structure is: at the beginning of a page.
        place = dice.randrange(size)
        if turn % 2:
            head = 32 if name.endswith("wal") else 0
            step = 4120 if head else 4096
            place = min(head + (place // step) * step + dice.randrange(40), size - 1)
        flip(directory / name, place, dice.randrange(8))
        found, log = survivors(directory)
        lost = set(ids()) - found
        assert len(lost) <= 1, (place, lost, log.lines)
        if lost:
            assert log.has("quarantine") or _quarantined(directory) == lost, (place, lost, log.lines)
        shutil.rmtree(directory)


def _quarantined(directory: Path) -> set[int]:
    """Messages that are marked, or would be at delivery."""
    store = EmbeddedStore(directory / "queue.db")
    every = {one.msgid for one in store.scan(0, 10_000)}
    lost = every - intact(store)
    store.close()
    return lost


@pytest.mark.parametrize("place", [0, 16, 18, 19, 21, 24, 28, 36, 44, 47, 56, 59, 68, 71, 92, 96, 100, 103, 105, 108])
@pytest.mark.parametrize("bit", [0, 1, 7])
def test_the_first_page_may_be_damaged(spool: Path, tmp_path: Path, place: int, bit: int) -> None:
    """The file's header and the schema are known: no message is lost with them."""
    directory = fresh(spool, tmp_path)
    os.unlink(directory / "queue.db-wal")
    flip(directory / "queue.db", place, bit)
    found, _log = survivors(directory)
    assert found == set(ids()[: 2 * MESSAGES // 3])


def test_pages_of_zeros(spool: Path, tmp_path: Path) -> None:
    """A block that the disk lost: what was on it is named, the rest delivered."""
    size = (spool / "queue.db.copy").stat().st_size
    for number in range(0, size // 4096, 3):
        directory = fresh(spool, tmp_path, str(number))
        with (directory / "queue.db").open("r+b") as file:
            file.seek(number * 4096)
            file.write(bytes(4096))
        found, log = survivors(directory)
        assert len(found) > MESSAGES - 24, (number, log.lines)  # so many records are on a page
        shutil.rmtree(directory)


def test_rot_while_running_is_repaired_at_once(spool: Path, tmp_path: Path) -> None:
    """The store heals itself at the first malformed page that it meets; only that call fails."""
    directory = fresh(spool, tmp_path)
    log = Lines()
    store, bodies = open_spool(directory, log)
    every = intact(store)
    store.close()
    with (directory / "queue.db").open("r+b") as file:
        for number in range(1, os.fstat(file.fileno()).st_size // 4096):
            file.seek(number * 4096)
            if file.read(1) in b"\x02\x05":  # the inner pages of tables and indices
                file.seek(number * 4096)
                file.write(b"\xff" * 8)
    assert not log.lines
    with pytest.raises(StoreError, match="repaired"):
        intact(store)
    assert intact(store) == every
    assert log.has("salvaging")
    store.close()
    bodies.close()


def test_a_crash_while_salvaging_is_made_good(spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever rename it happens, the next start goes on from there."""
    renames = []
    rename = Path.rename
    with (spool / "queue.db-wal.copy").open("rb") as log:
        newer = dict(wal_frames(log.fileno()))
    pages = (spool / "queue.db.copy").read_bytes()
    page = next(n for n in range(2, len(pages) // 4096) if n not in newer and pages[(n - 1) * 4096] == 0x0D)

    for fatal in range(1, 6):
        directory = fresh(spool, tmp_path, str(fatal))
        flip(directory / "queue.db", (page - 1) * 4096, 0)
        renames.clear()

        def dying(self: Path, target: object, fatal: int = fatal) -> Path:
            renames.append(self)
            if len(renames) == fatal:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying)
            try:
                store, bodies = open_spool(directory, Lines())
            except KeyboardInterrupt:
                died = True
            else:
                died = False
                store.close()
                bodies.close()
        assert died == (fatal < 5)
        found, _log = survivors(directory)
        assert found == set(ids())


def test_body_files_of_lost_messages_are_kept(spool: Path, tmp_path: Path) -> None:
    """A file whose envelope is lost is quarantined, not swept."""
    directory = fresh(spool, tmp_path)
    bodies = BodyFiles(directory / "bodies")
    bodies.write(0x5EED, b"a large body")
    bodies.close()
    os.unlink(directory / "queue.db-wal")
    flip(directory / "queue.db", 0, 0)
    log = Lines()
    store, bodies = open_spool(directory, log)
    assert log.has("quarantine msgid=00005eed")
    assert bodies.sweep(store.has) == 0
    assert (directory / "bodies/00005eed").read_bytes() == b"a large body"
    store.close()
    bodies.close()


def test_an_index_that_rotted_in_a_large_database(spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large database is not read as a whole, but its index is compared with its messages all the same."""
    monkeypatch.setattr("smtpd_ps.queue.store.embedded.CHECK_ALL_BYTES", 0)
    directory = fresh(spool, tmp_path)
    store = EmbeddedStore(directory / "queue.db")
    assert store.check() == ""
    store.close()
    path = directory / "queue.db"
    data = path.read_bytes()
    (page,) = [at for at in range(0, len(data), 4096) if data[at] == 0x0A and at]  # the one leaf of the index
    cell = page + int.from_bytes(data[page + 8 : page + 10], "big")
    flip(path, cell + 9, 3)  # in the due time of its first entry
    store = EmbeddedStore(path)
    assert "index" in store.check()
    store.close()
