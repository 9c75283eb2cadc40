"""Print the history of a database: each change with what it added, updated and deleted (✗).

Reads only, needs no lock, and may be used on a live file. The changes after --since (a revision, a
cursor or a time) up to --until; a cursor is verified. With --path, only changes after which the value
there differs, told relative to it. Exit status 65: the file is damaged (what stands before the damage
is printed) or no kantadb; 2: usage, no such file, or a cursor that is not of this history.
"""

import argparse
import io
import os
import re
import select
import time
from collections.abc import Callable
from fnmatch import translate
from typing import Any, Final, NamedTuple, TextIO

from kantad.logs import escaped
from kantad.store.canonical import meant
from kantad.store.history import Anchor, Unreadable, chain_at
from kantad.store.imported import resolver
from kantad.store.recovery import recover
from kantad.store.replay import Replayer
from kantad.store.verify import Walk
from kantad.tools.flags import add_format
from kantad.tools.following import Diverged, Head, Source, begin, ending, pass_records, pass_without_newline, successor
from kantad.tools.refusals import REFUSALS, USAGE, refused
from kantad.values.codec import Codec
from kantad.values.content import MISSING, copied
from kantad.values.errors import Damaged, Problem
from kantad.values.framing import Frame, More
from kantad.values.lines import Edit, Line, Named, as_is, became, edits, header, painted, plain, told, wants_colour
from kantad.values.moment import micros_of, parse_time, time_text
from kantad.values.names import Names
from kantad.values.narrow import DELETED, UNCLEAR, UNTOUCHED, narrowed
from kantad.values.patch import Unfit
from kantad.values.pointer import Path, lookup, parse
from kantad.values.record import DECODE_ERRORS, Change, parse_cursor

OK = 0
INTERVAL: Final = 0.2  # seconds between two looks at a file that is followed
PATIENCE: Final = 2.0  # seconds that an incomplete record which grows may take before it is looked into
SMALLEST: Final = 16  # bytes; no record is shorter
Wait = Callable[[], bool]


class Bound(NamedTuple):
    """Where to begin or end: a revision, with the chain there if it was a cursor, or a time in microseconds."""

    rev: int | None = None
    chain: str | None = None
    micros: int | None = None


class Asked(NamedTuple):
    """Which changes are wanted, and how they are printed."""

    path: Path | None
    action: re.Pattern[str] | None
    user: str | None
    since: Bound
    until: Bound
    grep: re.Pattern[str] | None
    colour: bool
    named: Named = as_is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad log`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    parser.add_argument("--path", metavar="POINTER", help="only changes of what is at this JSON Pointer")
    parser.add_argument("--action", metavar="GLOB", help="only changes with such an action")
    parser.add_argument("--user", metavar="NAME", help="only changes by this user")
    parser.add_argument("--since", metavar="WHEN", help="only changes after this revision, cursor or time (RFC 3339)")
    parser.add_argument("--until", metavar="WHEN", help="only changes up to this revision, cursor or time")
    parser.add_argument("--grep", metavar="REGEX", help="only changes with a line that this is found in")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what is appended, until interrupted")
    parser.add_argument("--resolver", metavar="MODULE:FUNCTION", help="gives keys and users their names")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")


def run(args: argparse.Namespace, out: TextIO, err: TextIO, wait: Wait | None = None) -> int:
    """Print the changes; returns the exit status. `wait` passes the time; False: nobody reads on."""
    name = escaped(args.file)
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    try:
        source = Source(args.file, args.format)
        _Log(source, asked(args, out, names(args.resolver, err)), out, err, wait or (lambda: _wait(out))).run(
            args.follow
        )
    except KeyboardInterrupt:
        return OK
    except Problem as problem:
        print(f"kantad log: {escaped(problem.detail)}", file=err)
        return USAGE
    except Diverged as error:
        print(f"{name}: {escaped(str(error))}", file=err)
        return USAGE
    except BrokenPipeError:
        raise
    except REFUSALS as error:
        return refused(name, error, err)
    return OK


def asked(args: argparse.Namespace, out: TextIO, named: Named = as_is) -> Asked:
    """What the arguments mean; raises `Problem`."""
    try:
        grep = None if args.grep is None else re.compile(args.grep)
    except re.error as error:
        raise Problem("invalid_parameter", f"--grep is a regular expression: {error}") from None
    return Asked(
        None if args.path is None else parse(args.path),
        None if args.action is None else re.compile(translate(args.action)),
        args.user,
        bound(args.since, "--since"),
        bound(args.until, "--until"),
        grep,
        args.color == "always" or (args.color == "auto" and wants_colour(out.isatty(), os.environ)),
        named,
    )


def names(resolver_name: str | None, err: TextIO) -> Named:
    """What gives identifiers their names; raises `CodeError`."""
    if resolver_name is None:
        return as_is
    return Names(resolver(resolver_name), lambda why: print(f"--resolver failed: {escaped(why)}", file=err))


def bound(text: str | None, name: str) -> Bound:
    """What `--since` or `--until` says; raises `Problem`."""
    if text is None:
        return Bound()
    try:
        return Bound(*parse_cursor(text, name))
    except Problem:
        pass
    try:
        return Bound(micros=micros_of(parse_time(text, name)))
    except Problem:
        detail = f"{name} is a revision, a cursor, or an RFC 3339 time with an offset"
        raise Problem("invalid_parameter", detail) from None


def _wait(out: TextIO) -> bool:
    """Pass the time between two looks; False as soon as the other end of a pipe or terminal is gone."""
    try:
        poll = select.poll()
        poll.register(out.fileno(), 0)
    except (OSError, ValueError):
        time.sleep(INTERVAL)
        return True
    return not poll.poll(INTERVAL * 1000)


class Foreseen(NamedTuple):
    """A change to print once it is whole: its lines, or (where only the new value tells them) what was at the path."""

    head: Line
    edits: list[Line] | None
    before: Any = None


class Teller:
    """Chooses the changes that were asked for, and prints them: a watch."""

    def __init__(self, asked: Asked, out: TextIO) -> None:
        self.asked, self.out = asked, out
        self.started = asked.since.micros is None
        self.done = False

    def look(self, replayer: Replayer) -> None:
        """Note where the replay is; raises `Problem` if that is another history than a cursor's."""
        since, until = self.asked.since, self.asked.until
        if replayer.rev == since.rev and since.chain is not None and since.chain != replayer.chain.hex():
            raise Problem("history_diverged", "--since is not a cursor of this history")
        if until.rev is not None and replayer.rev >= until.rev:
            self.done = True

    def foresee(self, replayer: Replayer, codec: Codec, frame: Frame) -> Foreseen | None:
        """See Watch."""
        if replayer.rev < (self.asked.since.rev or 0):
            return None
        try:
            record: Change = codec.decode(frame.payload, Change)
            return self._edited(replayer, record) if self._wants(record) else None
        except (*DECODE_ERRORS, Unfit):
            return None  # it will be refused, with the reason

    def _wants(self, record: Change) -> bool:
        asked, micros = self.asked, micros_of(record.ts)
        if asked.until.micros is not None and micros > asked.until.micros:
            self.done = True
        self.started = self.started or micros > (asked.since.micros or 0)
        if self.done or not self.started or (asked.user is not None and record.u != asked.user):
            return False
        return asked.action is None or asked.action.match(record.a) is not None

    def _edited(self, replayer: Replayer, record: Change) -> Foreseen | None:
        old, patch = (replayer.state, record.diff) if record.h is not None else meant(replayer, record)
        head = self._header(replayer.rev + 1, record)
        path = self.asked.path or ()
        part = narrowed(patch, path)
        if part is UNTOUCHED:
            return None
        before = lookup(old, path)
        if part is UNCLEAR:
            return Foreseen(head, None, copied(before))
        if part is DELETED:
            return self._told(head, list(became(before, MISSING)))
        try:
            return self._told(head, list(edits(before, part)))
        except Unfit:
            if replayer.rival is None or old is replayer.rival:
                raise
            return self._told(head, list(edits(lookup(replayer.rival, path), part)))

    def _header(self, rev: int, record: Change) -> Line:
        user = record.u and self.asked.named(record.u)
        return header(rev, time_text(micros_of(record.ts)), record.a, user, record.about)

    def _told(self, head: Line, found: list[Edit]) -> Foreseen | None:
        """The lines of a change, if they are asked for. Whether they are does not depend on the terminal."""
        if not found and self.asked.path is not None:
            return None
        grep, width, named = self.asked.grep, _width(self.out), self.asked.named
        lines = told(head, found, None, named) if grep is not None or width is None else None
        if grep is not None and lines is not None and not any(grep.search(plain(line)) for line in lines):
            return None
        return Foreseen(head, told(head, found, width, named) if lines is None or width is not None else lines)

    def passed(self, replayer: Replayer, foreseen: Foreseen | None) -> None:
        """See Watch."""
        if foreseen is not None and foreseen.edits is None:
            after = lookup(replayer.state, self.asked.path or ())
            foreseen = self._told(foreseen.head, list(became(foreseen.before, after)))
        if foreseen is not None:
            text = painted if self.asked.colour else plain
            self.out.writelines(f"{text(line)}\n" for line in foreseen.edits or ())
        self.look(replayer)


def _width(out: TextIO) -> int | None:
    """The columns of a terminal; None: it is none."""
    if not out.isatty():
        return None
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class _Log:
    """One run of the command on one file, or on one that takes its place while it is followed."""

    def __init__(self, source: Source, asked: Asked, out: TextIO, err: TextIO, wait: Wait) -> None:
        self.asked, self.out, self.err, self.wait = asked, out, err, wait
        self.name = escaped(source.path)
        self.teller = Teller(asked, out)
        self.source = source
        self.looked = (0, 0, 0.0)  # at what place and size an end was looked into, and when it was met

    def run(self, follow: bool) -> None:
        """Print what there is, and with `follow` what comes; raises what `run` above tells apart."""
        try:
            if not follow or self.source.size >= SMALLEST:
                with self.source.open_walk() as walk:
                    self._first(walk, follow)
            self.out.flush()
            while follow and not self.teller.done and self.wait():
                self._again()
                self.out.flush()
        finally:
            self.source.close()

    def _first(self, walk: Walk, follow: bool) -> None:
        since = self.asked.since
        self._verify_until(walk)
        begin(walk, self._is_before)
        if since.rev is not None and walk.oldest > since.rev:
            if since.chain is not None:
                detail = f"--since cannot be verified: the file begins at revision {walk.oldest}"
                raise Problem("history_gone", detail)
            print(f"{self.name}: the file begins at revision {walk.oldest}", file=self.err)
        self.teller.look(walk.replayer)
        pass_records(walk, self.teller)
        if walk.why:
            self._end(walk, follow)
        if not self.teller.done and since.rev is not None and since.rev > walk.replayer.rev:
            raise _ahead("--since", walk.replayer.rev)

    def _is_before(self, head: Head) -> bool:
        """Whether nothing that is asked for stands before a snapshot."""
        since = self.asked.since
        if since.rev is not None:
            return head.r <= since.rev
        return since.micros is not None and 0 < micros_of(head.ts) <= since.micros

    def _verify_until(self, walk: Walk) -> None:
        """Before anything is printed: whether `--until` is a cursor of this history."""
        rev, chain, _ = self.asked.until
        if rev is None or chain is None:
            return
        probe = Walk(walk.buffer, walk.end, walk.framing, walk.codec)
        begin(probe, lambda head: head.r <= rev)
        if probe.oldest > rev:
            raise Problem("history_gone", f"--until cannot be verified: the file begins at revision {probe.oldest}")
        anchor = Anchor(probe.replayer.rev, probe.place, probe.replayer.chain)
        try:
            there = chain_at(walk.buffer, walk.end, walk.framing, walk.codec, rev, anchor)
        except Unreadable:
            last = recover(walk.buffer, walk.end, walk.framing, walk.codec).rev
            if rev > last:
                raise _ahead("--until", last) from None
            return  # there is damage before it, which is found again
        if there.hex() != chain:
            raise Problem("history_diverged", "--until is not a cursor of this history")

    def _end(self, walk: Walk, follow: bool) -> None:
        """The records end before the file does: damage, a torn tail, or a record that is being written."""
        pass_without_newline(walk, self.teller)
        self.out.flush()
        if walk.place == walk.end:
            return
        found = ending(walk)
        if isinstance(found, Damaged):
            if follow:  # or was it cut back, and is longer again?
                successor(self.source).close()
            raise found
        self.looked = (walk.place, walk.end, time.monotonic())
        if found and not follow:
            print(f"{self.name}: warning: a torn tail of {found} bytes at byte {walk.place} is left out", file=self.err)

    def _again(self) -> None:
        """Look at a followed file again."""
        replaced = self.source.replaced()
        walk = self.source.walk
        if self.source.size >= SMALLEST and (walk is None or self.source.size > walk.place):
            self._more(walk is None)
        if replaced and not self.teller.done:
            old = self.source
            self.source = successor(old) if old.walk is not None else Source(old.path)
            old.close()
            self._more(old.walk is None)

    def _more(self, first: bool) -> None:
        with self.source.open_walk() as walk:
            if first:
                self._first(walk, True)
                return
            pass_records(walk, self.teller)
            if walk.why and self._is_due(walk):
                self._end(walk, True)

    def _is_due(self, walk: Walk) -> bool:
        """Whether to look into why the records end: at once, but an incomplete one is given some time."""
        place, size, when = self.looked
        if (walk.place, walk.end) == (place, size):
            return False
        if not isinstance(walk.framing.next(walk.buffer, walk.place, walk.end), More):
            return True
        if walk.place == place:
            return time.monotonic() - when > PATIENCE
        self.looked = (walk.place, 0, time.monotonic())
        return False


def _ahead(name: str, rev: int) -> Problem:
    return Problem("history_diverged", f"{name} is ahead of this file, which is at revision {rev}")
