"""Torn tail or damage: what the bytes mean that are no whole record.

A torn tail is an incomplete or damaged record with no whole record behind it, or only such whole
records behind it whose `b` says that the damaged one is of their batch (a disk may persist the
second page of a batch and lose the first). A crash leaves nothing else, and what it leaves so was
never acknowledged. Whoever alters the last record, or cuts a copy short, leaves the same: the file
cannot tell, so the bytes are kept. Anything else is damage, and an open refuses it. So the question
is whether a whole record stands behind the first bad byte.

In JSON a record is looked for where one can begin: at the start of a line, or one byte behind the
end of the JSON value that stands where a line began (its newline was flipped). Text inside a
record never qualifies: it holds no raw newline, and its brackets are not balanced there. In
MessagePack a frame is whole where the checksum keyed with its offset holds, or, because a record
lost or doubled before it would have moved it, where its chain value follows from the one before it.

Old bytes (of this file or another that used the same disk blocks) are told by their time, which
never runs backwards in a file, and by standing in the file already.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final, NamedTuple

from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.framing import OWN_ENDING, BinaryFrames, Frame, Framing, JsonLines
from kantad.values.moment import micros_of
from kantad.values.record import DECODE_ERRORS, Change, Keyed, Snapshot, chain_after

_TOKENS = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BEGINNINGS = re.compile(rb'\n(?:SNAPSHOT )?\{"ts":"([^"\n]{20,30})"')

UNPROMISED: Final = (
    "an interrupted write that was never acknowledged, unless the file was altered or cut short from outside"
)
COPY_WINDOW: Final = 256 << 20  # how far back a copy's original is looked for, bytes (measured: 25 ms)
OWN_WINDOW: Final = 1 << 20  # the same where each record has to be decoded for its time
TIME_WINDOW: Final = 8 << 20  # how far back the times before a snapshot are looked at (measured: 20 ms)


class Last(NamedTuple):
    """The last good record: its time, the chain behind it."""

    micros: int
    chain: bytes


class Whole(NamedTuple):
    """A whole record behind the damage: its offset, and the first revision of its batch (0: not said)."""

    offset: int
    batch: int
    snapshot: bool


def value_end(buffer: Any, start: int, end: int) -> int:
    """Where the JSON object that begins at `start` ends, or -1. Strings are skipped as units."""
    if buffer[start : start + 1] != b"{":
        return -1
    depth, place = 0, start
    while match := _TOKENS.search(buffer, place, end):
        token, place = match.group(), match.end()
        if token == b'"':
            closing = _STRING_END.match(buffer, place, end)
            if closing is None:
                return -1
            place = closing.end()
        elif token in b"{[":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return place
    return -1


def text_end(framing: JsonLines, buffer: Any, start: int, end: int) -> int:
    """Where the text of the record that begins at `start` ends, or -1: JSON's, or that of an own format."""
    if not framing.own:
        return value_end(buffer, start, end)
    found = OWN_ENDING.search(buffer, start, end)
    return -1 if found is None else found.end()


def whole_behind(
    buffer: Any, bad: int, end: int, framing: Framing, codec: Codec, last: Last
) -> Generator[Whole, None, None]:
    """The whole records behind the bad byte, old copies left out."""
    for sound in _sound(buffer, bad, bad + 1, end, framing, codec, last):
        snapshot = isinstance(sound.record, Snapshot)
        yield Whole(sound.offset, 0 if snapshot else sound.record.b, snapshot)


class Sound(NamedTuple):
    """A record that stands somewhere behind damage: its offset, payload, and what it decodes to."""

    offset: int
    payload: bytes
    record: Any


def records_from(buffer: Any, bad: int, end: int, framing: Framing, codec: Codec, last: Last) -> Iterator[Sound]:
    """The records from the bad byte on that may be adopted, none overlapping another.

    In JSON that is any line that decodes, also the one at the bad byte: somebody may have edited it.
    """
    done = bad
    if isinstance(framing, JsonLines):
        snapshot = buffer[bad : bad + 9] == JsonLines.PREFIX
        start = bad + 9 if snapshot else bad
        stop = text_end(framing, buffer, start, end)
        sound = _decoded(codec, bad, buffer[start:stop], snapshot) if stop >= 0 else None
        if sound is not None and not _is_old(buffer, sound.payload, sound.record, bad, last):
            yield sound
            done = stop
    for sound in _sound(buffer, bad, bad, end, framing, codec, last):
        if sound.offset >= done:
            yield sound
            done = sound.offset + len(sound.payload)


def _decoded(codec: Codec, offset: int, payload: bytes, snapshot: bool) -> Sound | None:
    try:
        record = codec.decode(payload, Snapshot if snapshot else Change)
    except DECODE_ERRORS:
        return None
    if snapshot and not is_whole_snapshot(codec, payload, record):
        return None
    return Sound(offset, payload, record)


def _sound(buffer: Any, bad: int, start: int, end: int, framing: Framing, codec: Codec, last: Last) -> Iterator[Sound]:
    candidates: Iterable[tuple[int, bytes, bool, bool]]
    if isinstance(framing, BinaryFrames):
        candidates = _frames_behind(buffer, start, end, framing, codec, last)
    else:
        assert isinstance(framing, JsonLines)
        candidates = _lines_behind(buffer, bad, end, framing)
    for offset, payload, snapshot, certain in candidates:
        sound = _decoded(codec, offset, payload, snapshot)
        if sound is not None and (certain or not _is_old(buffer, payload, sound.record, bad, last)):
            yield sound


def _is_old(buffer: Any, payload: bytes, record: Any, bad: int, last: Last) -> bool:
    """Whether a record is an old copy. That time never runs backwards holds for records with `h` only."""
    if record.h is not None and micros_of(record.ts) < last.micros:
        return True
    return stands_before(buffer, payload, bad)


def stands_before(buffer: Any, payload: bytes, place: int) -> bool:
    """Whether this payload stands in the file already, before `place` (as far back as the window goes)."""
    return int(buffer.rfind(payload, max(0, place - COPY_WINDOW), place)) >= 0


class Copies:
    """Whether a record is a copy of one that stands before it, asked of a file's records one after another.

    Searching costs what stands before, which is little where it is asked of a tail. Where a clock once ran
    ahead it is asked of every record of another program's, so from then on their hashes are kept.
    """

    SEARCHES: Final = 16

    def __init__(self, buffer: Any, framing: Framing) -> None:
        self.buffer, self.framing = buffer, framing
        self.place, self.asked = framing.header, 0
        self.hashes: set[int] = set()

    def __call__(self, frame: Frame) -> bool:
        """Whether this one is."""
        self.asked += 1
        if self.asked > self.SEARCHES:
            while isinstance(before := self.framing.next(self.buffer, self.place, frame.start), Frame):
                self.hashes.add(hash(before.payload))
                self.place = before.end
            if self.place == frame.start and hash(frame.payload) not in self.hashes:
                return False
        return stands_before(self.buffer, frame.payload, frame.start)


def is_doubtful(buffer: Any, place: int, framing: Framing, codec: Codec) -> bool:
    """Whether the snapshot line at `place` may be an old copy in a torn tail: time runs backwards
    before it, or a line is no record. Damage in the part before it has the same look."""
    own = isinstance(framing, JsonLines) and framing.own
    start = int(buffer.find(b"\n", max(0, place - (OWN_WINDOW if own else TIME_WINDOW)), place))
    if start < 0:
        return False
    if own:
        return not _rise(buffer[start + 1 : place].splitlines(), codec)
    window = buffer[start : place + len(JsonLines.PREFIX) + 64]
    times = _BEGINNINGS.findall(window)
    lines = window[: place - start].count(b"\n")
    return lines != len(times) or times != sorted(times)


def _rise(lines: list[bytes], codec: Codec) -> bool:
    """Whether these are all records, and none is earlier than the one before it."""
    before = 0
    for line in lines:
        try:
            micros = micros_of(codec.decode(line.removeprefix(JsonLines.PREFIX), Keyed).ts)
        except DECODE_ERRORS:
            return False
        if micros < before:
            return False
        before = micros
    return True


def _lines_behind(buffer: Any, bad: int, end: int, framing: JsonLines) -> Iterator[tuple[int, bytes, bool, bool]]:
    for place in _beginnings(buffer, bad, end, framing):
        snapshot = buffer[place : place + 9] == JsonLines.PREFIX
        start = place + 9 if snapshot else place
        newline = buffer.find(b"\n", start, end)
        stop = text_end(framing, buffer, start, newline if newline >= 0 else end)
        if stop >= 0:
            yield place, buffer[start:stop], snapshot, False


def _beginnings(buffer: Any, bad: int, end: int, framing: JsonLines) -> Iterator[int]:
    """Where a record may begin behind `bad`: at line starts, and behind a value whose newline was flipped."""
    line = bad
    while line < end:
        newline = buffer.find(b"\n", line, end)
        stop = newline if newline >= 0 else end
        if line > bad:
            yield line
        elif framing.own or buffer[line + 1 : line + 2] in (b"{", b"S"):
            yield line + 1
        start = line + 9 if buffer[line : line + 9] == JsonLines.PREFIX else line
        behind = text_end(framing, buffer, start, stop)
        while 0 <= behind < stop - 1:
            yield behind + 1
            behind = text_end(framing, buffer, behind + 1, stop)
        line = stop + 1


def _frames_behind(
    buffer: Any, start: int, end: int, framing: BinaryFrames, codec: Codec, last: Last
) -> Iterator[tuple[int, bytes, bool, bool]]:
    """The frames from `start` on that are whole: in their place, or moved but in the chain."""
    markers = re.compile(b"|".join(re.escape(marker) for marker in (framing.seed, framing.change_marker)))
    for match in markers.finditer(buffer, start, end):
        place = match.start()
        head = buffer[place : min(place + framing.HEAD, end)]
        stop = place + framing.HEAD + int.from_bytes(head[4:8], "little")
        if len(head) < framing.HEAD or stop > end:
            continue
        snapshot = head[:4] == framing.seed
        payload = buffer[place + framing.HEAD : stop]
        if framing.frame(payload, place, snapshot)[: framing.HEAD] == head:
            yield place, payload, snapshot, True
        elif not snapshot and len(codec.hashed(payload)) < len(payload):
            before = buffer[place - 16 : place] if buffer[place - 19 : place - 16] == codec.h_mark else b""
            if _follows(codec, payload, before, last.chain):
                yield place, payload, snapshot, False
        elif snapshot and payload[-19:-16] == codec.s_mark:
            yield place, payload, snapshot, False  # moved; its own checksum tells whether it is whole


def _follows(codec: Codec, payload: bytes, before: bytes, chain: bytes) -> bool:
    """Whether a record's chain value follows from the one that stands before it, or from the last good one."""
    hashed, own = codec.hashed(payload), payload[-16:]
    if chain_after(chain, hashed).hex().encode() == own:
        return True
    try:
        return chain_after(bytes.fromhex(before.decode()), hashed).hex().encode() == own
    except ValueError:
        return False
