"""The changes that are applied but not yet visible, and what they touch.

Under `durable`, what readers see is the state without them: `hidden` takes them back for the
length of one synchronous read and does them again. Most reads meet none of them; two coarse sets
of path beginnings say so without looking at the patches. Nothing here awaits.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import msgspec

from kantad.engine.interest import Node
from kantad.values.errors import Problem
from kantad.values.narrow import Verdict
from kantad.values.patch import KeyOrders, Orders, Undo, apply, escape, reorder, unescape
from kantad.values.pointer import Path, lookup

Settle = Callable[[Exception | None], None]


class Applied(msgspec.Struct, gc=False):
    """One applied change until it is settled: its record, its patch (to do it again), and how to undo it.

    A Struct because many are made: that costs a third of a class of one's own.
    """

    rev: int
    chain: bytes
    payload: bytes
    path: Path  # through objects only
    sub: Any  # the patch of the value there
    undo: Undo  # its batch's
    mark: int  # where its entries begin in there; they end where those of the next change begin
    before: tuple[int, int | None]  # the time and the modification time of the change before it
    met: list[Node] | None = None  # the followed paths that it meets, and
    narrowed: dict[Path, bytes | Verdict] | None = None  # what it does to them where only the state tells: `interest`

    @property
    def diff(self) -> Any:
        """The patch of the root."""
        diff = self.sub
        for segment in reversed(self.path):
            diff = {escape(segment): diff}
        return diff


class Answering(Protocol):
    """A connection that a prepared answer goes to."""

    def settled(self, data: bytes) -> None:
        """Send the answer."""

    def refused(self, problem: Problem, data: bytes) -> None:
        """Send a problem instead of the answer."""


class Errand(NamedTuple):
    """Something that the writer thread does alone, between two batches.

    `work` is done by the thread: what it returns went wrong. Whatever it does, all that was written before is
    synced when it is through. `then` follows on the loop, before anything else of the file is touched.
    """

    work: Callable[[], Exception | None]
    then: Callable[[], None]
    settle: Settle


class Batch:
    """Changes that are written and synced together, and who waits for them.

    `answers` are prepared answers and where they go: the cheap form of waiting.
    """

    __slots__ = (
        "answers",
        "changes",
        "end",
        "errand",
        "looked_at",
        "snapshot",
        "sync",
        "touched",
        "undo",
        "waiting",
        "waiting_written",
    )

    def __init__(self, orders: KeyOrders) -> None:
        self.changes: list[Applied] = []
        self.undo = Undo(orders)  # of all its changes
        self.answers: list[tuple[Answering, bytes]] = []
        self.waiting: list[tuple[int, Settle]] = []  # who waits for it to be synced, and for which revision
        self.waiting_written: list[Settle] = []
        self.touched: set[Any] = set()
        self.looked_at = 0  # how many of the changes are in `touched`
        self.sync = False
        self.end = 0  # where it ends in the file, once it is written
        self.snapshot: bytes | None = None  # instead of changes: a snapshot's payload
        self.errand: Errand | None = None  # or this

    def settle(self) -> None:
        """Tell all who wait for it that it is on disk as they want it."""
        for connection, data in self.answers:
            connection.settled(data)
        for settle in [*self.waiting_written, *(settle for _, settle in self.waiting)]:
            settle(None)

    def refuse(self, problem: Problem) -> None:
        """Tell all who wait for it that it did not come to be (or that nobody knows)."""
        answers, waiting = self.answers, [*self.waiting_written, *(settle for _, settle in self.waiting)]
        self.answers, self.waiting_written, self.waiting = [], [], []
        for connection, data in answers:
            connection.refused(problem, data)
        for settle in waiting:
            settle(problem)

    def _look(self) -> None:
        """Note where the changes touch: the first two keys of the path, and the first."""
        for change in self.changes[self.looked_at :]:
            keys = change.path[:2] if len(change.path) > 1 else _beginning(change.diff)
            self.touched.update((keys[0], keys) if keys else ((),))
        self.looked_at = len(self.changes)

    def meets(self, path: Path) -> bool:
        """Whether one of the changes may touch what is at this path. Says yes too often, never too rarely."""
        if not self.changes:
            return False
        if self.looked_at < len(self.changes):
            self._look()
        touched = self.touched
        if () in touched or not path:
            return True
        if path[0] not in touched:
            return False
        return len(path) == 1 or path[:1] in touched or path[:2] in touched


def _beginning(patch: Any) -> Path:
    """The first keys, two at the most, of the path below which a patch does all that it does."""
    keys: list[str] = []
    while len(keys) < 2 and type(patch) is dict and len(patch) == 1:
        key = next(iter(patch))
        if key in ("$delete", "$replace", "$insert"):
            break
        patch = patch[key]
        keys.append(str(unescape(key)))
    return tuple(keys)


def settling() -> tuple["asyncio.Future[None]", Settle]:
    """A future, and the callable that settles it as a committer does."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    return future, settle


@contextmanager
def hidden(root: dict[str, Any], changes: list[Applied], path: Path = ()) -> Iterator[None]:
    """The state without these (the newest) changes, for one synchronous look at what is at a path.

    The keys of the objects above it are not put back in order: nobody sees them, and the changes follow.
    """
    orders = _take_back(changes)
    above = set()
    if orders and path and changes[0].undo.orders.keep(orders):
        node: Any = root
        for segment in path:
            above.add(id(node))
            node = lookup(node, (segment,))
    reorder(orders, above)
    try:
        yield
    finally:
        for change in changes:
            change.mark = len(change.undo.entries)
            apply(root, change.diff, change.undo)


def roll_back(changes: list[Applied]) -> None:
    """Take changes back, newest first."""
    reorder(_take_back(changes))


def _take_back(changes: list[Applied]) -> Orders:
    orders: Orders = {}
    for change in reversed(changes):
        change.undo.take_back(orders, change.mark)
    return orders
