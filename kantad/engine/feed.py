"""Feeds: every change to every reader that asked, in order, once, without one waiting for another.

Whatever a reader needs, it is at a position in the log and is brought on from there: out of the ring
while it keeps up, out of the file (`convoy`) when it was left behind or resumes from long ago. Both
make the same events, and go over into each other without a seam, because a position is all there is.

When a batch is published the writers are answered first; the readers are served in the loop's next
rounds, some of them at a time, so that neither requests nor writers wait for a thousand readers.
What readers with the same filter and encoding are sent from the same position on is made once.
A reader whose connection takes no more is left where it is until the connection has room. Who follows a path looks at
the changes that met it, and is not woken by others: its position may be behind, with nothing there for it.

Nothing is sent that could be taken back: the ring holds published changes only, which under
`durable` are synced.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

from kantad.engine.backlog import Backlog
from kantad.engine.convoy import Convoy
from kantad.engine.filter import Filter
from kantad.engine.interest import Interest, Node
from kantad.engine.pending import Applied
from kantad.engine.portions import Portion, Portions
from kantad.engine.reader import Encoding, Reader, Sink
from kantad.engine.ring import Ring
from kantad.engine.shadow import Shadows, ValueAt
from kantad.engine.visible import Visible
from kantad.values.errors import Problem
from kantad.values.event import Events, revision_of
from kantad.values.narrow import UNCLEAR, UNTOUCHED, Verdict
from kantad.values.pointer import Path

logger = logging.getLogger("kantad")

PORTION: Final = 32 << 10  # bytes of events made at once
AT_ONCE: Final = 64  # readers served from the ring in one round of the loop
HEARTBEAT: Final = 15.0  # seconds without other traffic


class Made(NamedTuple):
    """Tails from behind a position up to `upto`; `stuck` if the next change is unclear."""

    tails: list[bytes]
    upto: int
    stuck: bool


class Source(Protocol):
    """What feeds ask of the engine."""

    @property
    def rev(self) -> int:
        """The newest revision that is applied."""

    @property
    def written(self) -> Visible:
        """The newest revision that cannot be taken back."""

    def encoded_now(self, path: Path) -> bytes | None:
        """The value at a path at `written`, as JSON; None if there is none."""


class Feeds:
    """The readers of one database; to the convoy, its `Server`."""

    def __init__(self, source: Source, ring: Ring, backlog: Backlog, interest: Interest, value_at: ValueAt) -> None:
        self.source, self.ring, self.backlog, self.interest = source, ring, backlog, interest
        self.codec = backlog.log.codec
        self.events = Events(self.codec)
        self.shadows = Shadows(self.events, value_at, self.payload)
        self.readers: set[Reader] = set()
        self._idle: dict[Reader, None] = {}  # woken by every change; the others rest at their path
        self._ready: deque[Reader] = deque()
        self._pumping = False
        self.convoy = Convoy(self, Portions(ring, backlog, self.events, self.clear_tail))
        self._made: dict[tuple[Filter, int, int], Made] = {}
        self._sent: dict[tuple[Any, Filter, int, int], bytes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # -- coming and going

    def add(self, reader: Reader) -> None:
        """Begin to serve a reader from its position on."""
        self.readers.add(reader)
        reader.node = self.interest.follow(reader.filter.path, self.source.rev)
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
        if reader.node is not None:
            reader.node.idle.pop(reader, None)
            self.interest.leave(reader.filter.path)
        self.convoy.leave(reader)

    def wake(self, reader: Reader) -> None:
        """A reader's sink has room again."""
        if reader.behind:
            self.convoy.wake(reader)
        elif not reader.finished and not self._rests(reader):
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

    def published(self, changes: list[Applied]) -> None:
        """The ring has new changes, these."""
        if self.readers:
            self._made.clear()
            self._sent.clear()
            self._ready.extend(self._idle)
            self._idle.clear()
            if self.interest.paths:
                for change in changes:
                    for node in change.met or ():
                        self._wake_at(node, change.rev)
            self._schedule()

    def _wake_at(self, node: Node, rev: int) -> None:
        """Wake who rests at a path that a change met."""
        for reader in node.idle:
            reader.position = max(reader.position, rev - 1)
        self._ready.extend(node.idle)
        node.idle.clear()
        node.meets(rev)

    def position(self, reader: Reader) -> int:
        """The revision up to which a reader has everything: where it rests at its path, that is the newest."""
        return self.source.written.rev if self._rests(reader) else reader.position

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
                self.failed(reader)
        self._schedule()

    def _serve(self, reader: Reader) -> None:
        """Send a reader its next portion, if it takes one and there is one."""
        if reader.finished or reader.behind:
            return
        self._pass_over(reader)
        if reader.done:
            self._end(reader, None)
        elif not reader.sink.free():
            return
        elif reader.position >= self.ring.last:
            self._rest(reader)
        elif not reader.in_memory(self.ring.first):
            self.convoy.take(reader, stuck=False)
        else:
            self._portion(reader)

    def _portion(self, reader: Reader) -> None:
        head = self.ring.last if reader.until is None else min(self.ring.last, reader.until)
        key = (reader.filter, reader.position, head)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(reader, head)
        if reader.left is not None:
            self._advance(reader, *self._wanted(reader, made.tails, made.upto))
        else:
            sent = (reader.encoding.key, *key)
            data = self._sent.get(sent)
            if data is None:
                data = self._sent[sent] = self._encoded(reader, made.tails)
            self._advance(reader, data, made.upto)
        if made.stuck and not reader.done:
            self.convoy.take(reader, stuck=True)
        elif reader.done or reader.position < self.ring.last:
            self._ready.append(reader)
        else:
            self._rest(reader)

    def _pass_over(self, reader: Reader) -> None:
        """Bring a reader of a path on over the changes that did not meet it, as far as they are known."""
        if reader.node is not None and reader.node.since <= reader.position < self.ring.last:
            met = reader.node.between(reader.position, self.ring.last)
            upto = met[0] - 1 if met else self.ring.last
            reader.position = upto if reader.until is None else min(upto, reader.until)

    def _rest(self, reader: Reader) -> None:
        """There is nothing for a reader before the next change, or the next that meets its path."""
        node = reader.node
        if node is None or reader.until is not None or reader.position < node.since:  # or one may be missed
            self._idle[reader] = None
        else:
            node.idle[reader] = None

    def _rests(self, reader: Reader) -> bool:
        return reader in self._idle or (reader.node is not None and reader in reader.node.idle)

    def _make(self, reader: Reader, head: int) -> Made:
        """The tails of the ring's changes behind a reader's position, up to a portion of them."""
        filter, position, node = reader.filter, reader.position, reader.node
        tails: list[bytes] = []
        size = 0
        for rev in range(position + 1, head + 1) if node is None else node.between(position, head):
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

    def _mark(self, reader: Reader) -> bytes:
        """The cursor of a reader's position; empty where it read nothing and stands in the file."""
        if reader.position == self.source.written.rev:
            return self.source.written.cursor.encode()
        if self.ring.first <= reader.position <= self.ring.last:
            return self.events.cursor(reader.position, self.ring.payload(reader.position))
        return reader.mark

    # -- serving from the file: what the convoy asks for

    def advance(self, reader: Reader, portion: Portion) -> None:
        """See `convoy.Server`."""
        if reader.left is not None:
            reader.left -= portion.number
        self._advance(reader, portion.data, portion.upto)
        reader.mark = portion.mark
        if self._loop.time() - reader.sent_at > HEARTBEAT:
            self.heartbeat(reader, reader.mark)

    def caught_up(self, reader: Reader) -> None:
        """See `convoy.Server`."""
        self._ready.append(reader)
        self._schedule()

    def refused(self, reader: Reader, problem: Problem) -> None:
        """See `convoy.Server`; who takes a whole value where the history is gone goes on from there."""
        if problem.code != "history_gone" or not reader.whole:
            self._end(reader, problem)
        else:
            self.snapshot(reader, "reset")
            self.caught_up(reader)

    def failed(self, reader: Reader) -> None:
        """See `convoy.Server`: the reader is told, and the others are served on."""
        logger.exception("a fault while serving a feed behind revision %d", reader.position)
        if not reader.finished:
            self._end(reader, Problem("unavailable", "a fault of the server; it is in its log", retry_after=1))

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
        due = [reader for reader in self.readers if reader.sent_at <= stale and self._rests(reader)]
        cursor = self.source.written.cursor.encode()
        for reader in due:
            reader.position = self.position(reader)
            if reader.position == self.source.written.rev and reader.sink.free():
                self.heartbeat(reader, cursor)


__all__ = ["Encoding", "Feeds", "Filter", "Reader", "Sink"]
