"""The calls to the operating system that durability depends on, as one seam for fault injection.

The store makes every change to the disk through a `Disk`, given to it by its constructor; tests
give one that writes short, fills up, fails to sync or stops at the n-th call. No logic here.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import Protocol


class Disk(Protocol):
    """What the store asks of the operating system; each raises OSError."""

    def open(self, path: str, flags: int) -> int: ...
    def close(self, fd: int) -> None: ...
    def lock(self, fd: int) -> None: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int: ...
    def sync(self, fd: int) -> None: ...
    def truncate(self, fd: int, size: int) -> None: ...
    def chown(self, fd: int, owner: int, group: int) -> None: ...
    def chmod(self, fd: int, mode: int) -> None: ...
    def fstat(self, fd: int) -> os.stat_result: ...
    def stat(self, path: str) -> os.stat_result: ...
    def link(self, source: str, target: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def sync_folder(self, path: str) -> None: ...


class RealDisk:
    """The operating system itself. Files are created for their owner only."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        try:
            os.close(fd)
        except OSError as error:  # it is closed; what was to be on the disk was synced before, and that told
            if error.errno == errno.EBADF:
                raise

    def lock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def chown(self, fd: int, owner: int, group: int) -> None:
        os.fchown(fd, owner, group)

    def chmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(disk: Disk, fd: int, data: bytes | memoryview) -> int:
    """Write all of the data, however short the single writes are; how many there were."""
    done, calls = disk.write(fd, data), 1  # nearly always all of it
    view = memoryview(data)
    while done < len(view):
        with view[done:] as rest:
            done += disk.write(fd, rest)
            calls += 1
    return calls


def remove_leftovers(disk: Disk, path: str) -> list[str]:
    """Remove what `place` left behind in processes that died: `<path>….new-<pid>` of no living process; their names.

    The caller holds the lock on `path`. One with our own number is of an earlier life: in a
    container every process may be number 1.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"(?:\..+)?\.new-([1-9][0-9]{0,9})")
    removed = []
    for other in os.listdir(folder or "."):
        if (match := pattern.fullmatch(other)) and not _lives(int(match[1])):
            with contextlib.suppress(OSError):
                disk.unlink(os.path.join(folder, other))
                removed.append(other)
    return removed


def _lives(pid: int) -> bool:
    """Whether another process of this number exists."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


class NotGiven(PermissionError):
    """A new file cannot be given to the owner that it must have."""


def give_to_owner(disk: Disk, model: os.stat_result, fd: int) -> None:
    """Give a new file the owner and group of another; raises `NotGiven`, where the owner differs and must stay so.

    A group that cannot be given is no reason: who owns the file is who may use it.
    """
    ours = disk.fstat(fd)
    if (ours.st_uid, ours.st_gid) == (model.st_uid, model.st_gid):
        return
    try:
        disk.chown(fd, model.st_uid, model.st_gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):  # EINVAL: no such user in this namespace
            raise
        if ours.st_uid != model.st_uid:
            why = f"the new file cannot be given to user {model.st_uid}, who owns this one: {error.strerror}"
            raise NotGiven(errno.EPERM, why) from error


def make_alike(disk: Disk, model: os.stat_result, fd: int) -> None:
    """Give a new file the owner, group and mode of another; raises `NotGiven`, as above.

    In a group that is not the same one, the group's rights are not given.
    """
    give_to_owner(disk, model, fd)
    mode = stat.S_IMODE(model.st_mode)
    disk.chmod(fd, mode if disk.fstat(fd).st_gid == model.st_gid else mode & ~stat.S_IRWXG)


def place(
    disk: Disk,
    path: str,
    parts: Iterable[bytes | memoryview],
    *,
    replace: bool,
    prepare: Callable[[int], None] = lambda fd: None,
    prove: Callable[[int], None] = lambda fd: None,
    hidden: str | None = None,
    gently: bool = False,
) -> None:
    """Put a file of these parts at this path, wholly or not at all, and durably.

    It is written under another name, synced, then renamed (`replace`) or linked (which raises FileExistsError
    where the path is taken), and the folder is synced. `prepare` is given its descriptor while it is empty,
    `prove` when it is written: what that raises is in time. The other name is one of `hidden`'s, where that is
    given: whoever holds the lock on that removes what was left behind. `gently` syncs each part by itself: a
    long sync holds up those of other files. Raises OSError; one that tells that no file can be made names the folder.
    """
    temporary = f"{hidden or path}.new-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)
    try:
        fd = disk.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError as error:
        why = f"no file can be made there: {error.strerror}"
        raise OSError(error.errno, why, os.path.dirname(path) or ".") from error
    try:
        prepare(fd)
        for part in parts:
            write_all(disk, fd, part)
            if gently:
                disk.sync(fd)
        disk.sync(fd)
        prove(fd)
        if replace:
            disk.rename(temporary, path)
        else:
            disk.link(temporary, path)
    finally:
        disk.close(fd)
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(temporary)
    disk.sync_folder(os.path.dirname(path) or ".")
