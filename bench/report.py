"""The JSON file of all results, and its way back."""

import dataclasses
import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.summary import Result, summarise


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write(path: Path, about: Mapping[str, Any], results: Sequence[Result]) -> None:
    """The whole file, in one go: what is measured so far survives an interruption."""
    summary = summarise(results)
    text = json.dumps(
        {
            **about,
            "results": [dataclasses.asdict(result) for result in results],
            "summary": {
                workload: {peer: dataclasses.asdict(cell) for peer, cell in cells.items()}
                for workload, cells in summary.items()
            },
        },
        indent=1,
    )
    half = path.with_suffix(".part")
    half.write_text(text + "\n")
    half.rename(path)


def read(path: Path) -> list[Result]:
    """The results of an earlier run."""
    return [Result(**result) for result in json.loads(path.read_text())["results"]]
