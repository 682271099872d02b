"""In which order things are measured. Values only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One measurement: this server under this workload for the `number`th time (from 0)."""

    number: int
    workload: str
    peer: str


def turns(workloads: Sequence[str], peers: Sequence[str], runs: int) -> Iterator[Turn]:
    """Servers next to each other under each workload, every second time the other way round.

    What changes slowly on a machine (heat, neighbours, the disk's mood) then meets all of them alike.
    """
    for number in range(runs):
        for workload in workloads:
            for peer in peers if number % 2 == 0 else reversed(peers):
                yield Turn(number, workload, peer)
