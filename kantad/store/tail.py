"""Torn tail or damage: what the bytes mean that are no whole record.

A torn tail was never acknowledged: an incomplete or damaged record with no whole record behind
it, or only such whole records behind it whose `b` says that the damaged one is of their batch (a
disk may persist the second page of a batch and lose the first). Anything else is damage, and an
open refuses it. So the question is whether a whole record stands behind the first bad byte.

In JSON a record is looked for where one can begin: at the start of a line, or one byte behind the
end of the JSON value that stands where a line began (its newline was flipped). Text inside a
record never qualifies: it holds no raw newline, and its brackets are not balanced there. Old
bytes are told by their time, which never runs backwards in a file, and by a chain value that the
file has already. In MessagePack a frame is whole where the checksum keyed with its offset holds.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kantad.values.framing import BinaryFrames, Framing, JsonLines
from kantad.values.record import DECODE_ERRORS, Change, Codec, Snapshot, is_whole_snapshot, micros_of

_TOKENS = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


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


def whole_behind(buffer: Any, bad: int, end: int, framing: Framing, codec: Codec, micros: int) -> Iterator[Whole]:
    """The whole records behind the bad byte, the stale ones (older than `micros`) left out."""
    payloads: Iterable[tuple[int, bytes, bool]]
    if isinstance(framing, BinaryFrames):
        payloads = ((f.start, f.payload, f.snapshot) for f in framing.behind(buffer, bad + 1, end))
    else:
        payloads = _json_behind(buffer, bad, end)
    for offset, payload, snapshot in payloads:
        try:
            record = codec.decode(payload, Snapshot if snapshot else Change)
        except DECODE_ERRORS:
            continue
        if snapshot and not is_whole_snapshot(codec, payload, record):
            continue
        if isinstance(framing, JsonLines) and _stale(buffer, bad, record, micros):
            continue
        yield Whole(offset, 0 if snapshot else record.b, snapshot)


def _stale(buffer: Any, bad: int, record: Any, micros: int) -> bool:
    """Whether a record is an old copy: from before the last good one, or with a chain value that is there already."""
    if micros_of(record.ts) < micros:
        return True
    return record.h is not None and buffer.rfind(b',"h":"%b"' % record.h.encode(), 0, bad) >= 0


def _json_behind(buffer: Any, bad: int, end: int) -> Iterator[tuple[int, bytes, bool]]:
    for place in _beginnings(buffer, bad, end):
        snapshot = buffer[place : place + 9] == JsonLines.PREFIX
        start = place + 9 if snapshot else place
        newline = buffer.find(b"\n", start, end)
        stop = value_end(buffer, start, newline if newline >= 0 else end)
        if stop >= 0:
            yield place, buffer[start:stop], snapshot


def _beginnings(buffer: Any, bad: int, end: int) -> Iterator[int]:
    """Where a record may begin behind `bad`: at line starts, and behind a value whose newline was flipped."""
    line = bad
    while line < end:
        newline = buffer.find(b"\n", line, end)
        stop = newline if newline >= 0 else end
        if line > bad:
            yield line
        else:
            yield from (place for place in (bad + 1,) if buffer[place : place + 1] in (b"{", b"S"))
        start = line + 9 if buffer[line : line + 9] == JsonLines.PREFIX else line
        behind = value_end(buffer, start, stop)
        while 0 <= behind < stop - 1:
            yield behind + 1
            behind = value_end(buffer, behind + 1, stop)
        line = stop + 1
