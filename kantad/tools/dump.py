"""Print the state of a database as JSON, now, at a revision, or at a moment.

Reads only, needs no lock, and may be used on a live file. Exit status 1: the file does not hold that
revision; 2: usage, a cursor that is not of this history, no such file, or it may not be read; 65: it is damaged
or no kantadb.
"""

import argparse
import io
import os
from typing import Any, TextIO

from kantad.logs import escaped
from kantad.store.beside import recover_from
from kantad.store.log import reading
from kantad.store.retrace import Gone, Retrace
from kantad.tools.flags import add_format
from kantad.tools.refusals import REFUSALS, USAGE, refused
from kantad.values.codec import Codec
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.framing import Framing
from kantad.values.moment import micros_of, parse_time
from kantad.values.record import parse_cursor

OK, MISSING = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad dump`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--rev", metavar="N", help="the state at a revision, or at a cursor, which is verified")
    when.add_argument("--at", metavar="TIME", help="the state at a time (RFC 3339)")


def run(args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Write the state to `out`; returns the exit status."""
    name = escaped(args.file)
    try:
        at = None if args.at is None else micros_of(parse_time(args.at, "--at"))
        rev, chain = (None, None) if args.rev is None else parse_cursor(args.rev, "--rev")
        with reading(os.path.realpath(args.file), args.format) as (buffer, size, framing, codec):
            state, found = _state(os.path.realpath(args.file), buffer, size, framing, codec, rev, at)
        if chain is not None and chain != found.hex():
            raise Problem("history_diverged", "--rev is not a cursor of this history")
    except Gone as gone:
        print(f"{name} does not hold that revision: {gone}", file=err)
        return MISSING
    except Problem as problem:
        print(f"kantad dump: {escaped(problem.detail)}", file=err)
        return USAGE
    except REFUSALS as error:
        return refused(name, error, err)
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8")  # JSON is, whatever the locale
    out.write(escaped(encode_json(state).decode()) + "\n")
    return OK


def _state(
    path: str, buffer: Any, size: int, framing: Framing, codec: Codec, rev: int | None, at: int | None
) -> tuple[Any, bytes]:
    """The state, and the chain at it; raises `Gone`."""
    found = recover_from(path, buffer, size, framing, codec)
    past = Retrace(buffer, found.end, framing, codec, found.oldest, path)
    if at is not None:
        rev = max(past.moments(at))
    if rev is None or rev == found.rev:
        return found.state, found.chain
    if not found.oldest <= rev < found.rev:
        raise Gone(f"it has {found.oldest} to {found.rev}")
    del found  # before another state is made
    for _ in past.steps(rev):
        pass
    return past.state, past.chain
