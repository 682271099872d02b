"""Servers to deliver to, and benches that are closed after each test."""

import contextlib

import pytest
from delivery_bench import BENCHES
from delivery_sink import Script, Sink


@pytest.fixture(autouse=True)
def end_benches():
    yield
    for bench in BENCHES:
        bench.close()
    BENCHES.clear()


@pytest.fixture
def sinks():
    with contextlib.ExitStack() as stack:

        def make(path: str = "", **script) -> Sink:
            sink = Sink(Script(**script), path)
            stack.callback(sink.close)
            return sink

        yield make
