"""One open database file: its lock, its end, appending to it, reading it back.

The log is the only truth and this is its only writer: nobody else opens the database for writing.
A batch is one `write` (looped over short writes) and one `fdatasync`. Before and after, the file
must still be ours: same device and inode under the path, still linked, as long as we left it.

What can go wrong is told apart by what may follow: `NoRoom` (cut back, nothing lost, go on),
`Broken` (the disk or the file can no longer be trusted: stop with exit status 74).
`append` and `sync` block and are called from the engine's writer thread, where each call that gives
up the interpreter's lock costs a hand-over; `check_path` is quick, and the event loop calls it
before a batch is acknowledged.
"""

import contextlib
import errno
import mmap
import os
import stat
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from kantad.store.beside import recover_from, remove
from kantad.store.disk import Disk, NotGiven, give_to_owner, make_alike, place, remove_leftovers, write_all
from kantad.store.formats import NotOurs, first_bytes, first_frame, format_of
from kantad.store.recovery import Recovered
from kantad.store.tail import UNPROMISED
from kantad.values.codec import Codec
from kantad.values.errors import Damaged
from kantad.values.framing import Framing

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FRESH: Final = 0.01  # seconds
REWRITTEN: Final = 4 << 20  # bytes; more than goes unsynced between two flushes


class Locked(Exception):
    """Another process has the file (exit status 75)."""


class IsFolder(NotOurs):
    """The path names a folder."""


class NoRoom(Exception):
    """A write failed for want of room; the file was cut back to its last whole record."""


class Broken(Exception):
    """The disk failed, or the file is no longer ours: nothing more can be promised (exit status 74)."""


class Log:
    """An open, locked database file. `size` is where its whole records end, in bytes."""

    def __init__(self, path: str, fd: int, framing: Framing, codec: Codec, disk: Disk) -> None:
        self.path, self.fd, self.framing, self.codec, self.disk = path, fd, framing, codec, disk
        status = disk.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.size = self.reach = status.st_size  # `reach`: how long the `append` that runs may make it
        self.checked = 0.0  # when it was last seen to be ours, on the monotonic clock

    def become(self, fd: int, framing: Framing, size: int) -> int:
        """Go on with another file, which took this one's place; returns the old descriptor, still to be closed."""
        old, self.fd, self.framing = self.fd, fd, framing
        status = self.disk.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.size = self.reach = size
        return old

    def check_path(self) -> None:
        """Raise `Broken` unless the path still names this file, and it is as long as we left it.

        May be called while another thread is in `append`: the file may then be as long as that makes it.
        """
        least = self.size
        try:
            there = self.disk.stat(self.path)
        except OSError as error:
            raise Broken(f"{self.path}: {error.strerror}: was it removed?") from error
        if (there.st_dev, there.st_ino) != self.identity:
            raise Broken(f"{self.path} is another file now: it was replaced while it was served")
        if not least <= there.st_size <= self.reach:
            raise Broken(self._changed(there.st_size))
        self.checked = time.monotonic()

    def check_size(self) -> None:
        """Raise `Broken` unless the file is as long as we left it; not while an `append` runs."""
        try:
            size = self.disk.fstat(self.fd).st_size
        except OSError as error:
            raise Broken(f"{self.path}: {error.strerror}") from error
        if size != self.size:
            raise Broken(self._changed(size))

    def _changed(self, size: int) -> str:
        return f"{self.path} has {size} bytes, {self.size} were written: something else changed it"

    def append(self, data: bytes) -> None:
        """Hand the bytes to the operating system, if the file is as long as we left it; raises `NoRoom` or `Broken`.

        What was looked at within the last few milliseconds is not looked at again.
        """
        if time.monotonic() - self.checked > FRESH:
            self.check_size()
        self.reach = self.size + len(data)
        try:
            calls = write_all(self.disk, self.fd, data)
        except OSError as error:
            if error.errno not in FULL:
                raise Broken(f"writing {self.path}: {error.strerror}") from error
            self._cut_back(error)
        self.size += len(data)
        if calls > 1:
            self.check_size()  # a short write is rare: see that it was as long as was said

    def append_together(self, payloads: list[bytes]) -> None:
        """Append changes durably; a death at any point leaves all of them or none. Raises `NoRoom` or `Broken`.

        Each but the first must name the first in its `b`. The first byte is written last: until then the first
        record is damaged and the others are of its batch, which together are a torn tail.
        """
        start, data = self.size, self.framing.batch(payloads, self.size)
        hidden = len(payloads) > 1
        self.append(bytes((data[0] ^ 0xFF,)) + data[1:] if hidden else data)
        self.sync()
        if hidden:
            _put_in_place(self, [data[:1]], start)

    def framed(self, records: list[tuple[bytes, bool]]) -> bytes:
        """The bytes that these (payload, is a snapshot) are at the end of the file."""
        frames = []
        offset = self.size
        for payload, snapshot in records:
            frames.append(self.framing.frame(payload, offset, snapshot))
            offset += len(frames[-1])
        return b"".join(frames)

    def _cut_back(self, cause: OSError) -> None:
        """Cut the file, durably: what is now refused must not come back with a power cut."""
        try:
            self.disk.truncate(self.fd, self.size)
            self.disk.sync(self.fd)
        except OSError as error:
            raise Broken(f"cutting {self.path} back to {self.size} bytes: {error.strerror}") from error
        raise NoRoom(cause.strerror) from cause

    def sync(self) -> None:
        """Make what was appended durable; raises `Broken`. Never tried twice: the kernel may have dropped the pages."""
        try:
            self.disk.sync(self.fd)
        except OSError as error:
            raise Broken(f"fdatasync of {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def buffer(self) -> Iterator[Any]:
        """The file's whole records, mapped for reading."""
        with mapped(self.fd, self.size) as buffer:
            yield buffer

    def name(self) -> str:
        """A path that leads other processes to this file, where another took its place, too (on Linux)."""
        with contextlib.suppress(OSError):
            there = self.disk.stat(self.path)
            if (there.st_dev, there.st_ino) == self.identity:
                return self.path
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Release the file and its lock."""
        self.disk.close(self.fd)


@contextlib.contextmanager
def mapped(fd: int, size: int) -> Iterator[Any]:
    """The first `size` bytes of a file, mapped for reading."""
    if size == 0:
        yield b""
        return
    buffer = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    try:
        yield buffer
    finally:
        with contextlib.suppress(BufferError):  # a search in it may live on in a traceback, and unmaps it later
            buffer.close()


def open_log(path: str, flag: str | None, disk: Disk, micros: int, called: str = "--format") -> tuple[Log, Recovered]:
    """Open, lock and recover a database file; it is created where there is none.

    `micros` is the time, for a new file; errors call the flag `called`. A torn tail is cut off and kept as
    `<path>.torn-<time>`. Raises `Locked`, `NotOurs`, `CodeError`, `Damaged` (nothing was changed then), `Broken` and
    OSError.
    """
    path = os.path.realpath(path)
    fd = _open_locked(path, flag, disk, micros)
    try:
        removed = remove_leftovers(disk, path)
        with mapped(fd, disk.fstat(fd).st_size) as buffer:
            framing, codec = format_of(buffer, flag, called)
        log = Log(path, fd, framing, codec, disk)
        with log.buffer() as buffer:
            found = recover_from(path, buffer, log.size, framing, codec)
        if not found.beside:
            remove(disk, path)
        found.warnings += [f"removed {name}, which was left over" for name in removed if ".compacting." in name]
        _settle(log, found, micros)
    except BaseException:
        disk.close(fd)
        raise
    return log, found


def open_readonly(path: str, flag: str | None, disk: Disk, called: str = "--format") -> tuple[Log, Recovered]:
    """Open a file as it is now, for reading only: it is neither locked nor changed, and may grow meanwhile.

    What would be cut off, or completed, is not read. Raises `NotOurs`, `CodeError`, `Damaged` and OSError.
    """
    path = os.path.realpath(path)
    check_kind(disk.stat(path).st_mode)
    fd = disk.open(path, os.O_RDONLY)
    try:
        with mapped(fd, disk.fstat(fd).st_size) as buffer:
            framing, codec = format_of(buffer, flag, called)
        log = Log(path, fd, framing, codec, disk)
        with log.buffer() as buffer:
            found = recover_from(path, buffer, log.size, framing, codec)
            if found.newline:
                found = recover_from(path, buffer, buffer.rfind(b"\n") + 1, framing, codec)
                found.warnings.append("the last record lacks its newline: it is left out")
        if found.torn:
            found.warnings.append(f"the last {log.size - found.end} bytes are no whole record: they are left out")
        log.size = log.reach = found.end
    except BaseException:
        disk.close(fd)
        raise
    return log, found


def _open_locked(path: str, flag: str | None, disk: Disk, micros: int) -> int:
    first = first_bytes(flag, micros, os.urandom(4))
    while True:
        fd = open_existing(path, disk)
        if fd is None:
            with contextlib.suppress(FileExistsError):
                place(disk, path, [first], replace=False)
            continue
        kept = False
        try:
            status = disk.fstat(fd)
            kept = not first or status.st_size > 0
            if kept:
                return fd
            # an empty file becomes a new one of the other format
            place(disk, path, [first], replace=True, prepare=partial(make_alike, disk, status))
        finally:
            if not kept:
                disk.close(fd)


def check_kind(mode: int) -> None:
    """Raise `NotOurs` unless this is the mode of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsFolder("it is a folder, not a regular file")
    if not stat.S_ISREG(mode):
        raise NotOurs("it is not a regular file")


def open_existing(path: str, disk: Disk) -> int | None:
    """Open and lock the file at a real path; None where there is none. Raises `Locked`, `NotOurs`, OSError."""
    while True:
        try:
            status = disk.stat(path)
        except FileNotFoundError:
            return None
        check_kind(status.st_mode)
        fd = disk.open(path, os.O_RDWR | os.O_APPEND)
        try:
            disk.lock(fd)
            here, there = disk.fstat(fd), disk.stat(path)
        except BlockingIOError:
            disk.close(fd)
            raise Locked(f"{path} is locked: another process has it open") from None
        except FileNotFoundError:
            disk.close(fd)
            continue
        except BaseException:
            disk.close(fd)
            raise
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return fd
        disk.close(fd)


def _settle(log: Log, found: Recovered, micros: int) -> None:
    """Act on what recovery found: cut the torn tail, and make sure that the disk holds what the cache shows."""
    if found.torn:
        _set_aside(log, found)
        if found.end == log.framing.header != 0:  # kanta's first write was torn
            found.end = _put_in_place(log, [first_frame(log.framing, log.codec, micros)], found.end)
        log.disk.truncate(log.fd, found.end)
        log.size = found.end
    if found.newline:
        write_all(log.disk, log.fd, b"\n")
        log.size += 1
        found.end += 1
    log.reach = log.size
    if log.size:
        _write_again(log, found.batch)
    log.disk.sync_folder(os.path.dirname(log.path))  # who made the file may have been killed before it did


def _set_aside(log: Log, found: Recovered) -> None:
    name = f"{log.path}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    model = log.disk.fstat(log.fd)

    def give(fd: int) -> None:
        with contextlib.suppress(NotGiven):  # it is the bytes that count
            give_to_owner(log.disk, model, fd)

    with mapped(log.fd, log.size) as buffer, memoryview(buffer) as whole, whole[found.end :] as torn:
        place(log.disk, name, [torn], replace=False, prepare=give)
    found.warnings.append(
        f"cut off a torn tail of {found.torn} bytes at byte {found.end}, {UNPROMISED}; the bytes are kept as {name}"
    )


def _write_again(log: Log, start: int) -> None:
    """Write the last batch, and at least 4 MiB, in place again and sync it: after a failed sync the
    page cache may hold what the disk does not, and a plain fdatasync would find nothing to do."""
    start = max(0, min(start, log.size - REWRITTEN))
    places = range(start, log.size, 1 << 20)
    _put_in_place(log, (os.pread(log.fd, min(log.size - place, 1 << 20), place) for place in places), start)


def _put_in_place(log: Log, parts: Iterable[bytes], start: int) -> int:
    """Write at a place of the file, and sync; returns where that ends. The log's own descriptor only appends."""
    fd = log.disk.open(log.path, os.O_RDWR)
    try:
        for part in parts:
            while part:
                done = log.disk.pwrite(fd, part, start)
                part, start = part[done:], start + done
        log.disk.sync(fd)
        return start
    except OSError as error:
        raise Broken(f"syncing {log.path}: {error.strerror}") from error
    finally:
        log.disk.close(fd)


@contextlib.contextmanager
def reading(
    path: str, format: str | None = None, called: str = "--format"
) -> Iterator[tuple[Any, int, Framing, Codec]]:
    """A file as the offline commands read it, mapped, with its size in bytes: no lock, nothing changed.

    `called` is the flag that names the format. Raises `NotOurs`, `CodeError` and OSError.
    """
    check_kind(os.stat(path).st_mode)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        with mapped(fd, size) as buffer:
            yield (buffer, size, *format_of(buffer, format, called))
    finally:
        os.close(fd)


__all__ = [
    "Broken",
    "Damaged",
    "Locked",
    "Log",
    "NoRoom",
    "NotOurs",
    "first_bytes",
    "first_frame",
    "format_of",
    "open_log",
    "reading",
]
