"""The changes that are applied but not yet visible, and what they touch.

Under `durable`, what readers see is the state without them: `hidden` takes them back for the
length of one synchronous read and does them again. Most reads meet none of them; two coarse sets
of path beginnings say so without looking at the patches. Nothing here awaits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kantad.values.patch import Undo, apply
from kantad.values.pointer import Path

Settle = Callable[[Exception | None], None]


class Applied:
    """One applied change: its patch (to do it again) and its undo list."""

    __slots__ = ("chain", "diff", "micros", "payload", "rev", "undo")

    def __init__(self, rev: int, chain: bytes, micros: int, payload: bytes, diff: Any, undo: Undo) -> None:
        self.rev, self.chain, self.micros, self.payload, self.diff, self.undo = rev, chain, micros, payload, diff, undo


class Batch:
    """Changes that are written and synced together, and who waits for them."""

    __slots__ = ("changes", "sync", "touched", "waiting", "waiting_written")

    def __init__(self) -> None:
        self.changes: list[Applied] = []
        self.waiting: list[Settle] = []
        self.waiting_written: list[Settle] = []
        self.touched: set[Any] = set()
        self.sync = False

    def add(self, change: Applied) -> None:
        """Take a change in, and note where it touches: the first two keys of its path, and the first."""
        self.changes.append(change)
        patch = change.diff
        first = _only_key(patch)
        second = _only_key(patch[first]) if first is not None and type(patch[first]) is dict else None
        if first is None:
            self.touched.add(())
        elif second is None:
            self.touched.update((str(first), (str(first),)))
        else:
            self.touched.update((str(first), (str(first), str(second))))

    def meets(self, path: Path) -> bool:
        """Whether one of the changes may touch what is at this path. Says yes too often, never too rarely."""
        touched = self.touched
        if not touched:
            return False
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


@contextmanager
def hidden(root: dict[str, Any], changes: list[Applied]) -> Iterator[None]:
    """The state without these (the newest) changes, for one synchronous look at it."""
    roll_back(changes)
    try:
        yield
    finally:
        for change in changes:
            apply(root, change.diff, change.undo)


def roll_back(changes: list[Applied]) -> None:
    """Take changes back, newest first."""
    for change in reversed(changes):
        change.undo.roll_back()
