"""A log written anew from a revision on, and put in the place of the old one. The file work of a compaction.

The new file is a snapshot of the *cut*, the oldest revision that is kept, and behind it the old file's
records as they are: in JSON byte for byte, in MessagePack framed anew, for a frame's checksum is keyed with
its offset and the file's seed (a new one: whatever old blocks a disk may show, none passes for a record).
The chain goes on, so cursors from the cut on stay what they are. Every record behind the cut is as long as
it was, so that all offsets move by one number, `Rewritten.shift`.

It is written under another name, `<db>.compacting.new-<pid>`, while the old file may grow at its end; what
came to it is copied in further rounds. The old file's part up to the cut is kept as a database of its own
(`keep_archive`), durably, before the new file takes its place (`swap_in`). The order there: the new file
synced, and locked by who will serve it; renamed over the old one; the folder synced. Before the rename the
path is the old file, which lacks nothing; after it the new one, which has everything that was promised.
Who opens the path meanwhile meets a lock in either case, or, where the old file's lock was let go after it
was opened, sees that the path is another file by now (`log.open_existing`).

Blocking; nothing here knows the event loop. Called by `kantad compact`, by the process that a server has
for it (`tools.rewrite`), and for the last round by the server's writer thread.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec

from kantad.store.disk import Disk, make_alike, place, write_all
from kantad.store.history import Unreadable, keyed, packed
from kantad.store.log import mapped
from kantad.store.recovery import Recovered
from kantad.store.retrace import Gone, Retrace
from kantad.store.verify import Walk
from kantad.values.codec import Codec
from kantad.values.framing import BinaryFrames, Frame, Framing, JsonLines
from kantad.values.record import DECODE_ERRORS, Kept, SnapshotHead
from kantad.values.retention import Retention

PART: Final = 1 << 20  # bytes copied, and synced, at once: a long sync would hold up other files' syncs


class Ambiguous(Exception):
    """Records of another program behind the cut would be read otherwise without what stands before them."""


class Rewritten(msgspec.Struct):
    """A log in its new form, as far as it is written. Offsets and sizes in bytes.

    `rev`, `chain` and `micros` are of the cut. Of the old file, `place` is where the records behind the cut
    begin, and `source` how far they are copied; of the new one, `start` is where they begin, `size` where it ends.
    """

    rev: int
    chain: bytes
    micros: int
    place: int
    start: int
    source: int
    size: int
    seed: bytes

    @property
    def shift(self) -> int:
        """What is to be subtracted from an offset in the old file."""
        return self.place - self.start

    def framing(self, old: Framing) -> Framing:
        """How the new file is framed, where the old one is framed so: frames with a seed of their own."""
        return BinaryFrames(self.seed) if self.seed else old


def temporary_name(path: str) -> str:
    """Where this process writes the new form of a file; `disk.remove_leftovers` knows it."""
    return f"{path}.compacting.new-{os.getpid()}"


class Old:
    """A log that is to be compacted: the first `end` bytes of it, mapped."""

    def __init__(
        self, buffer: Any, end: int, framing: Framing, codec: Codec, oldest: int, path: str | None = None
    ) -> None:
        self.buffer, self.end, self.framing, self.codec, self.oldest = buffer, end, framing, codec, oldest
        self.path = path  # of the file, beside which there may be a snapshot

    def cut(self, retain: Retention, newest: int, now: int) -> int:
        """The revision to cut at, not older than the oldest; raises `Unreadable`. `now` in microseconds."""
        if retain.revisions is not None:
            return max(self.oldest, newest - retain.revisions)
        try:
            return max(self._retrace().moments(now - retain.micros))
        except Gone:
            return self.oldest

    def at(self, rev: int) -> Walk:
        """The log replayed up to a revision, and past what belongs to it; raises `Unreadable`."""
        retrace = self._retrace()
        for _ in retrace.steps(rev):
            pass
        walk = retrace.walk
        if walk is None:
            raise Unreadable(f"there is no revision {rev}")
        while isinstance(frame := self.framing.next(self.buffer, walk.place, self.end), Frame):
            if not (self._is_ours(frame) if frame.snapshot else self._is_double(walk, frame)):
                break
            walk.place = frame.end
        return walk

    def _retrace(self) -> Retrace:
        return Retrace(self.buffer, self.end, self.framing, self.codec, self.oldest, self.path)

    def _is_ours(self, frame: Frame) -> bool:
        """Whether a snapshot right behind the cut says what the new one will; kanta's may differ from the replay."""
        try:
            head: SnapshotHead = self.codec.decode(frame.payload, SnapshotHead)
        except DECODE_ERRORS:
            return False  # it is copied, and found out
        return head.h is not None

    def _is_double(self, walk: Walk, frame: Frame) -> bool:
        """Whether this is kanta's doubled record, which counts once."""
        before = walk.replayer.before
        return before is not None and before[1] == frame.payload

    def keys(self, cut: int) -> Kept | None:
        """The part of the idempotency window whose records are cut off."""
        found = Recovered(oldest=self.oldest, start=self.end, end=self.end)
        window = [
            change for change in keyed(self.buffer, self.end, self.framing, self.codec, found, cut) if change.rev <= cut
        ]
        if not window:
            return None
        return packed(window)

    def is_ambiguous(self, cut: int) -> bool:
        """Whether some record behind the cut is read in one of two ways because of what stands before it."""
        walk = self.at(cut)
        if walk.replayer.certain:
            return False
        return any(walk.replayer.rival is not None for _ in walk.records())


class Rewriting:
    """A new file in the making: created by `begin`, gone on with by `resume`, in another process as well."""

    def __init__(self, disk: Disk, codec: Codec, fd: int, old: Framing, done: Rewritten) -> None:
        self.disk, self.codec, self.fd, self.old, self.done = disk, codec, fd, old, done
        self.framing = done.framing(old)
        self.unsynced = 0

    @classmethod
    def begin(
        cls, disk: Disk, path: str, old: Old, walk: Walk, kept: Kept | None, model: os.stat_result
    ) -> "Rewriting":
        """Write the snapshot of the cut, where `walk` stands, to a new file at `path`, owned as `model` is.

        Raises OSError, and then there is no new file.
        """
        replayer = walk.replayer
        payload = old.codec.snapshot(
            replayer.micros, replayer.state, replayer.rev, replayer.chain, v=replayer.v, m=replayer.m, kept=kept
        )
        seed = os.urandom(4) if isinstance(old.framing, BinaryFrames) else b""
        done = Rewritten(
            replayer.rev, replayer.chain, replayer.micros, walk.place, len(seed), walk.place, len(seed), seed
        )
        fd = create(disk, path, model)
        try:
            made = cls(disk, old.codec, fd, old.framing, done)
            head = seed + made.framing.frame(payload, done.size, True)
            done.size = 0
            made.write(head)
        except BaseException:
            discard(disk, path, fd)
            raise
        done.start = done.size
        return made

    @classmethod
    def resume(cls, disk: Disk, path: str, codec: Codec, old: Framing, done: Rewritten) -> "Rewriting":
        """Go on with a file that another process began."""
        fd = disk.open(path, os.O_RDWR | os.O_APPEND)
        if disk.fstat(fd).st_size != done.size:
            disk.close(fd)
            raise OSError(0, "the new file is not as long as it was said to be", path)
        return cls(disk, codec, fd, old, done)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, a part at a time, each synced: other files' syncs wait for ours."""
        with memoryview(data) as view:
            for start in range(0, len(view), PART):
                with view[start : start + PART] as part:
                    write_all(self.disk, self.fd, part)
                    self.unsynced += len(part)
                    self.done.size += len(part)
                if self.unsynced >= PART:
                    self.sync()

    def copy(self, buffer: Any, end: int) -> None:
        """Copy the old file's records up to `end`; what stands there is whole, and does not change any more."""
        done = self.done
        pieces = self._verbatim(buffer, end) if isinstance(self.old, JsonLines) else self._framed(buffer, end)
        for piece in pieces:
            self.write(piece)
        done.source = end

    def _verbatim(self, buffer: Any, end: int) -> Iterator[bytes]:
        for start in range(self.done.source, end, PART):
            yield buffer[start : min(start + PART, end)]

    def _framed(self, buffer: Any, end: int) -> Iterator[bytes]:
        place, frames, size = self.done.source, [], 0
        while place < end:
            frame = self.old.next(buffer, place, end)
            if not isinstance(frame, Frame):
                raise Unreadable(f"byte {frame.start}")
            frames.append(self.framing.frame(frame.payload, self.done.size + size, frame.snapshot))
            place, size = frame.end, size + len(frames[-1])
            if size >= PART:
                yield b"".join(frames)
                frames, size = [], 0
        yield b"".join(frames)

    def sync(self) -> None:
        """Have the disk hold what was written."""
        self.disk.sync(self.fd)
        self.unsynced = 0

    def close(self) -> None:
        """Close the file."""
        self.disk.close(self.fd)


def create(disk: Disk, path: str, model: os.stat_result) -> int:
    """A new file for appending, with the owner, group and mode of another; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(path)
    fd = disk.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
    try:
        make_alike(disk, model, fd)
    except BaseException:
        discard(disk, path, fd)
        raise
    return fd


def discard(disk: Disk, path: str, fd: int) -> None:
    """Close a file that came to nothing, and remove it if that can be done."""
    disk.close(fd)
    with contextlib.suppress(OSError):
        disk.unlink(path)


def rewrite(disk: Disk, path: str, old: Old, cut: int, newest: tuple[int, bytes], model: os.stat_result) -> Rewriting:
    """Write a log, whose newest revision and chain these are, anew from a cut on, sync it, and read it back.

    Raises `Unreadable`, `Ambiguous` and OSError; then there is no new file.
    """
    made = Rewriting.begin(disk, path, old, old.at(cut), old.keys(cut), model)
    try:
        made.copy(old.buffer, old.end)
        made.sync()
        with mapped(made.fd, made.done.size) as buffer:
            foreign = prove(buffer, made.done.size, made.framing, old.codec, *newest)
        if foreign and old.is_ambiguous(cut):
            raise Ambiguous
    except BaseException:
        discard(disk, path, made.fd)
        raise
    return made


def prove(buffer: Any, end: int, framing: Framing, codec: Codec, rev: int, chain: bytes) -> int:
    """Read a new file from its start to its end, as a check does, and count what other programs wrote.

    Raises `Unreadable` where it does not come to this revision and chain.
    """
    walk = Walk(buffer, end, framing, codec)
    for _ in walk.records():
        pass
    if walk.why:
        raise Unreadable(f"byte {walk.place}: {walk.why}")
    if (walk.replayer.rev, walk.replayer.chain) != (rev, chain):
        raise Unreadable(f"it came to revision {walk.replayer.rev} instead of {rev}")
    return walk.replayer.unverified


def archive_name(path: str, buffer: Any, done: Rewritten) -> tuple[str, bool]:
    """Where the old file up to the cut is to be kept: `<stem>@<time of its last record>.kantadb`, numbered if need be.

    Also whether it is there already (a compaction stopped after it was made).
    """
    stem = path.removesuffix(".kantadb")
    moment = datetime.fromtimestamp(done.micros // 1_000_000, UTC)
    stamp = f"{moment:%Y%m%dT%H%M%S}.{done.micros % 1_000_000:06d}Z"
    number = 0
    while True:
        name = f"{stem}@{stamp}{f'.{number}' if number else ''}.kantadb"
        if not os.path.lexists(name):
            return name, False
        if _holds(name, buffer, done.place):
            return name, True
        number += 1


def keep_archive(disk: Disk, path: str, name: str, buffer: Any, done: Rewritten, model: os.stat_result) -> None:
    """Keep the old file up to the cut under this name, durably; raises OSError, and then there is none."""
    parts = (buffer[start : min(start + PART, done.place)] for start in range(0, done.place, PART))
    prepare = partial(make_alike, disk, model)
    try:
        place(disk, name, parts, replace=False, prepare=prepare, hidden=f"{path}.archive", gently=True)
    except FileExistsError:
        raise
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(name)
        raise


def _holds(name: str, buffer: Any, size: int) -> bool:
    """Whether a file is these bytes."""
    try:
        with open(name, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            return all(file.read(PART) == buffer[start : min(start + PART, size)] for start in range(0, size, PART))
    except OSError:
        return False


class Unsettled(Exception):
    """The new file is in its place, but the disk did not say that it stays there."""


def swap_in(disk: Disk, temporary: str, path: str, fd: int) -> None:
    """Put a synced file, which is locked before anybody can find it, in the place of the old one.

    Raises OSError where the old one is still there, and `Unsettled` where nobody knows.
    """
    disk.lock(fd)
    disk.rename(temporary, path)
    try:
        disk.sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        raise Unsettled(str(error)) from error
