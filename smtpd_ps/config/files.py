"""The files that smtpd.conf names: are they there, readable, and secret where they must be?

Runs as root in the parent at start, and in `smtpd_ps -n` as whoever asked. Opens files and
looks at their first bytes; parses none of them.
"""

import os
import pwd
import stat

from smtpd_ps.config.commands import faults, program_settings
from smtpd_ps.config.compile import program_of
from smtpd_ps.config.model import Configuration, Problem, Table, Where
from smtpd_ps.contract.settings import TableUse

KEY_MODE = 0o740  # ssl_smtpd.c, as smtpd.conf(5) says of pki
CERT_MODE = 0o755
_SECRET: frozenset[TableUse] = frozenset(("credentials", "relay-credentials"))
_MAX_PEM_BYTES = 1 << 20
_CERT_MARK = b"-----BEGIN CERTIFICATE-----"
_KEY_MARK = b"PRIVATE KEY-----"
_ENCRYPTED_MARKS = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


def check_files(conf: Configuration) -> tuple[Problem, ...]:
    """A problem for each certificate, key and table file that cannot be used; reads only."""
    problems: list[Problem] = []
    secret = _credentials(conf)
    for pki in conf.pki.values():
        problems += _check(pki.where, f'certificate of pki "{pki.name}"', pki.cert_path, CERT_MODE, _CERT_MARK)
        problems += _check(pki.where, f'private key of pki "{pki.name}"', pki.key_path, KEY_MODE, _KEY_MARK)
    for authority in conf.authorities.values():
        what = f'certificate bundle of ca "{authority.name}"'
        problems += _check(authority.where, what, authority.cert_path, CERT_MODE, _CERT_MARK)
    for table in conf.tables.values():
        if table.path:
            problems += _check(table.where, f'file of table "{table.name}"', table.path, None, b"")
            problems += _exposed(table) if table.name in secret else []
        elif table.kind == "program":
            problems += [
                Problem(table.where.path, table.where.line, f'table "{table.name}": {text}', warning=warning)
                for text, warning in faults(program_of(table), os.geteuid() == 0)
            ]
    problems += _exposed_key(conf)
    return tuple(problems)


def check_programs(conf: Configuration, privileged: bool) -> tuple[Problem, ...]:
    """A problem for each filter program that could not be run; nothing is run."""
    return tuple(
        Problem(proc.where.path, proc.where.line, f'proc "{proc.name}": {text}', warning=warning)
        for proc in conf.procs.values()
        for text, warning in faults(program_settings(proc), privileged)
    )


def _exposed_key(conf: Configuration) -> list[Problem]:
    """A warning where anyone on this host may read the key of queue encryption."""
    if conf.options.queue_encryption in (None, "", "stdin"):
        return []
    try:
        mode = os.stat(conf.path).st_mode
    except OSError:
        return []
    text = "holds the key of queue encryption and can be read by everyone"
    return [Problem(conf.path, 0, text, warning=True)] if mode & stat.S_IROTH else []


def _credentials(conf: Configuration) -> frozenset[str]:
    """The tables that hold passwords or their hashes."""
    return frozenset(name for name, uses in conf.table_uses.items() if not _SECRET.isdisjoint(uses))


def _exposed(table: Table) -> list[Problem]:
    """A warning where anyone on this host may read the file."""
    try:
        mode = os.stat(table.path).st_mode
    except OSError:
        return []  # told already
    if not mode & stat.S_IROTH:
        return []
    text = f'file of table "{table.name}": {table.path} holds credentials and can be read by everyone'
    return [Problem(table.where.path, table.where.line, text, warning=True)]


def _check(where: Where, what: str, path: str, mode: int | None, mark: bytes) -> list[Problem]:
    """Problems of one file; `mode` has the permission bits it may have, `mark` what it must contain."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Problem(where.path, where.line, f"{what}: {path} cannot be read by {_user(os.geteuid())}: {reason}")]
    try:
        status = os.fstat(fd)
        start = os.read(fd, _MAX_PEM_BYTES) if mark and stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        return [Problem(where.path, where.line, f"{what}: {path} cannot be read: {error.strerror}")]
    finally:
        os.close(fd)
    return [Problem(where.path, where.line, f"{what}: {path} {text}") for text in _faults(status, start, mode, mark)]


def _faults(status: os.stat_result, start: bytes, mode: int | None, mark: bytes) -> list[str]:
    if not stat.S_ISREG(status.st_mode):
        return ["is not a regular file"]
    faults = []
    if mode is not None:
        if status.st_uid not in (0, os.geteuid()):
            faults.append(f"belongs to {_user(status.st_uid)}, expected root or {_user(os.geteuid())}")
        if (given := stat.S_IMODE(status.st_mode)) & 0o777 & ~mode:
            faults.append(f"has mode {given:04o}, expected at most {mode:04o}")
    if mark not in start:
        faults.append("holds no certificate in PEM form" if mark == _CERT_MARK else "holds no private key in PEM form")
    elif mark == _KEY_MARK and any(sign in start for sign in _ENCRYPTED_MARKS):
        faults.append("is protected by a pass phrase, which a daemon cannot be asked for")
    return faults


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
