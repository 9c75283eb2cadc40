"""The whole of a file held against itself, one record at a time, from its start.

An open reads from the last snapshot on; this reads everything: the chain from the beginning, every
snapshot's checksum, chain value and state against the replay. For the offline commands, and for
whoever verifies the older part behind a running start. Reads a buffer, changes nothing.
"""

from collections.abc import Iterator
from typing import Any

from kantad.store.recovery import damaged, recover
from kantad.store.replay import Contradiction, Replayer, Start
from kantad.store.tail import Copies
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.content import same
from kantad.values.errors import Damaged
from kantad.values.framing import Bad, Frame, Framing, JsonLines, More
from kantad.values.moment import micros_of
from kantad.values.record import CHAIN_START, DECODE_ERRORS, Snapshot, SnapshotBeside


class Walk:
    """A file's records from its start, as far as they are whole; `place` is where that ends, `why` says why."""

    def __init__(self, buffer: Any, end: int, framing: Framing, codec: Codec) -> None:
        self.framing, self.codec = framing, codec
        self.replayer = Replayer(codec, Copies(buffer, framing), isinstance(framing, JsonLines))
        self.buffer, self.end = buffer, end
        self.place = framing.header
        self.why = ""
        self.changes = self.snapshots = 0
        self.oldest = 0

    def read_on_in(self, buffer: Any, end: int) -> None:
        """The same file as another buffer, longer perhaps; what was in it is what it was."""
        self.buffer, self.end, self.replayer.is_old = buffer, end, Copies(buffer, self.framing)

    def records(self) -> Iterator[Frame]:
        """Pass the records through the replayer, and give each that is whole; at the end `why` may be set."""
        while self.place < self.end:
            frame = self.framing.next(self.buffer, self.place, self.end)
            if isinstance(frame, More | Bad):
                if not self.buffer[self.place : self.end].strip(b"\n") and isinstance(self.framing, JsonLines):
                    self.place = self.end  # blank lines at the end
                    return
                self.place = frame.start
                self.why = frame.why if isinstance(frame, Bad) else "the record is incomplete"
                return
            if not self.take(frame):
                return
            yield frame

    def take(self, frame: Frame) -> bool:
        """Pass one record; whether it is whole and belongs there."""
        try:
            self.why = self._passed(frame)
        except Contradiction as error:
            self.place, self.why = error.offset, error.why
            return False
        if self.why:
            self.place = frame.start
            return False
        self.place = frame.end
        if frame.snapshot:
            self.snapshots += 1
        else:
            self.changes += 1
        return True

    def _passed(self, frame: Frame) -> str:
        if not frame.snapshot:
            return self.replayer.change(frame)
        if self.changes or self.snapshots:
            return self.replayer.snapshot(frame, compare=True)
        try:
            snapshot: Snapshot = self.codec.decode(frame.payload, Snapshot)
        except DECODE_ERRORS as error:
            return f"the snapshot that the file begins with does not decode: {error}"
        if not is_whole_snapshot(self.codec, frame.payload, snapshot):
            return "the checksum of the snapshot that the file begins with does not match"
        self.oldest = snapshot.r if snapshot.k else 0
        chain = bytes.fromhex(snapshot.h) if snapshot.h is not None else CHAIN_START
        self.replayer.begin(snapshot, frame.start, self.oldest, chain)
        return ""


class Verified:
    """What `verify` found: `walk` went as far as all is whole; `damage` is the first, `torn` in bytes."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.damage: Damaged | None = None
        self.torn = 0
        self.newline = False
        self.starts = True  # whether an open would succeed
        self.belied = False  # the snapshot beside the file says what the records do not make
        self.warnings: list[str] = []


def verify(buffer: Any, end: int, framing: Framing, codec: Codec, beside: Start | None = None) -> Verified:
    """Verify a whole file, and what the snapshot beside it says."""
    verified = Verified(walk := Walk(buffer, end, framing, codec))
    refused: Damaged | None = None
    stop = end
    try:
        found = recover(buffer, end, framing, codec)
        verified.torn, verified.newline, stop = found.torn, found.newline, found.end
        verified.warnings = [warning for warning in found.warnings if "dialects" in warning]
        del found
    except Damaged as error:
        refused, verified.starts = error, False
    for _ in walk.records():
        if beside is not None and walk.place == beside.place:
            verified.belied = not _is_shown(beside.snapshot, walk.replayer)
            beside = None
    if walk.why and verified.newline and walk.place < stop:
        _take_without_newline(walk, stop)
    if refused is not None and _same_record(walk, refused.offset):
        verified.damage = refused
    elif walk.place < stop:
        verified.damage = damaged(buffer, framing, codec, walk.place, walk.why or "the rest was not read")
    verified.warnings = walk.replayer.warnings + verified.warnings
    return verified


def _is_shown(snapshot: SnapshotBeside, replayer: Replayer) -> bool:
    """Whether a snapshot says what the records make. (Of `m` another program's snapshot before it may say nothing.)"""
    said = (snapshot.r, snapshot.v, micros_of(snapshot.ts))
    state = replayer.state if replayer.rival is None or snapshot.kanta != "0.9" else replayer.rival
    return said == (replayer.rev, replayer.v, replayer.micros) and same(snapshot.state, state)


def _same_record(walk: Walk, offset: int) -> bool:
    """Whether an offset is of the record that the walk stopped at."""
    if offset <= walk.place:
        return True
    return isinstance(walk.framing, JsonLines) and walk.buffer.find(b"\n", walk.place, offset) < 0


def _take_without_newline(walk: Walk, stop: int) -> None:
    """The last record of a JSON file, whole but for its newline."""
    snapshot = walk.buffer[walk.place : walk.place + 9] == JsonLines.PREFIX
    start = walk.place + 9 if snapshot else walk.place
    if b"\n" not in walk.buffer[start:stop]:
        walk.take(Frame(walk.place, stop, snapshot, walk.buffer[start:stop]))
