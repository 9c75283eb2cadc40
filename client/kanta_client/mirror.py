"""A live local copy of what is at a path: read without the network, and never seen in the middle of a transaction.

Events are applied in place as they arrive, one at a time, by the interpreter that the server itself uses;
a typed value is converted only where a change touched it. Between two awaits of the reader nothing moves.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast
from weakref import WeakSet

import msgspec

from kanta_client.channel import Channel
from kanta_client.errors import Closed, KantaError, NotFound, Overrun, Refused, Unreachable, refusal
from kanta_client.feed import Feed, Filters, Kind
from kanta_client.messages import Message
from kanta_client.records import Change, Written
from kantad.values.content import MISSING, copied, decode_json
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.shape import shape_of

logger = logging.getLogger("kanta_client")

T = TypeVar("T")

MOST: Final = 10_000  # changes that an iteration may be late
MOST_BYTES: Final = 64 << 20
ASK_AFTER: Final = 0.02  # seconds that a revision is waited for, until the server is asked whether it concerns the path


class Mirror(Generic[T]):
    """See the module. Enter it (`async with`) to have it filled and followed."""

    def __init__(self, channel: Channel, path: str, keys: tuple[str, ...], type: Any, among: list[Any]) -> None:
        self.path, self.keys, self.type = path, keys, type
        self.shape = None if type is None else shape_of(type)
        self.raw: Any = MISSING  # in JSON's types
        self.lock: AbstractContextManager[Any] = nullcontext()  # held while the value changes, for other threads
        self._typed: Any = None
        self._channel = channel
        self._feed = Feed(channel, Filters(path), self, whole=True)
        self._among = among  # those of the client that are followed
        self._filled = False
        self._error: KantaError | None = None
        self._asked: asyncio.Future[Message] | None = None  # see `_ask`
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._lines: WeakSet[Line] = WeakSet()  # who stops iterating is forgotten
        self._callbacks: list[Callable[[Change], None]] = []
        self._enders: list[Callable[[KantaError], None]] = []

    async def __aenter__(self) -> Self:
        self._feed.follow()
        self._among.append(self)
        try:
            await self._until(0)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follow no more; the value stays as it is."""
        self._feed.leave()
        self._enders.clear()
        self._end(Closed("the mirror is closed"))
        self._channel.dead.discard(self)
        self._channel.settle()

    # -- reading

    def _check(self) -> None:
        """Raise why the mirror is dead: what it shows would be old without anybody knowing."""
        if self._error is not None and not isinstance(self._error, Closed):
            raise self._error

    @property
    def value(self) -> T:
        """The value, never to be changed by who reads it; raises `NotFound` where there is none, and why it is dead.

        The same containers are changed in place later: what must stay as it is, is to be copied.
        """
        self._check()
        if not self._filled:
            raise KantaError(f"the mirror of {self.path!r} has nothing yet: enter it (`async with`) first")
        if self.raw is MISSING:
            raise refusal(Problem("not_found", "there is no value at this path", path=self.path).body())
        return cast(T, self.raw if self.shape is None else self._typed)

    @property
    def exists(self) -> bool:
        """Whether there is a value; raises why the mirror is dead, as all that reads it."""
        self._check()
        return self.raw is not MISSING

    @property
    def error(self) -> KantaError | None:
        """Why it is dead: what its value raises. None while it goes on, and when it was closed."""
        return None if isinstance(self._error, Closed) else self._error

    @property
    def rev(self) -> int:
        """The revision that the value is of: at least; changes elsewhere are not heard of at once."""
        return self._feed.rev

    @property
    def cursor(self) -> str:
        """A cursor to go on from: that of `rev`, or of an earlier revision with the same value."""
        return self._feed.cursor

    @property
    def for_drafts(self) -> bool:
        """Whether a draft may be made of it: it is live, and no other thread changes it under the draft."""
        return self.live and isinstance(self.lock, nullcontext)

    @property
    def live(self) -> bool:
        """Whether it is connected and has caught up with the server."""
        return (
            self._filled
            and self._feed.followed
            and not self._feed.behind
            and self._channel.state in ("connected", "catching up")
        )

    def __getitem__(self, key: Any) -> Any:
        try:
            return cast(Any, self.value)[key]
        except NotFound:
            raise KeyError(key) from None

    def get(self, key: Any, default: Any = None) -> Any:
        """The child with a key, or the default."""
        try:
            return self[key]
        except (KeyError, IndexError):
            return default

    def __contains__(self, key: Any) -> bool:
        return self.exists and key in cast(Any, self.value)

    def __len__(self) -> int:
        return len(cast(Any, self.value)) if self.exists else 0

    def __iter__(self) -> Iterator[Any]:
        return iter(cast(Any, self.value) if self.exists else ())

    def __bool__(self) -> bool:
        return self.exists

    # -- waiting

    async def at_least(self, rev: "int | Written", seconds: float | None = None) -> None:
        """Wait until the value is that of a revision, or a later one: of a write of one's own, for instance.

        Raises `Unreachable` after `seconds` (by default the client's `timeout`), and why the mirror is dead.
        """
        wanted = rev.rev if isinstance(rev, Written) else rev
        if self._feed.rev < wanted or self._error is not None:
            await self._until(wanted, seconds)

    async def _until(self, rev: int, seconds: float | None = None) -> None:
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append((rev, future))
        patience = self._channel.patience.answer if seconds is None else seconds
        pause = ASK_AFTER
        try:
            async with asyncio.timeout(patience):
                while not (await asyncio.wait([future], timeout=pause))[0]:
                    self._ask(rev)
                    pause = min(2 * pause, 1.0)
        except TimeoutError:
            raise Unreachable(f"the mirror of {self.path!r} did not reach revision {rev} in {patience} s") from None
        finally:
            self._waiters = [each for each in self._waiters if each[1] is not future]
            if not future.cancel():
                future.exception()  # seen: who is cancelled does not raise it
        future.result()

    def _ask(self, rev: int, since: str = "") -> None:
        """Ask whether anything up to a revision is yet to come: if it was elsewhere, no event tells."""
        behind = self._feed.rev
        if behind < 0 or behind >= rev or not self._feed.followed:
            return
        if not since and self._asked is not None and not self._asked.done():
            return  # one after the other: it may cost the server a look at much of its log

        def told(answer: Message) -> None:
            if answer.changes or self._feed.rev != behind:
                return
            if answer.next is not None:  # the server has not searched all of it
                self._ask(rev, answer.next)
            elif answer.rev >= rev:
                self._feed.rev = rev
                self.moved()

        request = {"op": "changes", "path": self.path, "since": since or self._feed.cursor, "until": rev, "limit": 1}
        self._asked = self._channel.tell(request, told)

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after each change was applied; returns what ends that. What a callback raises is logged.

        Raises why the mirror is dead. If it dies later, `on_end` tells.
        """
        self._check()
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def on_end(self, callback: Callable[[KantaError], None]) -> Callable[[], None]:
        """Call back once with the error that ends it, at once where it has ended; returns what ends that.

        It ends by a value that is not of its type, another history, a closed client. Its own `close` is no such end.
        """
        self._enders.append(callback)
        if self._error is not None:
            self._tell_end(self._error)
        return lambda: self._enders.remove(callback) if callback in self._enders else None

    def __aiter__(self) -> AsyncIterator[Change]:
        """The changes from now on, after each was applied; who is 10,000, or 64 MiB, late is told so by `Overrun`."""
        return Line(self._lines, self._error)

    # -- what the feed tells

    def take(self, kind: Kind, message: Message, size: int) -> None:
        """See `Taker`."""
        told = bool(self._lines or self._callbacks)
        change = message.change(None, kind) if told else None
        if change is not None and kind == "change":
            message.diff = copied(message.diff)  # what is applied becomes part of the value
        try:
            with self.lock:
                self._apply(kind, message)
        except Exception as error:
            self._feed.leave()
            dead = KantaError(f"the mirror of {self.path!r} cannot take revision {message.rev}: {error}")
            dead.__cause__ = error
            self.failed(dead)
            return
        self._filled = True
        if change is not None:
            for line in list(self._lines):
                line.put(change, size)
            for callback in list(self._callbacks):
                try:
                    callback(change)
                except Exception:
                    logger.exception("a callback of the mirror of %r raised", self.path)

    def _apply(self, kind: Kind, message: Message) -> None:
        if kind == "change":
            if message.deleted:
                self.raw, self._typed = MISSING, None
                return
            fresh = self.raw is MISSING
            self.raw = apply(self.raw, message.diff)
            if self.shape is not None:
                whole = fresh or type(message.diff) is not dict
                self._typed = (
                    self.shape.convert(self.raw) if whole else self.shape.follow(self._typed, self.raw, message.diff)
                )
            return
        self.raw = decode_json(message.value) if isinstance(message.value, msgspec.Raw) else MISSING
        self._typed = None if self.shape is None or self.raw is MISSING else self.shape.convert(self.raw)

    def moved(self) -> None:
        """See `Taker`."""
        if self._waiters:
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        for rev, future in self._waiters:
            if self._filled and rev <= self._feed.rev and not future.done():
                future.set_result(None)

    def failed(self, error: KantaError) -> None:
        """See `Taker`."""
        if self._filled and not isinstance(error, Closed):  # else who enters it is told
            fault = None if isinstance(error, Refused) else error.__cause__
            logger.error("the mirror of %r has ended: %s", self.path, error, exc_info=fault)
            self._channel.dead.add(self)
        self._end(error)
        self._channel.settle()

    def _tell_end(self, error: KantaError) -> None:
        enders, self._enders = self._enders, []
        for callback in enders:
            try:
                callback(error)
            except Exception:
                logger.exception("a callback of the end of the mirror of %r raised", self.path)

    def _end(self, error: KantaError) -> None:
        self._error = self._error or error
        if self in self._among:
            self._among.remove(self)
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(self._error)
        for line in list(self._lines):
            line.end(self._error)
        self._tell_end(self._error)


class Line:
    """The changes of a mirror that one iteration has not seen yet."""

    def __init__(self, among: "WeakSet[Line]", error: KantaError | None) -> None:
        self._among, self._error = among, error
        self._changes: deque[tuple[Change, int]] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        among.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._changes:
            if isinstance(self._error, Closed):
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        change, size = self._changes.popleft()
        self._size -= size
        return change

    def put(self, change: Change, size: int) -> None:
        """Another one, of about so many bytes."""
        self._changes.append((change, size))
        self._size += size
        if len(self._changes) > MOST or (self._size > MOST_BYTES and len(self._changes) > 1):
            late = f"{len(self._changes)} changes of {self._size} bytes"
            self._changes.clear()
            self.end(Overrun(f"an iteration over a mirror is {late} late, which is more than is kept"))
        self._awake()

    def end(self, error: KantaError) -> None:
        """There are no more, because of this."""
        self._error = self._error or error
        self._among.discard(self)
        self._awake()

    def _awake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
