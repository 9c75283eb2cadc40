"""The log of changes (`--log-changes`): each published change as lines on the logger `kantad.changes`.

A thread of its own makes the lines, out of the record and the undo entries that the change left, so neither the
loop nor the disk is asked for anything. It works for 3 % of the time at most: the interpreter's lock
is what writers would wait for. What comes faster, or while stderr takes nothing, is skipped, and how
much that was is said: `kantad log` has it all. Nothing here is waited for, except a second at the stop.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

from kantad.engine.pending import Applied
from kantad.logs import JsonFormatter, escaped
from kantad.values.codec import Codec
from kantad.values.content import MISSING
from kantad.values.lines import Edit, Line, as_is, header, painted, plain, told, wants_colour
from kantad.values.moment import micros_of, time_text
from kantad.values.names import Names
from kantad.values.record import Change
from kantad.values.traces import Entry, traced

logger = logging.getLogger("kantad.changes")

MOST: Final = 2000  # changes that wait
LARGE: Final = 256 << 10  # bytes of a record that is not taken apart, which would hold the interpreter's lock
LINES: Final = 100  # of one change
SHARE: Final = 0.03  # of the time; measured: about a thousand changes a second
PAUSE: Final = 0.005  # seconds, at least
SLICE: Final = 0.001  # seconds
WIDTH: Final = 160  # columns where there is no terminal


class Waiting(NamedTuple):
    """A change to be told: its record (None if it is large) and the undo entries that it left."""

    rev: int
    size: int
    payload: bytes | None
    entries: list[Entry]


class Told(NamedTuple):
    """A change as formatters are given it, in a log record's `change`."""

    rev: int
    time: str
    action: str
    user: str | None
    about: str | None
    edits: list[Edit]
    more: int  # edits, or members of an added object, that are left out


class ChangeLog:
    """Tells a database's changes; `published` is the engine's watcher."""

    def __init__(self, codec: Codec, log: logging.Logger = logger) -> None:
        self.decode, self.log = codec.decoder(Change), log
        self.queue: queue.SimpleQueue[tuple[int, list[Waiting]] | None] = queue.SimpleQueue()
        self.given = self.taken = 0  # changes; the one counts on the loop, the other on the thread
        self.skipped, self.full, self.ending = 0, False, False
        self.thread = threading.Thread(target=self._work, name="kantad-changes", daemon=True)
        self.thread.start()

    def published(self, changes: list[Applied]) -> None:
        """Put changes of one batch in line, or count them where the line is full. Costs a microsecond each."""
        waiting = self.given - self.taken
        self.full = waiting >= (MOST // 2 if self.full else MOST)
        if self.full:
            self.skipped += len(changes)
            return
        entries = changes[0].undo.entries
        ends = [*[change.mark for change in changes[1:]], len(entries)]
        batch = [
            Waiting(each.rev, len(each.payload), each.payload, entries[each.mark : end])
            if len(each.payload) <= LARGE
            else Waiting(each.rev, len(each.payload), None, [])
            for each, end in zip(changes, ends, strict=True)
        ]
        self.given += len(batch)
        self.queue.put((self.skipped, batch))
        self.skipped = 0

    def close(self, seconds: float = 1.0) -> None:
        """Tell what waits, for so long at most."""
        self.ending = True
        self.queue.put((self.skipped, []))
        self.queue.put(None)
        self.thread.join(seconds)

    # -- the thread

    def _work(self) -> None:
        while (item := self.queue.get()) is not None:
            skipped, batch = item
            if skipped:
                self.log.warning("%d changes are not shown: they came too fast. kantad log has them", skipped)
            began = time.perf_counter()
            for waiting in batch:
                self._tell(waiting)
                self.taken += 1
                if time.perf_counter() - began > SLICE:
                    self._rest(began)
                    began = time.perf_counter()
            self._rest(began)

    def _rest(self, began: float) -> None:
        """Leave the others the rest of the time."""
        if not self.ending:
            time.sleep(max(PAUSE, (time.perf_counter() - began) * (1 / SHARE - 1)))

    def _tell(self, waiting: Waiting) -> None:
        if waiting.payload is None:
            self.log.info("%d, a change of %d bytes", waiting.rev, waiting.size)
            return
        try:
            record: Change = self.decode(waiting.payload)
            found, more = bounded(traced(record.diff, waiting.entries))
            change = Told(waiting.rev, time_text(micros_of(record.ts)), record.a, record.u, record.about, found, more)
            self.log.info("%s", plain(header(*change[:5])), extra={"change": change})
        except Exception:
            self.log.exception("change %d could not be told", waiting.rev)


def bounded(edits: Iterable[Edit]) -> tuple[list[Edit], int]:
    """As many edits as have room, large additions with as many members, and how many of either are left out."""
    found: list[Edit] = []
    room, more = LINES, 0
    for edit in edits:
        if room <= 0:
            more += 1
            continue
        if edit.old is MISSING and type(edit.new) is dict and len(edit.new) > room:
            more += len(edit.new) - room
            edit = edit._replace(new=dict(islice(edit.new.items(), room)))
        found.append(edit)
        room -= 1 + (len(edit.new) if edit.old is MISSING and type(edit.new) is dict else 0)
    return found, more


class ChangeFormatter(logging.Formatter):
    """The lines of a change, painted for a terminal; of anything else, the message."""

    def __init__(self, names: Names | None, colour: bool) -> None:
        super().__init__()
        self.names, self.text = names or as_is, painted if colour else plain

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        change: Told | None = getattr(record, "change", None)
        if change is None:
            return escaped(super().format(record))
        return "\n".join(self.text(line) for line in self.lines(change, _width()))

    def lines(self, change: Told, width: int) -> list[Line]:
        """The lines of a change, its identifiers as names."""
        head = header(change.rev, change.time, change.action, change.user and self.names(change.user), change.about)
        lines = told(head, change.edits, width, self.names)
        return [*lines, [("faint", f"  and {change.more} more")]] if change.more else lines


class JsonChangeFormatter(JsonFormatter):
    """One JSON object a change: what it is, and its edits as lines."""

    def __init__(self, names: Names | None) -> None:
        super().__init__()
        self.names = names or as_is

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """See JsonFormatter."""
        found = super().fields(record)
        change: Told | None = getattr(record, "change", None)
        if change is not None:
            found |= {"rev": change.rev, "time": change.time, "action": change.action}
            if change.user is not None:
                found["user"] = self.names(change.user)
            if change.about is not None:
                found["about"] = change.about
            lines = told([], change.edits, WIDTH, self.names)
            found["changes"] = [text for line in lines if (text := plain(line).strip())]
            if change.more:
                found["more"] = change.more
        return found


class Stderr:
    """Stderr without Python's buffer and its lock, which who ends the process must not wait for."""

    def write(self, text: str) -> None:
        """Write all of it; blocks as long as nobody reads."""
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[os.write(2, data) :]

    def flush(self) -> None:
        """Nothing is kept back."""


def set_up(style: str, names: Names | None) -> None:
    """Let the logger's lines go to stderr, as `--log-format` says."""
    handler = logging.StreamHandler(Stderr())
    colour = wants_colour(os.isatty(2), os.environ)
    handler.setFormatter(JsonChangeFormatter(names) if style == "json" else ChangeFormatter(names, colour))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _width() -> int:
    """The columns of the terminal, if there is one."""
    try:
        return os.get_terminal_size(2).columns or WIDTH
    except OSError:
        return WIDTH
