"""Leases of message ids."""

import pytest

from smtpd_ps.queue import ids
from smtpd_ps.queue.ids import BLOCK_IDS, IdSpace, LeaseError, LeaseVoid, Lessee, OwnIds


def free(_first: int, _last: int) -> bool:
    return False


def test_leases_never_overlap():
    """Two smtp processes and queue itself have different ids, all below 2^31 and above 0."""
    space = IdSpace(free)
    own = OwnIds(space)
    leased = [*Lessee(space).lease(), *Lessee(space).lease(), *(own.next() for _ in range(1500))]
    assert len(set(leased)) == len(leased)
    assert min(leased) > 0 and max(leased) < 2**31


def test_ids_that_the_store_has_are_not_leased():
    """A block is asked for as a whole."""
    asked = []

    def taken(first: int, last: int) -> bool:
        asked.append((first, last))
        return len(asked) < 3

    first = IdSpace(taken).block()
    assert asked[-1] == (first, first + BLOCK_IDS - 1)
    assert len(asked) == 3


def test_an_id_is_used_once_by_its_lessee():
    """Used before, leased to another, leased to nobody: each is refused."""
    space = IdSpace(free)
    one, other = Lessee(space), Lessee(space)
    (first, *_), (others, *_) = one.lease(), other.lease()
    one.use(first)
    for bad in (first, others, first + BLOCK_IDS, first + 1023, 0):
        with pytest.raises(LeaseError):
            one.use(bad)
    assert one.left == BLOCK_IDS - 1


def test_a_used_up_block_costs_no_memory():
    """Its ids are refused all the same."""
    lessee = Lessee(IdSpace(free))
    block = lessee.lease()
    for msgid in block:
        lessee.use(msgid)
    assert not lessee._blocks and lessee.left == 0
    with pytest.raises(LeaseError):
        lessee.use(block[0])


def test_very_old_leases_are_void_but_no_crime(monkeypatch):
    """Memory for leases is bounded; an id beyond it is refused without ending the daemon."""
    monkeypatch.setattr(ids, "BLOCKS_REMEMBERED", 3)
    lessee = Lessee(IdSpace(free))
    blocks = [lessee.lease() for _ in range(4)]
    with pytest.raises(LeaseVoid):
        lessee.use(blocks[0][0])
    lessee.use(blocks[1][0])
    with pytest.raises(LeaseError):
        lessee.use(blocks[1][0])


def test_envelope_ids_are_of_their_message_and_differ():
    """The upper 32 bits are the message's; all 63 bits fit the contract."""
    evpids = IdSpace(free).evpids(2**31 - 1, 5000)
    assert len(set(evpids)) == 5000
    assert {evpid >> 32 for evpid in evpids} == {2**31 - 1}
    assert max(evpids) < 2**63
