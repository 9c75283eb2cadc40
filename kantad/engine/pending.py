"""The changes that are applied but not yet visible, and what they touch.

Under `durable`, what readers see is the state without them: `hidden` takes them back for the
length of one synchronous read and does them again. Most reads meet none of them; two coarse sets
of path beginnings say so without looking at the patches. Nothing here awaits.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kantad.values.errors import Problem
from kantad.values.narrow import Verdict
from kantad.values.patch import Orders, Undo, apply, reorder
from kantad.values.pointer import Path, lookup

Settle = Callable[[Exception | None], None]


class Applied:
    """One applied change until it is settled: its record, its patch (to do it again) and its undo list."""

    __slots__ = ("before", "chain", "diff", "narrowed", "payload", "rev", "undo")

    def __init__(
        self, rev: int, chain: bytes, payload: bytes, diff: Any, undo: Undo, before: tuple[int, int | None]
    ) -> None:
        self.rev, self.chain, self.payload = rev, chain, payload
        self.before = before  # the time and the modification time of the change before it
        self.diff: Any = diff
        self.undo = undo
        self.narrowed: dict[Path, bytes | Verdict] = {}  # see `interest`


class Answering(Protocol):
    """A connection that a prepared answer goes to."""

    def settled(self, data: bytes) -> None:
        """Send the answer."""

    def refused(self, problem: Problem, data: bytes) -> None:
        """Send a problem instead of the answer."""


class Batch:
    """Changes that are written and synced together, and who waits for them.

    `answers` are prepared answers and where they go: the cheap form of waiting.
    """

    __slots__ = ("answers", "changes", "end", "looked_at", "snapshot", "sync", "touched", "waiting", "waiting_written")

    def __init__(self) -> None:
        self.changes: list[Applied] = []
        self.answers: list[tuple[Answering, bytes]] = []
        self.waiting: list[tuple[int, Settle]] = []  # who waits for it to be synced, and for which revision
        self.waiting_written: list[Settle] = []
        self.touched: set[Any] = set()
        self.looked_at = 0  # how many of the changes are in `touched`
        self.sync = False
        self.end = 0  # where it ends in the file, once it is written
        self.snapshot: bytes | None = None  # instead of changes: a snapshot's payload

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
            patch = change.diff
            first = _only_key(patch)
            second = _only_key(patch[first]) if first is not None and type(patch[first]) is dict else None
            if first is None:
                self.touched.add(())
            elif second is None:
                self.touched.update((str(first), (str(first),)))
            else:
                self.touched.update((str(first), (str(first), str(second))))
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
        first = "$" + path[0] if path[0][:1] == "$" else path[0]
        if first not in touched:
            return False
        if len(path) == 1 or (first,) in touched:
            return True
        return (first, "$" + path[1] if path[1][:1] == "$" else path[1]) in touched


def _only_key(patch: dict[Any, Any]) -> Any:
    """The one key of a patch that touches only what is below it, else None."""
    if len(patch) == 1:
        key = next(iter(patch))
        if key != "$delete" and key != "$replace" and key != "$insert":
            return key
    return None


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
            apply(root, change.diff, change.undo)


def roll_back(changes: list[Applied]) -> None:
    """Take changes back, newest first."""
    reorder(_take_back(changes))


def _take_back(changes: list[Applied]) -> Orders:
    orders: Orders = {}
    for change in reversed(changes):
        change.undo.take_back(orders)
    return orders
