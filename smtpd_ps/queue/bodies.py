"""Large bodies: a file each, named by message id, in one directory beside the store.

Runs in queue; reads its own files, which may have rotted. smtp writes a file through a
descriptor it was given; it counts only after `seal` has synced it and the store holds its message.
A file without a message (the sender went away, or we died) is swept at the next start.

Where the queue compresses or encrypts, `seal` puts the coded body in the place of what smtp wrote, and
`open_checked` gives a file without a name that holds the plain one while delivery reads it. Where it
encrypts, smtp too writes into a file without a name: the kernel frees it when nobody has it open any more,
however we ended, and no body is found in the clear on the disk.
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from smtpd_ps.contract.values import message_id_text
from smtpd_ps.queue.store.coding import Coder
from smtpd_ps.queue.store.records import DamagedRecord, StoredMessage, checksum

CHUNK_BYTES = 1024 * 1024
SYNC_TOGETHER = 64  # files open at once
CODING, PLAIN = ".coding", ".plain"  # names of files under work, gone before a turn ends
MIN_FREE_PERCENT = 5  # of blocks and of inodes, as OpenSMTPD's queue wants it


class WrongSize(Exception):
    """The file does not have the size that its writer announced."""


class BodyFiles:
    """The directory. Methods raise OSError as the system calls do."""

    def __init__(self, directory: Path, coder: Coder | None = None) -> None:
        self._directory = directory
        self.coder = coder if coder is not None else Coder()
        self._unnamed: dict[int, int] = {}  # message id: a descriptor to read what smtp writes
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _name(self, msgid: int) -> str:
        return message_id_text(msgid)

    def create(self, msgid: int) -> int:
        """A descriptor, write-only, of a fresh file for smtp."""
        fd = self._create(msgid)
        if self.coder.encrypt:
            try:
                self._unnamed[msgid] = self.open(msgid)
                os.unlink(self._name(msgid), dir_fd=self._directory_fd)
            except OSError:
                os.close(fd)
                self.remove(msgid)
                raise
        return fd

    def _create(self, msgid: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name(msgid), flags, 0o600, dir_fd=self._directory_fd)

    def write(self, msgid: int, data: bytes) -> None:
        """A file of our own making, synced with its name; coded as `coder` says."""
        fd = self._create(msgid)
        try:
            if self.coder.active:
                with open(fd, "wb", closefd=False) as file:
                    self.coder.encode_file(msgid, io.BytesIO(data), file)
            else:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError:
            self.remove(msgid)
            raise
        finally:
            os.close(fd)
        self.sync_names()

    def open(self, msgid: int) -> int:
        """A descriptor, read-only, at offset 0."""
        return os.open(self._name(msgid), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory_fd)

    def seal(self, announced: Sequence[tuple[int, int]]) -> dict[int, OSError | WrongSize]:
        """Sync files, given by message id and announced size; by message id, those that failed and why.

        All start to be written out before the first is waited for: the file system then commits
        them together. Their names are durable only after `sync_names`.
        """
        failed: dict[int, OSError | WrongSize] = {}
        for at in range(0, len(announced), SYNC_TOGETHER):
            begun: list[tuple[int, int]] = []
            for msgid, size_bytes in announced[at : at + SYNC_TOGETHER]:
                try:
                    begun.append((msgid, self._begin_sync(msgid, size_bytes)))
                except (OSError, WrongSize) as error:
                    failed[msgid] = error
            for msgid, fd in begun:
                try:
                    os.fsync(fd)
                except OSError as error:
                    failed[msgid] = error
                finally:
                    os.close(fd)
        return failed

    def _begin_sync(self, msgid: int, size_bytes: int) -> int:
        unnamed = self._unnamed.pop(msgid, None)
        fd = self.open(msgid) if unnamed is None else unnamed
        try:
            found_bytes = os.fstat(fd).st_size
            if found_bytes != size_bytes:
                raise WrongSize(f"body file of {found_bytes} bytes, {size_bytes} announced")
            if self.coder.active or unnamed is not None:
                plain, fd = fd, -1
                fd = self._coded(msgid, plain)
            if hasattr(os, "posix_fadvise"):  # OpenBSD has none: there the sync does it all
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except (OSError, WrongSize):
            if fd >= 0:
                os.close(fd)
            raise
        return fd

    def _coded(self, msgid: int, plain: int) -> int:
        """Put the body, coded as is wanted by now, in the place of the file `plain`, which is closed; a
        descriptor of it.

        It takes as long as it takes: one large message, and only where this is wanted.
        """
        name = self._name(msgid) + CODING
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(plain, "rb") as source:
            fd = os.open(name, flags, 0o600, dir_fd=self._directory_fd)
            try:
                with open(fd, "wb", closefd=False) as target:
                    if self.coder.active:
                        self.coder.encode_file(msgid, source, target)
                    else:  # a reload turned it off meanwhile
                        while piece := source.read(CHUNK_BYTES):
                            target.write(piece)
                os.rename(name, self._name(msgid), src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
            except OSError:
                os.close(fd)
                os.unlink(name, dir_fd=self._directory_fd)
                raise
        return fd

    def sync_names(self) -> None:
        """Make names of sealed files durable; once for all of a group."""
        os.fsync(self._directory_fd)

    def open_checked(self, message: StoredMessage) -> int:
        """As `open`, but first read and compared with the message. Raises DamagedRecord."""
        try:
            fd = self.open(message.msgid)
        except FileNotFoundError:
            raise DamagedRecord("no body file") from None
        if message.coded:
            return self._decoded(message, fd)
        try:
            if os.fstat(fd).st_size != message.size_bytes or _checksum_of(fd) != message.body_crc:
                raise DamagedRecord("body file checksum")
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _decoded(self, message: StoredMessage, coded: int) -> int:
        """A descriptor, read-only, of a file without a name that has the plain body. Closes `coded`."""
        name = self._name(message.msgid) + PLAIN
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with (
            open(coded, "rb") as source,
            open(os.open(name, flags, 0o600, dir_fd=self._directory_fd), "wb") as plain,
        ):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory_fd)
            finally:
                os.unlink(name, dir_fd=self._directory_fd)
            try:
                self._decode(message, source, plain)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _decode(self, message: StoredMessage, source: BinaryIO, plain: BinaryIO) -> None:
        crc = size_bytes = 0
        stored_bytes = os.fstat(source.fileno()).st_size
        for piece in self.coder.decoded("body", message.msgid, stored_bytes, source.read):
            size_bytes += len(piece)
            if size_bytes > message.size_bytes:
                break
            crc = checksum(piece, crc)
            plain.write(piece)
        plain.flush()
        if size_bytes != message.size_bytes or crc != message.body_crc:
            raise DamagedRecord("body file checksum")

    def remove(self, msgid: int) -> None:
        """Remove the file; harmless when it is gone."""
        unnamed = self._unnamed.pop(msgid, None)
        if unnamed is not None:
            os.close(unnamed)
        try:
            os.unlink(self._name(msgid), dir_fd=self._directory_fd)
        except FileNotFoundError:
            return

    def sweep(self, wanted: Callable[[int], bool]) -> int:
        """Remove files of no message; return how many."""
        removed = 0
        for name in os.listdir(self._directory_fd):
            if name.endswith((CODING, PLAIN)):
                os.unlink(name, dir_fd=self._directory_fd)
                continue
            try:
                msgid = int(name, 16)
            except ValueError:
                continue  # not ours
            if name == self._name(msgid) and not wanted(msgid):
                self.remove(msgid)
                removed += 1
        return removed

    def has_room(self) -> bool:
        """Whether MIN_FREE_PERCENT of blocks and inodes are free."""
        stat = os.fstatvfs(self._directory_fd)
        blocks_low = stat.f_bavail * 100 < stat.f_blocks * MIN_FREE_PERCENT
        inodes_low = stat.f_favail * 100 < stat.f_files * MIN_FREE_PERCENT  # 0 of 0 where there is no limit
        return not (blocks_low or inodes_low)

    def close(self) -> None:
        """Close the directory. Once."""
        os.close(self._directory_fd)


def _checksum_of(fd: int) -> int:
    crc = 0
    while chunk := os.read(fd, CHUNK_BYTES):
        crc = checksum(chunk, crc)
    return crc
