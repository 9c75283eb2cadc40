"""`async for change in db.subscribe(...)`: a feed as an iterator, with a buffer that is bounded.

Who reads too slowly makes the buffer full; the feed is then left until it is half empty, and goes on where
it was: the server keeps its place in the log, nobody keeps the changes.
"""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from kanta_client.channel import Channel
from kanta_client.errors import Closed, KantaError
from kanta_client.feed import Feed, Filters, Kind
from kanta_client.messages import Message
from kanta_client.records import Change
from kantad.values.content import MISSING, decode_json
from kantad.values.effect import changed

MOST: Final = 1_000  # events in a buffer
MOST_BYTES: Final = 4 << 20

Event = tuple[Kind, Message, int]
Former = Callable[[], Awaitable[Any]]  # the value at the position that was given as `since`, or MISSING


class Buffer:
    """The events that nobody has asked for yet, for one reader; a `Taker`."""

    def __init__(self) -> None:
        self.feed: Feed
        self.events: deque[Event] = deque()
        self.closed = False
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: KantaError | None = None

    async def first(self) -> Event | None:
        """Wait for an event, which stays here; None behind the last one. Raises why the feed ended."""
        while not self.events:
            if self.closed:
                return None
            if self._error is not None:
                raise self._error
            self.feed.follow()
            if self._error is not None:  # it failed at once
                continue
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.events[0]

    def drop(self) -> None:
        """The first event was taken."""
        self._size -= self.events.popleft()[2]
        if not self.feed.followed and not self.closed and self._error is None and self._room(2):
            try:
                self.feed.follow()
            except Closed as closed:
                self._error = closed

    def close(self) -> None:
        """Follow no more."""
        self.closed = True
        self.feed.leave()
        self._awake()

    def _room(self, part: int) -> bool:
        return len(self.events) < MOST // part and self._size < MOST_BYTES // part

    def _awake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, kind: Kind, message: Message, size: int) -> None:
        """See `Taker`."""
        self.events.append((kind, message, size))
        self._size += size
        if not self._room(1):
            self.feed.leave()
        self._awake()

    def moved(self) -> None:
        """See `Taker`."""

    def failed(self, error: KantaError) -> None:
        """See `Taker`."""
        self._error = error
        self._awake()


class Subscription:
    """An iterator over changes, for one task. It ends with `close()`, an `async with`, or when nobody has it any more.

    `rev` and `cursor` are those of the last change that was given out: what to resume from another time.
    """

    def __init__(
        self, channel: Channel, filters: Filters, since: int | str | None, whole: bool, type: Any, former: Former
    ) -> None:
        self._buffer = Buffer()
        self._buffer.feed = Feed(channel, filters, self._buffer, since=since, whole=whole)
        self._whole, self._type, self._former = whole, type, former
        self._value: Any = MISSING
        self._begun = since is None or not whole
        self.rev = -1
        self.cursor = since if isinstance(since, str) else ""
        weakref.finalize(self, _forgotten, asyncio.get_running_loop(), self._buffer).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._buffer.feed.follow()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follow no more: what is there is still given out, and then the iteration ends."""
        self._buffer.close()

    async def __anext__(self) -> Change:
        event = await self._buffer.first()
        if event is None:
            raise StopAsyncIteration
        kind, message, _ = event
        if not self._begun and kind == "change":
            self._value = await self._former()
        self._begun = True
        self._buffer.drop()  # not before the last await: who is cancelled there finds it again
        self.rev, self.cursor = message.rev, message.cursor
        return message.change(self._advanced(kind, message) if self._whole else None, kind)

    def _advanced(self, kind: Kind, message: Message) -> Any:
        """The value after an event; what did not change is shared with the one before."""
        if message.deleted:
            self._value = MISSING
        elif kind == "change":
            self._value = changed(self._value, message.diff)
        else:
            self._value = decode_json(message.value) if isinstance(message.value, msgspec.Raw) else MISSING
        if self._value is MISSING:
            return None
        return self._value if self._type is None else converted(self._value, self._type)


def _forgotten(loop: asyncio.AbstractEventLoop, buffer: Buffer) -> None:
    """Close the buffer of who is no more: soon, because garbage is collected at any place and in any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(buffer.close)


def converted(value: Any, type: Any) -> Any:
    """A value of JSON's types as one of this type; raises `msgspec.ValidationError`."""
    return msgspec.convert(value, type, str_keys=True, builtin_types=())
