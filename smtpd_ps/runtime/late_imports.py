"""Tells of imports after confinement: what they would load is out of reach, or not audited.

Runs in every confined process; parses nothing. The line is an error in the log; whole-daemon tests
fail on it.
"""

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

MARK = "late import"


class _Watch:
    """A finder that finds nothing."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Called for every module that is not loaded yet."""
        self._log(f"{MARK} of {name}")


def watch_imports(log: Callable[[str], None]) -> None:
    """From now on, log every import that has to look for a module."""
    sys.meta_path.insert(0, _Watch(log))
