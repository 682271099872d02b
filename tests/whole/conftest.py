"""The users that the real daemon runs as exist before any whole-daemon test."""

import pytest
from support.users import ensure_daemon_users


@pytest.fixture(scope="session", autouse=True)
def _daemon_users() -> None:
    ensure_daemon_users()
