"""Making changes durable: batch, write, sync, publish; and what happens when the disk says no.

Group commit without a timer. One thread writes and syncs, one batch at a time; when it is through
with one it takes what arrived meanwhile as the next, without waiting for the event loop, which is
busy with the requests that make it. A batch is due when the loop has been through the requests
that had arrived with its first change, or at 16 changes that came one by one: smaller ones would
cost more hand-overs of the interpreter than they gain. Changes that came together are made so
quickly that only very many are worth an early start (measured: 13 % fewer writes a second). The
loop is told of each batch in order; publishing, answering and rolling back happen there only.

The lock is held for as long as a batch must not be taken from under a change that is being added:
the change's `b` names the first record that is synced together with it, which under `written` and
`applied` may be of an earlier batch (a power cut may keep the later of them and lose the earlier).
Everything else of this class belongs to the loop.

Under the policy `applied` a batch is due after the flush interval; under `written` and `applied`
it is synced only where somebody waits for that, and else within the interval.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from typing import Final

from kantad.engine.owner import Owner
from kantad.engine.pending import Applied, Batch, Errand, Settle
from kantad.engine.proposal import Ack
from kantad.store.log import Broken, Log, NoRoom
from kantad.values.errors import Problem
from kantad.values.patch import KeyOrders

logger = logging.getLogger("kantad")

MOST_WAITING: Final = 20_000  # changes not yet on disk, beyond which writes are refused
RIPE: Final = 16  # changes that came one by one and are worth a batch before the loop is through with what has arrived
MANY: Final = 2048  # changes, or
LARGE: Final = 1 << 20  # bytes, that are worth one however they came
MOST_BYTES: Final = 64 << 20


class Committer:
    """Takes applied changes, makes them durable in order, and settles who waits."""

    def __init__(self, log: Log, policy: Ack, interval: float, owner: Owner, orders: KeyOrders) -> None:
        self.log, self.policy, self.interval, self.owner, self.orders = log, policy, interval, owner, orders
        self.loop = asyncio.get_running_loop()
        self.lock = threading.Lock()
        self.open = Batch(orders)
        self.flights: tuple[Batch, ...] = ()  # taken by the thread, not yet told to the loop; oldest first
        self.pending = 0  # changes in `flights` and `open`
        self.open_bytes = 0
        self.group = 0  # the first change that the next sync is for
        self.due = False  # the open batch is to be taken
        self.held = False  # no changes are to be taken: something is about to be done alone
        self.halted = False  # a write failed: nothing is to be taken until the loop has rolled back
        self.ended = self.stopped = self.sleeping = False
        self.unsynced = False  # bytes were written that were not synced
        self.alone: Batch | None = None  # for the thread to take: a snapshot or an errand
        self.making = False  # it was given to the thread
        self.snapshot_waiting: list[Settle] = []
        self.errands: list[Errand] = []
        self.batches = 0
        self.timer: asyncio.TimerHandle | None = None
        self.wake = threading.Lock()
        self.wake.acquire()
        self.thread = threading.Thread(target=self._work, name="kantad-writer", daemon=True)
        self.thread.start()

    # -- what the engine calls

    def first_rev_with_room(self) -> int:
        """The first revision that the next change is synced with, 0 if itself; raises `Problem` where too many wait.

        To be called with the lock, and `add` before it is released.
        """
        if len(self.open.changes) >= MOST_WAITING or self.open_bytes >= MOST_BYTES:
            raise Problem("unavailable", "too many writes are waiting for the disk", retry_after=1)
        return self.group

    def add(self, change: Applied) -> Batch:
        """Take a change into the open batch (with the lock), which is returned for `answers`."""
        batch = self.open
        batch.changes.append(change)
        self.group = self.group or change.rev
        self.pending += 1
        self.open_bytes += len(change.payload)
        if self.policy != "applied":
            count = len(batch.changes)
            if count == 1:
                self.loop.call_soon(self._ripen)
            elif count == RIPE:
                self._let_take()
        elif self.timer is None and not self.due:
            self.timer = self.loop.call_later(self.interval, self._flush_late)
        return batch

    def add_all(self, changes: list[Applied]) -> Batch:
        """`add` for several, under a policy that is not `applied`."""
        batch = self.open
        fresh = not batch.changes
        batch.changes += changes
        self.group = self.group or changes[0].rev
        self.pending += len(changes)
        self.open_bytes += sum([len(change.payload) for change in changes])
        if len(batch.changes) >= MANY or self.open_bytes >= LARGE:
            self._let_take()
        elif fresh:
            self.loop.call_soon(self._ripen)
        return batch

    def _ripen(self) -> None:
        """The loop is through with what had arrived: the open batch may go."""
        with self.lock:
            if self.open.changes:
                self._let_take()

    def _let_take(self) -> None:
        """The open batch is due; with the lock."""
        self.due = True
        self._nudge()

    def wait(self, rev: int, level: Ack, settle: Settle) -> None:
        """Call `settle` once this revision is written or durable; it must not be so yet."""
        with self.lock:
            batch = next((b for b in self.flights if b.changes and b.changes[-1].rev >= rev), None)
            if batch is None or (level == "durable" and not batch.sync):
                batch = self.open  # where it is, or whose sync will cover it
                batch.sync = batch.sync or level == "durable"
                self._let_take()
            if level == "durable":
                batch.waiting.append((rev, settle))
            else:
                batch.waiting_written.append(settle)

    def unsettled(self) -> list[Applied]:
        """The changes in flight and waiting, oldest first."""
        with self.lock:
            return [change for batch in (*self.flights, self.open) for change in batch.changes]

    def meets(self, path: tuple[str, ...]) -> bool:
        """Whether an unsettled change may touch this path."""
        with self.lock:
            batches = (*self.flights, self.open)
        return any(batch.meets(path) for batch in batches)

    async def drain(self) -> None:
        """Wait until everything taken in is durable (or failed)."""
        while (self.pending or self.unsynced or self.flights) and not self.stopped:
            done: asyncio.Future[None] = self.loop.create_future()
            self._sync_open(lambda error, done=done: None if done.done() else done.set_result(None))  # type: ignore[misc]
            await done

    async def stop(self) -> None:
        """Drain, then end the thread."""
        await self.drain()
        if self.timer is not None:
            self.timer.cancel()
        with self.lock:
            self.ended = True
            self._nudge()
        await asyncio.to_thread(self.thread.join)

    def write_snapshot(self, settle: Settle) -> None:
        """Write a snapshot as soon as no batch is in flight."""
        self.snapshot_waiting.append(settle)
        self._consider_what_waits()

    def run_alone(self, errand: Errand) -> None:
        """Have the thread do an errand as soon as no batch is in flight; what arrives meanwhile waits."""
        self.errands.append(errand)
        self._consider_what_waits()

    # -- the thread

    def _nudge(self) -> None:
        """Wake the thread, if it sleeps; with the lock."""
        if self.sleeping:
            self.sleeping = False
            self.wake.release()

    def _take(self) -> Batch | None:
        """The next batch to write; with the lock, on the thread."""
        if self.halted or self.stopped:
            return None
        if self.alone is not None:
            batch, self.alone = self.alone, None
        elif self.held or not self.due:
            return None
        else:
            batch, self.open, self.open_bytes, self.due = self.open, Batch(self.orders), 0, False
            batch.sync = batch.sync or self.policy == "durable"
        if batch.sync:
            self.group = self.open.changes[0].rev if self.open.changes else 0
        self.flights = (*self.flights, batch)
        self.batches += 1
        return batch

    def _work(self) -> None:
        """Write and sync one batch after another."""
        while True:
            with self.lock:
                batch = self._take()
                if batch is None:
                    if self.ended or self.stopped:
                        return
                    self.sleeping = True
            if batch is None:
                self.wake.acquire()
                continue
            error = self._write(batch)
            if error is not None:
                with self.lock:
                    self.halted = True
            self._tell(self._done, batch, error)

    def _write(self, batch: Batch) -> Exception | None:
        """Write and sync one batch; what went wrong, if anything."""
        try:
            if batch.errand is not None:
                return batch.errand.work()
            if batch.snapshot is not None:
                if self.policy != "durable":
                    self.log.sync()  # a snapshot never outlives what stands before it
                self.log.append(self.log.framing.frame(batch.snapshot, self.log.size, True))
            elif batch.changes:
                payloads = [change.payload for change in batch.changes]
                self.log.append(self.log.framing.batch(payloads, self.log.size))
            batch.end = self.log.size
            if batch.sync and (batch.waiting_written or self.policy == "written"):
                self._tell(self._written, batch)
            if batch.sync:
                self.log.sync()
        except (NoRoom, Broken) as failure:
            return failure
        except Exception as failure:  # a fault of ours: nothing is known, so stop
            logger.exception("the writer failed")
            return Broken(f"the writer failed: {failure}")
        return None

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(what, *arguments)

    # -- the loop

    def _written(self, batch: Batch) -> None:
        """A batch is written and is being synced; where the policy has no more, it is seen now."""
        if self.stopped:
            return
        if self.policy != "durable":
            self._publish(batch)
        waiting, batch.waiting_written = batch.waiting_written, []
        for settle in waiting:
            settle(None)

    def _done(self, batch: Batch, error: Exception | None) -> None:
        """The thread is through with a batch."""
        if self.stopped:
            return  # it was refused when the disk broke
        if error is None:
            if batch.errand is not None:
                batch.errand.then()
                batch.end = self.log.size
            try:
                self.log.check_path()
            except Broken as failure:
                error = failure
        if isinstance(error, Broken):
            self._break(error)
        elif error is not None:
            self._fail(batch, error)
        else:
            self._settle(batch)
        if not self.stopped:
            self._consider_what_waits()

    def _settle(self, batch: Batch) -> None:
        with self.lock:
            self.flights = self.flights[1:]
        if batch.snapshot is not None or batch.errand is not None:
            self._let_go()
        self._publish(batch)
        if batch.sync:
            self.unsynced = False
            self.owner.synced(batch.snapshot is not None, batch.end)
        batch.settle()
        if self.unsynced and self.timer is None:
            self.timer = self.loop.call_later(self.interval, self._flush_late)

    def _publish(self, batch: Batch) -> None:
        with self.lock:
            changes, batch.changes = batch.changes, []
        if changes:
            self.pending -= len(changes)
            self.unsynced = True
            self.owner.published(changes, batch.end)

    def _flush_late(self) -> None:
        """The interval is over: write what waits, sync what is written."""
        self.timer = None
        self._sync_open(None)

    def _sync_open(self, settle: Settle | None) -> None:
        with self.lock:
            self.open.sync = True
            if settle is not None:
                self.open.waiting.append((0, settle))
            self._let_take()

    def _consider_what_waits(self) -> None:
        """Do an errand, or make a snapshot, if one is wanted; first let what is in flight finish."""
        wanted = self.held or self.errands or self.snapshot_waiting
        if self.making or self.stopped or not (wanted or self.owner.snapshots.due()):
            return
        with self.lock:
            self.held = True
            if self.flights:
                return  # the last of them comes back here
        self.making = True
        batch = Batch(self.orders)
        batch.sync = True
        if self.errands:
            batch.errand = self.errands.pop(0)
            batch.waiting = [(sys.maxsize, batch.errand.settle)]
        else:
            try:
                batch.snapshot = self.owner.snapshots.payload()
            except Problem as problem:  # a format of one's own cannot keep it
                self._give_up_snapshot(problem.detail)
                return
            batch.waiting, self.snapshot_waiting = [(sys.maxsize, settle) for settle in self.snapshot_waiting], []
        with self.lock:
            self.alone = batch
            self._nudge()

    def _let_go(self) -> None:
        """It is done, or there was no room for it: go on with the changes."""
        self.making = False
        with self.lock:
            self.held = False
            self._nudge()

    def _fail(self, batch: Batch, error: Exception) -> None:
        """A write failed and the file was cut back: roll back this batch and all behind it."""
        what = "change" if batch.snapshot is None else "snapshot"
        problem = Problem("storage_full", f"the {what} could not be stored: {error}")
        with self.lock:
            self.halted, lost, self.flights = False, list(self.flights), ()
            if batch.snapshot is None:
                lost.append(self.open)
                self.open, self.open_bytes, self.pending, self.due = Batch(self.orders), 0, 0, False
                self.group = 0  # what was written before it was synced with the cut
                self._keep_waiting(lost)
        if batch.snapshot is None:
            self.owner.failed([change for each in lost for change in each.changes], problem)
        else:
            self.owner.snapshots.failed()
        for each in lost:
            each.refuse(problem)
        self._refuse_snapshots(problem)
        self._let_go()

    def _keep_waiting(self, lost: list[Batch]) -> None:
        """Who waits in a lost batch for an earlier revision waits for the next sync; with the lock."""
        first = next(change.rev for batch in lost for change in batch.changes)
        for batch in lost:
            self.open.waiting += [waiting for waiting in batch.waiting if waiting[0] < first]
            batch.waiting = [waiting for waiting in batch.waiting if waiting[0] >= first]
        if self.open.waiting:
            self.open.sync = True
            self._let_take()

    def _give_up_snapshot(self, why: str) -> None:
        logger.error("no snapshot was made: %s", why)
        self.owner.snapshots.failed()
        self._refuse_snapshots(Problem("unavailable", f"no snapshot was made: {why}"))
        self._let_go()

    def _refuse_snapshots(self, problem: Problem) -> None:
        waiting, self.snapshot_waiting = self.snapshot_waiting, []
        for settle in waiting:
            settle(problem)

    def _break(self, error: Broken) -> None:
        """The disk failed: say that the outcome is not known, and stop. What is pending stays hidden."""
        detail = "the disk failed: whether the change was stored is not known"
        problem = Problem("unavailable", detail, outcome="unknown", retry_after=1)
        with self.lock:
            self.stopped = True
            lost = [*self.flights, self.open, *(() if self.alone is None else (self.alone,))]
            self.alone = None
            self._nudge()
        for each in lost:
            each.refuse(problem)
        self._refuse_snapshots(problem)
        while self.errands:
            self.errands.pop().settle(problem)
        self.owner.broke(error)
