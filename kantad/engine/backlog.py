"""The changes that are in the file only, block by block, for whoever reads the past.

A block is what stands between two entries of the index: some 64 KiB of records, read by a thread,
verified against the chain, decoded on the loop in a few milliseconds. The last few blocks are kept,
so readers that were left behind together are served from one reading.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from kantad.engine.pending import Applied
from kantad.store import canonical
from kantad.store.history import Anchor, Unreadable
from kantad.store.index import STEP, Index, Part, chain_behind
from kantad.store.log import Log
from kantad.store.recovery import Recovered
from kantad.store.verify import Walk
from kantad.values.errors import Problem
from kantad.values.record import CHAIN_START, chain_after

KEPT_BYTES: Final = 4 << 20  # of blocks
REPLAY_KEPT: Final = 10.0  # seconds that a replay, which holds a state, waits for the next block
SLICE: Final = 0.003  # seconds of replay between two looks at everything else


class Block(NamedTuple):
    """The payloads of the changes from revision `first` on; each has its chain value and a canonical patch."""

    first: int
    payloads: list[bytes]

    @property
    def last(self) -> int:
        """The revision of the last one."""
        return self.first + len(self.payloads) - 1

    @property
    def size(self) -> int:
        """Bytes of the payloads."""
        return sum(map(len, self.payloads))


def gone(oldest: int) -> Problem:
    """What is said of a revision before the oldest."""
    return Problem("history_gone", f"the log begins at revision {oldest}", reason="compacted", oldest=oldest)


class Backlog:
    """The log behind the ring. One database's, on one event loop."""

    def __init__(self, log: Log, found: Recovered) -> None:
        self.log, self.oldest = log, found.oldest
        self.index = Index.at_start(log, found)
        self.lock = asyncio.Lock()
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._bytes = 0
        self._replay: canonical.Canonical | None = None  # of another program's records: blocks are asked for in order
        self._forgetting: asyncio.TimerHandle | None = None

    def wrote(self, changes: list[Applied], end: int) -> None:
        """These changes were written, and the file ends behind them."""
        self.index.wrote(changes, end)

    async def block(self, rev: int) -> Block:
        """The block that holds the change of a revision, which is settled and not older than the log.

        Raises `Problem("history_gone")` with reason `damaged` where the file is not what was written, and
        `compacted` where the log begins later by now.
        """
        while True:
            if rev <= self.oldest:
                raise gone(self.oldest)
            index = self.index
            try:
                block = await self._block(rev)
            except Problem:
                if index is self.index:
                    raise
            else:
                if index is self.index:
                    return block
            # else the log became another file meanwhile, where everything is elsewhere

    def begin_anew(self, index: Index, oldest: int) -> Index:
        """The log became another file, which this is the index of; returns the old one."""
        old, self.index, self.oldest = self.index, index, oldest
        self._blocks.clear()
        self._bytes = 0
        self._forget()
        return old

    async def _block(self, rev: int) -> Block:
        index = self.index
        try:
            anchor, end = await self._find(rev)
            kept = self._blocks.get(anchor.rev)
            if kept is not None and kept.last >= rev:
                self._blocks.move_to_end(anchor.rev)
                return kept
            data = await asyncio.to_thread(self.index.read, anchor.offset, end)
            block = await self._decoded(anchor, data, self._expected(anchor, end))
        except (Unreadable, OSError) as error:
            raise self._damaged(rev, error) from None
        if not block.first <= rev <= block.last:
            raise self._damaged(rev, Unreadable(f"byte {anchor.offset}: the records end before it"))
        if index is self.index:
            self._keep(anchor.rev, block)
        return block

    def _keep(self, place: int, block: Block) -> None:
        """Keep a block; the ones not used for longest go where there are too many bytes of them."""
        old = self._blocks.pop(place, None)
        self._blocks[place] = block
        self._bytes += block.size - (0 if old is None else old.size)
        while self._bytes > KEPT_BYTES and len(self._blocks) > 1:
            self._bytes -= self._blocks.popitem(last=False)[1].size

    def _damaged(self, rev: int, error: Exception) -> Problem:
        detail = f"the log is damaged where revision {rev} is to be read: {error}"
        return Problem("history_gone", detail, reason="damaged", oldest=self.index.part(rev).last)

    async def _find(self, rev: int) -> tuple[Anchor, int]:
        """Where to read for a revision; scans as far as needed."""
        found = self.index.find(rev)
        while found is None:
            async with self.lock:
                found = self.index.find(rev)
                if found is None:
                    await self._scan(self.index.part(rev))
                    found = self.index.find(rev)
        return found

    async def _scan(self, part: Part) -> None:
        """One step; a record longer than a step takes a longer one."""
        size = STEP
        while True:
            start, end = self.index.next_step(part, size)
            data = await asyncio.to_thread(self.index.read, start, end)
            if self.index.scan(part, data):
                return
            size *= 4

    def _expected(self, anchor: Anchor, end: int) -> int | None:
        """How many changes the block has, where the next anchor says so."""
        part = self.index.part(anchor.rev + 1)
        following = next((each for each in part.anchors if each.offset == end), None)
        return None if following is None else following.rev - anchor.rev

    async def _decoded(self, anchor: Anchor, data: bytes, expected: int | None) -> Block:
        """The block's payloads, each verified against the chain."""
        payloads: list[bytes] = []
        try:
            self._collect(payloads, anchor, data, expected)
        except Unreadable:
            if not payloads:  # what stands before the damage is good
                raise
        block = Block(anchor.rev + 1, payloads)
        hashed = self.log.codec.hashed
        return await self._translate(block) if any(len(hashed(each)) == len(each) for each in payloads) else block

    def _collect(self, payloads: list[bytes], anchor: Anchor, data: bytes, expected: int | None) -> None:
        """Take the payloads out of a block, up to what is damaged. Raises `Unreadable` there."""
        codec, chain, before = self.log.codec, anchor.chain, b""
        for frame in self.index.frames(data, anchor.offset):
            payload = frame.payload
            if frame.snapshot:
                before = b""
                continue
            hashed = codec.hashed(payload)
            if len(hashed) == len(payload):
                if payload == before or (not payloads and not before and self._doubled(data, anchor, expected)):
                    before = payload
                    continue
                before, chain = payload, chain_after(chain or CHAIN_START, payload)
            else:
                before, chain = b"", chain_behind(codec, chain, payload, hashed, anchor.offset + frame.start)
            payloads.append(payload)

    def _doubled(self, data: bytes, anchor: Anchor, expected: int | None) -> bool:
        """Whether the first record of a block is the double of the last one before it: then there is one too many."""
        frames = [frame for frame in self.index.frames(data, anchor.offset) if not frame.snapshot]
        singles = sum(
            1 for one, two in zip([None, *frames], frames, strict=False) if not one or one.payload != two.payload
        )
        return expected is not None and singles > expected

    async def _translate(self, block: Block) -> Block:
        """The block, up to what is damaged, with kanta's records made canonical: the log is replayed up to it."""
        async with self.lock:
            loop, index = asyncio.get_running_loop(), self.index
            with self.log.buffer() as buffer:
                replay = self._replay_before(block.first, buffer)
                until = loop.time() + SLICE
                payloads = list(block.payloads)
                try:
                    for rev, payload in replay.payloads(block.last):
                        if payload is not None and rev >= block.first:
                            payloads[rev - block.first] = payload
                        if loop.time() > until:
                            await asyncio.sleep(0)
                            until = loop.time() + SLICE
                    if index is self.index:
                        self._replay = replay
                    self._forgetting = loop.call_later(REPLAY_KEPT, self._forget)
                except Unreadable:
                    if replay.walk.replayer.rev < block.first:
                        raise
                    del payloads[replay.walk.replayer.rev - block.first + 1 :]
                finally:
                    replay.walk.read_on_in(b"", 0)  # nothing holds the map
        return Block(block.first, payloads)

    def _replay_before(self, rev: int, buffer: Any) -> canonical.Canonical:
        """The last replay to go on with, where it stands before a revision, else a new one."""
        replay = self._replay
        self._forget()
        if replay is None or replay.walk.replayer.rev >= rev:
            return canonical.Canonical(Walk(buffer, self.log.size, self.log.framing, self.log.codec))
        replay.walk.read_on_in(buffer, self.log.size)
        return replay

    def _forget(self) -> None:
        self._replay = None
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
