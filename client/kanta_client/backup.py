"""`GET /v1/backup` into a file, which is there when it is whole and durable, and not before.

It is written under another name beside its place, for its owner only, synced, then renamed or
linked, and the folder is synced. An error or a cancellation leaves nothing; only a process that is
killed leaves a `.backup-….new`. What is done to files is done by threads, and is always waited
for: what is cancelled must not go on writing behind its own cleaning up.
"""

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from kanta_client.backoff import Backoff
from kanta_client.errors import TRY_AGAIN, Unreachable, refusal
from kanta_client.http import Incoming
from kanta_client.link import Lost
from kanta_client.posting import Posting
from kanta_client.records import Backup

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE: Final = 1 << 20  # bytes that are handed to a thread together
NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # of some file systems


class Copy:
    """A file in the making. Each method blocks; raises OSError."""

    def __init__(self, destination: str, overwrite: bool) -> None:
        self.destination, self.overwrite = destination, overwrite
        self.folder = os.path.dirname(destination) or "."
        self.fd, self.path = -1, ""

    def begin(self) -> None:
        """Make it, under another name."""
        self.check()
        try:
            self.fd, self.path = tempfile.mkstemp(prefix=".backup-", suffix=".new", dir=self.folder)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self.destination) from None

    def check(self) -> None:
        """Raise FileExistsError where the destination may not be overwritten, IsADirectoryError for a folder."""
        if os.path.isdir(self.destination):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.destination)
        if not self.overwrite and os.path.lexists(self.destination):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.destination)

    def write(self, parts: list[bytes]) -> None:
        """Append these."""
        for part in parts:
            with memoryview(part) as left:
                done = 0
                while done < len(left):
                    done += os.write(self.fd, left[done:])

    def keep(self) -> None:
        """Put it in its place, durably."""
        os.fsync(self.fd)
        self._close()
        if self.overwrite:
            os.rename(self.path, self.destination)
        else:
            self._place()
        self.path = ""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _place(self) -> None:
        """Without taking the place of what came there meanwhile, as far as the file system can tell."""
        try:
            os.link(self.path, self.destination)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.check()
            os.rename(self.path, self.destination)
        else:
            os.unlink(self.path)

    def drop(self) -> None:
        """Leave nothing of what is not in its place."""
        self._close()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


async def back_up(posting: Posting, destination: str, overwrite: bool, seconds: float | None) -> Backup:
    """See `KantaClient.backup`."""
    patience = posting.seconds if seconds is None else seconds
    copy = Copy(destination, overwrite)
    try:
        await off_the_loop(copy.begin)
        backup = await _received(posting, copy, patience)
        await off_the_loop(copy.keep)
    finally:
        await off_the_loop(copy.drop)
    return backup


async def _received(posting: Posting, copy: Copy, patience: float) -> Backup:
    """Ask for it until it begins to come, and take it in."""
    loop = asyncio.get_running_loop()
    until, backoff, trouble = loop.time() + patience, Backoff(), "no attempt was made"
    while (left := until - loop.time()) > 0:
        try:
            async with posting.http.stream("/v1/backup", left, patience) as incoming:
                if incoming.status == 200:
                    return await _taken_in(incoming, copy)
                error = refusal(await incoming.problem())
            if error.code not in TRY_AGAIN and incoming.status not in (502, 504):
                raise error
            trouble = str(error)
        except Lost as lost:
            trouble = str(lost)
        await asyncio.sleep(min(backoff.next(), max(left, 0)))
    raise Unreachable(f"no backup in time: {trouble}")


async def _taken_in(incoming: Incoming, copy: Copy) -> Backup:
    """Write what comes into the file; raises `Unreachable` where it is not all of it."""
    headers, size, parts, waiting = incoming.headers, 0, list[bytes](), 0
    told = headers.get("Content-Length", "")
    if not told.isdecimal() or "Kanta-Cursor" not in headers:
        raise Unreachable("the answer does not tell what it is a copy of, or its length: is that kantad, and directly?")
    try:
        async for part in incoming.parts():
            parts.append(part)
            size, waiting = size + len(part), waiting + len(part)
            if waiting >= AT_ONCE:
                await off_the_loop(copy.write, parts)
                parts, waiting = [], 0
    except Lost as lost:
        raise Unreachable(f"the backup ended after {size} of {told} bytes: {lost}") from lost
    await off_the_loop(copy.write, parts)
    if size != int(told):
        raise Unreachable(f"the backup ended after {size} of {told} bytes")
    return Backup(int(headers["Kanta-Revision"]), headers["Kanta-Cursor"], size)


async def off_the_loop(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a function returns that a thread runs; where this is cancelled, it is at its end all the same."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # which nobody hears of any more
        raise cancelled
    return running.result()
