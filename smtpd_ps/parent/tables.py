"""Tables that are read again while the daemon runs (`smtpctl_ps update table`).

Runs in the parent, as root. An operator names a table, and the file is the one that smtpd.conf
names for it. It is opened here and read in lookup, confined: no byte of it is seen by root.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import Log

Tell = Callable[..., None]  # the process, the message, descriptors


@dataclass(slots=True)
class TableFiles:
    """`paths` are those of the file tables that lookup uses, by name."""

    log: Log
    paths: Mapping[str, str]
    tell: Tell
    _waiting: dict[int, str] = field(default_factory=dict)  # operator's number to table

    def update(self, request: m.UpdateTable) -> None:
        """Open the file and hand it to lookup; the operator is answered at once only with an error."""
        path = self.paths.get(request.name)
        if path is None:
            self._answer(request.client, False, f"no table {request.name} in a file is in use")
            return
        try:
            fd = _open_regular(path)
        except OSError as error:
            self._answer(request.client, False, f"{path}: {error.strerror or error}")
            return
        self._waiting[request.client] = request.name
        self.tell(Process.LOOKUP, m.TableFile(request.client, request.name), fd)

    def read(self, result: m.TableRead) -> None:
        """Lookup has read it; one who did not ask is not answered."""
        name = self._waiting.pop(result.client, None)
        if name is None:
            self.log.warning("lookup read a table that nobody asked for")
            return
        if result.ok:
            self.log.info(f"table {name} was read again")
        else:
            self.log.warning(f"table {name} stays as it was: {result.text}")
        self._answer(result.client, result.ok, result.text)

    def end(self) -> None:
        """This lookup is gone; the one that serves has read all files anew."""
        waiting, self._waiting = self._waiting, {}
        for client in waiting:
            self._answer(client, True, "")

    def _answer(self, client: int, ok: bool, text: str) -> None:
        self.tell(Process.CONTROL, m.Done(client, ok, text))


def _open_regular(path: str) -> int:
    """A descriptor to read from. Raises OSError, also for what is not a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("is not a regular file")
    return fd
