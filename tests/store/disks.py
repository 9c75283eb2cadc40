"""Disks that fail: short writes, no room, failed syncs, death at any call, lost unsynced sectors.

`FaultyDisk` works on real files and counts its calls; what a power cut leaves of what was not
synced is made afterwards by `crash_states`, from the journal that the disk keeps of one file.
"""

import errno
import os
import random
from collections.abc import Iterator

from kantad.store.disk import RealDisk

SECTOR = 512


class Death(BaseException):
    """The process died at a call."""


class FaultyDisk(RealDisk):
    """The real disk, but the call number `at` (from 0, of those in `calls`) fails as `fault` says.

    Faults: an errno (raised instead of the call), `short` (writes a part), `full` (writes a part,
    the next write raises ENOSPC), `death` (raises Death instead, and at every call after it), `late
    death` (after the call was done; a write is done in part).
    """

    def __init__(self, fault: int | str = "", at: int = -1, calls: tuple[str, ...] = ()) -> None:
        self.fault, self.at, self.watched = fault, at, calls
        self.count = 0
        self.dead = False
        self.log: list[str] = []

    def _enter(self, name: str) -> bool:
        """Count a call; returns whether it is the one to fail."""
        if self.dead:
            raise Death
        if self.watched and name not in self.watched:
            return False
        self.log.append(name)
        self.count += 1
        if self.count - 1 != self.at:
            return False
        if self.fault == "death":
            self.dead = True
            raise Death
        if isinstance(self.fault, int):
            raise OSError(self.fault, os.strerror(self.fault))
        return True

    def _leave(self, hit: bool) -> None:
        if hit and self.fault == "late death":
            self.dead = True
            raise Death

    def open(self, path: str, flags: int) -> int:
        hit = self._enter("open")
        fd = super().open(path, flags)
        if hit and self.fault == "late death":
            os.close(fd)
        self._leave(hit)
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)  # a dead process has its files closed, too

    def write(self, fd: int, data: bytes | memoryview) -> int:
        hit = self._enter("write")
        done = super().write(fd, data[: 1 + len(data) // 2] if hit else data)
        self._leave(hit)
        return done

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        hit = self._enter("pwrite")
        done = super().pwrite(fd, data[: 1 + len(data) // 2] if hit else data, offset)
        self._leave(hit)
        return done

    def sync(self, fd: int) -> None:
        hit = self._enter("sync")
        super().sync(fd)
        self._leave(hit)

    def truncate(self, fd: int, size: int) -> None:
        hit = self._enter("truncate")
        super().truncate(fd, size)
        self._leave(hit)

    def chown(self, fd: int, owner: int, group: int) -> None:
        hit = self._enter("chown")
        super().chown(fd, owner, group)
        self._leave(hit)

    def chmod(self, fd: int, mode: int) -> None:
        hit = self._enter("chmod")
        super().chmod(fd, mode)
        self._leave(hit)

    def lock(self, fd: int) -> None:
        hit = self._enter("lock")
        super().lock(fd)
        self._leave(hit)

    def fstat(self, fd: int) -> os.stat_result:
        hit = self._enter("fstat")
        found = super().fstat(fd)
        self._leave(hit)
        return found

    def stat(self, path: str) -> os.stat_result:
        hit = self._enter("stat")
        found = super().stat(path)
        self._leave(hit)
        return found

    def link(self, source: str, target: str) -> None:
        hit = self._enter("link")
        super().link(source, target)
        self._leave(hit)

    def rename(self, source: str, target: str) -> None:
        hit = self._enter("rename")
        super().rename(source, target)
        self._leave(hit)

    def unlink(self, path: str) -> None:
        hit = self._enter("unlink")
        super().unlink(path)
        self._leave(hit)

    def sync_folder(self, path: str) -> None:
        hit = self._enter("sync_folder")
        super().sync_folder(path)
        self._leave(hit)


class FillingDisk(FaultyDisk):
    """From write number `at` on, writes stop in the middle and then raise `fault`, until `room` is made."""

    room = False

    def _enter(self, name: str) -> bool:
        return False  # no other call fails

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.count += 1
        if self.count - 1 < self.at or self.room:
            return RealDisk.write(self, fd, data)
        if self.count - 1 == self.at and len(data) > 1:
            return RealDisk.write(self, fd, data[: len(data) // 2])
        assert isinstance(self.fault, int)
        raise OSError(self.fault, os.strerror(self.fault))


class KeepingDisk(FaultyDisk):
    """Gives no file away, for a reason."""

    def __init__(self, reason: int = errno.EPERM) -> None:
        super().__init__()
        self.reason = reason

    def chown(self, fd: int, owner: int, group: int) -> None:
        raise OSError(self.reason, os.strerror(self.reason))


class CachingDisk(RealDisk):
    """Keeps a journal of the bytes of one path: what was synced, and what the cache holds."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.synced = b""

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._synced()

    def _synced(self) -> None:
        try:
            with open(self.path, "rb") as file:
                self.synced = file.read()
        except FileNotFoundError:
            self.synced = b""

    def crash_states(self, chance: random.Random, count: int) -> Iterator[bytes]:
        """What the file may be after a power cut now: any subset of the unsynced sectors, zeros elsewhere."""
        with open(self.path, "rb") as file:
            now = file.read()
        for _ in range(count):
            size = chance.choice((len(self.synced), len(now), chance.randint(*sorted((len(self.synced), len(now))))))
            state = bytearray(size)
            for start in range(0, size, SECTOR):
                source = now if chance.random() < 0.5 else self.synced
                part = source[start : min(start + SECTOR, size)]
                state[start : start + len(part)] = part
            keep = min(len(self.synced), size)
            same = next((i for i, (a, b) in enumerate(zip(self.synced, now, strict=False)) if a != b), keep)
            state[: min(same, keep)] = self.synced[: min(same, keep)]
            yield bytes(state)
