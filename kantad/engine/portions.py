"""What readers of the file are sent: the bytes of a few changes from a revision on, made once for all who want them.

They are made of a block of the file; or of the one change in memory that a reader stands before where only the past
tells what it did. What was made last is kept. Knows nothing of sinks, nor of who is served when: that is `convoy`'s.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, NamedTuple

from kantad.engine.backlog import Backlog, Block
from kantad.engine.filter import Filter
from kantad.engine.reader import Reader
from kantad.engine.ring import Ring
from kantad.values.event import Events, revision_of
from kantad.values.touch import Touches

PORTION: Final = 32 << 10  # bytes of events made of a block at once; up to a quarter more, rather than leave so little
KEPT_BYTES: Final = 8 << 20  # of portions
NOTED: Final = 16  # blocks of which it is known what they touch
ENTRY: Final = 500  # bytes that a portion costs besides its own: one may be empty, where a filter matches nothing

TailOf = Callable[[Filter, int, bytes], Awaitable[bytes | None]]  # what a change is to a filter, None where nothing
Key = tuple[Hashable, Filter, int]


class Portion(NamedTuple):
    """So many changes as bytes, up to a revision, and the cursor of that."""

    data: bytes
    number: int
    upto: int
    mark: bytes

    def suits(self, reader: Reader) -> bool:
        """Whether it ends before what the reader asked for does."""
        within = reader.until is None or self.upto <= reader.until
        return within and (reader.left is None or self.number < reader.left)


class Making:
    """A portion that is being made, and who waits for it."""

    __slots__ = ("key", "readers", "task", "timer")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.readers: deque[Reader] = deque()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Portions:
    """Those of one database."""

    def __init__(self, ring: Ring, backlog: Backlog, events: Events, tail_of: TailOf) -> None:
        self.ring, self.backlog, self.events, self.tail_of = ring, backlog, events, tail_of
        self._touches: OrderedDict[tuple[int, int], Touches] = OrderedDict()
        self._kept: OrderedDict[Key, Portion] = OrderedDict()
        self._bytes = 0

    def kept(self, reader: Reader) -> Portion | None:
        """The next portion of a reader, if it was made lately."""
        key = (reader.encoding.key, reader.filter, reader.position + 1)
        portion = self._kept.get(key)
        if portion is None or not portion.suits(reader):
            return None
        self._kept.move_to_end(key)
        return portion

    async def make(self, reader: Reader) -> Portion:
        """Make the next portion of a reader. Raises `Problem("history_gone")`."""
        encoding, filter, rev, until, left = (
            reader.encoding,
            reader.filter,
            reader.position + 1,
            reader.until,
            reader.left,
        )
        if reader.stuck and rev >= self.ring.first:
            block = Block(rev, [self.ring.payload(rev)])
        else:
            block = await self.backlog.block(rev)
        last = block.last if until is None else min(block.last, until)
        tails, upto = await self._tails(filter, rev, last, block)
        if left is not None and len(tails) >= left:
            tails = tails[:left]
            upto = revision_of(tails[-1])
        mark = self.events.cursor(upto, block.payloads[upto - block.first])
        portion = Portion(encoding.changes(tails) if tails else b"", len(tails), upto, mark)
        if upto != until and (left is None or len(tails) < left):
            self._keep((encoding.key, filter, rev), portion)
        return portion

    async def _tails(self, filter: Filter, rev: int, last: int, block: Block) -> tuple[list[bytes], int]:
        """The tails of a block's changes from a revision on, up to a portion of them; and how far that is."""
        tails: list[bytes] = []
        size = 0
        for upto in range(rev, last + 1) if not filter.path else self._met(block).between(filter.path, rev, last):
            tail = await self.tail_of(filter, upto, block.payloads[upto - block.first])
            if tail is not None:
                tails.append(tail)
                size += len(tail)
            if size >= PORTION and _size_behind(block, upto) >= PORTION // 4:
                return tails, upto
        return tails, last

    def _met(self, block: Block) -> Touches:
        """What the changes of a block touch, noted once for all who follow paths."""
        key = (block.first, block.last)
        touches = self._touches.pop(key, None) or Touches(
            (rev, self.events.diff(payload)) for rev, payload in enumerate(block.payloads, block.first)
        )
        self._touches[key] = touches
        if len(self._touches) > NOTED:
            self._touches.popitem(last=False)
        return touches

    def _keep(self, key: Key, portion: Portion) -> None:
        old = self._kept.pop(key, None)
        self._kept[key] = portion
        self._bytes += _cost(key, portion) - (0 if old is None else _cost(key, old))
        while self._bytes > KEPT_BYTES:
            self._bytes -= _cost(*self._kept.popitem(last=False))


def _size_behind(block: Block, rev: int) -> int:
    """The bytes of a block's records behind a revision."""
    return sum(map(len, block.payloads[rev - block.first + 1 :]))


def _cost(key: Key, portion: Portion) -> int:
    return ENTRY + len(portion.data) + sum(60 + len(segment) for segment in key[1].path)
