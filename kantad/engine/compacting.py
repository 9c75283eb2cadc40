"""Compaction while the server serves: ordered from another process, swapped in between two batches.

Replaying a log to the cut and encoding that state holds an interpreter's lock for seconds, so another
process does it (`kantad.tools.rewrite`), from the log alone: it writes the new file and the archive, and copies
what comes to the log meanwhile, in rounds, until next to nothing is left. What is left then is copied by the
writer thread, alone, between two batches; it syncs the new file, locks it, renames it over the old one and
syncs the folder. In the loop's next step everything that knows offsets, the descriptor or the framing of the
file goes over to the new one (`_switch`), before the thread takes another batch. So no change is
acknowledged that only the old file holds, nor one whose file may still lose its name.

Whatever fails before the rename leaves everything as it was. If the folder cannot be synced after it, nobody
knows which file a power cut leaves; both hold all that was acknowledged, and the process stops.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from kantad.engine.pending import Errand, settling
from kantad.engine.worker import Worker
from kantad.store.beside import remove
from kantad.store.compaction import Rewriting, Rewritten, Unsettled, swap_in
from kantad.store.disk import Disk, remove_leftovers
from kantad.store.formats import is_own
from kantad.store.history import Anchor, Unreadable
from kantad.store.index import Index
from kantad.store.log import FULL, Broken
from kantad.store.question import message
from kantad.store.task import Further, Order, Report, Stay, decode_report
from kantad.values.errors import Problem
from kantad.values.moment import time_text
from kantad.values.retention import Retention

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

logger = logging.getLogger("kantad")

COMMAND: Final = (sys.executable, "-P", "-m", "kantad.tools.rewrite")
SHORT: Final = 64 << 10  # bytes that are left for the writer thread to copy
MOST_ROUNDS: Final = 50
PATIENCE: Final = 3.0  # seconds that the process has to remove what it made in vain
LOOK: Final = 3600.0  # seconds between two looks at whether the retention asks for something
DAY: Final = 24 * 3600.0
GROWN: Final = 1.5  # times the size that the last compaction left


class Compacted(NamedTuple):
    """What became of the log. Sizes in bytes; `dropped` is a number of changes, `archive` a file's path or empty."""

    oldest: int
    dropped: int
    before: int
    bytes: int
    archive: str
    ts: str

    def told(self) -> dict[str, Any]:
        """As members of an answer."""
        return {**self._asdict(), "archive": os.path.basename(self.archive) or None}


class Compaction:
    """One engine's; at most one goes on at a time. `look` in seconds."""

    def __init__(self, engine: "Engine", *, command: Sequence[str] = COMMAND, look: float = LOOK) -> None:
        self.engine, self.command, self.look = engine, command, look
        self.retain: Retention | None = None  # what is kept to by itself
        self.last: Compacted | None = None
        self.trouble: str | None = None  # why the last one failed
        self.running: asyncio.Task[Compacted] | None = None
        self.swapping = False
        self.keeper: asyncio.Task[None] | None = None

    def status(self) -> dict[str, Any]:
        """As a member of the status."""
        return {
            "retain": None if self.retain is None else self.retain.text,
            "running": self.running is not None,
            "last": None if self.last is None else self.last.told(),
            "trouble": self.trouble,
        }

    async def compact(self, retain: Retention, archive: bool = True) -> Compacted:
        """Drop what is older than is retained; returns when that is on the disk. Raises `Problem`.

        It goes on where who asked does not wait any more.
        """
        engine = self.engine
        if engine.stopping or engine.readonly:
            raise engine.refusal()
        if self.running is not None:
            raise Problem("unavailable", "a compaction is under way", retry_after=5)
        self.running = asyncio.get_running_loop().create_task(self._run(retain, archive))
        self.running.add_done_callback(self._ended)
        return await asyncio.shield(self.running)

    def keep_to(self, retain: Retention) -> None:
        """Compact by itself, from now on."""
        self.retain = retain
        self.keeper = asyncio.get_running_loop().create_task(self._keep(retain))

    async def stop(self) -> None:
        """End what goes on; a swap that has begun is finished."""
        tasks: list[asyncio.Task[Any]] = [task for task in (self.keeper, self.running) if task is not None]
        for task in tasks:
            if task is not self.running or not self.swapping:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, task: "asyncio.Task[Compacted]") -> None:
        self.running, self.swapping = None, False
        if task.cancelled():
            return
        error = task.exception()
        self.trouble = None if error is None else str(error)
        if error is None:
            result = task.result()
            self.last = result if result.dropped else self.last
        elif isinstance(error, Problem):
            logger.warning("the log was not compacted: %s", error.detail)
        else:
            logger.error("the log was not compacted, for a fault of the server's", exc_info=error)

    # -- one compaction

    async def _run(self, retain: Retention, archive: bool) -> Compacted:
        async with self.engine.replaying:
            return await self._compacted(retain, archive)

    async def _compacted(self, retain: Retention, archive: bool) -> Compacted:
        engine = self.engine
        log, rev, end = engine.log, engine.written.rev, engine.backlog.index.parts[-1].end
        oldest, before = engine.past.oldest, log.size
        ts = time_text(engine.clock())
        if retain.revisions is not None and rev - retain.revisions <= oldest:
            return Compacted(oldest, 0, before, before, "", ts)
        chain, now = engine.written.chain, engine.clock()
        order = Order(log.path, log.identity, end, oldest, rev, chain, retain.text, now, archive, log.codec.name)
        report = Report()
        try:
            worker = Worker.start(self.command, is_own(order.format))
            try:
                report = await self._told(worker, order)
                if report.code == "nothing":
                    return Compacted(oldest, 0, before, before, "", ts)
                await self._remember(report)
                report = await self._catch_up(worker, report)
                self.swapping = True  # what takes a moment only is finished
                done = await self._swapped(report)
                await self._told(worker, Stay())
            finally:
                await asyncio.shield(worker.end(PATIENCE))
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            if engine.past.oldest == oldest:
                raise Problem("unavailable", f"its process ended: {type(error).__name__}", retry_after=5) from None
            done = self._done(report)
        finally:
            if engine.past.oldest == oldest:
                await asyncio.shield(asyncio.to_thread(self._clear, report))
        await asyncio.to_thread(remove, log.disk, log.path)  # the snapshot beside the old one
        logger.info(
            "compacted to revision %d: %d bytes are %d now%s",
            done.rev,
            before,
            log.size,
            f", the rest is kept as {os.path.basename(report.archive)!r}" if report.archive else "",
        )
        return Compacted(done.rev, done.rev - oldest, before, log.size, report.archive, ts)

    @staticmethod
    def _done(report: Report) -> Rewritten:
        assert report.done is not None
        return report.done

    async def _told(self, worker: Worker, task: Order | Further | Stay) -> Report:
        """What the process reports; raises the `Problem` that it is."""
        report = decode_report(await worker.ask(message(task)))
        if report.code in ("", "nothing"):
            return report
        if report.code == "full":
            raise Problem("storage_full", f"there is no room for the compacted file: {report.detail}")
        if report.code == "damaged":
            oldest = self.engine.snapshots.rev
            detail = f"the log is damaged behind what would be dropped: {report.detail}"
            raise Problem("history_gone", detail, reason="damaged", oldest=oldest)
        if report.code == "ambiguous":
            detail = "records of kanta's there can be read in two ways, and what would be dropped tells which"
            raise Problem("unavailable", f"{detail}; retain none drops them, too")
        raise Problem("unavailable", f"the log could not be compacted: {report.detail}", retry_after=5)

    async def _remember(self, report: Report) -> None:
        """Keep the outlines of the keyed changes whose records will be dropped."""
        changes = self.engine.window.changes
        for piece in report.outlines:
            for key, outline in msgspec.msgpack.decode(piece):
                seen = changes.get(key)
                if seen is not None and seen.rev <= self._done(report).rev:
                    seen.outline = outline
            await asyncio.sleep(0)

    async def _catch_up(self, worker: Worker, report: Report) -> Report:
        """Have copied what came meanwhile, until little is left."""
        archive = report.archive, report.is_new
        for _ in range(MOST_ROUNDS):
            if self.engine.log.size - self._done(report).source <= SHORT:
                break
            report = await self._told(worker, Further(self.engine.log.size))
        report.archive, report.is_new = archive
        return report

    async def _swapped(self, report: Report) -> Rewritten:
        """Copy the rest and put the new file in the place of the old one."""
        engine, log, done = self.engine, self.engine.log, self._done(report)
        try:
            made = await asyncio.to_thread(Rewriting.resume, log.disk, report.temporary, log.codec, log.framing, done)
        except OSError as error:
            raise _failed(error) from None
        swap = Swap(engine, report.temporary, made)
        future, settle = settling()
        try:
            engine.committer.run_alone(Errand(swap.work, swap.then, settle))
            await future
        finally:
            if not swap.done:
                log.disk.close(made.fd)
        if swap.failure is not None:
            raise _failed(swap.failure)
        return done

    def _clear(self, report: Report) -> None:
        """Remove what was made in vain; the process that made it has ended.

        The archive stays where the new file is in its place, though the disk failed behind that: what was cut off
        is nowhere else.
        """
        log = self.engine.log
        with contextlib.suppress(OSError, Broken):  # the folder may be gone
            remove_leftovers(log.disk, log.path)
            log.check_path()
            if report.is_new:
                log.disk.unlink(report.archive)

    # -- by itself

    async def _keep(self, retain: Retention) -> None:
        left, at = 0, 0.0
        while True:
            await asyncio.sleep(self.look)
            size = self.engine.log.size
            if size < GROWN * left and time.monotonic() - at < DAY:
                continue
            with contextlib.suppress(Problem):  # it is told in the log, and tried again
                await self.compact(retain)
                left, at = self.engine.log.size, time.monotonic()


def _failed(error: Exception) -> Problem:
    if isinstance(error, OSError) and error.errno in FULL:
        return Problem("storage_full", f"there is no room for the compacted file: {error.strerror}")
    return Problem("unavailable", f"the log could not be compacted: {error}", retry_after=5)


class Swap:
    """The last step: what the writer thread does, and what the loop does after it."""

    def __init__(self, engine: "Engine", temporary: str, made: Rewriting) -> None:
        self.engine, self.temporary, self.made = engine, temporary, made
        self.failure: Exception | None = None
        self.done = False

    def work(self) -> Exception | None:
        """On the thread: the rest of the records, synced, and the rename. What is returned cannot be gone on from."""
        log, made = self.engine.log, self.made
        try:
            with log.buffer() as buffer:
                made.copy(buffer, log.size)
            made.sync()
            log.check_path()
            swap_in(log.disk, self.temporary, log.path, made.fd)
            self.done = True
        except Unsettled as error:
            return Broken(f"syncing the folder of {log.path}: {error}")
        except Broken as error:
            return error
        except (OSError, Unreadable) as error:
            self.failure = error
            try:
                log.sync()
            except Broken as failure:
                return failure
        return None

    def then(self) -> None:
        """On the loop: go over to the new file."""
        if not self.done:
            return
        engine, log, made, done = self.engine, self.engine.log, self.made, self.made.done
        old = log.become(made.fd, made.framing, done.size)
        first = Anchor(done.rev, done.start, done.chain)
        last = engine.past.anchor
        last = last._replace(offset=last.offset - done.shift) if last.rev > done.rev else first
        engine.snapshots.moved(done)
        behind = engine.written.rev > done.rev and engine.written_last >= 0
        engine.written_last = engine.durable_last = engine.written_last - done.shift if behind else -1
        engine.past.oldest, engine.past.anchor = done.rev, last
        engine.history = "verified"
        index = Index(log, first, last, Anchor(engine.written.rev, log.size, engine.written.chain))
        forgotten = engine.backlog.begin_anew(index, done.rev)
        closing = weakref.finalize(forgotten, _close_elsewhere, log.disk, old)  # who reads it in a thread may finish
        closing.atexit = False


def _close_elsewhere(disk: Disk, fd: int) -> None:
    """Close a file that has no name any more: its blocks are freed then (measured with 292 MiB: 20 ms)."""
    threading.Thread(target=disk.close, args=(fd,), name="kantad-closer", daemon=True).start()
