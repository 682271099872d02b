"""A store that keeps nothing."""

from pathlib import Path

import pytest
from queue_rig import Rig

from smtpd_ps.contract import messages as m
from smtpd_ps.queue.store.ram import NullStore


@pytest.fixture
def null_rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, store=NullStore())


def test_mail_is_accepted_delivered_once_and_nowhere(null_rig: Rig) -> None:
    """Accepted and handed to delivery as ever, from memory; the store has nothing of it."""
    message = null_rig.accept()
    (job,) = null_rig.jobs()
    assert job.msgid == message
    assert null_rig.store.count_envelopes() == 0
    assert not null_rig.store.has(message)
    assert null_rig.store.scan(0, 10) == []
    assert null_rig.smtp.take(m.Committed) is not None
