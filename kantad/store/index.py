"""Where in the file the revisions stand: a sparse index, built when it is asked for.

An entry is an `Anchor`: a revision, the offset of the record behind it, the chain there; there is
one at most every 64 KiB. What was in the file at the start is scanned on demand, a step of a few
hundred KiB at a time, so that nobody waits for it who does not read the past; what is written since
is noted as it is written. The file is read with `pread`, not mapped: a file that is cut short under us
is an error to report, not a SIGBUS, and the pages read are not counted as our memory.

Reading is blocking and is done by the caller's thread; decoding is not and may be done elsewhere.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, Self

from kantad.store.history import Anchor, Unreadable
from kantad.store.log import Log
from kantad.store.recovery import Recovered
from kantad.values.codec import Codec
from kantad.values.framing import Frame, More
from kantad.values.record import CHAIN_START, DECODE_ERRORS, SnapshotHead, chain_after

SPACING: Final = 64 << 10  # bytes between two entries, at least
STEP: Final = 256 << 10  # bytes read at once


class Written(Protocol):
    """A change that is in the file."""

    @property
    def rev(self) -> int:
        """Its revision."""

    @property
    def payload(self) -> bytes:
        """Its record."""

    @property
    def chain(self) -> bytes:
        """The hash chain at it."""


class Part:
    """A stretch of the file between two known places, scanned as far as its last anchor."""

    def __init__(self, begin: Anchor, end: int, last: int) -> None:
        self.anchors = [begin]
        self.end, self.last = end, last  # the offset where it ends, and the last revision in it
        self.before = b""  # the record before the last anchor, where it was another program's
        self.damage: Unreadable | None = None  # what stands behind the last anchor

    @property
    def scanned(self) -> bool:
        """Whether all of it was."""
        return self.anchors[-1].offset >= self.end

    def find(self, rev: int) -> tuple[Anchor, int] | None:
        """The last anchor before the record of a revision, and where its block ends; None if not scanned so far."""
        place = bisect_right(self.anchors, rev - 1, key=lambda anchor: anchor.rev) - 1
        if place + 1 < len(self.anchors):
            return self.anchors[place], self.anchors[place + 1].offset
        return None


class Index:
    """The parts of one file: before the snapshot that the start began with, from there on, and written since.

    `first` is where the file begins, `middle` a place behind which it is likely to be read, `live` its end.
    """

    def __init__(self, log: Log, first: Anchor, middle: Anchor, live: Anchor) -> None:
        self.fd, self.framing, self.codec = log.fd, log.framing, log.codec  # the log may become another file
        self.parts = [
            Part(first, middle.offset, middle.rev),
            Part(middle, live.offset, live.rev),
            Part(live, live.offset, live.rev),
        ]

    @classmethod
    def at_start(cls, log: Log, found: Recovered) -> Self:
        """That of a log that was just opened."""
        first = Anchor(found.oldest, log.framing.header, CHAIN_START if found.oldest == 0 else None)
        middle = Anchor(found.start_rev, found.start, found.start_chain)
        return cls(log, first, middle, Anchor(found.rev, log.size, found.chain))

    def wrote(self, changes: Sequence[Written], end: int) -> None:
        """These changes were written, and the file ends behind them."""
        live, extra = self.parts[-1], self.framing.extra
        live.last, live.end = changes[-1].rev, end
        if end - live.anchors[-1].offset < SPACING:
            return
        place = end - sum(len(change.payload) + extra for change in changes)
        for change in changes:
            place += len(change.payload) + extra
            if place - live.anchors[-1].offset >= SPACING:
                live.anchors.append(Anchor(change.rev, place, change.chain))

    def part(self, rev: int) -> Part:
        """The part that the record of a revision stands in."""
        return next((part for part in self.parts if rev <= part.last), self.parts[-1])

    def find(self, rev: int) -> tuple[Anchor, int] | None:
        """Where to read for the record of a revision: an anchor before it and the end of that block.

        None where the part has to be scanned further first.
        """
        part = self.part(rev)
        found = part.find(rev)
        if found is None and part is self.parts[-1]:
            return part.anchors[-1], part.end
        return found

    def read(self, offset: int, end: int) -> bytes:
        """The bytes of the file between two offsets; blocks. Raises `Unreadable` and OSError."""
        pieces = []
        while offset < end:
            piece = os.pread(self.fd, end - offset, offset)
            if not piece:
                raise Unreadable(f"the file ends at byte {offset}")
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def next_step(self, part: Part, size: int = STEP) -> tuple[int, int]:
        """The offsets to read for `scan`."""
        start = part.anchors[-1].offset
        return start, min(part.end, start + size)

    def scan(self, part: Part, data: bytes) -> bool:
        """Note anchors in what was read for the next step; False if it holds no whole record: read more.

        The chain is verified, so that revisions are never counted across damage. There the last anchor is
        noted, and the part's `damage`. Raises that where it stood already.
        """
        if part.damage is not None:
            raise part.damage
        begin = last = part.anchors[-1]
        before = part.before
        try:
            for last, before in self._places(part, data):
                if last.offset - part.anchors[-1].offset >= SPACING:
                    part.anchors.append(last)
                    part.before = before
            ended = begin.offset + len(data) >= part.end
            if ended and last.offset < part.end and data[last.offset - begin.offset :].strip(b"\n"):
                raise Unreadable(f"byte {last.offset}")
            if ended and last.rev != part.last:
                raise Unreadable(f"byte {part.end}: {part.last} changes were counted, {last.rev} stand there")
        except Unreadable as error:
            part.damage, ended = error, False
        if ended:
            last = Anchor(last.rev, part.end, last.chain)
        if last.offset > part.anchors[-1].offset and (ended or part.damage is not None or part.anchors[-1] is begin):
            part.anchors.append(last)
            part.before = before
        return ended or part.damage is not None or last is not begin

    def _places(self, part: Part, data: bytes) -> Iterator[tuple[Anchor, bytes]]:
        """The places behind each record of what was read, with the record where it was another program's."""
        begin, codec = part.anchors[-1], self.codec
        chain, rev, before = begin.chain, begin.rev, part.before
        for frame in self.frames(data, begin.offset):
            payload = frame.payload
            if frame.snapshot:
                chain, before = self._chain_of_snapshot(frame, chain), b""
            elif len(hashed := codec.hashed(payload)) < len(payload):
                chain, before = chain_behind(codec, chain, payload, hashed, begin.offset + frame.start), b""
                rev += 1
            elif payload != before:  # kanta's doubled record counts once
                chain, rev, before = chain_after(chain or CHAIN_START, payload), rev + 1, payload
            yield Anchor(rev, begin.offset + frame.end, chain), before

    def frames(self, data: bytes, base: int) -> Iterator[Frame]:
        """The whole records in a part of the file that begins at `base`; raises `Unreadable`."""
        place = 0
        while place < len(data):
            frame = self.framing.next(data, place, len(data), base)
            if isinstance(frame, More):
                return
            if not isinstance(frame, Frame):
                raise Unreadable(f"byte {base + frame.start}: {frame.why}")
            place = frame.end
            yield frame

    def _chain_of_snapshot(self, frame: Frame, chain: bytes | None) -> bytes:
        try:
            head = self.codec.decode(frame.payload, SnapshotHead)
        except DECODE_ERRORS:
            raise Unreadable("a snapshot does not decode") from None
        if head.h is None or (chain is not None and head.h == chain.hex()):
            return chain or CHAIN_START
        if chain is not None:
            raise Unreadable("a snapshot is not of the records before it")
        return bytes.fromhex(head.h)


def chain_behind(codec: Codec, chain: bytes | None, payload: bytes, hashed: bytes, place: int) -> bytes:
    """The chain behind a record that says its own; raises `Unreadable` where that is another."""
    if chain is None:
        return codec.chain_in(payload)
    chain = chain_after(chain, hashed)
    if codec.with_chain(payload, chain.hex().encode()) != payload:  # as text: it may be no digits any more
        raise Unreadable(f"byte {place}")
    return chain
