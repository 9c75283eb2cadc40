"""The changes of an embedded database, as an iterator in its own process.

It is a reader as any other feed's (`engine.feed`): a position in the log, brought on as its buffer
has room, from the ring or from the file. So it may begin anywhere in the past, and one that is slow
costs nothing but its place.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from datetime import datetime
from typing import Any, Final, Self

import msgspec

from kantad.engine.engine import Engine as Core
from kantad.engine.filter import Filter
from kantad.engine.reader import Reader
from kantad.engine.since import position
from kantad.values.errors import Problem

BUFFER: Final = 256  # changes that wait for who iterates, beyond which none are asked for


class Change(msgspec.Struct, frozen=True, rename={"action": "a", "user": "u", "time": "ts", "patch": "diff"}):
    """A change: who did what, when, and the canonical patch of the root that it was."""

    rev: int
    cursor: str
    time: datetime
    action: str
    patch: Any
    user: str | None = None
    id: str | None = None
    v: int = 0
    m: datetime | None = None
    about: str | None = None


class Lines:
    """See `Encoding`: a change a line."""

    key: Hashable = "lines"

    def changes(self, tails: list[bytes]) -> bytes:
        """See `Encoding`."""
        return b"\n".join([b"{" + tail for tail in tails])

    def event(self, kind: str, cursor: bytes, members: bytes) -> bytes:
        """See `Encoding`; none of the others is of interest."""
        return b""


class Changes:
    """Changes from a position on, as they are stored, until it is left or the database is closed."""

    def __init__(self, core: Core, since: int | str | None) -> None:
        self.core, self.since = core, since
        self._reader: Reader | None = None
        self._found: deque[Change] = deque()
        self._decode = msgspec.json.Decoder(Change).decode
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._problem: Problem | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._reader is None and not self._over:
            at = self.core.written.rev if self.since is None else await position(self.core, self.since)
            self._reader = Reader(Filter(), Lines(), self, at)
            self.core.feeds.add(self._reader)
        while not self._found:
            if self._problem is not None:
                raise self._problem
            if self._over:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        change = self._found.popleft()
        if not self._found and self._reader is not None:
            self.core.feeds.wake(self._reader)
        return change

    async def aclose(self) -> None:
        """Be told of no more changes."""
        self._over = True
        self._found.clear()
        if self._reader is not None:
            self.core.feeds.remove(self._reader)

    # -- the sink of a reader

    def free(self) -> bool:
        """See `Sink`."""
        return len(self._found) < BUFFER

    def send(self, data: bytes) -> None:
        """See `Sink`."""
        self._found.extend(map(self._decode, data.splitlines()))
        self._awake()

    def ended(self, problem: Problem | None) -> None:
        """See `Sink`; that the database was closed is the end of the iteration."""
        self._over = True
        if problem is not None and problem.code != "shutting_down":
            self._problem = problem
        self._awake()

    def _awake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
