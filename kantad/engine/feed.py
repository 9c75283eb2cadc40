"""Feeds: every change to every reader that asked, in order, once, without one waiting for another.

Whatever a reader needs, it is at a position in the log and is brought on from there: out of the ring
while it keeps up, out of the file (`backlog`) when it was left behind or resumes from long ago. Both
make the same events, and go over into each other without a seam, because a position is all there is.

When a batch is published the writers are answered first; the readers are served in the loop's next
rounds, some of them at a time, so that neither requests nor writers wait for a thousand readers.
What readers with the same filter and encoding are sent from the same position on is made once.
A reader whose connection takes no more is left where it is until the connection has room.

Nothing is sent that could be taken back: the ring holds published changes only, which under
`durable` are synced.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple, Protocol

from kantad.engine.backlog import Backlog, Block
from kantad.engine.filter import Filter
from kantad.engine.interest import Interest
from kantad.engine.reader import Encoding, Reader, Sink
from kantad.engine.ring import Ring
from kantad.engine.shadow import Shadows, ValueAt
from kantad.engine.turns import Turns
from kantad.engine.visible import Visible
from kantad.values.errors import Problem
from kantad.values.event import Events, revision_of
from kantad.values.narrow import UNCLEAR, UNTOUCHED, Verdict
from kantad.values.pointer import Path

logger = logging.getLogger("kantad")

PORTION: Final = 32 << 10  # bytes of events made at once
AT_ONCE: Final = 64  # readers served from the ring in one round of the loop
FROM_FILE: Final = 8  # readers served from the file in one: they take whole portions, each time
HEARTBEAT: Final = 15.0  # seconds without other traffic
KEPT_BYTES: Final = 8 << 20  # of what was made of the file's blocks
ENTRY: Final = 500  # bytes that an entry of it costs besides its own: one may be empty, where a filter matches nothing


class Made(NamedTuple):
    """Tails from behind a position up to `upto`; `stuck` if the next change is unclear."""

    tails: list[bytes]
    upto: int
    stuck: bool


class Source(Protocol):
    """What feeds ask of the engine."""

    @property
    def written(self) -> Visible:
        """The newest revision that cannot be taken back."""

    def encoded_now(self, path: Path) -> bytes | None:
        """The value at a path at `written`, as JSON; None if there is none."""


class Feeds:
    """The readers of one database."""

    def __init__(self, source: Source, ring: Ring, backlog: Backlog, interest: Interest, value_at: ValueAt) -> None:
        self.source, self.ring, self.backlog, self.interest = source, ring, backlog, interest
        self.codec = backlog.log.codec
        self.events = Events(self.codec)
        self.shadows = Shadows(self.events, value_at, self.payload)
        self.readers: set[Reader] = set()
        self._idle: dict[Reader, None] = {}
        self._ready: deque[Reader] = deque()
        self._pumping = False
        self.turns = Turns(FROM_FILE)
        self._made: dict[tuple[Filter, int, int], Made] = {}
        self._sent: dict[tuple[Any, Filter, int, int], bytes] = {}
        self._kept: OrderedDict[tuple[Any, Filter, int, int], tuple[bytes, int]] = OrderedDict()
        self._kept_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # -- coming and going

    def add(self, reader: Reader) -> None:
        """Begin to serve a reader from its position on."""
        self.readers.add(reader)
        self.interest.follow(reader.filter.path)
        reader.sent_at = self._loop.time()
        self._ready.append(reader)
        self._schedule()
        if self._timer is None:
            self._timer = self._loop.call_later(1.0, self._tick)

    def remove(self, reader: Reader) -> None:
        """Serve a reader no more; its sink is not told."""
        if reader.finished:
            return
        reader.finished = True
        self.readers.discard(reader)
        self._idle.pop(reader, None)
        self.interest.leave(reader.filter.path)
        if reader.task is not None:
            reader.task.cancel()

    def wake(self, reader: Reader) -> None:
        """A reader's sink has room again."""
        reader.freed.set()
        if reader.task is None and not reader.finished and reader not in self._idle:
            self._ready.append(reader)
            self._schedule()

    def close(self, problem: Problem) -> None:
        """End all feeds."""
        for reader in list(self.readers):
            self._end(reader, problem)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """End all feeds, because the server stops."""
        self.close(Problem("shutting_down", "the server is shutting down", retry_after=1))

    async def finish(self, seconds: float) -> None:
        """Send readers that keep up what is there, for so long at most, then end all feeds."""
        until = self._loop.time() + seconds
        while self._ready and self._loop.time() < until:  # noqa: ASYNC110  # each round serves some of them
            await asyncio.sleep(0)
        self.stop()

    def published(self) -> None:
        """The ring has new changes."""
        if self.readers:
            self._made.clear()
            self._sent.clear()
            self._ready.extend(self._idle)
            self._idle.clear()
            self._schedule()

    def snapshot(self, reader: Reader, kind: str = "snapshot") -> None:
        """Send a reader the whole value of now, and go on from there."""
        now = self.source.written
        body = self.source.encoded_now(reader.filter.path)
        cursor = now.cursor.encode()
        shown = b'"deleted":true}' if body is None else b'"value":%b}' % body
        self._send(reader, reader.encoding.event(kind, cursor, b'"rev":%d,"cursor":"%b",%b' % (now.rev, cursor, shown)))
        reader.position = now.rev

    def heartbeat(self, reader: Reader, cursor: bytes) -> None:
        """Tell a reader its position."""
        members = b'"rev":%d,"cursor":"%b"}' % (reader.position, cursor)
        self._send(reader, reader.encoding.event("heartbeat", cursor, members))

    # -- serving from the ring

    def _schedule(self) -> None:
        if not self._pumping and self._ready:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        for _ in range(min(AT_ONCE, len(self._ready))):
            reader = self._ready.popleft()
            try:
                self._serve(reader)
            except Exception:
                self._failed(reader)
        self._schedule()

    def _serve(self, reader: Reader) -> None:
        """Send a reader its next portion, if it takes one and there is one."""
        if reader.finished or reader.task is not None:
            return
        if reader.done:
            self._end(reader, None)
        elif not reader.sink.free():
            reader.freed.clear()
        elif reader.position >= self.ring.last:
            self._idle[reader] = None
        elif reader.position + 1 < self.ring.first:
            self._start_task(reader)
        else:
            self._portion(reader)

    def _portion(self, reader: Reader) -> None:
        head = self.ring.last if reader.until is None else min(self.ring.last, reader.until)
        key = (reader.filter, reader.position, head)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(reader.filter, reader.position, head)
        if reader.left is not None:
            self._advance(reader, *self._wanted(reader, made.tails, made.upto))
        else:
            sent = (reader.encoding.key, *key)
            data = self._sent.get(sent)
            if data is None:
                data = self._sent[sent] = self._encoded(reader, made.tails)
            self._advance(reader, data, made.upto)
        if made.stuck and not reader.done:
            self._start_task(reader)
        elif reader.done or reader.position < self.ring.last:
            self._ready.append(reader)
        else:
            self._idle[reader] = None

    def _make(self, filter: Filter, position: int, head: int) -> Made:
        """The tails of the ring's changes behind a position, up to a portion of them."""
        tails: list[bytes] = []
        size = 0
        for rev in range(position + 1, head + 1):
            tail = self._tail(filter, rev, self.ring.payload(rev))
            if tail is UNCLEAR:
                return Made(tails, rev - 1, True)
            if type(tail) is bytes:
                tails.append(tail)
                size += len(tail)
                if size >= PORTION:
                    return Made(tails, rev, False)
        return Made(tails, head, False)

    def _tail(self, filter: Filter, rev: int, payload: bytes) -> bytes | Verdict:
        """What a change is to a filter: UNTOUCHED where nothing is sent."""
        if not filter.passes(self.codec, payload):
            return UNTOUCHED
        if not filter.path:
            return self.events.tail(rev, payload)
        found = self.events.below(rev, payload, filter.path)
        if found is not UNCLEAR:
            return found
        prepared = self.ring.narrowed(rev).get(filter.path, UNCLEAR)
        if prepared is UNCLEAR or prepared is UNTOUCHED:
            return prepared
        return self.events.with_part(rev, payload, None if isinstance(prepared, Verdict) else prepared)

    def _send(self, reader: Reader, data: bytes) -> None:
        reader.sink.send(data)
        reader.sent_at = self._loop.time()

    def _end(self, reader: Reader, problem: Problem | None) -> None:
        self.remove(reader)
        if problem is None:
            cursor = self._mark(reader)
            named = b',"cursor":"%b"' % cursor if cursor else b""
            self._send(reader, reader.encoding.event("end", cursor, b'"rev":%d%b}' % (reader.position, named)))
        reader.sink.ended(problem)

    def _failed(self, reader: Reader) -> None:
        """Serving a reader raised what it must not: it is told, and the others are served on."""
        logger.exception("a fault while serving a feed behind revision %d", reader.position)
        if not reader.finished:
            self._end(reader, Problem("unavailable", "a fault of the server; it is in its log", retry_after=1))

    def _mark(self, reader: Reader) -> bytes:
        """The cursor of a reader's position; empty where it read nothing and stands in the file."""
        if reader.position == self.source.written.rev:
            return self.source.written.cursor.encode()
        if self.ring.first <= reader.position <= self.ring.last:
            return self.events.cursor(reader.position, self.ring.payload(reader.position))
        return reader.mark

    # -- serving from the file

    def _start_task(self, reader: Reader) -> None:
        reader.task = self._loop.create_task(self._catch_up(reader))

    async def _catch_up(self, reader: Reader) -> None:
        """Bring a reader from the file, or over an unclear change, to where the ring serves it."""
        try:
            await self._bring_on(reader)
        except Problem as problem:
            if problem.code != "history_gone" or not reader.whole:
                reader.task = None
                return self._end(reader, problem)
            self.snapshot(reader, "reset")
        except Exception:
            reader.task = None
            return self._failed(reader)
        reader.task = None
        self._ready.append(reader)
        self._schedule()
        return None

    async def _bring_on(self, reader: Reader) -> None:
        first = True
        while not reader.done and (first or reader.position + 1 < self.ring.first):
            first = False
            await self._room(reader)
            rev = reader.position + 1
            if rev >= self.ring.first:
                tail = await self.clear_tail(reader.filter, rev, self.ring.payload(rev))
                self._advance(reader, *self._wanted(reader, [] if tail is None else [tail], rev))
                continue
            await self._block(reader, rev)

    async def _room(self, reader: Reader) -> None:
        """Wait for the reader's sink and its turn; the sink is looked at again then, others may have filled it."""
        while True:
            while not reader.sink.free():
                reader.freed.clear()
                await reader.freed.wait()
            await self.turns.take()
            if reader.sink.free():
                return

    async def _block(self, reader: Reader, rev: int) -> None:
        """Send a reader a portion of what a block of the file, from a revision on, is to it.

        Nothing is sent where others filled its sink while the block was read.
        """
        block = await self.backlog.block(rev)
        last = block.last if reader.until is None else min(block.last, reader.until)
        key = (reader.encoding.key, reader.filter, rev, last)
        portion = self._kept.get(key) if reader.left is None else None
        tails, upto = ([], rev) if portion else await self._tails(reader.filter, rev, last, block)
        if portion is None and reader.left is None:
            portion = self._wanted(reader, tails, upto)
            self._keep(key, portion)
        if not reader.sink.free():
            return
        data, upto = portion or self._wanted(reader, tails, upto)
        self._advance(reader, data, upto)
        reader.mark = self.events.cursor(upto, block.payloads[upto - block.first])
        if self._loop.time() - reader.sent_at > HEARTBEAT:
            self.heartbeat(reader, reader.mark)

    async def _tails(self, filter: Filter, rev: int, last: int, block: Block) -> tuple[list[bytes], int]:
        """The tails of a block's changes from a revision on, up to a portion of them; and how far that is."""
        tails: list[bytes] = []
        size = 0
        while True:
            tail = await self.clear_tail(filter, rev, block.payloads[rev - block.first])
            if tail is not None:
                tails.append(tail)
                size += len(tail)
            if rev == last or size >= PORTION:
                return tails, rev
            rev += 1

    def _wanted(self, reader: Reader, tails: list[bytes], upto: int) -> tuple[bytes, int]:
        """The bytes of as many of these changes as the reader still wants, and how far it has come with them."""
        if reader.left is not None:
            tails = tails[: reader.left]
            reader.left -= len(tails)
            if not reader.left and tails:
                upto = revision_of(tails[-1])
        return self._encoded(reader, tails), upto

    def _encoded(self, reader: Reader, tails: list[bytes]) -> bytes:
        return reader.encoding.changes(tails) if tails else b""

    def _advance(self, reader: Reader, data: bytes, upto: int) -> None:
        """Send what was made, and move on."""
        if data:
            self._send(reader, data)
        reader.position = upto

    def _keep(self, key: tuple[Any, Filter, int, int], portion: tuple[bytes, int]) -> None:
        old = self._kept.pop(key, None)  # somebody was faster
        self._kept[key] = portion
        self._kept_bytes += _cost(key, portion) - (0 if old is None else _cost(key, old))
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= _cost(*self._kept.popitem(last=False))

    async def payload(self, rev: int) -> bytes:
        """The record of a revision, out of the ring or the file; raises `Problem("history_gone")`."""
        if rev >= self.ring.first:
            return self.ring.payload(rev)
        block = await self.backlog.block(rev)
        return block.payloads[rev - block.first]

    async def clear_tail(self, filter: Filter, rev: int, payload: bytes) -> bytes | None:
        """What a change is to a filter, None where nothing; asks the past where the change does not tell."""
        tail = self._tail(filter, rev, payload)
        if tail is UNCLEAR:
            part = await self.shadows.part(rev, payload, filter.path)
            if part is UNTOUCHED:
                return None
            return self.events.with_part(rev, payload, None if isinstance(part, Verdict) else part)
        return tail if type(tail) is bytes else None

    # -- time

    def _tick(self) -> None:
        """Once a second: tell those who heard nothing for long where they are."""
        self._timer = self._loop.call_later(1.0, self._tick) if self.readers else None
        stale = self._loop.time() - HEARTBEAT
        due = [reader for reader in self._idle if reader.sent_at <= stale]
        cursor = self.source.written.cursor.encode()
        for reader in due:
            if reader.position == self.source.written.rev and reader.sink.free():
                self.heartbeat(reader, cursor)


def _cost(key: tuple[Any, Filter, int, int], portion: tuple[bytes, int]) -> int:
    return ENTRY + len(portion[0]) + sum(60 + len(segment) for segment in key[1].path)


__all__ = ["Encoding", "Feeds", "Filter", "Reader", "Sink"]
