"""Tables that are read again while the daemon runs: by `smtpctl_ps update table`, and databases made anew.

Runs in the parent, as root. An operator names a table, and the file is the one that smtpd.conf
names for it. It is opened here and read in lookup, confined: no byte of it is seen by root. Whether
the file of a database is another one than lookup has is looked at every few seconds, since makemap
puts a new file in the place of the old one, and tells nobody.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

Tell = Callable[..., None]  # the process, the message, descriptors


LOOK_SECS = 2.0  # between two looks at the files of databases
NOBODY = 0  # no operator has this number
_Identity = tuple[int, int, int, int]  # device, inode, size, time of the last change


@dataclass(slots=True)
class TableFiles:
    """`paths` are those of the file tables that lookup uses, by name; `databases` the names of those made by makemap.

    Made before lookup is given its files, so that no change after that is missed.
    """

    log: Log
    paths: Mapping[str, str]
    tell: Tell
    databases: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()  # tables that programs answer for
    _waiting: dict[int, str] = field(default_factory=dict)  # operator's number to table
    _seen: dict[str, _Identity | None] = field(default_factory=dict)
    _handed_over: set[str] = field(default_factory=set)  # databases that lookup is reading
    _ended: bool = False

    def __post_init__(self) -> None:
        self._seen = {name: _identity(self.paths[name]) for name in sorted(self.databases)}

    def watch(self, loop: Loop) -> None:
        """Look at the databases from now on."""
        if self.databases and not self._ended:
            self.look()
            loop.call_later(LOOK_SECS, lambda: self.watch(loop))

    def look(self) -> None:
        """Hand over each database that is another file now; one that cannot be opened is told once."""
        for name, before in self._seen.items():
            path = self.paths[name]
            now = _identity(path)
            if now == before:
                continue
            self._seen[name] = now
            if now is None:
                self.log.warning(f"table {name} stays as it was: {path} is gone")
                continue
            try:
                fd = _open_regular(path)
            except OSError as error:
                self.log.warning(f"table {name} stays as it was: {path}: {error.strerror or error}")
                continue
            self._handed_over.add(name)
            self.tell(Process.LOOKUP, m.TableFile(NOBODY, name), fd)

    def update(self, request: m.UpdateTable) -> None:
        """Open the file and hand it to lookup; the operator is answered at once only with an error."""
        if request.name in self.programs:
            self._waiting[request.client] = request.name
            self.tell(Process.LOOKUP, m.TableUpdate(request.client, request.name))
            return
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
        unasked = result.client == NOBODY and result.name in self._handed_over
        if unasked:
            self._handed_over.discard(result.name)
        name = result.name if unasked else self._waiting.pop(result.client, None)
        if name is None:
            self.log.warning("lookup read a table that nobody asked for")
            return
        if result.ok:
            self.log.info(f"table {name} was read again")
        else:
            self.log.warning(f"table {name} stays as it was: {result.text}")
        if not unasked:
            self._answer(result.client, result.ok, result.text)

    def end(self) -> None:
        """This lookup is gone; the one that serves has read all files anew."""
        self._ended = True
        waiting, self._waiting = self._waiting, {}
        for client in waiting:
            self._answer(client, True, "")

    def _answer(self, client: int, ok: bool, text: str) -> None:
        self.tell(Process.CONTROL, m.Done(client, ok, text))


def _identity(path: str) -> _Identity | None:
    """What tells one file from another, and from itself after a change; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open_regular(path: str) -> int:
    """A descriptor to read from. Raises OSError, also for what is not a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("is not a regular file")
    return fd
