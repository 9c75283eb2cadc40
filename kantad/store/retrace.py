"""The state at one revision after another: replayed from the nearest snapshot, or on from where the last one was.

A `Retrace` holds one state. `steps` brings it to a revision and gives way after each record, so that
who shares a loop can look at everything else in between. What it passes is verified as an open
verifies it: where the log is not what was written it raises `Unreadable`, never gives wrong data.

Snapshots are found from the end of the file backwards, as far as needed, and remembered. Only one
with its own checksum is begun at; one that is damaged is met, and refused, by the replay from the one
before it. Called by `answers`.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Generator, Iterator
from typing import Any, Final

from kantad.store.beside import Identity, Known, Unusable, identity, known, read
from kantad.store.dialects import Sign
from kantad.store.history import Anchor, Unreadable, chained
from kantad.store.verify import Walk
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.framing import Frame, Framing
from kantad.values.moment import micros_of
from kantad.values.record import DECODE_ERRORS, SnapshotHead

FAR: Final = 1 << 20  # bytes of log, behind which it is worth looking at the snapshot beside the file
NEAR: Final = 10_000  # revisions, within which it is not


class Gone(Exception):
    """The log begins later."""


class Retrace:
    """See the module. `end` is where the whole records end, in bytes; `oldest` the revision the file begins with.

    With `path`, the snapshot beside that file is one to begin at, too.
    """

    def __init__(
        self, buffer: Any, end: int, framing: Framing, codec: Codec, oldest: int, path: str | None = None
    ) -> None:
        self.buffer, self.end, self.framing, self.codec, self.oldest = buffer, end, framing, codec, oldest
        self.path, self.far, self.near = path, FAR, NEAR
        self.beside = 0  # the revision of the one beside the file, where the walk began with that
        self.looked_at: tuple[Identity | None, Known] | None = None  # that of use, and which it is
        self.walk: Walk | None = None
        self.known: list[Known] = []  # all from `low` to `high`
        self.low = self.high = end

    def grow(self, buffer: Any, end: int) -> None:
        """The file has become longer; what was in it is what it was."""
        self.buffer, self.end = buffer, end
        if self.walk is not None:
            self.walk.read_on_in(buffer, end)

    @property
    def state(self) -> dict[str, Any]:
        """The state that `steps` came to."""
        return {} if self.walk is None else self.walk.replayer.state

    @property
    def chain(self) -> bytes:
        """The hash chain there."""
        return b"" if self.walk is None else self.walk.replayer.chain

    def steps(self, rev: int) -> Generator[None, None, None]:
        """Bring the state to a revision, record by record; raises `Unreadable`."""
        walk, self.walk = self._begun(rev), None
        if not walk.why:
            records = walk.records()
            while walk.replayer.rev < rev and next(records, None) is not None:
                yield
        if walk.why or walk.replayer.rev != rev:
            raise Unreadable(f"byte {walk.place}: {walk.why or f'there is no revision {rev}'}")
        if self.beside and walk.replayer.hashed != rev - self.beside:
            self.path = None  # how another program's records behind it are read may depend on what stands before it
            yield from self.steps(rev)
            return
        if walk.replayer.rival is not None:
            if (yield from self._reads_as_rival(rev)):
                walk.replayer.take_rival()
            walk.replayer.rival = None
        self.walk = walk

    def _begun(self, rev: int) -> Walk:
        """The walk to go on with: the last one where that is nearer than the nearest snapshot."""
        nearest = self._last(lambda known: known.rev, rev)
        walk, self.walk = self.walk, None
        if walk is not None and (walk.replayer.rev > rev or (nearest is not None and walk.place <= nearest.place)):
            walk = None
        if walk is not None and rev - walk.replayer.rev <= self.near:
            return walk
        place = walk.place if walk is not None else self.framing.header if nearest is None else nearest.place
        beside = self._beside(place)
        if beside is not None and beside.rev <= rev:
            walk = None  # before another state is made
            walk = self._walk_beside(rev)
        if walk is None:
            self.beside = 0
            walk = self._new_walk(self.framing.header if nearest is None else nearest.place)
        return walk

    def _walk_beside(self, rev: int) -> Walk | None:
        """A walk that begins with the snapshot beside the file; None if that is of no use any more."""
        start = None
        with contextlib.suppress(Unusable):
            start = read(self.path or "", self.buffer, self.end, self.framing, self.codec)
        if start is None or start.snapshot.r > rev or start.snapshot.h is None:
            return None
        walk = Walk(self.buffer, self.end, self.framing, self.codec)
        walk.replayer.begin(start.snapshot, start.last, start.snapshot.r, bytes.fromhex(start.snapshot.h))
        walk.place, walk.snapshots, self.beside = start.place, 1, start.snapshot.r
        return walk

    def _new_walk(self, place: int) -> Walk:
        walk = Walk(self.buffer, self.end, self.framing, self.codec)
        walk.place = place
        first = self.framing.next(self.buffer, place, self.end)
        if isinstance(first, Frame) and first.snapshot:
            walk.take(first)
        return walk

    def _reads_as_rival(self, rev: int) -> Generator[None, None, bool]:
        """Whether kanta's records up to a revision that may be read in two ways turn out to be of kanta 0.9.

        What stands behind them tells, as it does at a start, so this reads on, with a state of its own.
        """
        ahead = self._new_walk(self.framing.header)
        records = ahead.records()
        taken = 0
        while next(records, None) is not None:
            yield
            if ahead.replayer.rev <= rev:
                taken = ahead.replayer.taken
            if ahead.replayer.rev >= rev and ahead.replayer.rival is None:
                return ahead.replayer.taken > taken
        return bool(ahead.replayer.seen & Sign.B)

    def moments(self, micros: int) -> Iterator[int]:
        """Revisions that are not after a time in microseconds, rising; the last one is the newest such.

        Times rise with the revisions, except that another program's records may be in any order. Raises
        `Unreadable`, and `Gone` where the log begins after that time.
        """
        nearest = self._last(lambda known: known.micros, micros)
        beside = self._beside(self.framing.header if nearest is None else nearest.place)
        if beside is not None and beside.micros <= micros:
            nearest = beside
        anchor = Anchor(self.oldest, self.framing.header, None)
        if nearest is not None:
            anchor = Anchor(nearest.rev, nearest.place, nearest.chain)
        elif self.oldest and self._begins_after(micros):
            raise Gone(f"it begins with revision {self.oldest}")
        yield anchor.rev
        for rev, _, record in chained(self.buffer, self.end, self.framing, self.codec, anchor):
            if record is not None and micros_of(record.ts) <= micros:
                yield rev
            elif record is not None and record.h is not None:
                break

    def _begins_after(self, micros: int) -> bool:
        frame = self.framing.next(self.buffer, self.framing.header, self.end)
        head = self._head(frame) if isinstance(frame, Frame) else None
        return head is not None and micros_of(head.ts) > micros

    def _last(self, key: Any, most: int) -> Known | None:
        """The last snapshot whose key is not above this."""
        self._look_up()
        while not (self.known and key(self.known[0]) <= most) and self.low > self.framing.header:
            self._look_down()
        place = bisect_right(self.known, most, key=key)
        return self.known[place - 1] if place else None

    def _beside(self, place: int) -> Known | None:
        """The snapshot beside the file, where it is so far behind a place that it is worth beginning with it."""
        if self.path is None or self.end - place <= self.far:
            return None
        which = identity(self.path)
        if self.looked_at is None or self.looked_at[0] != which:
            beside = known(self.path, self.buffer, self.end, self.framing, self.codec)
            self.looked_at = None if beside is None else (which, beside)
        if self.looked_at is None:
            return None
        beside = self.looked_at[1]
        if not beside.settled:
            self.looked_at = None
        return beside if beside.place > place + self.far else None

    def _look_up(self) -> None:
        """Find the snapshots in what was added to the file."""
        found, place = [], self.end
        while place > self.high and (place := self.framing.last_snapshot(self.buffer, place)) >= self.high:
            if (known := self._snapshot_at(place)) is not None:
                found.append(known)
        self.known += reversed(found)
        self.high = self.end

    def _look_down(self) -> None:
        """Find the next older snapshot."""
        place = self.framing.last_snapshot(self.buffer, self.low)
        self.low = place if place >= 0 else self.framing.header
        if place >= 0 and (known := self._snapshot_at(place)) is not None:
            self.known.insert(0, known)

    def _snapshot_at(self, place: int) -> Known | None:
        """The snapshot there, if it is one that can be begun at."""
        frame = self.framing.next(self.buffer, place, self.end)
        head = self._head(frame) if isinstance(frame, Frame) else None
        if not isinstance(frame, Frame) or head is None or head.s is None or head.h is None:
            return None
        return Known(head.r, micros_of(head.ts), place) if is_whole_snapshot(self.codec, frame.payload, head) else None

    def _head(self, frame: Frame) -> SnapshotHead | None:
        try:
            head: SnapshotHead = self.codec.decode(frame.payload, SnapshotHead)
        except DECODE_ERRORS:
            return None
        return head
