"""The table that people read. Values only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from bench.summary import Cell, Result, Spread, Summary, ratio

FOREIGN_SHARE_LIMIT = 0.20  # of all cores; from here on a run tells about its neighbours


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure worth a row: its key among a workload's figures, and how it is read."""

    figure: str
    text: str
    more_is_better: bool = False


def number(value: float) -> str:
    """Three significant digits at least, no more than anyone can use."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def spread_text(spread: Spread | None, cell: Cell | None) -> str:
    """`1200 (1100-1250)`, `1200` for a single run, and how many runs failed."""
    if cell is None:
        return ""
    failed = f"{len(cell.failures)}/{cell.runs} failed" if cell.failures else ""
    if spread is None:
        return failed or "-"
    text = number(spread.median)
    if spread.runs > 1:
        text += f" ({number(spread.least)}-{number(spread.most)})"
    return f"{text} {failed}".rstrip()


def times_text(times: Spread) -> str:
    """A ratio with the least and the most that single runs give."""
    range_text = f" ({times.least:.2f}-{times.most:.2f})" if times.runs > 1 else ""
    return f"{times.median:.2f}{range_text}"


def rows(
    summary: Summary, headlines: Mapping[str, Sequence[Headline]], peers: Sequence[str], ours: str
) -> Iterator[list[str]]:
    """Workload, figure, a cell a server, and the ratio of `ours` to each other server."""
    others = [peer for peer in peers if peer != ours] if ours in peers else []
    yield ["workload", "figure", *peers, *(f"{ours} : {peer}" for peer in others)]
    for workload, wanted in headlines.items():
        cells = summary.get(workload)
        if cells is None:
            continue
        for headline in wanted:
            found = {peer: cell.figures.get(headline.figure) for peer in peers if (cell := cells.get(peer)) is not None}
            if not any(found.values()) and headline is not wanted[0]:
                continue
            line = [workload, headline.text, *(spread_text(found.get(peer), cells.get(peer)) for peer in peers)]
            for peer in others:
                times = ratio(found.get(ours), found.get(peer), headline.more_is_better)
                line.append("" if times is None else times_text(times))
            yield line


def lay_out(table: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, numbers to the right; also a Markdown table."""
    widths = [max(len(cell) for cell in column) for column in zip_longest(*table, fillvalue="")]
    lines = []
    for index, line in enumerate(table):
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
        if index == 0:
            rules = ["-" * width if at < 2 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
            lines.append("| " + " | ".join(rules) + " |")
    return "\n".join(lines)


def doubts(results: Sequence[Result]) -> list[str]:
    """What a reader of the table has to know: failed runs, and runs that other work disturbed."""
    said = []
    for result in results:
        name = f"{result.workload} {result.peer} run {result.number + 1}"
        if result.failure:
            said.append(f"{name} failed: {result.failure}")
        elif result.figures.get("foreign_cpu_share", 0.0) > FOREIGN_SHARE_LIMIT:
            said.append(f"{name}: {result.figures['foreign_cpu_share']:.0%} of the machine was busy with other work")
    return said
