"""A log's records, one after another: the state they make, and whether each is what was written.

A `Replayer` knows no file: it is given frames in order and says of each what is wrong with it.
Whether that means a torn tail or damage is `recovery`'s question; what is damage wherever the file
ends is raised as `Contradiction`. Records without `h` are other programs' (kanta's): their dialect
is told by `dialects`; where nothing tells, both readings are kept, as `state` (A) and `rival` (B),
until a snapshot, a sign, or a record of ours that says it (`kanta`) decides. Called by recovery, history and
the offline commands.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

from blake3 import blake3

from kantad.store.dialects import Sign, signs
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.content import same
from kantad.values.framing import Frame, Framing
from kantad.values.moment import micros_of
from kantad.values.patch import Unfit, apply, merge_verbatim
from kantad.values.record import CHAIN_START, DECODE_ERRORS, Change, Snapshot, SnapshotBeside

Reading = Callable[[dict[str, Any], dict[Any, Any]], Any]  # of a patch: the state that it makes of one


class Contradiction(Exception):
    """What stands at this offset cannot be, whatever follows it."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset, self.why = offset, why


class Start(NamedTuple):
    """A snapshot that stands elsewhere (see `beside`), whole, with `r` and `h`, and of this log.

    `last` is where the last change in it stands in the log, `place` is behind that; `size` are the bytes of its record.
    """

    snapshot: SnapshotBeside
    last: int
    place: int
    size: int


class Replayer:
    """The database while its log is read. Times in microseconds since the epoch, `batch` an offset in bytes."""

    def __init__(self, codec: Codec, is_old: Callable[[Frame], bool], lines: bool = False) -> None:
        self.codec = codec
        self.lines = lines  # whether each record is a line of text
        self.is_old = is_old  # whether a record is a copy of one that stands before it in the file
        self.state: dict[str, Any] = {}
        self.rival: dict[str, Any] | None = None
        self.taken = 0  # how often `rival` was
        self.rev = 0
        self.chain = CHAIN_START
        self.v = 0
        self.m: int | None = None
        self.micros = 0
        self.batch = 0  # where the last batch begins
        self.hashed = 0
        self.unverified = self.unchained = 0  # records without `h`: behind one that has it, before all of those
        self.behind_hashed = False
        self.doubled = 0
        self.seen = Sign.NONE
        self.certain = False  # a snapshot with `k` stands before: records that do not tell are B
        self.before: tuple[int, bytes] | None = None  # the record before, where it was another program's
        self.warnings: list[str] = []

    def begin(self, snapshot: Snapshot, place: int, rev: int, chain: bytes) -> None:
        """Start from a snapshot that verified, at this revision and chain."""
        self.state, self.rival = snapshot.state, None
        self.rev, self.chain, self.batch = rev, chain, place
        self._take_snapshot(snapshot)
        self.behind_hashed = snapshot.h is not None

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        self.v, self.micros = snapshot.v, max(self.micros, micros_of(snapshot.ts))
        if snapshot.m is not None:
            self.m = micros_of(snapshot.m)
        self.certain = self.certain or bool(snapshot.k)

    def snapshot(self, frame: Frame, compare: bool = False) -> str:
        """Pass a snapshot that stands between the changes; returns what is wrong with it.

        With `compare` its state is held against the replayed one as well; that of another program's
        snapshot always is, and it wins, for that program went on from it.
        """
        try:
            snapshot: Snapshot = self.codec.decode(frame.payload, Snapshot)
        except DECODE_ERRORS as error:
            return f"the snapshot does not decode: {error}"
        if not is_whole_snapshot(self.codec, frame.payload, snapshot):
            return "the snapshot's checksum does not match"
        if snapshot.h is not None and snapshot.h != self.chain.hex():
            return self._suspect() or "the snapshot's chain value is not that of the records before it"
        if snapshot.h is not None and snapshot.r != self.rev:
            return f"the snapshot says revision {snapshot.r}, the records before it make {self.rev}"
        foreign = snapshot.h is None
        if foreign and micros_of(snapshot.ts) <= self.micros and self.is_old(frame):
            return "the snapshot is an old copy of one before it"
        self._decide(snapshot)
        if (compare or foreign) and not same(self.state, snapshot.state):
            if not foreign:
                return "the snapshot's state is not what the records before it make"
            self._adopt(snapshot, frame.start)
        self._take_snapshot(snapshot)
        self.batch, self.before = frame.start, None
        return ""

    def _decide(self, snapshot: Snapshot) -> None:
        """Of two readings take the one that equals the snapshot."""
        if self.rival is not None:
            if not same(self.state, snapshot.state) and same(self.rival, snapshot.state):
                self.take_rival()
            self.rival = None

    def take_rival(self) -> None:
        """Read the unclear records as kanta 0.9's."""
        if self.rival is not None:
            self.state, self.rival = self.rival, None
            self.taken += 1

    def settle(self, kanta: str) -> None:
        """Read the unclear records as this kanta's."""
        if kanta == "0.9":
            self.take_rival()
        self.rival = None

    def _adopt(self, snapshot: Snapshot, place: int) -> None:
        """Another program's snapshot differs from the replay: it is what that program went on from."""
        why = "it may hold changes that stand behind it" if snapshot.k else "that program read its own log differently"
        self.warnings.append(
            f"byte {place}: kanta's snapshot is not what the records before it make ({why}); it is taken as it is"
        )
        self.state = snapshot.state

    def change(self, frame: Frame) -> str:
        """Replay one change; returns what is wrong with it, and raises `Contradiction`."""
        try:
            record: Change = self.codec.decode(frame.payload, Change)
        except DECODE_ERRORS as error:
            return f"the record does not decode: {error}"
        foreign = record.h is None
        hashed = frame.payload if foreign else self.codec.hashed(frame.payload)
        chain = blake3(self.chain + hashed).digest(length=8)
        if foreign:
            if self.before is not None and self.before[1] == frame.payload:
                self.doubled += 1
                self.warnings.append(f"byte {frame.start}: a doubled record of kanta's counts once")
                return ""
            if self.without_lost_h(frame.payload) is not None:
                return "its chain field is damaged"
            if micros_of(record.ts) <= self.micros and self.is_old(frame):
                return "the record is an old copy of one before it"
            self._foreign(record, frame.start)
            self.before = (frame.start, frame.payload)
        else:
            if record.h != chain.hex():
                return (
                    self._suspect() or "its chain value does not match: it, or one before it, is not what was written"
                )
            self.before = None
            self.behind_hashed = True
            self.hashed += 1
            if record.kanta is not None:
                self.settle(record.kanta)
            self._each(apply, record.diff, frame.start)
        if not record.b:
            self.batch = frame.start
        self.rev, self.chain = self.rev + 1, chain
        self.v, self.micros = record.v, max(self.micros, micros_of(record.ts))
        if record.m is not None:
            self.m = micros_of(record.m)
        return ""

    def without_lost_h(self, payload: bytes) -> bytes | None:
        """One of our lines with a damaged mark of `h`, without it; None where it is none. Of a frame the checksum
        tells."""
        return self.codec.lost_h(payload, self.chain) if self.lines else None

    def _suspect(self) -> str:
        """After a hash that does not match: damage for certain where the record before hides a lost `h`."""
        if self.before is not None and self.behind_hashed:
            raise Contradiction(
                self.before[0], "its chain value is damaged, or it was inserted: the record behind it does not match"
            )
        return ""

    def _foreign(self, record: Change, place: int) -> None:
        """Replay a record without `h` in the dialect it was written in."""
        if self.behind_hashed:
            self.unverified += 1
            self.warnings.append(f"byte {place}: a record that another program wrote is not verified")
        else:
            self.unchained += 1
        shown = signs(record.diff, self.state)
        self.seen |= shown
        if shown & Sign.A:
            self._each(apply, record.diff, place)
        elif shown & Sign.B or self.certain:
            self._each(_verbatim, record.diff, place)
        elif shown is Sign.UNCLEAR:
            if self.rival is None:
                self.rival = deepcopy(self.state)
            self._each(apply, record.diff, place, _verbatim)
        else:
            self._each(apply, record.diff, place)

    def _each(self, read: Reading, diff: dict[Any, Any], place: int, as_rival: Reading | None = None) -> None:
        """Apply a patch to both readings, which share nothing of it; one that it does not fit is dropped."""
        if self.rival is not None:
            try:
                self.rival = (as_rival or read)(self.rival, deepcopy(diff))
            except Unfit:
                self.rival = None
        try:
            self.state = read(self.state, diff)
        except Unfit as error:
            if self.rival is None:
                raise Contradiction(place, f"the change does not fit the state: {error}") from None
            self.take_rival()
        if type(self.state) is not dict:
            raise Contradiction(place, "the change makes something else than an object of the root")


def _verbatim(state: dict[str, Any], patch: dict[Any, Any]) -> dict[str, Any]:
    merge_verbatim(state, patch)
    return state


def single_changes(buffer: Any, start: int, end: int, framing: Framing, codec: Codec) -> Iterator[Frame]:
    """The records of a part by framing alone, kanta's doubled changes once."""
    place, before = start, b""
    while isinstance(frame := framing.next(buffer, place, end), Frame):
        place = frame.end
        if not frame.snapshot:
            if frame.payload == before and len(codec.hashed(before)) == len(before):
                continue
            before = frame.payload
        else:
            before = b""
        yield frame
