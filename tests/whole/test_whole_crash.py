"""Kill any process at any moment: what got its 250 is never lost, and only what was in flight comes twice.

The rounds are few here; `make crash ROUNDS=200` (or SPS_CRASH_ROUNDS and SPS_CRASH_SEED in the environment) makes
many of them and prints what it counted.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crashing import MAX_INFLIGHT, Places, Stream, mail_home
from support.daemon import Daemon, wait_until
from support.faults import CODED, NEED_ROOT, cared_for
from support.sink import Behaviour, sinking

ROUNDS = int(os.environ.get("SPS_CRASH_ROUNDS", "18"))
SEED = int(os.environ.get("SPS_CRASH_SEED", "20261122"))
EACH_ROUND = 25  # messages that are accepted before the next kill, at least
VICTIMS = ("smtp", "queue", "delivery", "lookup", "parent", "keys", "control", "agent", "all")

pytestmark = [NEED_ROOT, pytest.mark.timeout(240 + 30 * ROUNDS)]


@pytest.fixture
def home() -> Iterator[Path]:
    """Of the mail."""
    path = mail_home("crash")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def kill(daemon: Daemon, victim: str) -> bool:
    """SIGKILL to the processes of that kind, by pid; whether the daemon ends of it, and has ended."""
    pids = daemon.pids()
    hit = [pid for title, pid in pids.items() if victim in ("all", title.split()[0])]
    for pid in hit:
        with contextlib.suppress(ProcessLookupError):  # it has followed its parent, or was an agent without work
            os.kill(pid, signal.SIGKILL)
    if victim == "agent":
        return False
    assert hit, f"no process is called {victim}: {sorted(pids)}"
    assert daemon.process is not None
    daemon.process.wait(30)
    daemon.wait_gone(pids)
    return True


@pytest.mark.parametrize(("coding", "rounds"), [("", ROUNDS), (CODED, -(-ROUNDS // 4))], ids=["plain", "coded"])
def test_no_accepted_message_is_lost(home: Path, coding: str, rounds: int) -> None:
    """SIGKILL to each kind of process, and to all, at random moments of mail to a relay, a Maildir and a command."""
    dice = random.Random(SEED)
    began = time.monotonic()
    with sinking(behaviour=Behaviour(slow_secs=0.005)) as sink:
        places = Places(home, sink)
        with cared_for(Daemon(places.config(coding))) as daemon:
            daemon.start()
            stream = Stream(daemon)
            doubled, kills, victims = [], dict.fromkeys(VICTIMS, 0), list[str]()
            for _round in range(rounds):
                due = len(stream.accepted) + EACH_ROUND
                wait_until("the stream goes on", lambda due=due: len(stream.accepted) >= due, 90)
                time.sleep(dice.uniform(0, 0.2))
                if not victims:
                    victims = list(VICTIMS)
                    dice.shuffle(victims)
                victim = victims.pop()
                ended = kill(daemon, victim)
                kills[victim] += 1
                if ended:
                    doubled.append(places.look())
                    daemon.start()
            stream.stop()
            daemon.ctl("schedule", "all")
            daemon.wait_empty(180)
            doubled.append(places.look())
            stored = stream.unanswered & set(places.seen)
            print(
                f"seed {SEED}: {rounds} kills ({', '.join(f'{n} {v}' for v, n in kills.items() if n)}) in "
                f"{time.monotonic() - began:.0f} s, {len(stream.accepted)} accepted, "
                f"{len(stream.accepted - set(places.seen))} lost, {sum(doubled)} duplicates, at most {max(doubled)} "
                f"of one kill, {len(stored)} stored without an answer"
            )
            assert not stream.refused
            assert stream.accepted - set(places.seen) == set(), "accepted and lost"
            assert set(places.seen) - stream.accepted - stream.unanswered == set(), "refused and delivered"
            assert sum(doubled) <= rounds * MAX_INFLIGHT, doubled  # one that was doubled late counts for its own kill
            assert daemon.stop() == 0
