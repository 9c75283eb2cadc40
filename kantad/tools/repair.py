"""Mend a damaged database file: cut it at the first damage, or adopt what stands behind it.

With `--adopt`, each further whole record that fits the state is kept and chained anew; a snapshot
that verifies brings back what the lost records had changed, as a change of its own. Revisions behind
the damage may be lower than they were, and cursors from there on are not of this history any more.

The original stays beside it as `<file>.before-repair-<time>`. The result is built under another
name, synced and renamed: whenever it stops, the file is the original or the result, with the same
owner and mode. Needs the lock. Exit status 0: mended, or whole as it was; 2: no such file, it may not be
written, or the result cannot be given to its owner; 65: no kantadb; 74: the disk failed; 75: locked.
"""

import argparse
import contextlib
import errno
import os
from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from functools import partial
from shlex import quote
from typing import Any, Final, TextIO

from kantad.logs import escaped
from kantad.store.adoption import Adoption
from kantad.store.behind import Behind, count_behind
from kantad.store.disk import Disk, RealDisk, make_alike, place, remove_leftovers
from kantad.store.log import Locked, NotOurs, first_frame, format_of, mapped, open_existing
from kantad.store.verify import Verified, Walk, verify
from kantad.tools.flags import add_format
from kantad.tools.refusals import BROKEN, refused
from kantad.values.codec import Codec
from kantad.values.framing import Framing, JsonLines
from kantad.values.moment import now_micros

OK = 0
PART: Final = 1 << 20  # bytes copied at a time
MOST_RANGES: Final = 20  # of revisions that are named


class Unsettled(Exception):
    """The result is in its place, but the disk did not say that it stays there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad repair`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    parser.add_argument("--adopt", action="store_true", help="keep what stands behind the damage, as far as it fits")


def run(args: argparse.Namespace, out: TextIO, err: TextIO, disk: Disk | None = None) -> int:
    """Repair a file and say what was done; returns the exit status."""
    disk = disk or RealDisk()
    path, name = os.path.realpath(args.file), escaped(args.file)
    try:
        fd = open_existing(path, disk)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        try:
            remove_leftovers(disk, path)
            return _repair(path, name, fd, args, disk, out)
        finally:
            disk.close(fd)
    except Unsettled as error:
        why = "the disk failed: it is mended, but may not be after a power cut; the original is kept as"
        print(f"{name}: {why} {escaped(str(error))}", file=err)
        return BROKEN
    except (FileNotFoundError, Locked) as error:
        return refused(name, error, err)
    except (NotOurs, OSError) as error:
        return refused(name, error, err, "; the file is as it was")


def _repair(path: str, name: str, fd: int, args: argparse.Namespace, disk: Disk, out: TextIO) -> int:
    size = disk.fstat(fd).st_size
    with mapped(fd, size) as buffer:
        framing, codec = format_of(buffer, args.format)
        verified = verify(buffer, size, framing, codec)
        if verified.damage is None and not verified.torn:
            print(f"{name} is whole: nothing was done", file=out)
            return OK
        _go_back(verified)
        walk = verified.walk
        behind = count_behind(buffer, walk.place, size, framing, codec, walk.replayer.rev, walk.replayer.micros)
        if not behind.whole and _is_something_else(buffer, walk):
            raise NotOurs("it is no kantadb: nothing in it is a record, and it does not begin as one")
        adoption = Adoption(buffer, size, framing, codec, walk) if args.adopt else None
        copy = f"{path}.before-repair-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        with contextlib.closing(_parts(buffer, verified, framing, codec, adoption)) as parts:
            _swap(path, fd, copy, parts, disk)
    why = verified.damage or f"a torn tail of {verified.torn} bytes"
    print(f"{name}: {escaped(str(why))}", file=out)
    if adoption is None:
        _report_cut(path, copy, size, walk, behind, out)
    else:
        _report_adopted(copy, walk, adoption, out)
    return OK


def _is_something_else(buffer: Any, walk: Walk) -> bool:
    """Whether a file without any whole record looks like somebody else's JSON."""
    if walk.place > walk.framing.header or walk.codec.name != "json":
        return False
    head = bytes(buffer[:64]).lstrip(b"\0\r\n\t ")
    return not any(start.startswith(head[: len(start)]) for start in (b'{"ts":"', b'SNAPSHOT {"'))


def _swap(path: str, fd: int, copy: str, parts: Iterable[bytes], disk: Disk) -> None:
    """Put the result, with the original's owner and mode, in its place, which is `copy` from now on."""
    original = disk.fstat(fd)
    disk.link(path, copy)
    try:
        place(disk, path, parts, replace=True, prepare=partial(make_alike, disk, original))
    except BaseException:
        with contextlib.suppress(OSError):
            if disk.stat(path).st_ino != original.st_ino:
                raise Unsettled(copy) from None
            disk.unlink(copy)  # the original is in its place, and needs no second name
        raise


def _go_back(verified: Verified) -> None:
    """Take the database as it is before the damage: what is refused may have been applied, in part or whole."""
    walk = verified.walk
    again = Walk(walk.buffer, walk.place, walk.framing, walk.codec)
    for _ in again.records():
        pass
    if again.place == walk.place:
        verified.walk = again


def _parts(
    buffer: Any, verified: Verified, framing: Framing, codec: Codec, adoption: Adoption | None
) -> Generator[bytes, None, None]:
    """The content of the result: the whole part as it is, then what is adopted."""
    end = verified.walk.place
    for start in range(0, end, PART):
        yield buffer[start : min(start + PART, end)]
    if end and isinstance(framing, JsonLines) and buffer[end - 1 : end] != b"\n":
        yield b"\n"
        end += 1
    if end == framing.header:
        beginning = first_frame(framing, codec, now_micros())
        yield beginning
        end += len(beginning)
    if adoption is not None:
        yield from adoption.frames(end)


def _report_cut(path: str, copy: str, size: int, walk: Walk, behind: Behind, out: TextIO) -> None:
    rev = walk.replayer.rev
    gone = "no whole change is gone"
    if behind.whole:
        verb = "is" if behind.last == rev + 1 else "are"
        gone = f"{_named([(rev + 1, behind.last)])} {verb} gone, as far as can be counted"
    print(f"cut at byte {walk.place}: {size - walk.place} bytes are gone from it", file=out)
    print(f"{gone}; the database is at revision {rev} now; the original is kept as {escaped(copy)}", file=out)
    if behind.whole:
        kept, here = quote(escaped(copy)), quote(escaped(path))
        print(
            f"whole changes behind the place of the cut: {behind.whole}. To keep what of them fits, in place of this "
            f"result, before anything is written to it:\n  kantad repair --adopt {kept} && mv {kept} {here}",
            file=out,
        )


def _report_adopted(copy: str, walk: Walk, adoption: Adoption, out: TextIO) -> None:
    print(
        f"behind byte {walk.place}: {adoption.adopted} changes adopted, {adoption.unfit} did not fit, "
        f"{adoption.snapshots} snapshots, {adoption.mended} of them brought back lost changes",
        file=out,
    )
    if adoption.unproven:
        print(f"not proven to be what was written: {_named(adoption.unproven)}", file=out)
    if walk.replayer.rev >= adoption.first:
        print(
            f"from revision {adoption.first} on the chain has been made anew: "
            "it proves nothing about what these changes were before",
            file=out,
        )
    print(f"the database is at revision {walk.replayer.rev} now; the original is kept as {escaped(copy)}", file=out)


def _named(ranges: list[tuple[int, int]]) -> str:
    """The revisions in these ranges, from and to."""
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in ranges[:MOST_RANGES]]
    more = len(ranges) - len(texts)
    one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"revision{'' if one else 's'} {', '.join(texts)}{f', and {more} more such ranges' if more else ''}"
