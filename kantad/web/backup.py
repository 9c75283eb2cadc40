"""`GET /v1/backup`: the database file as of the newest durable revision, sent while writes go on.

The file only grows at its end, so its beginning up to where a sync ended is a whole database, and
stays as it is while it is sent; writers are not waited for, and need not wait. A part is read by a
thread, given to the connection, and the next one is read when the client has taken it: a backup
holds two parts at most, however slow its client is.

`Content-Length` is told at the beginning, so a connection that is cut (the server ends, the file
cannot be read, the client takes nothing for long) is never taken for the end of the copy.
"""

import asyncio
import logging
import os
import re
from typing import Final

from aiohttp import web

from kantad.engine.engine import Engine
from kantad.store.prefix import Prefix
from kantad.values.errors import Problem
from kantad.web.answer import Reply
from kantad.web.connection import Connection

logger = logging.getLogger("kantad.http")

PART: Final = 256 << 10  # bytes
MOST: Final = 64  # backups at once: what they hold is 32 MiB then
READING: Final = 2  # of them read at once: the threads are others', too

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")  # what would have to be escaped in a header, or in a shell


class Backups:
    """The backups of one server that are under way."""

    def __init__(self) -> None:
        self.count = 0
        self.turns = asyncio.Semaphore(READING)


class Backup:
    """A connection that carries a copy of the file."""

    ends = True

    def __init__(self, backups: Backups, connection: Connection, prefix: Prefix, rev: int) -> None:
        self.backups, self.connection, self.prefix, self.rev = backups, connection, prefix, rev
        self.place = 0  # how far it was read and given to the connection
        self.taken, self.since = -1, 0.0  # bytes that the client had taken at the last sweep, and since when

    async def send(self) -> None:
        """Send it all, or cut the connection."""
        self.backups.count += 1
        try:
            if self.connection.carry(self):
                await self._send()
        except ConnectionError:
            pass  # the client is gone
        except (OSError, EOFError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            logger.error("the backup of revision %d was cut off at byte %d: %s", self.rev, self.place, why)
            self.ending()
        finally:
            self.backups.count -= 1
            self.prefix.close()
            self.connection.carry(None)

    async def _send(self) -> None:
        connection, prefix = self.connection, self.prefix
        while self.place < prefix.size:
            await connection.drained()
            async with self.backups.turns:
                data = await asyncio.to_thread(prefix.read, self.place, PART)
            connection.write(data)
            self.place += len(data)

    def resumed(self) -> None:
        """See `Carried`: who waits in `drained` goes on."""

    def lost(self) -> None:
        """See `Carried`: `drained` raises."""

    def sweep(self, now: float) -> None:
        """Give a client up that has taken nothing for long."""
        transport = self.connection.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if not unsent or self.place - unsent != self.taken:
            self.taken, self.since = self.place - unsent, now
        elif now - self.since > self.connection.patience.stalled:
            transport.abort()

    def ending(self) -> None:
        """See `Carried`: cut it, so that the client sees that it is not whole."""
        if self.connection.transport is not None:
            self.connection.transport.abort()


async def get_backup(engine: Engine, backups: Backups, request: web.BaseRequest) -> Reply:
    """`GET /v1/backup`; raises `Problem`."""
    connection, durable, size = request.protocol, engine.durable, engine.durable_end
    assert isinstance(connection, Connection)
    if engine.stopping:
        raise Problem("shutting_down", "the server is shutting down", retry_after=1)
    headers = b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\nAccept-Ranges: none\r\n" % size
    headers += b'Content-Disposition: attachment; filename="%b"\r\n' % file_name(engine.log.path, durable.rev).encode()
    headers += b"X-Accel-Buffering: no\r\n" + durable.lines
    if request.method == "HEAD":
        return Reply(200, headers, b"", then=_nothing)
    if backups.count >= MOST:
        raise Problem("unavailable", f"there are {MOST} backups under way", retry_after=1)
    try:
        prefix = Prefix(engine.log.fd, size)
    except OSError as error:
        raise Problem("unavailable", f"the file cannot be read: {error.strerror}", retry_after=1) from None
    return Reply(200, headers, b"", then=Backup(backups, connection, prefix, durable.rev).send)


def file_name(path: str, rev: int) -> str:
    """What a copy is called where the client does not say: `data-17.kantadb`."""
    stem, ending = os.path.splitext(os.path.basename(path))
    return f"{_UNSAFE.sub('_', stem)}-{rev}{_UNSAFE.sub('_', ending)}"


async def _nothing() -> None:
    """HEAD: nothing follows."""
