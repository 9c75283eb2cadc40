"""Verify a database file: the whole chain, every snapshot, the framing; and the snapshot beside it, FILE.snapshot.

Exit status 0: whole; 1: it ends with a torn tail, which the next start cuts off and keeps aside;
2: no such file, or it may not be read; 65: it is damaged, or no kantadb. Reads only, needs no lock, and
may be used on a live file (where a batch that is being written right now looks like a torn tail).
"""

import argparse
import os
from typing import Any, Final, TextIO

from kantad.logs import escaped
from kantad.store.beside import Unusable, read
from kantad.store.log import NotOurs, reading
from kantad.store.replay import Start
from kantad.store.tail import UNPROMISED
from kantad.store.verify import Verified, verify
from kantad.tools.flags import add_format
from kantad.tools.refusals import refused
from kantad.values.codec import Codec
from kantad.values.framing import Framing
from kantad.values.record import cursor

WHOLE, TORN, DAMAGED = 0, 1, 65
MOST_WARNINGS: Final = 20
UNCHAINED: Final = (
    "{} of another program, from before the hash chain begins: that nothing there was altered is not proven"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad check`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    parser.add_argument("--end", type=_bytes, metavar="BYTES", help="verify only this much of it, from its start")


def _bytes(text: str) -> int:
    """A number of bytes, as an argument; raises as argparse wants it."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes")
    return int(text)


def run(args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Check a file and say what it holds; returns the exit status."""
    path = os.path.realpath(args.file)
    name = escaped(args.file)
    try:
        with reading(path, args.format) as (buffer, size, framing, codec):
            size = size if args.end is None else min(size, args.end)
            beside, unused = _beside(path, buffer, size, framing, codec)
            verified = verify(buffer, size, framing, codec, beside)
    except (NotOurs, OSError) as error:
        return refused(name, error, err)
    report(name, verified, size, codec.name, out)
    if unused:
        print(f"warning: {name}.snapshot is not used: {escaped(unused)}", file=out)
    if verified.damage is not None:
        print(f"{name}: {escaped(str(verified.damage))}", file=err)
        print(advice(name, verified), file=err)
        return DAMAGED
    if verified.belied:
        print(f"{name}.snapshot is damaged: it is not what the records of {name} make", file=err)
        print(f"The next start would begin with it. Stop the server and delete {name}.snapshot.", file=err)
        return DAMAGED
    if beside is not None:
        print(f"{name}.snapshot: {beside.size} bytes, revision {beside.snapshot.r}, as the records say", file=out)
    if verified.torn:
        print(f"{name}: a torn tail of {verified.torn} bytes at byte {size - verified.torn}", file=err)
        print(f"It is {UNPROMISED}.\nThe next start cuts it off and keeps the bytes as {name}.torn-<time>.", file=err)
        return TORN
    return WHOLE


def _beside(path: str, buffer: Any, size: int, framing: Framing, codec: Codec) -> tuple[Start | None, str]:
    """The snapshot beside the file, or why it is not used, where there is one."""
    try:
        return read(path, buffer, size, framing, codec), ""
    except Unusable as error:
        return None, str(error)


def report(name: str, verified: Verified, size: int, format: str, out: TextIO) -> None:
    """What the whole part of the file holds."""
    walk = verified.walk
    replayer = walk.replayer
    until = f" up to byte {walk.place}" if verified.damage is not None else ""
    changes = walk.changes - replayer.doubled
    print(
        f"{name}: {format}, {size} bytes; {_count(changes, 'change')} and {_count(walk.snapshots, 'snapshot')}{until}, "
        f"{replayer.unverified + replayer.unchained} unverified, revisions {walk.oldest} to {replayer.rev}, "
        f"cursor {cursor(replayer.rev, replayer.chain)}",
        file=out,
    )
    if replayer.unchained:
        print("warning: " + UNCHAINED.format(_count(replayer.unchained, "record")), file=out)
    for warning in verified.warnings[:MOST_WARNINGS]:
        print(f"warning: {escaped(warning)}", file=out)
    if len(verified.warnings) > MOST_WARNINGS:
        print(f"warning: and {len(verified.warnings) - MOST_WARNINGS} more", file=out)
    if verified.newline:
        print("warning: the last record lacks its newline; the next start adds it", file=out)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def advice(name: str, verified: Verified) -> str:
    """The command to run."""
    if verified.starts:
        return (
            "The server still starts, for its state does not depend on this part; it cannot serve the past across it.\n"
            f"`kantad repair --adopt {name}` mends it, keeping every later record and a copy of the original."
        )
    return (
        f"The server does not start from it. `kantad repair {name}` cuts the file there;\n"
        f"`kantad repair --adopt {name}` keeps what stands behind it as far as it fits.\n"
        "Both keep a copy of the original."
    )
