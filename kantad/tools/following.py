"""A database file read change by change, as far as it goes and then as it grows.

A `Source` is one open file and the walk through it. Only while a part is read is the file mapped.
What is read is verified as it is passed, and the state is all that is kept. A `Watch` sees each
change twice: before it is passed, with the state that it was made for, and when it is known to be
whole. Reads only; no lock.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from kantad.store.formats import format_of
from kantad.store.log import check_kind, mapped
from kantad.store.recovery import damaged, recover
from kantad.store.replay import Replayer
from kantad.store.tail import stands_before, text_end
from kantad.store.verify import Walk
from kantad.values.codec import Codec
from kantad.values.errors import Damaged
from kantad.values.framing import Frame, JsonLines
from kantad.values.record import DECODE_ERRORS


class Head(msgspec.Struct):
    """What tells where and when a snapshot is of, and whether it can be begun at."""

    ts: Any = None
    r: int = 0
    h: str | None = None
    s: str | None = None


class Watch(Protocol):
    """Who is shown the changes."""

    @property
    def done(self) -> bool:
        """Whether nothing more is wanted."""

    def foresee(self, replayer: Replayer, codec: Codec, frame: Frame) -> Any:
        """Look at a change that comes next; what it returns, `passed` is given."""

    def passed(self, replayer: Replayer, foreseen: Any) -> None:
        """The change is whole, and was applied."""


class Diverged(Exception):
    """Another history took the place of the one that was read."""


class Source:
    """An open file; `identity` is its device and inode."""

    def __init__(self, path: str, format: str | None = None) -> None:
        check_kind(os.stat(path).st_mode)
        self.path, self.format = path, format
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)
        self.walk: Walk | None = None

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    @property
    def size(self) -> int:
        """How long the file is now, in bytes."""
        return os.fstat(self.fd).st_size

    def replaced(self) -> bool:
        """Whether the path names another file by now, or this one was cut back behind what was read."""
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self.path)
            if (there.st_dev, there.st_ino) != self.identity:
                return True
        return self.walk is not None and self.size < self.walk.place

    @contextlib.contextmanager
    def open_walk(self) -> Iterator[Walk]:
        """The walk, from where it came to, over the file as long as it is now. Raises `NotOurs`."""
        with mapped(self.fd, self.size) as buffer:
            walk = self.walk
            if walk is None or not (walk.changes or walk.snapshots):  # there may have been nothing to tell the format
                walk = self.walk = Walk(buffer, len(buffer), *format_of(buffer, self.format))
            walk.read_on_in(buffer, len(buffer))
            walk.why = ""
            yield walk


def begin(walk: Walk, fits: Callable[[Head], bool]) -> None:
    """Begin at the last hashed snapshot that fits, or else with that which the file begins with, if it does.

    In a torn tail there may stand an old copy of a snapshot; it is passed over.
    """
    framing, buffer, header = walk.framing, walk.buffer, walk.framing.header
    place = framing.last_snapshot(buffer, walk.end)
    while place > header:
        frame = framing.next(buffer, place, walk.end)
        if isinstance(frame, Frame) and not stands_before(buffer, frame.payload, place):
            with contextlib.suppress(*DECODE_ERRORS):
                head: Head = walk.codec.decode(frame.payload, Head)
                if head.s is not None and head.h is not None and fits(head) and walk.take(frame):
                    return
        place = framing.last_snapshot(buffer, place)
    walk.place, walk.why = header, ""
    first = framing.next(buffer, header, walk.end)
    if isinstance(first, Frame) and first.snapshot:
        walk.take(first)


def pass_records(walk: Walk, watch: Watch) -> None:
    """Pass what there is, until the watch is done; `walk.why` says why it ended before the end, if it did."""
    while not watch.done and walk.place < walk.end:
        frame = walk.framing.next(walk.buffer, walk.place, walk.end)
        if not isinstance(frame, Frame):
            for _ in walk.records():  # there is none: it says why
                pass
            return
        if not pass_one(walk, frame, watch):
            return


def pass_one(walk: Walk, frame: Frame, watch: Watch) -> bool:
    """Pass one record; whether it is whole and belongs there."""
    foreseen = None if frame.snapshot else watch.foresee(walk.replayer, walk.codec, frame)
    if watch.done:
        return True
    before = walk.replayer.rev
    if not walk.take(frame):
        return False
    walk.replayer.warnings.clear()
    if walk.replayer.rev != before:  # a doubled record of kanta's is no change
        watch.passed(walk.replayer, foreseen)
    return True


def pass_without_newline(walk: Walk, watch: Watch) -> None:
    """Where the records end, pass one of a JSON file that is whole but for its newline, as a start would."""
    if not isinstance(walk.framing, JsonLines):
        return
    snapshot = walk.buffer[walk.place : walk.place + 9] == JsonLines.PREFIX
    start = walk.place + 9 if snapshot else walk.place
    stop = text_end(walk.framing, walk.buffer, start, walk.end)
    if stop < 0 or stop == walk.buffer.find(b"\n", walk.place, walk.end):
        return
    payload = walk.buffer[start:stop]
    if stop == walk.end or snapshot or len(walk.codec.hashed(payload)) < len(payload):  # else nothing says it ends here
        pass_one(walk, Frame(walk.place, stop, snapshot, payload), watch)


def ending(walk: Walk) -> Damaged | int:
    """What it means that a walk stopped before the end: damage, or so many bytes of a torn tail."""
    refused: Damaged | None = None
    try:
        found = recover(walk.buffer, walk.end, walk.framing, walk.codec)
        if walk.place >= found.end:
            return walk.end - walk.place
    except Damaged as error:
        refused = error
    here = damaged(walk.buffer, walk.framing, walk.codec, walk.place, walk.why)
    if refused is not None and (refused.offset <= here.offset or refused.line == here.line != 0):
        return refused
    return here


def successor(old: Source) -> Source:
    """The file that took the place of one, read up to where that was. Raises `Diverged`, `NotOurs` and OSError."""
    assert old.walk is not None
    rev, chain = old.walk.replayer.rev, old.walk.replayer.chain
    source = Source(old.path, old.format)
    try:
        with source.open_walk() as walk:
            begin(walk, lambda head: head.r <= rev)
            pass_records(walk, Until(walk, rev))
            if walk.oldest > rev:
                raise Diverged(f"it begins at revision {walk.oldest} now; revision {rev} was the last one read")
            if walk.replayer.rev < rev:
                raise Diverged(f"it ends at revision {walk.replayer.rev} now, before revision {rev}, which was read")
            if walk.replayer.chain != chain:
                raise Diverged(f"another history took its place: revision {rev} is not the one that was read")
    except BaseException:
        source.close()
        raise
    return source


class Until:
    """A watch that looks at nothing, up to a revision."""

    def __init__(self, walk: Walk, rev: int) -> None:
        self.walk, self.rev = walk, rev

    @property
    def done(self) -> bool:
        """See Watch."""
        return self.walk.replayer.rev >= self.rev

    def foresee(self, replayer: Replayer, codec: Codec, frame: Frame) -> None:
        """See Watch."""

    def passed(self, replayer: Replayer, foreseen: Any) -> None:
        """See Watch."""
