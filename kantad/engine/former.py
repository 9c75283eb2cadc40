"""Former values: what stood at a path at a revision, or at a moment, without holding up the loop.

A read of the past takes the first of these ways that leads there:

1. The revision is the present one, or not yet in the file: undo lists lead back to it, in one step.
2. It was asked for lately. What a settled revision holds never changes, so an answer is never stale.
3. The whole file is small: it is replayed here, a few milliseconds at a time, one read after another,
   so that between two slices the loop serves everybody else.
4. Another process replays it (`retracer`).
"""

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from kantad.engine.pending import hidden
from kantad.engine.retracer import Retracer
from kantad.engine.shadow import TooLarge
from kantad.store.answers import Answers
from kantad.store.question import Answer, Question
from kantad.values.content import MISSING
from kantad.values.errors import Problem
from kantad.values.moment import micros_of
from kantad.values.pointer import Path, lookup
from kantad.values.record import Keyed, parse_cursor
from kantad.values.view import BARE, VALUE, View, show

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

SLICE: Final = 0.004  # seconds of work between two looks at everything else
INLINE: Final = 256 << 10  # bytes of the file; they take about 10 ms, a process takes 100 ms to start
KEPT: Final = 8 << 20  # bytes of answers that are remembered
ENTRY: Final = 300  # bytes that one costs besides its own

T = TypeVar("T")


class Earlier(NamedTuple):
    """What was shown at a revision, and the chain there. `tag` is None where there was no value."""

    rev: int
    chain: bytes
    tag: str | None
    body: bytes


Key = tuple[int, Path, View]


class Remembered:
    """Answers by revision, path and view, the ones asked for last; bounded in bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._entries: OrderedDict[Key, Earlier] = OrderedDict()

    def find(self, key: Key) -> Earlier | None:
        """The answer, if it is remembered."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def keep(self, key: Key, answer: Earlier) -> None:
        """Remember an answer, unless it would drive out most of the others."""
        if _cost(key, answer) > self.most // 4 or key in self._entries:
            return
        self._entries[key] = answer
        self.bytes += _cost(key, answer)
        while self.bytes > self.most:
            self.bytes -= _cost(*self._entries.popitem(last=False))


def _cost(key: Key, answer: Earlier) -> int:
    return ENTRY + len(answer.body) + sum(60 + len(segment) for segment in key[1])


class Former:
    """See the module. `inline` and `kept` in bytes."""

    def __init__(
        self, engine: "Engine", *, inline: int = INLINE, kept: int = KEPT, retracer: Retracer | None = None
    ) -> None:
        self.engine, self.inline = engine, inline
        self.remembered = Remembered(kept)
        self.retracer = retracer or Retracer()
        self.answers: Answers | None = None
        self.turn = asyncio.Lock()

    async def show(self, when: str | int, path: Path, view: View = VALUE) -> Earlier:
        """What a path showed at a revision or cursor; raises `Problem`.

        A revision that its writer may know already, and readers not yet, is waited for.
        """
        rev, digits = parse_cursor(when, "rev")
        engine = self.engine
        if engine.visible.rev < rev <= engine.rev:
            await engine.settled(None, rev)
        self._check(rev, digits is not None)
        earlier = self._present(rev, path, view)
        if earlier is None:
            key = (rev, path, view)
            earlier = self.remembered.find(key)
            if earlier is None:
                reply, body = await self._asked(rev, path, view)
                earlier = Earlier(rev, reply.chain, reply.tag, body)
                self.remembered.keep(key, earlier)
        if digits is not None and earlier.chain.hex() != digits:
            raise Problem("history_diverged", "rev is not a cursor of this history")
        return earlier

    async def value_at(self, when: str | int, path: Path, most: int | None = None) -> Any:
        """The value at a path as of a revision or cursor, a copy, or MISSING; raises `Problem`.

        Raises `TooLarge`, before it is decoded, where it has more than so many bytes.
        """
        earlier = await self.show(when, path, BARE)
        if most is not None and len(earlier.body) > most:
            raise TooLarge
        return MISSING if earlier.tag is None else msgspec.msgpack.decode(earlier.body)

    async def revision_at(self, micros: int) -> int:
        """The revision of the last change that is not after a time; raises `Problem` where the log begins later."""
        engine = self.engine
        unsettled = engine.committer.unsettled()
        newest = unsettled[0].before[0] if unsettled and engine.policy != "applied" else engine.micros
        if micros >= newest:
            return engine.visible.rev
        ring, decode = engine.past.ring, engine.log.codec.decoder(Keyed)
        held = range(ring.first, ring.last + 1)
        behind = bisect_right(held, micros, key=lambda rev: micros_of(decode(ring.payload(rev)).ts))
        if behind:
            return held[behind - 1]
        reply, _ = await self._asked(micros=micros)
        return reply.rev

    async def stop(self) -> None:
        """End the process, if it runs."""
        await self.retracer.stop()

    def _check(self, rev: int, is_cursor: bool) -> None:
        """Raise `Problem` where the revision is not one that readers see, or no longer held."""
        engine = self.engine
        at = engine.visible.rev
        if rev > engine.rev and is_cursor:
            raise Problem("history_diverged", f"rev is ahead of this database, which is at revision {at}")
        if rev > at:
            raise Problem("unknown_revision", f"the database is at revision {at}", rev=at)
        if rev < engine.past.oldest:
            raise self._compacted()

    def _compacted(self) -> Problem:
        oldest = self.engine.past.oldest
        return Problem("history_gone", f"the log begins at revision {oldest}", reason="compacted", oldest=oldest)

    def _present(self, rev: int, path: Path, view: View) -> Earlier | None:
        """The first way: None for a revision before the last one that is in the file."""
        engine = self.engine
        if rev < engine.written.rev:
            return None
        unsettled = engine.committer.unsettled()
        chains = {change.rev: change.chain for change in unsettled}
        later = [change for change in unsettled if change.rev > rev]
        with hidden(engine.root, later if engine.committer.meets(path) else [], path):
            shown = show(lookup(engine.root, path), view)
        return Earlier(rev, chains.get(rev, engine.written.chain), shown.tag, shown.body)

    def _question(self, rev: int, path: Path, view: View, micros: int | None) -> Question:
        log = self.engine.log
        file = log.name() if self.engine.readonly else log.path  # what is written to must stand in its place
        oldest = self.engine.past.oldest
        return Question(file, log.identity, log.size, oldest, rev, micros, path, view, log.codec.name)

    async def _asked(self, rev: int = 0, path: Path = (), view: View = VALUE, micros: int | None = None) -> Answer:
        """The answer by the third or fourth way; raises `Problem`."""
        question = self._question(rev, path, view, micros)
        try:
            reply, body = await self._answered(question)
            is_other = bool(reply.fault) and question.identity != self.engine.log.identity
        except Problem:
            if question.identity == self.engine.log.identity:
                raise
            is_other = True
        if is_other:  # the log was compacted meanwhile
            if micros is None:
                self._check(rev, False)
            reply, body = await self._answered(self._question(rev, path, view, micros))
        if reply.fault:
            raise Problem("unavailable", f"the log could not be read: {reply.fault}", retry_after=1)
        if reply.code == "gone":
            raise self._compacted()
        if reply.code == "damaged":
            oldest = self.engine.snapshots.rev
            detail = f"the log is damaged before revision {oldest}: {reply.detail}"
            raise Problem("history_gone", detail, reason="damaged", oldest=oldest)
        if reply.code:
            raise Problem(reply.code, reply.detail, **reply.more)
        return reply, body

    async def _answered(self, question: Question) -> Answer:
        if question.end <= self.inline:
            return await self._answered_here(question)
        self.answers = None
        return await self.retracer.ask(question)

    async def _answered_here(self, question: Question) -> Answer:
        async with self.turn:
            self.answers = self.answers or Answers()
            return await _in_slices(self.answers.answer(question))


async def _in_slices(steps: Generator[None, None, T]) -> T:
    """Go through steps, giving way every few milliseconds; returns what they return."""
    until = time.perf_counter() + SLICE
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE
