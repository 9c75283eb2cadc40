"""Reading the past of a log: the changes after a revision, the chain at one, the idempotency window.

Everything here reads a mapped file and keeps nothing. An `Anchor` is a known place to count
revisions from.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from kantad.store.recovery import Recovered
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.framing import Frame, Framing, JsonLines
from kantad.values.moment import micros_of
from kantad.values.outline import outline
from kantad.values.record import CHAIN_START, DECODE_ERRORS, Change, Kept, Keyed, SnapshotHead, Step, chain_after

KEYS_MOST: Final = 100_000
KEYS_KEPT: Final = 10_000
DAY: Final = 24 * 3600 * 1_000_000


class Anchor(NamedTuple):
    """A revision, the offset of the record behind it, and the chain there (None: not known)."""

    rev: int
    offset: int
    chain: bytes | None


class Logged(NamedTuple):
    """What a conflict check needs of a change."""

    rev: int
    a: str
    u: str | None
    diff: Any


class KeyedChange(NamedTuple):
    """A keyed change: its idempotency key, fingerprint, revision, chain, time in microseconds, and, where its
    record may be held no longer, the outline of its patch."""

    key: str
    q: str
    rev: int
    chain: bytes
    micros: int
    outline: Any = None


def frames(buffer: Any, end: int, framing: Framing, codec: Codec, anchor: Anchor) -> Iterator[tuple[int, Frame]]:
    """The records behind the anchor: changes with their revision, snapshots with that before them."""
    rev, place, before = anchor.rev, anchor.offset, b""
    while isinstance(frame := framing.next(buffer, place, end), Frame):
        place = frame.end
        if not frame.snapshot:
            if frame.payload == before and len(codec.hashed(before)) == len(before):
                continue  # kanta's doubled record counts once
            rev += 1
            before = frame.payload
        yield rev, frame


class Unreadable(Exception):
    """The log is damaged where it is to be read."""


def chained(
    buffer: Any, end: int, framing: Framing, codec: Codec, anchor: Anchor
) -> Iterator[tuple[int, bytes, Change | None]]:
    """The changes behind the anchor with revision and chain, verified; a snapshot as its revision, chain and None.

    Raises `Unreadable` at a record that is not what was written, and where the records end early.
    """
    chain = anchor.chain if anchor.chain is not None or anchor.rev else CHAIN_START
    stop = anchor.offset
    try:
        for rev, frame in frames(buffer, end, framing, codec, anchor):
            stop = frame.end
            if frame.snapshot:
                head = codec.decode(frame.payload, SnapshotHead)
                if head.h is not None and chain is not None and head.h != chain.hex():
                    raise Unreadable(f"byte {frame.start}")
                chain = bytes.fromhex(head.h) if head.h is not None else chain or CHAIN_START
                yield rev, chain, None
                continue
            chain = chain_after(chain or CHAIN_START, codec.hashed(frame.payload))
            record = codec.decode(frame.payload, Change)
            if record.h is not None and record.h != chain.hex():
                raise Unreadable(f"byte {frame.start}")
            yield rev, chain, record
    except DECODE_ERRORS:
        raise Unreadable(f"byte {stop}") from None
    if stop < end and not (isinstance(framing, JsonLines) and not buffer[stop:end].strip(b"\n")):
        raise Unreadable(f"byte {stop}")


def changes_after(
    buffer: Any, end: int, framing: Framing, codec: Codec, after: int, until: int, anchor: Anchor
) -> list[Logged]:
    """The changes with revisions in (after, until]; raises `Unreadable`."""
    found = []
    for rev, _, record in chained(buffer, end, framing, codec, anchor):
        if rev > until:
            break
        if rev > after and record is not None:
            found.append(Logged(rev, record.a, record.u, record.diff))
    return found


def chain_at(buffer: Any, end: int, framing: Framing, codec: Codec, wanted: int, anchor: Anchor) -> bytes:
    """The hash chain at a revision from the anchor's on; raises `Unreadable`, also where the log does not reach it."""
    if anchor.rev == wanted and (anchor.chain is not None or wanted == 0):
        return anchor.chain or CHAIN_START
    for rev, chain, _ in chained(buffer, end, framing, codec, anchor):
        if rev == wanted:
            return chain
    raise Unreadable(f"there is no revision {wanted}")


def keyed(
    buffer: Any, end: int, framing: Framing, codec: Codec, found: Recovered, outlined: int = 0
) -> list[KeyedChange]:
    """The keyed changes of the idempotency window, oldest first; with outlines up to the revision `outlined`.

    The file is read from its end, from one snapshot to the next, and no further than the window goes. What
    is damaged in the older part is passed over: that is not a start's business. The oldest may stand in the
    snapshot that a compaction began the file with. A snapshot beside the file holds what is older than it.
    """
    mark = codec.id_mark
    kept: list[KeyedChange] = []  # newest first
    for anchor, stop in _segments(buffer, end, framing, codec, found):
        if buffer.find(mark, anchor.offset, stop) < 0:
            continue
        part = []
        for rev, frame in frames(buffer, stop, framing, codec, anchor):
            if not frame.snapshot and mark in frame.payload:
                change = _keyed_change(codec, frame.payload, rev, rev <= outlined)
                if change is not None:
                    part.append(change)
        if not _keep(kept, part):
            return kept[::-1]
    _keep(kept, _kept_before(buffer, end, framing, codec) if found.kept is None else _unpacked(found.kept))
    return kept[::-1]


def _keep(kept: list[KeyedChange], older: list[KeyedChange]) -> bool:
    """Take changes, the newest of them first, into a window that is newest first; whether all were taken."""
    for change in reversed(older):
        if len(kept) >= KEYS_MOST or (len(kept) >= KEYS_KEPT and change.micros < kept[0].micros - DAY):
            return False
        kept.append(change)
    return True


def _kept_before(buffer: Any, end: int, framing: Framing, codec: Codec) -> list[KeyedChange]:
    """The window in the snapshot that a file begins with, if a compaction wrote it."""
    first = framing.next(buffer, framing.header, end)
    if not isinstance(first, Frame) or not first.snapshot or first.payload.rfind(codec.kept_mark) < 0:
        return []
    try:
        head: SnapshotHead = codec.decode(first.payload, SnapshotHead)
        if not is_whole_snapshot(codec, first.payload, head):
            return []
        window: Kept = codec.decode(first.payload, Kept)
    except DECODE_ERRORS:
        return []
    return _unpacked(window)


def _unpacked(window: Kept) -> list[KeyedChange]:
    return [
        KeyedChange(key, q, rev, bytes.fromhex(chain), micros, outline)
        for (key, q, rev), (micros, chain, outline) in zip(window.ids, window.answers, strict=False)
    ]


def packed(changes: list[KeyedChange]) -> Kept:
    """Keyed changes as they stand in a snapshot."""
    return Kept(
        [(change.key, change.q, change.rev) for change in changes],
        [(change.micros, change.chain.hex(), change.outline) for change in changes],
    )


def _segments(buffer: Any, end: int, framing: Framing, codec: Codec, found: Recovered) -> Iterator[tuple[Anchor, int]]:
    """The parts of a file that begin at its snapshots, newest first: where each begins and where it ends."""
    yield Anchor(found.start_rev, found.start, found.start_chain), end
    if found.kept is not None:
        return
    stop = place = min(found.start, end)
    while (place := framing.last_snapshot(buffer, place)) > framing.header:
        frame = framing.next(buffer, place, stop)
        if isinstance(frame, Frame):
            with contextlib.suppress(*DECODE_ERRORS):
                head: SnapshotHead = codec.decode(frame.payload, SnapshotHead)
                if head.s is not None and head.h is not None and is_whole_snapshot(codec, frame.payload, head):
                    yield Anchor(head.r, frame.end, bytes.fromhex(head.h)), stop
                    stop = place
    if stop > framing.header:
        yield Anchor(found.oldest, framing.header, None), stop


def _keyed_change(codec: Codec, payload: bytes, rev: int, outlined: bool) -> KeyedChange | None:
    try:
        record: Keyed = codec.decode(payload, Keyed)
        if record.id is None or record.q is None or record.h is None:
            return None
        shape = outline(codec.decode(payload, Step).diff) if outlined else None
    except DECODE_ERRORS:
        return None
    return KeyedChange(record.id, record.q, rev, bytes.fromhex(record.h), micros_of(record.ts), shape)
