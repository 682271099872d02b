"""SMTP servers on loopback sockets, closed when their test is over."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from smtp_glue import World


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Makes servers, and closes all their sockets afterwards."""
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(**changes))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> Iterator[World]:
    """A server with the default settings, that nobody complained about."""
    made = make_world()
    yield made
    assert made.failures == []
