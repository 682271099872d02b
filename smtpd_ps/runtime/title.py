"""The process title that ps shows: `smtpd_ps: queue`. Runs in every process; parses nothing.

Of the package setproctitle only the C module is loaded: the package itself imports logging for messages that
nobody gets, which is half a MiB and 4 ms in each process.
"""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_PACKAGE = "setproctitle"
_MODULE = f"{_PACKAGE}._setproctitle"


def _load() -> Callable[[str], None]:
    package = PathFinder.find_spec(_PACKAGE)
    spec = PathFinder.find_spec(_MODULE, package.submodule_search_locations) if package is not None else None
    if spec is None or spec.loader is None:  # another layout, or none: the error is the package's
        from setproctitle import setproctitle

        return setproctitle
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_MODULE] = module
    set_it: Callable[[str], None] = module.setproctitle
    return set_it


_setproctitle = _load()


def set_title(role: str) -> None:
    """Show this process as `smtpd_ps: ROLE`."""
    _setproctitle(f"smtpd_ps: {role}")
