"""What a change did at a path where its patch does not tell: from the value before it and the value after.

Only the state of that time tells, and the past is dear to read. So the value is fetched once, at
the deepest place above the path where the patch is clear, and brought on from there change by
change: a reader that goes through a thousand moves in one array costs one look at the past. A few
such values are kept, the last ones used, whoever they are for. One that is large would hold up the loop
while it is decoded; there the past is asked twice for what is at the path itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from kantad.values.content import MISSING, copied, encode_json
from kantad.values.event import Events
from kantad.values.narrow import DELETED, UNCLEAR, UNTOUCHED, Verdict, compared, narrowed
from kantad.values.patch import apply
from kantad.values.pointer import Path, lookup

KEPT: Final = 4
NEAR: Final = 4096  # changes to go through rather than look at the past again
MOST: Final = 256 << 10  # bytes of a value that is fetched for what is in it
MOST_LARGE: Final = 256  # places that are known to be larger

PayloadOf = Callable[[int], Awaitable[bytes]]  # the record of a revision


class TooLarge(Exception):
    """A value of the past has more bytes than are wanted."""


class ValueAt(Protocol):
    """How the past is asked."""

    def __call__(self, when: int, path: Path, most: int | None = None) -> Awaitable[Any]:
        """The value at a path as of a revision, or MISSING; raises `Problem`, and `TooLarge` over so many bytes."""


class Shadow:
    """The value at `path` as of `rev`, MISSING where there is none. The value is its own."""

    def __init__(self, path: Path, rev: int, value: Any) -> None:
        self.path, self.rev = path, rev
        self.holder: dict[str, Any] = {} if value is MISSING else {"": value}

    def lookup(self, path: Path) -> Any:
        """The value at a path that is this one or below it."""
        return lookup(self.holder, ("", *path[len(self.path) :]))

    def bring_on(self, patch: Any) -> bool:
        """Apply the next change; False, with nothing done, where its patch is not clear at this path."""
        part = narrowed(patch, self.path)
        if part is UNCLEAR:
            return False
        if part is DELETED:
            self.holder.clear()
        elif part is not UNTOUCHED:
            self.holder[""] = apply(self.holder.get("", MISSING), part)
        self.rev += 1
        return True


class Shadows:
    """The values that are kept. Used on one event loop; `part` may be called by many tasks at once."""

    def __init__(self, events: Events, value_at: ValueAt, payload_of: PayloadOf) -> None:
        self.events, self.value_at, self.payload_of = events, value_at, payload_of
        self.kept: OrderedDict[Path, Shadow] = OrderedDict()
        self.large: dict[Path, None] = {}
        self.turn = asyncio.Lock()

    async def part(self, rev: int, payload: bytes, path: Path) -> bytes | Verdict:
        """What the change of a revision is below a path: a patch as JSON, UNTOUCHED or DELETED. Raises `Problem`."""
        patch = self.events.diff(payload)
        place = _clear(patch, path)
        async with self.turn:
            try:
                shadow = None if place in self.large else await self._before(rev, place)
            except TooLarge:
                shadow = None
                self._note_large(place)
            if shadow is None:
                found = compared(await self.value_at(rev - 1, path), await self.value_at(rev, path))
                return found if isinstance(found, Verdict) else encode_json(found)
            old = shadow.lookup(path)
            old = old if old is MISSING else copied(old)
            shadow.bring_on(patch)
            found = compared(old, shadow.lookup(path))
            return found if isinstance(found, Verdict) else encode_json(found)

    async def _before(self, rev: int, place: Path) -> Shadow:
        """The shadow of a place as of the revision before this one."""
        shadow = self.kept.pop(place, None)
        if shadow is not None and shadow.rev < rev <= shadow.rev + NEAR:
            await self._bring_on(shadow, rev - 1)
        if shadow is None or shadow.rev != rev - 1:
            shadow = Shadow(place, rev - 1, await self.value_at(rev - 1, place, MOST))
        self.kept[place] = shadow
        if len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return shadow

    def _note_large(self, place: Path) -> None:
        if len(self.large) >= MOST_LARGE:
            self.large.pop(next(iter(self.large)))
        self.large[place] = None

    async def _bring_on(self, shadow: Shadow, rev: int) -> None:
        """As far as a revision, or to before a change that is not clear at its place."""
        for number in range(shadow.rev + 1, rev + 1):
            if not shadow.bring_on(self.events.diff(await self.payload_of(number))):
                return
            if number % 64 == 0:
                await asyncio.sleep(0)


def _clear(patch: Any, path: Path) -> Path:
    """The longest beginning of a path at which a patch tells what it does."""
    for depth in range(len(path), 0, -1):
        if narrowed(patch, path[:depth]) is not UNCLEAR:
            return path[:depth]
    return ()
