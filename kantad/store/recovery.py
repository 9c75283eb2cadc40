"""What is true in a file: the last snapshot, the replay of what follows, torn or damaged.

`recover` reads a buffer (a mapped file) and changes nothing; what it finds out, the log acts on.
A snapshot that does not verify is passed over for the one before it, so that the replay meets it
and `tail` decides what it is. Records without `h` are other programs' (kanta's): their dialect is
told by `dialects`, and their payload enters the chain.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from blake3 import blake3

from kantad.store.dialects import Sign, signs
from kantad.store.tail import value_end, whole_behind
from kantad.values.errors import Damaged
from kantad.values.framing import Bad, BinaryFrames, Frame, Framing, JsonLines, More
from kantad.values.patch import Unfit, apply, merge_verbatim
from kantad.values.record import (
    CHAIN_START,
    DECODE_ERRORS,
    Change,
    Codec,
    Snapshot,
    Step,
    is_whole_snapshot,
    micros_of,
)

BLOCK: Final = 4 << 20  # bytes of log decoded at a time


@dataclass
class Recovered:
    """What a file holds. Offsets and sizes in bytes, times in microseconds since the epoch."""

    state: dict[str, Any] = field(default_factory=dict)
    rev: int = 0
    chain: bytes = CHAIN_START
    v: int = 0
    m: int | None = None
    micros: int = 0  # `ts` of the last record
    oldest: int = 0  # the oldest revision whose value the file can give
    start: int = 0  # where the replay began: behind the last snapshot
    start_rev: int = 0
    start_chain: bytes = CHAIN_START
    end: int = 0  # where the whole records end
    newline: bool = False  # the last record lacks its newline
    torn: int = 0  # bytes behind `end` that were never acknowledged
    batch: int = 0  # where the last batch begins
    hashed: int = 0  # replayed records with `h`
    unverified: int = 0  # replayed records without `h` behind one that has it
    warnings: list[str] = field(default_factory=list)
    unclear: bool = False  # a record that two dialects read differently
    seen: Sign = Sign.NONE

    @property
    def replayed(self) -> int:
        """How many changes were replayed on the snapshot."""
        return self.rev - self.start_rev


def recover(buffer: Any, end: int, framing: Framing, codec: Codec) -> Recovered:
    """What the first `end` bytes of a file hold; raises `Damaged`."""
    result = Replay(buffer, end, framing, codec, Sign.A).run()
    chosen = "kanta 0.1 to 0.8"
    if result.unclear and (result.seen & Sign.B or _shows_b(buffer, result.start, framing, codec)):
        result = Replay(buffer, end, framing, codec, Sign.B).run()
        chosen = "kanta 0.9"
    if result.unclear:
        result.warnings.append(f"records that two kanta dialects read differently were read as {chosen}'s")
    return result


def _shows_b(buffer: Any, end: int, framing: Framing, codec: Codec) -> bool:
    """Whether anything before the last snapshot is a sign of kanta 0.9."""
    if end <= framing.header:
        return False
    survey = Replay(buffer, end, framing, codec, Sign.A)
    survey.from_start = True
    try:
        return bool(survey.run().seen & Sign.B)
    except Damaged:
        return False


def count_changes(buffer: Any, start: int, end: int, framing: Framing, codec: Codec) -> int:
    """How many change records stand in this part, by framing alone; a doubled kanta record counts once."""
    count, place, before = 0, start, b""
    while isinstance(found := framing.next(buffer, place, end), Frame):
        if not found.snapshot:
            foreign = len(codec.hashed(found.payload)) == len(found.payload)
            count += not (foreign and found.payload == before)
            before = found.payload
        place = found.end
    return count


class Replay:
    """One reading of a file; `default` is the dialect of records that do not tell."""

    def __init__(self, buffer: Any, end: int, framing: Framing, codec: Codec, default: Sign) -> None:
        self.buffer, self.end, self.framing, self.codec, self.default = buffer, end, framing, codec, default
        self.from_start = False
        self.certain = False  # the dialect is known: a snapshot of kanta 0.9.3 or later stands before
        self.before: tuple[int, bytes] | None = None  # the record before, where it was another program's
        self.behind_hashed = False
        self.found = Recovered()

    def run(self) -> Recovered:
        """Read it all; raises `Damaged`."""
        found = self.found
        place = self.framing.header
        first = self.framing.next(self.buffer, place, self.end)
        if isinstance(first, Frame) and first.snapshot:
            found.oldest = self._first_revision(first)
        if not self.from_start:
            place = self._start()
        found.start = found.end = found.batch = place
        found.start_rev, found.start_chain = found.rev, found.chain
        if isinstance(self.framing, JsonLines):
            place = self._run_lines(place)
        self._run_frames(place)
        return found

    def _first_revision(self, frame: Frame) -> int:
        try:
            snapshot = self.codec.decode(frame.payload, Snapshot)
        except DECODE_ERRORS:
            return 0
        return int(snapshot.r) if snapshot.k else 0

    def _start(self) -> int:
        """Take the state of the last snapshot that verifies; returns the offset behind it."""
        place = self.framing.last_snapshot(self.buffer, self.end)
        while place >= 0:
            frame = self.framing.next(self.buffer, place, self.end)
            if isinstance(frame, Frame) and frame.snapshot:
                try:
                    snapshot = self.codec.decode(frame.payload, Snapshot)
                except DECODE_ERRORS:
                    snapshot = None
                if snapshot is not None and is_whole_snapshot(self.codec, frame.payload, snapshot):
                    self._begin(snapshot, frame)
                    return frame.end
            place = self.framing.last_snapshot(self.buffer, place)
        return self.framing.header

    def _begin(self, snapshot: Snapshot, frame: Frame) -> None:
        found = self.found
        found.state, found.v = snapshot.state, snapshot.v
        found.m = micros_of(snapshot.m) if snapshot.m is not None else None
        found.micros = micros_of(snapshot.ts)
        if snapshot.k:
            self.default, self.certain = Sign.B, True
        if snapshot.s is not None and snapshot.h is not None:
            found.rev, found.chain = snapshot.r, bytes.fromhex(snapshot.h)
            self.behind_hashed = True
            return
        place, header = frame.start, self.framing.header
        found.rev = found.oldest + count_changes(self.buffer, header, place, self.framing, self.codec)
        found.chain = self._chain_to(place)
        if snapshot.k and snapshot.r > found.rev:
            found.warnings.append(
                f"the snapshot at byte {place} says revision {snapshot.r}, {found.rev} records stand before it: "
                "kanta wrote changes behind it that it holds already"
            )

    def _chain_to(self, end: int) -> bytes:
        """The chain over the records of another program's file, up to a snapshot."""
        chain, place, before = CHAIN_START, self.framing.header, b""
        while isinstance(frame := self.framing.next(self.buffer, place, end), Frame):
            if frame.snapshot:
                snapshot = self.codec.decode(frame.payload, Snapshot)
                if snapshot.h is not None:
                    chain = bytes.fromhex(snapshot.h)
            else:
                hashed = self.codec.hashed(frame.payload)
                if len(hashed) < len(frame.payload) or frame.payload != before:
                    chain = blake3(chain + hashed).digest(length=8)
                before = frame.payload
            place = frame.end
        return chain

    def _run_lines(self, place: int) -> int:
        """The fast way through JSON lines: whole blocks of hashed records. Returns where it stopped."""
        buffer, found, codec = self.buffer, self.found, self.codec
        state, rev, chain = found.state, found.rev, found.chain
        line = b""
        stop = False
        while not stop and place < self.end:
            block = buffer[place : min(place + BLOCK, self.end)]
            lines = block[: block.rfind(b"\n") + 1].split(b"\n")
            lines.pop()
            if not lines:
                break
            for line in lines:
                if line[-24:-18] != b',"h":"' or line[-2:] != b'"}':
                    stop = True
                    break
                digest = blake3(chain + line[:-24]).digest(length=8)
                try:
                    record = codec.decode(line, Step)
                    if digest.hex() != record.h:
                        stop = True
                        break
                    state = apply(state, record.diff)
                except DECODE_ERRORS:
                    stop = True
                    break
                except Unfit as error:
                    raise self._damaged(place, f"the change does not fit the state: {error}") from None
                chain = digest
                rev += 1
                place += len(line) + 1
                found.v = record.v
                if record.m is not None:
                    found.m = micros_of(record.m)
        if rev > found.rev:
            found.hashed += rev - found.rev
            self.behind_hashed = True
            self._last_line(place, rev)
        found.state, found.rev, found.chain, found.end = state, rev, chain, place
        return place

    def _last_line(self, end: int, rev: int) -> None:
        """Take the time of the last record, and where its batch begins."""
        start = self.buffer.rfind(b"\n", 0, end - 1) + 1
        last = self.codec.decode(self.buffer[start : end - 1], Change)
        self.found.micros = micros_of(last.ts)
        for _ in range(rev - last.b if last.b else 0):
            start = self.buffer.rfind(b"\n", 0, start - 1) + 1
        self.found.batch = start

    def _run_frames(self, place: int) -> None:
        """The thorough way, record by record, that everything unusual takes."""
        while place < self.end:
            frame = self.framing.next(self.buffer, place, self.end)
            if isinstance(frame, More | Bad):
                why = frame.why if isinstance(frame, Bad) else "the record is incomplete"
                self._stop_at(frame.start, why)
                return
            why = self._snapshot(frame) if frame.snapshot else self._change(frame)
            if why:
                self._stop_at(frame.start, why)
                return
            place = self.found.end = frame.end

    def _snapshot(self, frame: Frame) -> str:
        """A snapshot met in the replay; returns what is wrong with it."""
        try:
            snapshot = self.codec.decode(frame.payload, Snapshot)
        except DECODE_ERRORS as error:
            return f"the snapshot does not decode: {error}"
        if not is_whole_snapshot(self.codec, frame.payload, snapshot):
            return "the snapshot's checksum does not match"
        if snapshot.h is not None and snapshot.h != self.found.chain.hex():
            return "the snapshot's chain value is not that of the records before it"
        self.found.batch = frame.start
        self.before = None
        return ""

    def _change(self, frame: Frame) -> str:
        """Replay one change; returns what is wrong with it."""
        found = self.found
        try:
            record = self.codec.decode(frame.payload, Change)
        except DECODE_ERRORS as error:
            return f"the record does not decode: {error}"
        hashed = frame.payload if record.h is None else self.codec.hashed(frame.payload)
        chain = blake3(found.chain + hashed).digest(length=8)
        if record.h is None:
            if self.before is not None and self.before[1] == frame.payload:
                found.warnings.append(f"byte {frame.start}: a doubled record of kanta's counts once")
                return ""
            self._foreign(record, frame.start)
            if self.behind_hashed:
                found.unverified += 1
                found.warnings.append(f"byte {frame.start}: a record that another program wrote is not verified")
            self.before = (frame.start, frame.payload)
        else:
            if record.h != chain.hex():
                return self._broken_chain(frame)
            self.before = None
            self.behind_hashed = True
            found.hashed += 1
            self._known(record, frame.start)
        if not record.b:
            found.batch = frame.start
        found.rev, found.chain = found.rev + 1, chain
        found.v, found.micros = record.v, max(found.micros, micros_of(record.ts))
        if record.m is not None:
            found.m = micros_of(record.m)
        return ""

    def _broken_chain(self, frame: Frame) -> str:
        """A hash that does not match: damage for certain where the record before hid behind a lost `h`."""
        if self.before is not None and self.behind_hashed:
            raise self._damaged(
                self.before[0], "the record's chain value is damaged: the record behind it does not match"
            )
        return "the hash chain does not match: the record, or one before it, is not what was written"

    def _known(self, record: Change, place: int) -> None:
        try:
            self.found.state = apply(self.found.state, record.diff)
        except Unfit as error:
            raise self._damaged(place, f"the change does not fit the state: {error}") from None

    def _foreign(self, record: Change, place: int) -> None:
        """Replay a record without `h` in the dialect it was written in."""
        found = self.found
        shown = signs(record.diff, found.state)
        found.seen |= shown
        if shown is Sign.UNCLEAR and not self.certain:
            found.unclear = True
        if shown & Sign.A:
            self._known(record, place)
        elif shown & Sign.B or self.default is Sign.B:
            merge_verbatim(found.state, record.diff)
        else:
            self._known(record, place)

    def _stop_at(self, place: int, why: str) -> None:
        """The record at `place` is not whole: decide between a torn tail and damage."""
        found = self.found
        if isinstance(self.framing, JsonLines) and self._whole_but_for_newline(place):
            place = found.end
            why = "the newline behind the record is damaged"
            if place == self.end:
                return
        lost = found.rev + 1
        for whole in whole_behind(self.buffer, place, self.end, self.framing, self.codec, found.micros):
            if whole.snapshot or not 0 < whole.batch <= lost:
                raise self._damaged(place, f"{why}; a whole record stands behind it at byte {whole.offset}")
        found.end, found.torn = place, self.end - place

    def _whole_but_for_newline(self, place: int) -> bool:
        """Take a last JSON record whose newline is missing or flipped; whether it was one."""
        snapshot = self.buffer[place : place + 9] == JsonLines.PREFIX
        start = place + 9 if snapshot else place
        stop = value_end(self.buffer, start, self.end)
        newline = self.buffer.find(b"\n", place, self.end)
        if stop < 0 or stop == newline:
            return False
        frame = Frame(place, stop, snapshot, self.buffer[start:stop])
        if stop < self.end and len(self.codec.hashed(frame.payload)) == len(frame.payload) and not snapshot:
            return False  # without `h` nothing says that it ends here
        if self._snapshot(frame) if snapshot else self._change(frame):
            return False
        self.found.end, self.found.newline = stop, True
        return True

    def _damaged(self, place: int, why: str) -> Damaged:
        if isinstance(self.framing, BinaryFrames):
            number = count_changes(self.buffer, self.framing.header, place, self.framing, self.codec)
            return Damaged(why, offset=place, record=number + 1)
        return Damaged(why, offset=place, line=bytes(self.buffer[:place]).count(b"\n") + 1)
