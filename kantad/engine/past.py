"""What happened before: the latest changes in memory, the log behind them, cursors verified against it.

A ring of encoded records answers for the last few megabytes, the mapped file for the rest. Nothing
here changes anything; blocking reads of the file happen on the caller's thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kantad.engine.pending import Applied
from kantad.engine.ring import Ring
from kantad.store import history
from kantad.store.log import Log
from kantad.store.recovery import Recovered
from kantad.values.errors import Problem
from kantad.values.record import Change, parse_cursor


class Past:
    """The changes of a log. `present` is the revision and chain of the newest, pending ones included."""

    def __init__(self, log: Log, found: Recovered, ring_bytes: int) -> None:
        self.log, self.oldest = log, found.oldest
        self.present = (found.rev, found.chain)
        self.pending: list[Applied] = []
        self.ring = Ring(found.rev, ring_bytes)
        self.anchor = history.Anchor(found.start_rev, found.start, found.start_chain)

    def verified(self, text: str | int, name: str) -> int:
        """The revision of a revision or cursor; raises `Problem` if it is not of this history or no longer held."""
        rev, chain = parse_cursor(text, name)
        if rev > self.present[0]:
            at = self.present[0]
            raise Problem("history_diverged", f"{name} is ahead of this database, which is at revision {at}")
        if rev < self.oldest:
            detail = f"the log begins at revision {self.oldest}"
            raise Problem("history_gone", detail, reason="compacted", oldest=self.oldest)
        if chain is not None and self.chain_at(rev).hex() != chain:
            raise Problem("history_diverged", f"{name} is not a cursor of this history")
        return rev

    def chain_at(self, rev: int) -> bytes:
        """The hash chain at a revision that the log holds."""
        if rev == self.present[0]:
            return self.present[1]
        if self.ring.first <= rev <= self.ring.last:
            return self.log.codec.chain_in(self.ring.payload(rev))
        for change in self.pending:
            if change.rev == rev:
                return change.chain
        with self._readable(), self.log.buffer() as buffer:
            return history.chain_at(buffer, len(buffer), self.log.framing, self.log.codec, rev, self._anchor(rev))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What is read across damage in the older part is gone."""
        try:
            yield
        except history.Unreadable as error:
            detail = f"the log is damaged before revision {self.anchor.rev}: {error}"
            raise Problem("history_gone", detail, reason="damaged", oldest=self.anchor.rev) from None

    def _anchor(self, rev: int) -> history.Anchor:
        if rev >= self.anchor.rev:
            return self.anchor
        return history.Anchor(self.oldest, self.log.framing.header, None)

    def changes_after(self, rev: int) -> list[history.Logged]:
        """The changes after a revision, pending ones included, oldest first."""
        found: list[history.Logged] = []
        if rev + 1 < self.ring.first:
            with self._readable(), self.log.buffer() as buffer:
                until = self.ring.first - 1
                found = history.changes_after(
                    buffer, len(buffer), self.log.framing, self.log.codec, rev, until, self._anchor(rev)
                )
        held = [*self.ring.since(rev), *((change.rev, change.payload) for change in self.pending if change.rev > rev)]
        for number, payload in held:
            record = self.log.codec.decode(payload, Change)
            found.append(history.Logged(number, record.a, record.u, record.diff))
        return found
