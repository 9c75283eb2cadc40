"""Reading the past of a log: the changes after a revision, the chain and the state at one, the idempotency window.

Everything here reads a mapped file and keeps nothing. An `Anchor` is a known place to count
revisions from.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from kantad.store.recovery import Recovered, damaged
from kantad.store.replay import Replayer
from kantad.store.verify import Walk
from kantad.values.codec import Codec
from kantad.values.framing import Frame, Framing, JsonLines
from kantad.values.moment import micros_of
from kantad.values.record import CHAIN_START, DECODE_ERRORS, Change, Keyed, SnapshotHead, chain_after

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
    """A keyed change: its idempotency key, fingerprint, revision, chain, and time in microseconds."""

    key: str
    q: str
    rev: int
    chain: bytes
    micros: int


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


def keyed(buffer: Any, end: int, framing: Framing, codec: Codec, found: Recovered) -> list[KeyedChange]:
    """The keyed changes of the idempotency window, oldest first."""
    if isinstance(framing, JsonLines):
        newest_first = _keyed_lines(buffer, end, codec, found.rev)
    elif buffer.find(b"\xa2id") < 0:
        return []
    else:
        anchor = Anchor(found.oldest, framing.header, None)
        newest_first = reversed(
            [
                (rev, frame.payload)
                for rev, frame in frames(buffer, end, framing, codec, anchor)
                if not frame.snapshot and b"\xa2id" in frame.payload
            ]
        )
    kept: list[KeyedChange] = []
    for rev, payload in newest_first:
        try:
            record = codec.decode(payload, Keyed)
        except DECODE_ERRORS:
            continue  # damage in the older part is not a start's business
        if record.id is None or record.q is None or record.h is None:
            continue
        micros = micros_of(record.ts)
        if len(kept) >= KEYS_MOST or (len(kept) >= KEYS_KEPT and micros < kept[0].micros - DAY):
            break
        kept.append(KeyedChange(record.id, record.q, rev, bytes.fromhex(record.h), micros))
    kept.reverse()
    return kept


def _keyed_lines(buffer: Any, end: int, codec: Codec, rev: int) -> Iterator[tuple[int, bytes]]:
    """The lines that may hold an `id`, newest first, with their revisions, by searching backwards."""
    counted = end
    while (hit := buffer.rfind(b',"id":"', 0, counted)) >= 0:
        start = buffer.rfind(b"\n", 0, hit) + 1
        stop = buffer.find(b"\n", hit, counted)
        behind = buffer[stop + 1 : counted]
        rev -= behind.count(b"\n") - behind.count(b"\nSNAPSHOT ") - behind.startswith(b"SNAPSHOT ")
        counted = start
        if buffer[start : start + 9] != JsonLines.PREFIX:
            yield rev, buffer[start:stop]
            rev -= 1


def state_at(buffer: Any, end: int, framing: Framing, codec: Codec, rev: int) -> Replayer:
    """The database at a revision, replayed from the nearest snapshot before it.

    Raises KeyError where the file does not hold the revision, and `Damaged`. `end` is where the
    whole records end, in bytes.
    """
    walk = Walk(buffer, end, framing, codec)
    _begin_near(walk, rev)
    first = framing.next(buffer, walk.place, end)
    if not walk.snapshots and isinstance(first, Frame) and first.snapshot:
        walk.take(first)
    records = walk.records()
    while walk.replayer.rev < rev and not walk.why and next(records, None) is not None:
        pass
    if walk.why:
        raise damaged(buffer, framing, codec, walk.place, walk.why)
    if walk.replayer.rev != rev:
        raise KeyError(rev)
    return walk.replayer


def _begin_near(walk: Walk, rev: int) -> None:
    """Begin at the last hashed snapshot that is not after the revision, if there is one."""
    place = walk.framing.last_snapshot(walk.buffer, walk.end)
    while place > walk.framing.header:
        frame = walk.framing.next(walk.buffer, place, walk.end)
        if isinstance(frame, Frame):
            with contextlib.suppress(*DECODE_ERRORS):
                head = walk.codec.decode(frame.payload, SnapshotHead)
                if head.s is not None and head.h is not None and head.r <= rev and walk.take(frame):
                    return
        place = walk.framing.last_snapshot(walk.buffer, place)


def revision_at(buffer: Any, end: int, framing: Framing, codec: Codec, micros: int, oldest: int) -> int:
    """The last revision not after a time in microseconds; `oldest` where all changes are after it."""
    found = oldest
    for rev, frame in frames(buffer, end, framing, codec, Anchor(oldest, framing.header, None)):
        if not frame.snapshot:
            if micros_of(codec.decode(frame.payload, Keyed).ts) > micros:
                break
            found = rev
    return found
