"""Which idempotency keys were seen. Pure; the engine asks before any other condition.

The window is the last 10,000 keyed changes, and beyond them all of the last 24 h up to 100,000.
It is in the records (`id`, `q`), so a start reads it back. A keyed request that changed nothing
is remembered too, by this process only.
"""

from dataclasses import dataclass
from typing import Any, Final

from kantad.values.errors import Problem
from kantad.values.patch import escape, unescape
from kantad.values.pointer import Path

KEPT: Final = 10_000
MOST: Final = 100_000
DAY: Final = 24 * 3600 * 1_000_000


@dataclass(slots=True)
class Seen:
    """A keyed request: its fingerprint and its first answer. `child` is not known of a record read back."""

    q: str
    rev: int
    chain: bytes
    micros: int
    changed: bool
    child: Path | None = None


class Window:
    """The keyed changes of the window, oldest first, and the keyed requests that changed nothing."""

    def __init__(self) -> None:
        self.changes: dict[str, Seen] = {}
        self.unchanged: dict[str, Seen] = {}

    def find(self, key: str, q: str) -> Seen | None:
        """The first answer to this request; raises `Problem("key_reused")` if the key was another's."""
        seen = self.peek(key)
        if seen is not None and seen.q != q:
            raise Problem("key_reused", "this idempotency key was used for a different request", rev=seen.rev)
        return seen

    def peek(self, key: str | None) -> Seen | None:
        """The first answer to a request with this key, whichever request it was."""
        return None if key is None else self.changes.get(key) or self.unchanged.get(key)

    def add(self, key: str, seen: Seen) -> None:
        """Remember a request; what leaves the window is dropped by `trim`, when this one can't be taken back."""
        if not seen.changed:
            self.unchanged[key] = seen
            if len(self.unchanged) > KEPT:
                del self.unchanged[next(iter(self.unchanged))]
            return
        self.unchanged.pop(key, None)
        self.changes[key] = seen

    def trim(self) -> None:
        """Drop the changes that left the window."""
        if len(self.changes) <= KEPT:
            return
        day_ago = self.changes[next(reversed(self.changes))].micros - DAY
        while len(self.changes) > KEPT:
            oldest = next(iter(self.changes))
            if len(self.changes) <= MOST and self.changes[oldest].micros >= day_ago:
                break
            del self.changes[oldest]

    def forget_after(self, rev: int) -> None:
        """Drop what was remembered of revisions that were rolled back."""
        for kept in (self.changes, self.unchanged):
            for key in [key for key, seen in kept.items() if seen.rev > rev]:
                del kept[key]


def added_child(patch: Any, path: Path) -> Path:
    """The path of what a logged `post` to this path made, from its patch of the root.

    On the way there the differ may have taken an array or an object as a whole. A `-` in the path
    was the end of its array; an integer may name a MessagePack key.
    """
    whole = False  # what is looked at is a value, no patch
    found: list[str] = []
    for segment in path:
        if type(patch) is dict and "$replace" in patch:
            patch, whole = patch["$replace"], True
        if type(patch) is list:
            segment = str(len(patch) - 1) if segment == "-" else segment
            patch, whole = patch[int(segment)], True
        elif escape(segment) in patch:
            patch = patch[escape(segment)]
        elif not whole and "$insert" in patch:
            inserted = {str(position): value for position, value in patch["$insert"]}
            segment = next(reversed(inserted)) if segment == "-" else segment
            patch, whole = inserted[segment], True
        else:
            patch = patch[int(segment)]
        found.append(segment)
    if type(patch) is dict and "$replace" in patch:
        patch, whole = patch["$replace"], True
    if type(patch) is list:
        return (*found, str(len(patch) - 1))
    if not whole and "$insert" in patch:
        return (*found, str(patch["$insert"][-1][0]))
    return (*found, str(unescape(next(reversed(patch)))))
