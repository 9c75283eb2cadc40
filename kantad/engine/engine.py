"""A transaction from proposal to acknowledgement.

State changes only in `Engine.transact`, a plain `def`: nothing is awaited between the check and
the change, so `def` means atomic. It narrows the proposal to its effect, encodes the record,
applies the effect in place with an undo list, and gives the change to the committer.

Revisions: `rev` is what the next transaction builds on; `visible` is what readers see, which
under `durable` trails it until the sync; `durable` is what a power cut leaves, `durable_end` where that
ends in the file.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal, TypeVar

from kantad.engine.backlog import Backlog
from kantad.engine.committer import Committer
from kantad.engine.compacting import Compaction
from kantad.engine.feed import Feeds
from kantad.engine.former import Former
from kantad.engine.interest import Interest
from kantad.engine.making import ends_of, make, try_out
from kantad.engine.past import Past
from kantad.engine.pending import Applied, Batch, Settle, hidden, roll_back, settling
from kantad.engine.place import ROOT, Place, Places
from kantad.engine.preconditions import Present, at_present, check, replayed
from kantad.engine.proposal import Ack, Outcome, Proposal, narrowed, written
from kantad.engine.requests import Seen, Window
from kantad.engine.ring import RING_BYTES
from kantad.engine.snapshots import Snapshots
from kantad.engine.visible import Visible
from kantad.engine.waiting import Waiting
from kantad.store import history
from kantad.store.log import Broken, Log
from kantad.store.recovery import Recovered
from kantad.values.content import MISSING, encode_json
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.moment import now_micros
from kantad.values.patch import KeyOrders
from kantad.values.pointer import Path, lookup, parse
from kantad.values.record import Change
from kantad.values.schema import Schema

logger = logging.getLogger("kantad")

T = TypeVar("T")


class Engine:
    """The whole database. Made by `open_engine`, used on one event loop."""

    def __init__(
        self,
        log: Log,
        found: Recovered,
        *,
        ack: Ack = "durable",
        flush_interval: float = 0.1,
        max_depth: int = 128,
        clock: Callable[[], int] = now_micros,
        ring_bytes: int = RING_BYTES,
        schema: Schema | None = None,
        readonly: bool = False,
    ) -> None:
        self.schema, self.validators = schema, schema.validators if schema is not None else ()
        self.log, self.clock, self.max_depth, self.policy = log, clock, max_depth, ack
        self.root, self.rev, self.chain, self.micros = found.state, found.rev, found.chain, found.micros or clock()
        self.v, self.m = found.v, found.m
        self.unsettled = (found.rev, found.read_as) if found.read_as else (-1, "")  # see `read_as`
        self.foreign = log.codec.foreign
        self.visible = Visible(found.rev, found.chain)
        self.durable, self.durable_rev, self.durable_end = self.visible, found.rev, log.size
        self.places = Places(log.codec)
        self.promised = found.rev  # the newest revision that was told before it was written
        self.past = Past(log, found, ring_bytes)
        self.backlog = Backlog(log, found)
        self.interest = Interest()
        self.written = self.visible  # what the operating system has
        self.written_last = self.durable_last = found.last  # where the last change stands; -1: not known
        self.warnings = found.warnings
        self.history = "not verified yet"  # of the part before the snapshot that the start began with
        self.trouble: str | None = None  # why writes fail at the moment
        self.taken_back: Callable[[], object] = lambda: None  # called when changes were
        self.watcher: Callable[[list[Applied]], None] | None = None  # is told what is published
        self.stopping, self.readonly = False, readonly
        self.window = Window()
        with log.buffer() as buffer:
            for old in history.keyed(buffer, log.size, log.framing, log.codec, found):
                self.window.add(old.key, Seen(old.q, old.rev, old.chain, old.micros, True, outline=old.outline))
        self.window.trim()
        self.waiting = Waiting(self.tag)
        self.broken: asyncio.Future[Broken] = asyncio.get_running_loop().create_future()
        self.committer = Committer(log, ack, flush_interval, self, KeyOrders())
        self.former = Former(self)
        self.replaying = asyncio.Lock()  # one process at a time replays the log, to compact it or for a snapshot
        self.snapshots = Snapshots(self, found)
        self.compaction = Compaction(self)
        self.feeds = Feeds(self, self.past.ring, self.backlog, self.interest, self.former.value_at)

    # -- reading

    def meets_hidden(self, path: Path) -> bool:
        """Whether a change that readers must not see yet may touch this path."""
        committer = self.committer
        return committer.pending > 0 and self.policy != "applied" and committer.meets(path)

    def read(self, path: Path, look: Callable[[Any], T]) -> T:
        """What `look` makes of the visible value at a path (MISSING if there is none), synchronously."""
        if not self.meets_hidden(path):
            return look(lookup(self.root, path))
        with hidden(self.root, self.committer.unsettled(), path):
            return look(lookup(self.root, path))

    def encoded_now(self, path: Path) -> bytes | None:
        """The value at a path as of `written`, as JSON; None if there is none."""
        with hidden(self.root, self.committer.unsettled() if self.committer.pending else [], path):
            value = lookup(self.root, path)
            return None if value is MISSING else encode_json(value)

    def tag(self, path: Path) -> str:
        """The etag of the visible value at a path, `""` if there is none."""
        return self.read(path, lambda value: "" if value is MISSING else etag(value))

    # -- writing

    def transact(self, proposal: Proposal) -> Outcome:
        """Check a proposal, apply its effect and put it in line for the disk; raises `Problem`.

        The outcome (and a problem that shows state) may be told to the client only when
        `settle_when` says so.
        """
        if self.stopping or self.readonly:
            raise self.refusal()
        q = ""
        if proposal.key is not None:
            q, seen = self.window.find(proposal.key, proposal.identity())
            if seen is not None and not proposal.dry_run:
                return replayed(self, seen, proposal)
        if proposal.conditions or proposal.base is not None:
            check(proposal, self.root, self.past_now())
        micros = max(self.clock(), self.micros)
        try:
            diff, child = narrowed(proposal, self.root, self.max_depth, micros)
        except Problem as problem:
            if problem.code == "precondition_failed":  # a JSON Patch's `test`
                at = parse(problem.more["path"])
                problem.more.update(at_present(self.past_now(), Present(self.root), at))
            raise
        if self.schema is not None:
            diff = self.schema.fitted(self.root, diff)
        if diff is SAME or proposal.dry_run:
            try_out(self, diff)
            outcome = Outcome(
                self.rev, self.chain, self.micros, diff is not SAME, False, {} if diff is SAME else diff, child
            )
            if proposal.key is not None and not proposal.dry_run:
                self.window.add_unchanged(proposal.key, Seen(q, self.rev, self.chain, self.micros, False))
            return outcome
        shown = deepcopy(diff) if proposal.want_diff else diff  # the state shares its values, and goes on changing
        self._commit(micros, ROOT, None, diff, proposal.action, proposal.user, proposal.m, proposal.key, q or None)
        if proposal.key is not None:
            self.window.add(proposal.key, Seen(q, self.rev, self.chain, micros, True, child))
        return Outcome(self.rev, self.chain, micros, True, False, shown, child)

    def read_as(self, rev: int) -> str:
        """How some of kanta's records are read, where nothing up to this revision of the log tells.

        The first change behind them does, so that nothing that another program adds can tell otherwise.
        """
        return self.unsettled[1] if rev == self.unsettled[0] else ""

    def refusal(self) -> Problem:
        """Why no write is taken."""
        if self.readonly:
            return Problem("read_only", "the file is served read-only")
        return Problem("shutting_down", "the server is shutting down", retry_after=1)

    def write(
        self, place: Place, body: Any, edit: Literal["put", "patch"], action: str, key: str | None = None, q: str = ""
    ) -> Batch | None:
        """The short form of `transact`, for a plain patch or value: its batch, None if nothing changed.

        `key` is one that is not known; `q` its request's fingerprint. Raises `Problem`. `rev`, `chain` and `micros`
        are those of the change afterwards.
        """
        if self.stopping or self.readonly:
            raise self.refusal()
        target, sub = written(self.root, place[0], body, edit == "put", self.max_depth, self.foreign)
        if self.schema is not None:
            target, sub = self.schema.fitted_at(self.root, place[0], target, sub)
        if sub is SAME:
            return None
        micros = self.clock()
        if micros < self.micros:
            micros = self.micros
        if key is None:
            return self._commit(micros, place, target, sub, action)
        batch = self._commit(micros, place, target, sub, action, None, None, key, q)
        self.window.add(key, Seen(q, self.rev, self.chain, micros, True))
        return batch

    def _commit(
        self,
        micros: int,
        place: Place,
        target: dict[Any, Any] | None,
        sub: Any,
        action: str,
        user: str | None = None,
        m: int | None = None,
        key: str | None = None,
        q: str | None = None,
    ) -> Batch:
        """Encode the record, apply it, put it in line. Only a full queue and validators refuse it now.

        `target` and `sub` as `written` gives them.
        """
        committer = self.committer
        with committer.lock:
            first = committer.first_rev_with_room()
            ends = ends_of(self, self.rev, micros, action, user, m, key, q, first)
            change = make(self, ends, place, target, sub, self.rev + 1, self.chain, (self.micros, self.m))
            self.rev, self.chain, self.micros = change.rev, change.chain, micros
            if m is not None:
                self.m = m
            batch = committer.add(change)
        if self.policy == "applied":
            self.visible = Visible(change.rev, change.chain)
            self.waiting.seen([change.diff])
        return batch

    def settle_when(self, ack: Ack | None, rev: int, settle: Settle) -> bool:
        """Call `settle(None or Problem)` when an answer that knows revision `rev` may go out.

        Returns False, without calling it, where that is at once. To be called in the same step as
        the `transact` that it is about: later, the revision may have been taken back.
        """
        level = ack or self.policy
        if level == "applied":
            if rev > self.promised:
                self.promised = rev
            return False
        if level == "durable":
            if rev <= self.durable_rev:
                return False
        elif rev <= self.written.rev:
            return False
        self.committer.wait(rev, level, settle)
        return True

    async def settled(self, ack: Ack | None, rev: int) -> None:
        """Wait until an answer that knows revision `rev` may go out; raises the `Problem` if it must not."""
        future, settle = settling()
        if self.settle_when(ack, rev, settle):
            await future

    def past_now(self) -> Past:
        """The past as of this moment, pending changes included."""
        past = self.past
        past.present = (self.rev, self.chain)
        past.pending = self.committer.unsettled()
        return past

    # -- what the committer calls

    def published(self, changes: list[Applied], end: int) -> None:
        """These are on disk, as the policy has it: readers may see them."""
        self.trouble = None
        self.written = Visible(changes[-1].rev, changes[-1].chain)
        self.past.ring.extend(changes)
        self.backlog.wrote(changes, end)
        self.written_last = end - len(changes[-1].payload) - self.log.framing.extra
        self.feeds.published(changes)
        if self.watcher is not None:
            self.watcher(changes)
        self.window.trim()
        if self.policy != "applied":
            self.visible = self.written
            # From the record: what a `diff` assigned is part of the state by now, and later changes went on in it.
            decode = self.log.codec.decode
            self.waiting.seen(decode(change.payload, Change).diff for change in changes)
        self.waiting.written()

    def synced(self, snapshot: bool, end: int) -> None:
        """All that was published is durable, and so is the snapshot: the file up to this byte."""
        self.durable, self.durable_rev, self.durable_end = self.written, self.written.rev, end
        self.durable_last = self.written_last
        if snapshot:
            self.trouble = None
            self.snapshots.written()
        else:
            self.snapshots.consider()

    def failed(self, changes: list[Applied], problem: Problem) -> None:
        """The disk has no room: take back what was not written."""
        roll_back(changes)
        if changes:
            self.rev, self.chain = self.written.rev, self.written.chain
            self.micros, self.m = changes[0].before
            self.visible = self.written
            self.window.forget_after(self.rev)
            if self.policy == "applied":
                self.waiting.seen(change.diff for change in changes)
            self.taken_back()
        if self.trouble is None:
            logger.error("%s; %d change(s) were taken back, reads go on", problem.detail, len(changes))
        self.trouble = problem.detail

    def broke(self, error: Broken) -> None:
        """The disk can no longer be trusted: refuse everything, and let the process stop."""
        self.stopping = True
        self.waiting.end()
        self.trouble = str(error)
        logger.critical("%s; stopping, the next start reads the truth from the disk", error)
        if not self.broken.done():
            self.broken.set_result(error)

    # -- snapshots

    async def snapshot(self) -> tuple[Visible, int]:
        """Write a snapshot now; its revision and the bytes of its record, when it is on disk. Raises `Problem`."""
        if self.stopping or self.readonly:
            raise self.refusal()
        return await self.snapshots.write()

    # -- the end

    def retire(self) -> None:
        """Refuse further writes, and let those who wait for a change go."""
        self.stopping = True
        self.waiting.end()

    async def stop(self) -> None:
        """Refuse further writes, make everything durable, and write a snapshot if the next start is worth it."""
        self.retire()
        await self.former.stop()
        await self.compaction.stop()
        await self.snapshots.stop()
        await self.committer.drain()
        self.feeds.stop()
        if not self.committer.stopped and not self.readonly:
            await self.snapshots.write_last()
        await self.committer.stop()
        self.log.close()
