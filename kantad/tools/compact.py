"""Drop the history of a database file that is older than asked, and keep it as a file of its own.

The file begins with a snapshot afterwards; later revisions, cursors and idempotency keys stay what they
were. What is dropped is kept beside it as FILE@TIME.kantadb (FILE without its ending), a whole database,
unless --no-archive. Needs the lock: a running server does the same with POST /v1/compact or --retain.

Whenever it stops, the file is the original or the result. Exit status 0: compacted, or there was nothing
to drop; 2: usage, no such file, or it may not be written; 65: damaged, or no kantadb; 74: the disk failed
or is full; 75: locked.
"""

import argparse
import contextlib
import os
from typing import Final, TextIO

from kantad.logs import escaped
from kantad.store.beside import remove
from kantad.store.compaction import (
    Ambiguous,
    Old,
    Unsettled,
    archive_name,
    keep_archive,
    rewrite,
    swap_in,
    temporary_name,
)
from kantad.store.disk import Disk, RealDisk
from kantad.store.log import Broken, Locked, Log, open_log
from kantad.store.recovery import Recovered
from kantad.tools.flags import add_format
from kantad.tools.refusals import BROKEN, DAMAGED, REFUSALS, refused
from kantad.values.errors import Problem
from kantad.values.moment import now_micros
from kantad.values.retention import MEANT, Retention, retention

OK = 0
AMBIGUOUS: Final = (
    "records of kanta's behind the cut can be read in two ways, and what stands before it tells which; "
    "`--retain none` cuts behind them"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad compact`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    parser.add_argument("--retain", required=True, type=_retention, metavar="HOW_MUCH", help=f"keep {MEANT}")
    parser.add_argument("--no-archive", action="store_true", help="do not keep what is dropped")


def _retention(text: str) -> Retention:
    try:
        return retention(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None


def run(args: argparse.Namespace, out: TextIO, err: TextIO, disk: Disk | None = None) -> int:
    """Compact a file and say what was done; returns the exit status."""
    disk = disk or RealDisk()
    path, name = os.path.realpath(args.file), escaped(args.file)
    try:
        disk.stat(path)  # a file that is not there is none to compact
        log, found = open_log(path, args.format, disk, now_micros())
        for warning in found.warnings:
            print(f"warning: {escaped(warning)}", file=err)
        found.state = {}  # before another one is made
        try:
            return _compact(log, found, args.retain, not args.no_archive, name, out)
        finally:
            log.close()
    except Problem as problem:  # a format of one's own cannot keep the snapshot
        print(f"{name}: {escaped(problem.detail)}; the file is as it was", file=err)
        return DAMAGED
    except Ambiguous:
        print(f"{name}: {AMBIGUOUS}; the file is as it was\n`kantad check {name}` tells more.", file=err)
        return DAMAGED
    except (Broken, Unsettled) as error:
        print(f"{name}: the disk failed: {escaped(str(error))}", file=err)
        return BROKEN
    except REFUSALS as error:
        if isinstance(error, Locked):
            print("A server compacts the file that it serves: POST /v1/compact.", file=err)
        return refused(name, error, err, "; the file is as it was")


def _compact(log: Log, found: Recovered, retain: Retention, archived: bool, name: str, out: TextIO) -> int:
    disk, size = log.disk, log.size
    with log.buffer() as buffer:
        old = Old(buffer, size, log.framing, log.codec, found.oldest, log.path)
        cut = old.cut(retain, found.rev, now_micros())
        if cut <= found.oldest:
            print(f"{name}: nothing is older: revisions {found.oldest} to {found.rev} stay", file=out)
            return OK
        model, temporary, archive, new = disk.fstat(log.fd), temporary_name(log.path), "", False
        made = rewrite(disk, temporary, old, cut, (found.rev, found.chain), model)
        try:
            if archived:
                archive, there = archive_name(log.path, buffer, made.done)
                if not there:
                    keep_archive(disk, log.path, archive, buffer, made.done, model)
                    new = True
            swap_in(disk, temporary, log.path, made.fd)
            remove(disk, log.path)  # the snapshot beside the old one
        except OSError:
            for file in (temporary, archive) if new else (temporary,):
                with contextlib.suppress(OSError):
                    disk.unlink(file)
            raise
        finally:
            made.close()
    print(f"{name}: {size} bytes are {made.done.size} now; it begins at revision {cut}, ends at {found.rev}", file=out)
    if archived:
        print(f"revisions {found.oldest} to {cut} are kept as {escaped(archive)}", file=out)
    return OK
