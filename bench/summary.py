"""From the results of single runs to medians, ranges and ratios. Values only."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `failure` is "" or why its figures say nothing about speed."""

    workload: str
    peer: str
    number: int
    figures: Figures
    failure: str = ""
    at: int = 0  # Unix time of its start
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all runs that succeeded."""

    median: float
    least: float
    most: float
    runs: int


@dataclass(slots=True)
class Cell:
    """One server under one workload."""

    figures: dict[str, Spread] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    runs: int = 0


Summary = dict[str, dict[str, Cell]]  # workload, server


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def summarise(results: Iterable[Result]) -> Summary:
    """Medians of all numbers; a failed run is counted, and its figures are left out."""
    summary: Summary = {}
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results:
        cell = summary.setdefault(result.workload, {}).setdefault(result.peer, Cell())
        cell.runs += 1
        if result.failure:
            cell.failures.append(result.failure)
            continue
        found = values.setdefault((result.workload, result.peer), {})
        for name, value in result.figures.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append(value)
    for (workload, peer), figures in values.items():
        summary[workload][peer].figures = {name: spread(every) for name, every in figures.items()}
    return summary


def ratio(ours: Spread | None, theirs: Spread | None, more_is_better: bool) -> Spread | None:
    """How many times better we are: 2.0 is twice the rate, or half the cost; None: not to be said.

    The median of ours to the median of theirs; least: our worst run to their best; most: the other way round.
    """
    if ours is None or theirs is None or ours.least <= 0 or theirs.least <= 0:
        return None
    over, under = (ours, theirs) if more_is_better else (theirs, ours)
    return Spread(
        over.median / under.median, over.least / under.most, over.most / under.least, min(ours.runs, theirs.runs)
    )


def failure_of(figures: Figures) -> str:
    """Why a run that ended has to be left out: its load did not get through, or mail did not arrive."""
    if figures.get("clients_failed"):
        return f"{figures['clients_failed']} clients failed: {figures.get('load_error', '')}".rstrip(": ")
    expected, delivered = figures.get("expected", 0), figures.get("delivered", 0)
    return f"{delivered} of {expected} arrived" if delivered < expected else ""
