"""What is true in a file: the last snapshot, the replay of what follows, torn or damaged.

`recover` reads a buffer (a mapped file) and changes nothing; what it finds out, the log acts on.
The replay begins at the last snapshot that verifies. One that does not is passed over for the one
before it, so that the replay meets it and `tail` decides what it is; so is one that may be an old
copy in a torn tail. A file that begins with a snapshot was put in place whole, so that one cannot
be torn. Hashed records go by in blocks, the fast way; whatever is unusual is left to `replay`.
"""

import contextlib
import re
from binascii import hexlify
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

from blake3 import blake3

from kantad.store.dialects import Sign
from kantad.store.replay import Contradiction, Replayer, Start, single_changes
from kantad.store.tail import Copies, Last, Whole, is_doubtful, stands_before, text_end, whole_behind
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.errors import Damaged
from kantad.values.framing import Bad, BinaryFrames, Decoded, Frame, Framing, JsonLines, More
from kantad.values.moment import micros_of
from kantad.values.patch import Unfit, apply, merge
from kantad.values.record import (
    CHAIN_START,
    DECODE_ERRORS,
    Kept,
    Keyed,
    Snapshot,
    SnapshotHead,
    Step,
    chain_after,
)

BLOCK: Final = 1 << 20  # bytes of log looked at as one
_BINARY = re.compile(rb"\xa4diff[\x80-\x8f\xde\xdf]|\xa5state[\x80-\x8f\xde\xdf]")  # in no text that is UTF-8


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
    snapshot: int = 0  # bytes of that snapshot's record
    beside: bool = False  # that snapshot stands beside the file
    kept: Kept | None = None  # the idempotency window in it, if it does
    last: int = -1  # where the last change stands, if it was replayed or the snapshot is beside
    read_as: str = ""  # how some of kanta's records are read, where nothing in the file tells: see `Change.kanta`
    end: int = 0  # where the whole records end
    newline: bool = False  # the last record lacks its newline
    torn: int = 0  # bytes behind `end` that are no whole record, nor damage
    batch: int = 0  # where the last batch begins
    hashed: int = 0  # replayed records with `h`
    unverified: int = 0  # replayed records without `h` behind one that has it
    warnings: list[str] = field(default_factory=list)
    seen: Sign = Sign.NONE

    @property
    def replayed(self) -> int:
        """How many changes were replayed on the snapshot."""
        return self.rev - self.start_rev


def recover(buffer: Any, end: int, framing: Framing, codec: Codec, beside: Start | None = None) -> Recovered:
    """What the first `end` bytes of a file hold; raises `Damaged`.

    A snapshot `beside` the file is begun with unless there is a later one in it; its state is used up.
    """
    reading = Recovery(buffer, end, framing, codec, beside)
    try:
        return reading.run()
    except Damaged:
        if not reading.doubted or beside is not None:
            raise
        return Recovery(buffer, end, framing, codec, trusting=True).run()


def damaged(buffer: Any, framing: Framing, codec: Codec, place: int, why: str) -> Damaged:
    """The error that names the line (JSON) or record (MessagePack) at this offset."""
    if isinstance(framing, BinaryFrames):
        count, start = 0, framing.header
        while start < place and isinstance(frame := framing.next(buffer, start, place), Frame):
            count, start = count + 1, frame.end
        return Damaged(why, offset=place, record=count + 1)
    line = 1
    for start in range(0, place, BLOCK):
        line += buffer[start : min(start + BLOCK, place)].count(b"\n")
    return Damaged(why, offset=place, line=line)


class Recovery:
    """One reading of a file, from its last snapshot on.

    A doubtful one is passed over at first (`doubted`): if it is an old copy, what comes to light
    before it is a torn tail. If that is damage instead, the snapshot is what it seems to be, and
    the state does not depend on what stands before it: then the file is read `trusting` it.
    """

    def __init__(
        self,
        buffer: Any,
        end: int,
        framing: Framing,
        codec: Codec,
        beside: Start | None = None,
        *,
        trusting: bool = False,
    ) -> None:
        self.buffer, self.end, self.framing, self.codec, self.beside = buffer, end, framing, codec, beside
        self.replayer = Replayer(codec, Copies(buffer, framing), isinstance(framing, JsonLines))
        self.found = Recovered()
        self.json = isinstance(framing, JsonLines)
        self.trusting, self.doubted = trusting, False

    def run(self) -> Recovered:
        """Read it; raises `Damaged`."""
        found, replayer = self.found, self.replayer
        found.oldest = self._oldest()
        place = self._start()
        found.start = found.end = place
        found.start_rev, found.start_chain = replayer.rev, replayer.chain
        if place == self.framing.header:
            replayer.batch = place
        try:
            self._run(place)
        except Contradiction as error:
            raise self._damaged(error.offset, error.why) from None
        if replayer.rival is not None:
            self._choose_dialect()
        for name in ("state", "rev", "chain", "v", "m", "micros", "batch", "hashed", "unverified", "seen"):
            setattr(found, name, getattr(replayer, name))
        if found.beside and found.hashed:
            found.read_as = ""  # the first of those says it
        found.newline = self.json and found.end > 0 and self.buffer[found.end - 1 : found.end] != b"\n"
        found.warnings += replayer.warnings
        return found

    def _oldest(self) -> int:
        """The revision of the snapshot that the file begins with."""
        frame = self.framing.next(self.buffer, self.framing.header, self.end)
        if not isinstance(frame, Frame) or not frame.snapshot:
            return 0
        with contextlib.suppress(*DECODE_ERRORS):
            head: SnapshotHead = self.codec.decode(frame.payload, SnapshotHead)
            if head.s is not None and is_whole_snapshot(self.codec, frame.payload, head):
                return head.r if head.k else 0  # the checksum says that it decodes
        snapshot = self._whole_snapshot(frame.payload)
        return snapshot.r if snapshot is not None and snapshot.k else 0

    def _whole_snapshot(self, payload: bytes) -> Snapshot | None:
        try:
            snapshot: Snapshot = self.codec.decode(payload, Snapshot)
        except DECODE_ERRORS:
            return None
        return snapshot if is_whole_snapshot(self.codec, payload, snapshot) else None

    # -- where to begin

    def _start(self) -> int:
        """Take the state of the last snapshot that verifies; returns the offset behind it."""
        least = 0 if self.beside is None else self.beside.place
        place = self.framing.last_snapshot(self.buffer, self.end, least)
        while place >= 0:
            at = self._snapshot_at(place)
            if at is not None:
                snapshot, frame = at
                first = place == self.framing.header
                if first or not self.json or self._is_trusted(frame):
                    self._begin(snapshot, frame, first)
                    return frame.end
            place = self.framing.last_snapshot(self.buffer, place, least)
        if self.beside is not None:
            return self._begin_beside(self.beside)
        if self._begins_with_snapshot():
            raise self._damaged(self.framing.header, "the snapshot that the file begins with is damaged")
        return self.framing.header

    def _is_trusted(self, frame: Frame) -> bool:
        """Whether a snapshot line is this log's, and no old copy in a torn tail."""
        if stands_before(self.buffer, frame.payload, frame.start):
            return False
        if self.trusting or not is_doubtful(self.buffer, frame.start, self.framing, self.codec):
            return True
        self.doubted = True
        return False

    def _begins_with_snapshot(self) -> bool:
        if self.json:
            head = self.buffer[: min(len(JsonLines.PREFIX), self.end)]
            return bool(head) and JsonLines.PREFIX.startswith(head)
        return bool(self.buffer[4:8] == self.buffer[:4])

    def _snapshot_at(self, place: int) -> tuple[Snapshot, Frame] | None:
        """The whole snapshot there, also a JSON one whose newline is missing or damaged."""
        frame = self.framing.next(self.buffer, place, self.end)
        if isinstance(frame, Frame) and (snapshot := self._whole_snapshot(frame.payload)) is not None:
            return snapshot, frame
        start = place + len(JsonLines.PREFIX)
        lines = self.framing if isinstance(self.framing, JsonLines) else None
        stop = -1 if lines is None else text_end(lines, self.buffer, start, self.end)
        if stop >= 0 and (snapshot := self._whole_snapshot(self.buffer[start:stop])) is not None:
            return snapshot, Frame(place, stop, True, self.buffer[start:stop])
        return None

    def _begin(self, snapshot: Snapshot, frame: Frame, first: bool) -> None:
        self.found.snapshot = frame.end - frame.start
        if snapshot.s is not None and snapshot.h is not None:
            rev, chain = snapshot.r, bytes.fromhex(snapshot.h)
        elif first:
            rev, chain = snapshot.r if snapshot.k else 0, CHAIN_START
        else:
            rev, chain = self._counted(frame.start)
        if snapshot.k and snapshot.r > rev:
            self.replayer.warnings.append(
                f"the snapshot at byte {frame.start} says revision {snapshot.r}, {rev} changes stand before it: "
                "kanta wrote changes behind it that it holds already"
            )
        self.replayer.begin(snapshot, frame.start, rev, chain)

    def _begin_beside(self, beside: Start) -> int:
        snapshot, found = beside.snapshot, self.found
        assert snapshot.h is not None
        found.snapshot, found.beside, found.last = beside.size, True, beside.last
        found.read_as = snapshot.kanta or ""
        found.kept = Kept(snapshot.ids, snapshot.answers)
        self.replayer.begin(snapshot, beside.last, snapshot.r, bytes.fromhex(snapshot.h))
        return beside.place

    def _counted(self, end: int) -> tuple[int, bytes]:
        """The revision and the chain at a snapshot of another program's: of all the records before it."""
        rev, chain, place = self.found.oldest, CHAIN_START, self.framing.header
        for frame in single_changes(self.buffer, self.framing.header, end, self.framing, self.codec):
            if not frame.snapshot:
                rev, chain = rev + 1, chain_after(chain, self.codec.hashed(frame.payload))
            elif (snapshot := self._whole_snapshot(frame.payload)) is not None and snapshot.h is not None:
                rev, chain = snapshot.r, bytes.fromhex(snapshot.h)
            place = frame.end
        stop = self.framing.next(self.buffer, place, end)
        if isinstance(stop, Bad):
            raise self._damaged(stop.start, f"{stop.why}; the revision behind it cannot be counted")
        return rev, chain

    # -- the replay

    def _run(self, place: int) -> None:
        """Replay to the end: hashed records in blocks, everything else one by one."""
        while place < self.end:
            frame = self.framing.next(self.buffer, place, self.end)
            if self._is_hashed(frame):
                place = self.found.end = self._run_blocks(frame.start)
                if place > frame.start:
                    continue
            if isinstance(frame, More | Bad):
                why = frame.why if isinstance(frame, Bad) else "the record is incomplete"
                self._stop_at(frame.start, why)
                return
            why = self.replayer.snapshot(frame) if frame.snapshot else self.replayer.change(frame)
            if why:
                self._stop_at(frame.start, why)
                return
            if not frame.snapshot:
                self.found.last = frame.start
            place = self.found.end = frame.end

    def _is_hashed(self, frame: Decoded) -> bool:
        """Whether a block may begin with this: looking at one for each of another program's records takes minutes."""
        if self.replayer.rival is not None or not isinstance(frame, Frame) or frame.snapshot:
            return False
        return len(self.codec.hashed(frame.payload)) < len(frame.payload)

    def _run_blocks(self, place: int) -> int:
        """Replay hashed changes as long as all is as it should be; returns where it stopped."""
        replayer, decode = self.replayer, self.codec.decoder(Step)
        before, behind, more = self.codec.h_mark, self.codec.closing, self.framing.extra
        length = len(before) + 16 + len(behind)
        state, rev, chain, batch, m = replayer.state, replayer.rev, replayer.chain, replayer.batch, None
        payload = last = b""
        stop = False
        while not stop and (payloads := self.framing.changes(self.buffer[place : place + BLOCK], place)):
            for payload in payloads:
                digest = blake3(chain + payload[:-length]).digest(length=8)
                if payload[-length:] != before + hexlify(digest) + behind:
                    stop = True
                    break
                try:
                    record = decode(payload)
                    if "$replace" in (diff := record.diff):
                        state = apply(state, diff)
                    else:
                        merge(state, diff)
                except DECODE_ERRORS:
                    stop = True
                    break
                except Unfit as error:
                    raise Contradiction(place, f"the change does not fit the state: {error}") from None
                chain, last = digest, payload
                rev += 1
                if not record.b:
                    batch = place
                if record.m is not None:
                    m = record.m
                place += len(payload) + more
        if last:
            self.found.last = place - len(last) - more
            replayer.hashed += rev - replayer.rev
            replayer.behind_hashed, replayer.before = True, None
            replayer.state, replayer.rev, replayer.chain, replayer.batch = state, rev, chain, batch
            replayer.v = decode(last).v
            replayer.m = replayer.m if m is None else micros_of(m)
            replayer.micros = max(replayer.micros, micros_of(self.codec.decode(last, Keyed).ts))
        return place

    def _choose_dialect(self) -> None:
        """Nothing told how to read some of kanta's records: as 0.9's if the file has any sign of 0.9."""
        replayer = self.replayer
        self.found.read_as, chosen = "0.1", "kanta 0.1 to 0.8"
        if replayer.seen & Sign.B or self._shows_b():
            self.found.read_as, chosen = "0.9", "kanta 0.9"
        replayer.settle(self.found.read_as)
        self.found.warnings.append(f"records that two kanta dialects read differently were read as {chosen}'s")

    def _shows_b(self) -> bool:
        """Whether anything before the replay is a sign of kanta 0.9."""
        survey = Replayer(self.codec, lambda frame: False, self.json)
        try:
            for frame in single_changes(self.buffer, self.framing.header, self.found.start, self.framing, self.codec):
                if survey.snapshot(frame) if frame.snapshot else survey.change(frame):
                    return False
        except Contradiction:
            return False
        return bool(survey.seen & Sign.B)

    # -- the end

    def _stop_at(self, place: int, why: str) -> None:
        """The record at `place` is not whole: decide between a torn tail and damage."""
        found, replayer = self.found, self.replayer
        if self.json and self._whole_but_for_newline(place):
            place, why = found.end, "the newline behind the record is damaged"
            if place == self.end:
                return
        elif place == self.framing.header and not self._may_be_ours(place):
            raise self._damaged(place, f"{why}, and it does not begin as a record does: is it a kantadb?")
        with contextlib.closing(self._behind(place)) as behind:  # else a traceback would keep the map open
            for whole in behind:
                if whole.snapshot or not 0 < whole.batch <= replayer.rev + 1:
                    raise self._damaged(place, f"{why}; a whole record stands behind it at byte {whole.offset}")
        found.end, found.torn = place, self.end - place

    def _behind(self, place: int) -> Generator[Whole, None, None]:
        last = Last(self.replayer.micros, self.replayer.chain)
        return whole_behind(self.buffer, place, self.end, self.framing, self.codec, last)

    def _may_be_ours(self, place: int) -> bool:
        """Whether the first record may be the torn first write to a new file.

        A file in MessagePack or a format of one's own is put in place whole: where its records stand behind zeros,
        its beginning was lost.
        """
        if self.json and (self.codec.name != "json" or _BINARY.search(self.buffer, place, self.end)):
            return False
        begin = b'{"ts":"' if self.json else bytes(~byte & 0xFF for byte in self.buffer[:4])
        head = self.buffer[place : min(place + len(begin), self.end)]
        return begin.startswith(head) or head[:1] == b"\0"

    def _whole_but_for_newline(self, place: int) -> bool:
        """Take a JSON record whose newline is missing or flipped; whether it was one."""
        snapshot = self.buffer[place : place + 9] == JsonLines.PREFIX
        start = place + 9 if snapshot else place
        assert isinstance(self.framing, JsonLines)
        stop = text_end(self.framing, self.buffer, start, self.end)
        newline = self.buffer.find(b"\n", place, self.end)
        if stop < 0 or stop == newline:
            return False
        frame = Frame(place, stop, snapshot, self.buffer[start:stop])
        if stop < self.end and len(self.codec.hashed(frame.payload)) == len(frame.payload) and not snapshot:
            return False  # without `h` nothing says that it ends here
        if self.replayer.snapshot(frame) if snapshot else self.replayer.change(frame):
            return False
        self.found.end = stop
        if not snapshot:
            self.found.last = place
        return True

    def _damaged(self, place: int, why: str) -> Damaged:
        return damaged(self.buffer, self.framing, self.codec, place, why)
