"""The flush loop: batch, write, sync, publish; and what happens when the disk says no.

Group commit without a timer: a batch is what arrived while the one before it was being synced,
and at most one is in flight, handed to a thread that writes and syncs. An answer waits as a
callable in its batch; it is called once, with None or the exception, on the event loop's thread.

Under the policy `applied` a batch is started by a timer, under `written` and `applied` it is
synced only where somebody waits for that, and else within the flush interval.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from kantad.engine.pending import Answering, Applied, Batch, Settle
from kantad.engine.proposal import Ack
from kantad.store.log import Broken, Log, NoRoom
from kantad.values.errors import Problem

logger = logging.getLogger("kantad")

MOST_WAITING: Final = 20_000  # changes not yet on disk, beyond which writes are refused
MOST_BYTES: Final = 64 << 20

Job = tuple[Batch, bytes, bool]


class Committer:
    """Takes applied changes, makes them durable in order, and settles who waits.

    `published(batch)` is called when a batch became visible, `failed(batches, problem)` when
    batches must be rolled back, `broken(error)` when the process must stop. `after_batch()` may
    return a snapshot payload to be written before the next batch; `snapshot_failed()` tells that
    there was no room for it, which loses nothing.
    """

    def __init__(
        self,
        log: Log,
        policy: Ack,
        interval: float,
        published: Callable[[Batch], None],
        failed: Callable[[list[Batch], Problem], None],
        broken: Callable[[Broken], None],
        after_batch: Callable[[], bytes | None],
        snapshot_failed: Callable[[], None],
    ) -> None:
        self.log, self.policy, self.interval = log, policy, interval
        self.published, self.failed, self.broken, self.after_batch = published, failed, broken, after_batch
        self.snapshot_failed = snapshot_failed
        self.loop = asyncio.get_running_loop()
        self.open = Batch()
        self.flight: Batch | None = None
        self.open_bytes = 0
        self.started = False  # a flush is scheduled
        self.stopped = False
        self.unsynced = False  # bytes were written that were not synced
        self.snapshot_waiting: list[Settle] = []
        self.batches = 0
        self.timer: asyncio.TimerHandle | None = None
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="kantad-writer", daemon=True)
        self.thread.start()

    # -- what the engine calls

    def first_rev_with_room(self) -> int:
        """The revision of the open batch's first change, 0 if it has none; raises `Problem` where too many wait."""
        changes = self.open.changes
        if not changes:
            return 0
        if len(changes) >= MOST_WAITING or self.open_bytes >= MOST_BYTES:
            raise Problem("unavailable", "too many writes are waiting for the disk", retry_after=1)
        return changes[0].rev

    def add(self, change: Applied) -> None:
        """Take a change into the open batch."""
        self.open.changes.append(change)
        self.open_bytes += len(change.payload)
        if self.flight is None and not self.started:
            self._schedule()

    def answer(self, connection: Answering, data: bytes) -> None:
        """Send a prepared answer to the newest change when it is durable; it must be in the open batch."""
        self.open.answers.append((connection, data))

    def wait(self, rev: int, level: Ack, settle: Settle) -> None:
        """Call `settle` once this revision is at this level of acknowledgement; it must still be pending."""
        batch = self.flight
        if batch is None or not batch.changes or batch.changes[-1].rev < rev:
            batch = self.open
            if level == "durable" and self.policy != "durable":
                batch.sync = True
                self._hurry()
        elif level == "durable" and not batch.sync:
            self.open.sync = True  # the flight is only written: the next flush syncs it
            batch = self.open
            self._hurry()
        (batch.waiting if level == "durable" else batch.waiting_written).append(settle)

    def unsettled(self) -> list[Applied]:
        """The changes in flight and waiting, oldest first."""
        return [*(self.flight.changes if self.flight else ()), *self.open.changes]

    async def drain(self) -> None:
        """Wait until everything taken in is durable (or failed)."""
        while self.flight is not None or self.open.changes or self.open.waiting or self.unsynced:
            done = self.loop.create_future()
            self.open.sync = True
            self.open.waiting.append(lambda error, done=done: done.done() or done.set_result(None))  # type: ignore[misc]
            self._hurry()
            await done

    async def stop(self) -> None:
        """Drain, then end the thread."""
        if not self.stopped:
            await self.drain()
        self.jobs.put(None)
        await asyncio.to_thread(self.thread.join)

    def write_snapshot(self, settle: Settle) -> None:
        """Write a snapshot as soon as no batch is in flight."""
        self.snapshot_waiting.append(settle)
        self._hurry()

    # -- the loop

    def _schedule(self) -> None:
        self.started = True
        if self.policy == "applied" and not self.open.sync:
            self.timer = self.loop.call_later(self.interval, self._start)
        else:
            self.loop.call_soon(self._start)

    def _hurry(self) -> None:
        """Flush at once rather than when the timer says."""
        if self.flight is not None:
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.started = False
        if not self.started:
            self.started = True
            self.loop.call_soon(self._start)

    def _start(self) -> None:
        """Hand the next batch (or a snapshot) to the thread."""
        self.timer = None
        if self.flight is not None or self.stopped:
            return
        self.started = False
        snapshot = self.after_batch()
        if snapshot is not None:
            batch = Batch()
            batch.waiting, self.snapshot_waiting = self.snapshot_waiting, []
            self._hand_over(batch, [(snapshot, True)], True)
            return
        batch, self.open, self.open_bytes = self.open, Batch(), 0
        if not batch.changes and not batch.waiting and not batch.waiting_written:
            return
        batch.sync = batch.sync or self.policy == "durable"
        self._hand_over(batch, [(change.payload, False) for change in batch.changes], batch.sync)

    def _hand_over(self, batch: Batch, records: list[tuple[bytes, bool]], sync: bool) -> None:
        batch.sync = sync
        self.flight = batch
        self.batches += 1
        try:
            self.log.check_own()
        except Broken as error:
            self._break(batch, error)
            return
        self.jobs.put((batch, self.log.framed(records), sync))

    def _work(self) -> None:
        """The thread: write and sync one job after another."""
        while (job := self.jobs.get()) is not None:
            batch, data, sync = job
            error: Exception | None = None
            try:
                if data:
                    self.log.append(data)
                if batch.waiting_written:
                    self.loop.call_soon_threadsafe(self._written, batch)
                if sync:
                    self.log.sync()
            except (NoRoom, Broken) as failure:
                error = failure
            except Exception as failure:  # a fault of ours: nothing is known, so stop
                logger.exception("the writer failed")
                error = Broken(f"the writer failed: {failure}")
            try:
                self.loop.call_soon_threadsafe(self._done, batch, error)
            except RuntimeError:  # the loop is closed: the process is going down
                return

    def _written(self, batch: Batch) -> None:
        waiting, batch.waiting_written = batch.waiting_written, []
        for settle in waiting:
            settle(None)

    def _done(self, batch: Batch, error: Exception | None) -> None:
        """The thread is through with a batch."""
        if error is None:
            try:
                self.log.check_own()
            except Broken as failure:
                error = failure
        if isinstance(error, Broken):
            self._break(batch, error)
            return
        if error is not None:
            self._fail(batch, error)
            return
        self.flight = None
        self.unsynced = not batch.sync and (self.unsynced or bool(batch.changes))
        self.published(batch)
        for connection, data in batch.answers:
            connection.settled(data)
        for settle in batch.waiting_written:
            settle(None)
        for settle in batch.waiting:
            settle(None)
        self._go_on()

    def _go_on(self) -> None:
        if self.started or self.flight is not None:
            return
        if self.snapshot_waiting or self.open.waiting or self.open.waiting_written:
            self.started = True
            self._start()
        elif self.open.changes:
            if self.policy == "applied":
                self._schedule()
            else:
                self.started = True
                self._start()
        elif self.unsynced:
            self.started = True
            self.open.sync = True
            self.timer = self.loop.call_later(self.interval, self._sync_late)

    def _sync_late(self) -> None:
        self.timer = None
        self.open.sync = True
        self.open.waiting.append(lambda error: None)
        self._start()

    def _fail(self, batch: Batch, error: Exception) -> None:
        """A write failed and the file was cut back: roll back this batch and all behind it."""
        problem = Problem("storage_full", f"the change could not be stored: {error}")
        if not batch.changes and batch.waiting_written == []:
            self.flight = None
            self.snapshot_failed()
            for settle in batch.waiting:
                settle(problem)
            self._go_on()
            return
        lost = [batch, self.open]
        waiting = self.snapshot_waiting
        self.flight, self.open, self.open_bytes, self.snapshot_waiting = None, Batch(), 0, []
        self.failed(lost, problem)
        for each in lost:
            self._refuse(each, problem)
        for settle in waiting:
            settle(problem)

    def _refuse(self, batch: Batch, problem: Problem) -> None:
        """Tell all who wait for a batch that it did not come to be (or that nobody knows)."""
        for connection, _ in batch.answers:
            connection.refused(problem)
        for settle in [*batch.waiting_written, *batch.waiting]:
            settle(problem)

    def _break(self, batch: Batch, error: Broken) -> None:
        """The disk failed: say that the outcome is not known, and stop."""
        self.stopped = True
        problem = Problem("unavailable", "the disk failed: whether the change was stored is not known")
        for each in (batch, self.open):
            self._refuse(each, problem)
        for settle in self.snapshot_waiting:
            settle(problem)
        self.broken(error)
