"""When a snapshot is made, where it goes, and what the last one was.

A small state is encoded on the loop, between two batches, and written into the file by the writer thread. Encoding a
large one would hold up the loop (2.2 ms a MiB), so another process (`kantad.tools.snapshot`) makes that from the log
alone, as far as it is durable, and writes it under another name; here it is renamed to `<db>.snapshot`, for only who
holds the lock may replace that one. Nothing waits for it: no batch, no read. If it fails the log is what it was, the
snapshot before is still there, and it is tried again later.

How large the state is, is known from the last snapshot and from how much the log grew since: what a change adds to the
state stands in its record. `store.beside` tells what such a file is good for.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kantad.engine.pending import hidden, settling
from kantad.engine.visible import Visible
from kantad.engine.worker import Worker
from kantad.store.beside import Picture, beside, frame_of, put, refuse_to_replace, spot, write
from kantad.store.compaction import Rewritten
from kantad.store.disk import remove_leftovers
from kantad.store.formats import is_own
from kantad.store.history import Anchor, KeyedChange, packed
from kantad.store.log import FULL
from kantad.store.question import message
from kantad.store.recovery import Recovered
from kantad.store.task import Depict, Depicted, decode_depicted
from kantad.values.errors import Problem
from kantad.values.serializer import OwnCodec

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

logger = logging.getLogger("kantad")

COMMAND: Final = (sys.executable, "-P", "-m", "kantad.tools.snapshot")
LEAST: Final = 1 << 20  # bytes that the log grows between two
SMALL: Final = 4 << 20  # bytes of a state that is written into the file; it has mostly a third of that
OWN_SMALL: Final = 32 << 10  # the same in a format of one's own, which may be a hundred times slower
WORTH_IT: Final = 1000  # changes that a start would have to replay, from which on a stop writes one
FIRST_WAIT: Final = 10.0  # seconds until another is tried where one failed; then twice as long each time
LONGEST_WAIT: Final = 3600.0


class Snapshots:
    """One engine's. `least` and `small` in bytes, as above."""

    def __init__(self, engine: "Engine", found: Recovered) -> None:
        self.engine, self.least = engine, LEAST
        self.small = OWN_SMALL if isinstance(engine.log.codec, OwnCodec) else SMALL
        self.command: Sequence[str] = COMMAND
        self.rev, self.place, self.bytes = found.start_rev, found.start, found.snapshot  # of the last one
        self.is_beside = found.beside
        self.before = (self.rev, self.is_beside)  # that, while one is written into the file
        self.last: tuple[Visible, int] | None = None
        if found.snapshot:
            self.last = (Visible(found.start_rev, found.start_chain), found.snapshot)
        self.running: asyncio.Task[tuple[Visible, int]] | None = None
        self.placing = False
        self.trouble: str | None = None  # why the last one failed
        self.wait, self.not_before = FIRST_WAIT, 0.0

    def status(self) -> dict[str, Any]:
        """As a member of the status."""
        return {
            "rev": None if self.last is None else self.last[0].rev,
            "bytes": None if self.last is None else self.last[1],
            "beside": self.is_beside,
            "running": self.running is not None,
            "trouble": self.trouble,
        }

    def _grown(self) -> bool:
        """Whether the log since the last one exceeds max(1 MiB, twice the state's encoded size)."""
        return self.engine.log.size - self.place > max(self.least, 2 * self.bytes)

    def in_file(self) -> bool:
        """Whether the next one goes into the file."""
        return self._is_small() or self.engine.durable_last < 0

    def _is_small(self) -> bool:
        return self.bytes + self.engine.log.size - self.place <= self.small

    # -- in the file: for the committer

    def due(self) -> bool:
        """Whether one is to be written into the file now."""
        return self._grown() and self.in_file()

    def payload(self) -> bytes:
        """A snapshot payload of what is written; nothing is in flight. Raises `Problem` where that cannot be kept."""
        engine = self.engine
        at, log = engine.written, engine.log
        self.before = (self.rev, self.is_beside)
        pending = engine.committer.unsettled()
        micros, m = pending[0].before if pending else (engine.micros, engine.m)
        with hidden(engine.root, pending):
            payload = log.codec.snapshot(micros, engine.root, at.rev, at.chain, v=engine.v, m=m)
        self.rev, self.is_beside = at.rev, False
        self.place, self.bytes = log.size + len(payload), len(payload)
        engine.past.anchor = Anchor(at.rev, log.size, at.chain)
        return payload

    def written(self) -> None:
        """It is on the disk."""
        self.last, self.trouble = (self.engine.written, self.bytes), None

    def failed(self) -> None:
        """There was no room for it."""
        self.rev, self.is_beside = self.before
        self.place = self.engine.log.size  # try again when the log has grown as much again

    def moved(self, done: Rewritten) -> None:
        """The log was compacted: one beside the file is of the old log, one before the cut is gone."""
        if self.rev > done.rev and not self.is_beside:
            self.place -= done.shift
        else:
            self.rev, self.place, self.bytes, self.is_beside = done.rev, done.start, done.start, False
            self.last = (Visible(done.rev, done.chain), done.start)

    async def _write_in_file(self) -> tuple[Visible, int]:
        future, settle = settling()
        self.engine.committer.write_snapshot(settle)
        await future
        assert self.last is not None
        return self.last

    # -- beside the file

    async def write(self) -> tuple[Visible, int]:
        """One of all that was acknowledged before; its revision and size in bytes, when it is on the disk.

        Raises `Problem`. It is made where who asked does not wait any more, too.
        """
        if self.last is not None and not self._is_small() and self._holds(self.engine.rev):
            return self.last
        if self.in_file():
            return await self._write_in_file()
        if self.running is not None:  # begun before this was asked for: what it holds may be older
            await asyncio.wait({self.running})
        task = self.running or self._begin(asked=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise self.engine.refusal() from None
            raise

    def consider(self) -> None:
        """Have one made, if it is due; something was synced."""
        if self.running is None and self._grown() and not self.in_file() and time.monotonic() >= self.not_before:
            self._begin(asked=False)

    async def stop(self) -> None:
        """End what goes on; what takes a moment only is finished."""
        if self.running is not None:
            if not self.placing:
                self.running.cancel()
            await asyncio.wait({self.running})

    async def write_last(self) -> None:
        """At the end, when nothing changes any more: one, if the next start is worth it."""
        engine = self.engine
        if engine.rev - self.rev <= WORTH_IT:
            return
        with contextlib.suppress(Problem):
            if self.in_file():
                await self._write_in_file()
            else:
                await asyncio.to_thread(self._write_from_memory)

    def _write_from_memory(self) -> None:
        """Nobody is served any more, so the state may be encoded here."""
        engine, log = self.engine, self.engine.log
        at = engine.durable
        seen = engine.window.changes
        window = packed([KeyedChange(key, s.q, s.rev, s.chain, s.micros, s.outline) for key, s in seen.items()])
        try:
            refuse_to_replace(log.path)
            with log.buffer() as buffer:
                place = spot(buffer, engine.durable_last, log.framing, log.codec, at.chain, engine.read_as(at.rev))
            picture = Picture(engine.root, at.rev, at.chain, engine.micros, engine.v, engine.m, place, window)
            parts = frame_of(picture, log.framing, log.codec)
            put(log.disk, write(log.disk, log.path, parts, log.disk.fstat(log.fd)), log.path)
        except OSError as error:
            logger.warning("no snapshot was written: %s", error.strerror or error)
        except Problem as problem:  # a format of one's own
            logger.warning("no snapshot was written: %s", problem.detail)

    def _holds(self, rev: int) -> bool:
        """Whether the last one is of this revision, and still there."""
        is_of = self.last is not None and self.last[0].rev == rev
        return is_of and not (self.is_beside and not os.path.exists(beside(self.engine.log.path)))

    def _begin(self, asked: bool) -> "asyncio.Task[tuple[Visible, int]]":
        task = self.running = asyncio.get_running_loop().create_task(self._run(asked))
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[tuple[Visible, int]]") -> None:
        self.running, self.placing = None, False
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.trouble, self.wait = None, FIRST_WAIT
            return
        self.trouble = error.detail if isinstance(error, Problem) else str(error)
        self.not_before = time.monotonic() + self.wait
        self.wait = min(2 * self.wait, LONGEST_WAIT)
        if isinstance(error, Problem):
            logger.warning("no snapshot was made beside the file: %s", error.detail)
        else:
            logger.error("no snapshot was made beside the file, for a fault of the server's", exc_info=error)

    async def _run(self, asked: bool) -> tuple[Visible, int]:
        engine = self.engine
        async with engine.replaying:
            await engine.settled("durable", engine.rev)
            at, last = engine.durable, self.last
            if last is not None and (self._holds(at.rev) or not (asked or self._grown())):
                return last
            if self.in_file():
                return await self._write_in_file()
            log, end = engine.log, engine.durable_end
            name = log.codec.name
            order = Depict(log.path, log.identity, end, engine.durable_last, at.rev, at.chain, name)
            begun = time.monotonic()
            size = await self._made(order)
            self.rev, self.place, self.bytes, self.is_beside = at.rev, end, size, True
            self.last = (at, size)
            seconds = time.monotonic() - begun
            logger.info("a snapshot of revision %d stands beside the file: %d bytes, %.1f s", at.rev, size, seconds)
            return self.last

    async def _made(self, order: Depict) -> int:
        """Have another process make it, and put it in its place; its size. Raises `Problem`."""
        disk, path = self.engine.log.disk, self.engine.log.path
        done = False
        try:
            worker = Worker.start(self.command, is_own(order.format))
            try:
                made = decode_depicted(await worker.ask(message(order)))
                if made.code:
                    raise _problem(made)
                self.placing = True
                await asyncio.to_thread(put, disk, made.temporary, path)
                done = True
            finally:
                await asyncio.shield(worker.end())
        except OSError as error:
            code = "full" if error.errno in FULL else "failed"
            raise _problem(Depicted(code, error.strerror or f"its process ended: {type(error).__name__}")) from None
        except (EOFError, msgspec.MsgspecError) as error:
            raise _problem(Depicted("failed", f"its process ended: {type(error).__name__}")) from None
        finally:
            if not done:
                await asyncio.shield(asyncio.to_thread(remove_leftovers, disk, path))
        return made.bytes


def _problem(made: Depicted) -> Problem:
    if made.code == "full":
        return Problem("storage_full", f"there is no room for the snapshot: {made.detail}")
    return Problem("unavailable", f"the snapshot could not be made: {made.detail}", retry_after=5)
