"""`smtpctl_ps import DIR`: the mail of an OpenSMTPD spool into ours, with both daemons stopped.

Runs as root, in two processes. This one finds the files, opens them, and parses nothing. The other is confined
as queue is, gets descriptors and parses them (queue/importing). The old spool is read and never changed; a
message is imported once, however often the command is given.
"""

import os
import pwd
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from smtpd_ps import osdep
from smtpd_ps.cli.ask import DaemonError
from smtpd_ps.cli.setup import ensure_state
from smtpd_ps.cli.state_lock import hold
from smtpd_ps.cli.words import WordError
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import paths
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.aes_gcm import KEY_BYTES, Key
from smtpd_ps.osdep.libcrypto import LibcryptoError
from smtpd_ps.queue.importing import MAX_BODY_BYTES, MAX_ENVELOPE_PLAIN_BYTES, Importer, NotTaken
from smtpd_ps.queue.store.embedded import warm_up
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.runtime.log import escape

FDS = 200  # in one packet
PACKET_BYTES = 65_536
PROGRESS_SECS = 0.2
_BUCKET, _MESSAGE, _ENVELOPE = re.compile("[0-9a-f]{2}"), re.compile("[0-9a-f]{8}"), re.compile("[0-9a-f]{16}")


class Packet(msgspec.Struct, array_like=True):
    """Descriptors of one message: envelopes, and with the first packet the body before them."""

    msgid: int
    evpids: list[int]
    first: bool
    last: bool


class Answer(msgspec.Struct, array_like=True):
    """`envelopes` 0 without a text: it was imported before."""

    msgid: int
    envelopes: int
    text: str = ""
    fatal: bool = False


_encode = msgspec.msgpack.encode
_decode_packet = msgspec.msgpack.Decoder(Packet).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def import_spool(state_dir: str | None, arguments: Sequence[str]) -> int:
    """`DIR [--key FILE|-]`; 1 where a message could not be taken. Raises DaemonError, WordError."""
    directory, key = _arguments(arguments)
    queue = directory / "queue" if (directory / "queue").is_dir() else directory
    if not queue.is_dir():
        raise DaemonError(f"{directory} is no directory")
    privileged = os.getuid() == 0
    try:
        ensure_state(state_dir, privileged=privileged)
        lock = hold(paths(state_dir))
    except OSError as error:
        raise DaemonError(f"{error}; stop it first: an import has the queue for itself") from None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _serve(theirs, state_dir, key, privileged)
    theirs.close()
    try:
        return _send(ours, queue)
    finally:
        ours.close()
        os.waitpid(pid, 0)
        os.close(lock)


def _arguments(arguments: Sequence[str]) -> tuple[Path, bytes]:
    words = list(arguments)
    directory, key = "", b""
    while words:
        word = words.pop(0)
        if word == "--key" and words:
            key = _key(words.pop(0))
        elif not directory and not word.startswith("-"):
            directory = word
        else:
            raise WordError(f"import takes a directory and --key file, not {word!r}")
    if not directory:
        raise WordError("import takes the directory of an OpenSMTPD spool")
    return Path(directory), key


def _key(source: str) -> bytes:
    """From a file or standard input, never from the command line, which others can see."""
    try:
        if source == "-":
            line = sys.stdin.buffer.readline(4096)
        else:
            with open(source, "rb") as file:
                line = file.readline(4096)
    except OSError as error:
        raise DaemonError(f"{source}: {error.strerror}") from None
    key = line.rstrip(b"\r\n")
    if len(key) != KEY_BYTES:
        raise DaemonError(f"a key has {KEY_BYTES} characters, found {len(key)}")
    return key


# The side that opens.


@dataclass(slots=True)
class _Total:
    messages: int = 0
    envelopes: int = 0
    before: int = 0
    refused: int = 0


def _send(sock: socket.socket, queue: Path) -> int:
    total, told = _Total(), 0.0
    for msgid, folder in _messages(queue):
        try:
            _send_message(sock, msgid, folder)
        except OSError as error:
            _complain(f"{folder}: {error.strerror or error}")
            total.refused += 1
            continue
        answer = _answer(sock)
        if answer.fatal:
            raise DaemonError(answer.text)
        if answer.text:
            _complain(f"{folder}: {answer.text}")
            total.refused += 1
        elif answer.envelopes:
            total.messages += 1
            total.envelopes += answer.envelopes
        else:
            total.before += 1
        if sys.stderr.isatty() and time.monotonic() - told > PROGRESS_SECS:
            told = time.monotonic()
            print(f"\r{total.messages} messages imported", end="", file=sys.stderr, flush=True)
    if told:
        print("\r\x1b[K", end="", file=sys.stderr)
    print(f"{total.messages} messages with {total.envelopes} envelopes imported, {total.before} were before,"
          f" {total.refused} not taken")  # fmt: skip
    return 1 if total.refused else 0


def _messages(queue: Path) -> Iterator[tuple[int, Path]]:
    """Message ids and folders, in order. Links are not followed."""
    for bucket in sorted(queue.iterdir()):
        if _BUCKET.fullmatch(bucket.name) and not bucket.is_symlink() and bucket.is_dir():
            for folder in sorted(bucket.iterdir()):
                if _MESSAGE.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir():
                    yield int(folder.name, 16), folder


def _send_message(sock: socket.socket, msgid: int, folder: Path) -> None:
    """The body and all envelopes, in packets. Raises OSError before anything was sent, or never."""
    names = sorted(name for name in os.listdir(folder) if _ENVELOPE.fullmatch(name))
    body = _open(folder / "message", MAX_BODY_BYTES)
    first = True
    while first or names:
        some, names = names[: FDS - 1], names[FDS - 1 :]
        fds = [body] if first else []
        try:
            for name in some:
                fds.append(_open(folder / name, MAX_ENVELOPE_PLAIN_BYTES))
            packet = Packet(msgid, [int(name, 16) for name in some], first, not names)
            socket.send_fds(sock, [_encode(packet)], fds)
        except OSError as error:
            if first:
                raise
            raise DaemonError(f"{folder}: {error.strerror or error}") from None
        finally:
            for fd in fds:
                os.close(fd)
        first = False


def _open(path: Path, most_bytes: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most_bytes:
        return fd
    os.close(fd)
    raise OSError(0, "too large" if stat.S_ISREG(status.st_mode) else "not a regular file")


def _answer(sock: socket.socket) -> Answer:
    data = sock.recv(PACKET_BYTES)
    if not data:
        raise DaemonError("the confined half of the import has died")
    return _decode_answer(data)


def _complain(text: str) -> None:
    print(f"smtpctl_ps: {escape(text)}", file=sys.stderr)


# The side that parses.


def _serve(sock: socket.socket, state_dir: str | None, key: bytes, privileged: bool) -> NoReturn:
    """Never returns: it is a fork of the command."""
    status = 1
    try:
        importer = _confined(state_dir, key, privileged)
        while _take(sock, importer):
            pass
        importer.close()
        status = 0
    except (StoreError, OSError, LibcryptoError, osdep.ConfineError) as error:
        sock.send(_encode(Answer(0, 0, f"cannot import: {error}", fatal=True)))
    finally:
        os._exit(status)


def _confined(state_dir: str | None, key: bytes, privileged: bool) -> Importer:
    warm_up()
    cipher = Key(key) if key else None
    policy, spool = POLICIES[Process.QUEUE], paths(state_dir).spool
    uid, gid = os.getuid(), os.getgid()
    if privileged:
        entry = pwd.getpwnam(policy.user)
        uid, gid = entry.pw_uid, entry.pw_gid
    osdep.confine(Process.QUEUE, m.Common(spool, uid, gid, 0, True, privileged, policy.user if privileged else ""))
    os.umask(0o077)
    return Importer(Path("/queue" if privileged else f"{spool}/queue"), cipher, time.time_ns() // 1_000_000)


def _take(sock: socket.socket, importer: Importer) -> bool:
    """One message; False at the end."""
    body = b""
    envelopes: dict[int, bytes] = {}
    while True:
        data, fds, _flags, _address = socket.recv_fds(sock, PACKET_BYTES, FDS)
        if not data:
            return False
        packet = _decode_packet(data)
        contents = [_read(fd) for fd in fds]
        if packet.first:
            body = contents.pop(0)
        envelopes.update(zip(packet.evpids, contents, strict=True))
        if packet.last:
            break
    try:
        answer = Answer(packet.msgid, importer.take(packet.msgid, body, envelopes))
    except NotTaken as error:
        answer = Answer(packet.msgid, 0, str(error))
    sock.send(_encode(answer))
    return True


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()
