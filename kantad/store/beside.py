"""The snapshot beside the file: `<db>.snapshot`, a kantadb file of its own that holds one snapshot record.

It is a cache, so that a start need not replay a long log whose snapshots would take long to write into it.
Its record begins with `at`, the offset in the log where the last change in it stands. It is of use for a log that
has a change there which says the same chain value: a chain value tells one history from all others, so the
records behind it are the ones that are missing. Where that change is another program's, which says no chain value,
`log` is a hash of all that stands in the log up to there. Everything else is passed over, and the log read as if
there were no such file: one that is torn or altered (its checksum), of another database or another history, ahead of
the log (records were cut off), of a log whose offsets moved (compacted, repaired), or older than a snapshot in it.

Where records of another program stand behind it, it is passed over as well: how these are read may depend
on what stands before them. Read by `log`, by the process that makes the next one (`tools.snapshot`), by `check` and
by who replays the past. Blocking.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from blake3 import blake3

from kantad.store.disk import Disk, make_alike, write_all
from kantad.store.recovery import Recovered, recover
from kantad.store.replay import Start
from kantad.values.codec import Codec, is_whole_snapshot
from kantad.values.errors import Damaged
from kantad.values.framing import BinaryFrames, Decoded, Frame, Framing
from kantad.values.moment import micros_of
from kantad.values.record import DECODE_ERRORS, At, Change, Kept, SnapshotBeside, SnapshotHead

PART: Final = 1 << 20  # bytes written, and synced, at once: a long sync would hold up other files' syncs
_OWN = rb"at=[0-9a-f]{16}"
_BEGINNING = re.compile(rb'SNAPSHOT (?:\{"at":|%b\t)|(....)\1.{12}(?:[\x80-\x8f]\xa2at|%b\0)' % (_OWN, _OWN), re.DOTALL)


class Unusable(Exception):
    """The file beside is none that the log can be read on from, and why."""


def beside(path: str) -> str:
    """Where the snapshot beside a database file is."""
    return f"{path}.snapshot"


def temporary_name(path: str) -> str:
    """Where this process writes the next one; `disk.remove_leftovers` knows it."""
    return f"{beside(path)}.new-{os.getpid()}"


# -- reading


def recover_from(path: str, buffer: Any, end: int, framing: Framing, codec: Codec) -> Recovered:
    """What the first `end` bytes of the database file at a path hold, read on from the snapshot beside it
    where that is of use; raises `Damaged`."""
    why = ""
    try:
        found = _read_on(path, buffer, end, framing, codec)
        if found is not None:
            return found
    except Unusable as error:
        why = str(error)
    found = recover(buffer, end, framing, codec)
    if why:
        found.warnings.append(f"the snapshot {beside(path)} is not used: {why}")
    return found


def _read_on(path: str, buffer: Any, end: int, framing: Framing, codec: Codec) -> Recovered | None:
    """The same, where the snapshot beside the file is of use; None where it is not, and where there is none."""
    start = read(path, buffer, end, framing, codec)
    if start is None:
        return None
    try:
        found = recover(buffer, end, framing, codec, start)
    except Damaged:  # or the whole log says so, too
        raise Unusable("what stands behind it in the log does not follow from it") from None
    return found if not found.beside or found.hashed == found.replayed else None


def read(path: str, buffer: Any, end: int, framing: Framing, codec: Codec) -> Start | None:
    """The snapshot beside a file, whole, and of the log that these bytes are; None if there is none.

    Raises `Unusable`.
    """
    payload = _payload(path, framing)
    if payload is None:
        return None
    snapshot = _whole(payload, codec, SnapshotBeside)
    last, place = _placed(snapshot, buffer, end, framing, codec)
    return Start(snapshot, last, place, len(payload))


class Known(NamedTuple):
    """A snapshot: its revision, the time of that in microseconds, where the log is read on from it.

    With `chain`, the chain value there, it stands beside the file; else at that place.
    """

    rev: int
    micros: int
    place: int
    chain: bytes | None = None
    settled: bool = True  # nothing that will be written behind it makes it useless


Identity = tuple[int, int, int, int]


def identity(path: str) -> Identity | None:
    """Which file stands beside one: another one, or other content, has another."""
    try:
        status = os.stat(beside(path))
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def known(path: str, buffer: Any, end: int, framing: Framing, codec: Codec) -> Known | None:
    """Of which revision the snapshot beside a file is, if there is one of use; costs a tenth of reading it."""
    try:
        payload = _payload(path, framing)
        if payload is None:
            return None
        head = _whole(payload, codec, SnapshotHead)
        place = _placed(head, buffer, end, framing, codec)[1]
        settled = head.kanta is None or place < end
        return Known(head.r, micros_of(head.ts), place, bytes.fromhex(head.h), settled)
    except Unusable:
        return None


def _payload(path: str, framing: Framing) -> bytes | None:
    """The record in it. Read, not mapped: whoever cuts it short must not end us."""
    try:
        with open(beside(path), "rb") as file:
            data = file.read(64)
            if not _BEGINNING.match(data):
                raise Unusable("it is none that was made to stand beside a file")
            data += file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None
    if isinstance(framing, BinaryFrames):
        framing = BinaryFrames(data[:4])
    frame = framing.next(data, framing.header, len(data)) if len(data) > framing.header else None
    if not isinstance(frame, Frame) or not frame.snapshot or frame.end != len(data):
        raise Unusable("it is not one whole snapshot")
    return frame.payload


def _whole(payload: bytes, codec: Codec, kind: type[Any]) -> Any:
    try:
        snapshot: SnapshotBeside | SnapshotHead = codec.decode(payload, kind)
    except DECODE_ERRORS:
        raise Unusable("it does not decode") from None
    if snapshot.h is None or snapshot.s is None or not is_whole_snapshot(codec, payload, snapshot):
        raise Unusable("its checksum does not match")
    return snapshot


def _placed(
    head: SnapshotBeside | SnapshotHead, buffer: Any, end: int, framing: Framing, codec: Codec
) -> tuple[int, int]:
    """Where the last change in it begins and ends in the log.

    How it reads records of kanta's is what the first change behind it says, if there is one.
    """
    at = head.at
    if at is None or not framing.header <= at < end:
        raise Unusable("the log ends before it: it was cut short, or is another one")
    frame = framing.next(buffer, at, end)
    if not isinstance(frame, Frame) or frame.start != at or frame.snapshot:
        raise Unusable("what it holds is not what stands in this log")
    if not (says(codec, frame, head.h) if head.log is None else _hash(buffer, frame.end) == head.log):
        raise Unusable("what it holds is not what stands in this log")
    if head.kanta is not None and _says_otherwise(framing.next(buffer, frame.end, end), codec, head.kanta):
        raise Unusable("what stands behind it in the log may be read otherwise")
    return at, frame.end


def _says_otherwise(behind: Decoded, codec: Codec, kanta: str) -> bool:
    if not isinstance(behind, Frame):
        return False
    try:
        change: Change = codec.decode(behind.payload, Change)
    except DECODE_ERRORS:
        return True
    return change.kanta != kanta


def _hash(buffer: Any, end: int) -> str:
    """As `At.log`."""
    hasher = blake3()
    with memoryview(buffer) as whole:
        for start in range(0, end, PART):
            with whole[start : min(start + PART, end)] as part:
                hasher.update(part)
    return hasher.hexdigest()


def says(codec: Codec, frame: Frame, digits: str | None) -> bool:
    """Whether a record is a change with this chain value in it."""
    if frame.snapshot or len(codec.hashed(frame.payload)) == len(frame.payload):
        return False
    try:
        return codec.chain_in(frame.payload).hex() == digits
    except ValueError:
        return False


# -- writing


class Picture(NamedTuple):
    """A state to be written beside its log: what `recover` finds, and the window."""

    state: dict[str, Any]
    rev: int
    chain: bytes
    micros: int
    v: int
    m: int | None
    at: At
    kept: Kept


def spot(buffer: Any, last: int, framing: Framing, codec: Codec, chain: bytes, read_as: str) -> At:
    """What it says of its place in a log whose last change stands at `last`, and makes this chain value."""
    frame = framing.next(buffer, last, len(buffer))
    assert isinstance(frame, Frame)
    log = None if says(codec, frame, chain.hex()) else _hash(buffer, frame.end)
    return At(frame.start, log, read_as or None)


def frame_of(picture: Picture, framing: Framing, codec: Codec) -> tuple[bytes, bytes]:
    """The two parts of the file beside a log in this format: what stands before the record, and the record.

    Raises as `Codec.snapshot` does.
    """
    payload = codec.snapshot(
        *(picture.micros, picture.state, picture.rev, picture.chain),
        v=picture.v,
        m=picture.m,
        kept=picture.kept if picture.kept.ids else None,
        at=picture.at,
    )
    head = b""
    if isinstance(framing, BinaryFrames):
        framing = BinaryFrames(os.urandom(4))
        head = framing.seed
    return head, framing.frame(payload, framing.header, True)


def write(
    disk: Disk,
    path: str,
    parts: tuple[bytes, bytes],
    model: os.stat_result,
    pace: Callable[[], None] | None = None,
) -> str:
    """Write a file beside `path` under its temporary name, synced, with the owner and mode of another.

    `pace` is called before each MiB, which is synced by itself then. Returns the name. Raises OSError, and what
    `pace` raises, and then there is no file.
    """
    name = temporary_name(path)
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(name)
    fd = disk.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        try:
            make_alike(disk, model, fd)
            for piece in _pieces(parts):
                if pace is not None:
                    pace()
                write_all(disk, fd, piece)
                if pace is not None:
                    disk.sync(fd)
            disk.sync(fd)
        finally:
            disk.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(name)
        raise
    return name


def _pieces(parts: tuple[bytes, bytes]) -> Iterator[bytes | memoryview]:
    if parts[0]:
        yield parts[0]
    with memoryview(parts[1]) as view:
        for start in range(0, len(view), PART):
            with view[start : start + PART] as piece:
                yield piece


def put(disk: Disk, temporary: str, path: str) -> None:
    """Put a written one in its place, durably; for who holds the lock on the database. Raises OSError."""
    disk.rename(temporary, beside(path))
    disk.sync_folder(os.path.dirname(path) or ".")


def refuse_to_replace(path: str) -> None:
    """Raise FileExistsError where what stands beside a file is something that was not made by us."""
    try:
        with open(beside(path), "rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return
    if head.strip(b"\0") and not _BEGINNING.match(head):
        why = "there is a file of that name which is no snapshot of the server's; move it away"
        raise FileExistsError(errno.EEXIST, why, beside(path))


def remove(disk: Disk, path: str) -> None:
    """Remove the one beside a file, if it is ours: it is of no use any more. For who holds the lock."""
    with contextlib.suppress(OSError):
        refuse_to_replace(path)
        if os.path.lexists(beside(path)):
            disk.unlink(beside(path))
