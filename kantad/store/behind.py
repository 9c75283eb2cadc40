"""What stands behind a place in a file where the records end: a count, for who is told what a cut costs.

Decides nothing, and is no more exact than what it looks at: a line or a gap that cannot be read is
taken for one record. What of it can be kept is `adoption`'s to say. Called by the repair.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.framing import BinaryFrames, Framing, JsonLines
from kantad.values.moment import micros_of
from kantad.values.record import DECODE_ERRORS, Change, Snapshot


class Behind(NamedTuple):
    """How many whole changes stand there, and what the last revision is, as far as it can be counted."""

    whole: int
    last: int


def count_behind(buffer: Any, place: int, end: int, framing: Framing, codec: Codec, rev: int, micros: int) -> Behind:
    """Count from `place` on, where the database is at this revision, and this time in microseconds."""
    whole = 0
    if isinstance(framing, BinaryFrames):
        records = _in_frames(buffer, place, end, framing, codec)
    else:
        records = _in_lines(buffer, place, end, codec)
    for record in records:
        if isinstance(record, Snapshot):
            rev = max(rev, record.r if record.k else 0)
            continue
        if record is not None:
            if record.h is not None and micros_of(record.ts) < micros:
                continue  # an old copy
            whole += 1
            rev = max(rev, record.b - 1)
        rev += 1
    return Behind(whole, rev)


def _decoded(codec: Codec, payload: bytes, snapshot: bool) -> Change | Snapshot | None:
    try:
        record: Change | Snapshot = codec.decode(payload, Snapshot if snapshot else Change)
    except DECODE_ERRORS:
        return None
    return None if isinstance(record, Snapshot) and not is_whole_snapshot(codec, payload, record) else record


def _in_lines(buffer: Any, place: int, end: int, codec: Codec) -> Iterator[Change | Snapshot | None]:
    while place < end:
        newline = buffer.find(b"\n", place, end)
        line = buffer[place : newline if newline >= 0 else end]
        place += len(line) + 1
        if line.strip(b"\0 "):
            snapshot = line.startswith(JsonLines.PREFIX)
            yield _decoded(codec, line.removeprefix(JsonLines.PREFIX), snapshot)


def _in_frames(
    buffer: Any, place: int, end: int, framing: BinaryFrames, codec: Codec
) -> Iterator[Change | Snapshot | None]:
    markers = re.compile(b"|".join(re.escape(marker) for marker in (framing.seed, framing.change_marker)))
    for match in markers.finditer(buffer, place, end):
        start = match.start()
        stop = start + framing.HEAD + int.from_bytes(buffer[start + 4 : start + 8], "little")
        if start < place or stop > end:
            continue
        record = _decoded(codec, buffer[start + framing.HEAD : stop], match.group() == framing.seed)
        if record is not None:
            if start > place:
                yield None
            yield record
            place = stop
    if place < end:
        yield None
