"""Which idempotency keys were seen. Pure; the engine asks before any other condition.

The window is the last 10,000 keyed changes, and beyond them all of the last 24 h up to 100,000.
It is in the records (`id`, `q`), so a start reads it back. A keyed request that changed nothing
is remembered too, by this process only.
"""

from collections import deque
from typing import Any, Final

import msgspec
from blake3 import blake3

from kantad.values.content import encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.patch import escape, unescape
from kantad.values.pointer import Path

KEPT: Final = 10_000
MOST: Final = 100_000
DAY: Final = 24 * 3600 * 1_000_000
LONGEST: Final = 128  # characters of a key


def check_key(key: str, name: str) -> None:
    """Raise the `Problem` of a key that is none: it has 1 to 128 printable ASCII characters. `name` is its member's."""
    if not (0 < len(key) <= LONGEST and key.isascii() and key.isprintable()):
        detail = f"an idempotency key is 1 to {LONGEST} printable ASCII characters"
        raise Problem("invalid_parameter", detail, parameter=name)


class Seen(msgspec.Struct, gc=False):
    """A keyed request: its fingerprint and its first answer. `child` is not known of a record read back;
    `outline` is that of its patch, where the record may be held no longer."""

    q: str
    rev: int
    chain: bytes
    micros: int
    changed: bool
    child: Path | None = None
    outline: Any = None


class Window:
    """The keyed changes of the window, oldest first, and the keyed requests that changed nothing.

    The order is kept beside the dicts: to find the first key of one whose first keys were deleted, Python walks
    over all their places (measured with 100,000 keys: 11 us a write).
    """

    def __init__(self) -> None:
        self.changes: dict[str, Seen] = {}
        self.unchanged: dict[str, Seen] = {}
        self._order: deque[str] = deque()
        self._order_of_unchanged: deque[str] = deque()
        self._hasher = blake3()  # used again and again, as in `values.codec`

    def find(self, key: str, identity: tuple[Any, ...]) -> tuple[str, Seen | None]:
        """The fingerprint of a request, and its first answer; raises `Problem("key_reused")` if the key was another's.

        `identity` is all that makes two requests the same one, the fingerprint 8 hex digits over it: a record's `q`.
        """
        try:
            text = encode_json(identity)
        except TypeError:  # MessagePack that is no JSON: refused later, unless it is what a condition compares with
            text = encode_msgpack(identity)
        hasher = self._hasher
        hasher.reset()
        hasher.update(text)
        q = hasher.hexdigest(4)
        seen = self.changes.get(key) or self.unchanged.get(key)
        if seen is not None and seen.q != q:
            raise Problem("key_reused", "this idempotency key was used for a different request", rev=seen.rev)
        return q, seen

    def peek(self, key: str | None) -> Seen | None:
        """The first answer to a request with this key, whichever request it was."""
        return None if key is None else self.changes.get(key) or self.unchanged.get(key)

    def add(self, key: str, seen: Seen) -> None:
        """Remember a change; what leaves the window is dropped by `trim`, when this one can't be taken back."""
        if key not in self.changes:
            self._order.append(key)
        self.changes[key] = seen

    def add_unchanged(self, key: str, seen: Seen) -> None:
        """Remember a request that changed nothing."""
        if key not in self.unchanged:
            self._order_of_unchanged.append(key)
        self.unchanged[key] = seen
        if len(self.unchanged) > KEPT:
            del self.unchanged[self._order_of_unchanged.popleft()]

    def trim(self) -> None:
        """Drop the changes that left the window."""
        changes, order = self.changes, self._order
        if len(order) <= KEPT:
            return
        day_ago = changes[order[-1]].micros - DAY
        while len(order) > KEPT and (len(order) > MOST or changes[order[0]].micros < day_ago):
            del changes[order.popleft()]

    def forget_after(self, rev: int) -> None:
        """Drop what was remembered of revisions that were rolled back."""
        for kept in (self.changes, self.unchanged):
            for key in [key for key, seen in kept.items() if seen.rev > rev]:
                del kept[key]
        self._order, self._order_of_unchanged = deque(self.changes), deque(self.unchanged)


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


def child_in_outline(outline: Any, path: Path) -> Path | None:
    """`added_child` of a patch of which only the outline is known; None where that does not tell."""
    try:
        return added_child(outline, path)
    except (LookupError, TypeError, ValueError, StopIteration):
        return None
