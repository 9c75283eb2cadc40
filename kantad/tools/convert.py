"""Write a database file anew: in the other format, or one of kanta's as kantad's.

Revisions, times, actions, users, idempotency keys and the state stay what they are. The cursors are other
ones, for they tell what bytes the log is made of. Without --format it is the other one of json and msgpack
(of a format of one's own, json).
What JSON has no word for becomes what JSON readers are shown: RFC 3339 text, base64, decimal keys.

SRC is only read, without a lock, and may be served: then it is converted as it was at a moment. DST must not
be there; it appears when it is whole, was read back, and is on the disk. Exit status 0: converted; 2: usage,
no such file, it may not be read, or DST is there; 65: damaged, or no kantadb; 74: the disk failed or is full.
"""

import argparse
import errno
import os
from collections.abc import Iterator
from typing import Any, Final, TextIO

from kantad.logs import escaped
from kantad.store.compaction import prove
from kantad.store.conversion import Conversion
from kantad.store.disk import Disk, RealDisk, place
from kantad.store.formats import first_frame, new_file
from kantad.store.history import Unreadable
from kantad.store.log import mapped, reading
from kantad.store.recovery import recover
from kantad.tools.flags import add_format, named_format
from kantad.tools.refusals import DAMAGED, REFUSALS, USAGE, refused
from kantad.values.codec import Codec
from kantad.values.errors import Problem
from kantad.values.framing import BinaryFrames, Framing
from kantad.values.moment import now_micros
from kantad.values.record import cursor

OK: Final = 0
FROM: Final = "--from"
PART: Final = 1 << 20  # bytes written at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad convert`."""
    parser.add_argument("source", metavar="SRC", help="the database file")
    parser.add_argument("target", metavar="DST", help="the new file")
    parser.add_argument(
        "--format",
        type=named_format,
        metavar="{json,msgpack,MODULE:CLASS}",
        help="of the new file (default: the other one)",
    )
    add_format(parser, FROM)


def run(args: argparse.Namespace, out: TextIO, err: TextIO, disk: Disk | None = None) -> int:
    """Convert a file and say what was done; returns the exit status."""
    name, target = escaped(args.source), os.path.abspath(args.target)
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it is there already", target)
        with reading(os.path.realpath(args.source), getattr(args, "from"), FROM) as (buffer, size, framing, codec):
            said = _convert(buffer, size, framing, codec, target, args.format, disk or RealDisk(), err)
    except Problem as problem:  # a format of one's own cannot keep something
        print(f"{name}: {escaped(problem.detail)}; nothing was written", file=err)
        return DAMAGED
    except FileExistsError:
        print(f"{escaped(args.target)}: it is there already", file=err)
        return USAGE
    except Unreadable as error:
        print(f"{name}: the result was not what it should be ({error}); nothing is kept of it", file=err)
        return DAMAGED
    except REFUSALS as error:
        return refused(name, error, err)
    print(f"{escaped(args.target)}: {said}", file=out)
    return OK


def _convert(
    buffer: Any, size: int, framing: Framing, codec: Codec, target: str, format: str | None, disk: Disk, err: TextIO
) -> str:
    """Write the target; what is to be said of it."""
    found = recover(buffer, size, framing, codec)
    for warning in found.warnings:
        print(f"warning: {escaped(warning)}", file=err)
    if found.torn:
        print(f"warning: a torn tail of {found.torn} bytes is left out", file=err)
    found.state, end = {}, found.end  # before another one is made
    if found.newline:
        buffer, end = buffer[:end] + b"\n", end + 1
    format = format or ("msgpack" if codec.name == "json" else "json")
    to, encoded = new_file(format, os.urandom(4))
    conversion = Conversion(buffer, end, framing, codec, to, encoded)

    def prove_it(fd: int) -> None:
        length = disk.fstat(fd).st_size
        with mapped(fd, length) as written:
            prove(written, length, to, encoded, conversion.rev, conversion.chain)

    place(disk, target, _parts(conversion), replace=False, prove=prove_it)
    return (
        f"{format}, {os.stat(target).st_size} bytes; revisions {found.oldest} to {conversion.rev}, "
        f"cursor {cursor(conversion.rev, conversion.chain)}"
    )


def _parts(conversion: Conversion) -> Iterator[bytes]:
    """The content of the target, in large parts. Where there is no record, what tells the format."""
    to = conversion.to
    frames = [to.seed] if isinstance(to, BinaryFrames) else []
    size = written = to.header
    for frame in conversion.parts(to.header):
        frames.append(frame)
        size += len(frame)
        if size - written >= PART:
            yield b"".join(frames)
            frames, written = [], size
    if size == to.header:
        frames.append(first_frame(to, conversion.encoded, now_micros()))
    yield b"".join(frames)
