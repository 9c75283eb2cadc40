"""What follows changes, for threads: subscriptions, mirrors, and listings as plain iterators.

Each is the asynchronous one, which lives on the background loop. A mirror changes there while others
read, so what is read of it is copied, under a lock that each transaction is applied under as a whole:
never half of one is seen, and what was read belongs to who read it. `sync` makes them.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import deepcopy
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from kanta_client.background import Background
from kanta_client.errors import KantaError
from kanta_client.mirror import Mirror
from kanta_client.records import Change, Written
from kanta_client.subscription import Subscription

T = TypeVar("T")

MOST: Final = 512  # items that are fetched at once
_SCALARS: Final = (str, int, float, bool, type(None))


def drained(background: Background, made: Coroutine[Any, Any, AsyncIterator[T]]) -> Iterator[T]:
    """The items of an asynchronous iterator that never waits long; fetched in batches, small ones first."""
    iterator, size = background.run(made), 1
    while True:
        batch, error = background.run(_batch(iterator, size))
        yield from batch
        if error is not None:
            raise error
        if len(batch) < size:
            return
        size = min(2 * size, MOST)


async def _batch(iterator: AsyncIterator[T], size: int) -> tuple[list[T], Exception | None]:
    batch: list[T] = []
    try:
        while len(batch) < size:
            batch.append(await anext(iterator))
    except StopAsyncIteration:
        return batch, None
    except Exception as error:
        return batch, error
    return batch, None


class SyncSubscription:
    """An iterator over changes that waits for each, for one thread. `close()`, or a `with`, ends it.

    `rev` and `cursor` are those of the last change that was given out: what to resume from another time.
    """

    def __init__(self, background: Background, subscription: Subscription) -> None:
        self._background, self._subscription = background, subscription
        self.rev, self.cursor = subscription.rev, subscription.cursor

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        self._background.run(self._subscription.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follow no more: what is there is still given out, and then the iteration ends."""
        self._background.run(made(self._subscription.close))

    def __next__(self) -> Change:
        return self._given(self._background.run(_next(self._subscription)))

    def next(self, timeout: float) -> Change | None:
        """The next change; None where there is none for so many seconds. Raises StopIteration where it has ended."""
        try:
            change = self._background.run(_next(self._subscription, timeout))
        except TimeoutError:
            return None
        return self._given(change)

    def _given(self, change: Change | None) -> Change:
        if change is None:
            raise StopIteration
        self.rev, self.cursor = change.rev, change.cursor
        return change


async def _next(iterator: AsyncIterator[T], seconds: float | None = None) -> T | None:
    """The next item; None behind the last one: a future cannot hold a StopIteration."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(iterator)
    except StopAsyncIteration:
        return None


async def made(make: Callable[[], T]) -> T:
    """What a function makes, run on the loop, because it belongs to it."""
    return make()


class SyncMirror(Generic[T]):
    """A live local copy, read without the network. Enter it (`with`) to have it filled and followed.

    Everything that is read is a copy of one moment, and costs what is copied: `users["alice"]` one user, `users.value`
    all of them.
    """

    def __init__(self, background: Background, mirror: Mirror[T]) -> None:
        self._background, self._mirror = background, mirror
        self._lock = mirror.lock = threading.Lock()

    def __enter__(self) -> Self:
        self._background.run(self._mirror.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Follow no more; the value stays as it is."""
        self._background.run(made(self._mirror.close))

    # -- reading

    def _still(self) -> threading.Lock:
        self._background.check_process()
        return self._lock

    def _here(self) -> Mirror[T]:
        self._background.check_process()
        return self._mirror

    @property
    def value(self) -> T:
        """A copy of the whole value; raises `NotFound` where there is none, and why the mirror is dead."""
        with self._still():
            return copy(self._mirror.value)

    @property
    def exists(self) -> bool:
        """Whether there is a value; raises why the mirror is dead, as all that reads it."""
        return self._here().exists

    @property
    def rev(self) -> int:
        """The revision that the value is of: at least; changes elsewhere are not heard of at once."""
        return self._here().rev

    @property
    def cursor(self) -> str:
        """The cursor of `rev`."""
        return self._here().cursor

    @property
    def live(self) -> bool:
        """Whether it is connected and has caught up with the server."""
        return self._here().live

    @property
    def error(self) -> KantaError | None:
        """Why it is dead: what its value raises. None while it goes on, and when it was closed."""
        return self._here().error

    def __getitem__(self, key: Any) -> Any:
        with self._still():
            return copy(self._mirror[key])

    def get(self, key: Any, default: Any = None) -> Any:
        """A copy of the child with a key, or the default."""
        try:
            return self[key]
        except (KeyError, IndexError):
            return default

    def __contains__(self, key: Any) -> bool:
        with self._still():
            return key in self._mirror

    def __len__(self) -> int:
        with self._still():
            return len(self._mirror)

    def __iter__(self) -> Iterator[Any]:
        with self._still():
            return iter(copy(list(self._mirror)))

    def __bool__(self) -> bool:
        return self.exists

    # -- waiting

    def at_least(self, rev: int | Written, seconds: float | None = None) -> None:
        """Wait until the value is that of a revision, or a later one: of a write of one's own, for instance.

        Raises `Unreachable` after `seconds` (by default the client's `timeout`), and why the mirror is dead.
        """
        self._background.run(self._mirror.at_least(rev, seconds))

    def changes(self) -> Iterator[Change]:
        """The changes from now on, each after it was applied; who is 10,000 late is told so by `Overrun`."""
        return self._changes(self._background.run(made(self._mirror.__aiter__)))

    def _changes(self, line: AsyncIterator[Change]) -> Iterator[Change]:
        while (change := self._background.run(_next(line))) is not None:
            yield change

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after each change was applied, in the background's thread; returns what ends that.

        The callback may read the mirror, but must not wait for the client: that raises RuntimeError.
        """
        return self._mirror.on_change(callback)

    def on_end(self, callback: Callable[[KantaError], None]) -> Callable[[], None]:
        """Call back once with the error that ends it, in the background's thread; returns what ends that."""
        return self._background.run(made(lambda: self._mirror.on_end(callback)))


def copy(value: T) -> T:
    """A copy of a value of JSON's types or of Structs."""
    if isinstance(value, dict) and type(value) is dict:
        return cast(T, {key: copy(item) for key, item in value.items()})
    if isinstance(value, list) and type(value) is list:
        return cast(T, [copy(item) for item in value])
    return value if type(value) in _SCALARS else deepcopy(value)
