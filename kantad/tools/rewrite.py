"""The process that writes a log anew for a server: `python -m kantad.tools.rewrite`, started by the engine.

It writes the new file and the archive; the swap is the server's. See `ordered`.
"""

import contextlib
import errno
import os
import socket
import sys
from typing import Any

from kantad.store.compaction import (
    Ambiguous,
    Old,
    Rewriting,
    Rewritten,
    archive_name,
    keep_archive,
    rewrite,
    temporary_name,
)
from kantad.store.disk import RealDisk
from kantad.store.formats import format_of
from kantad.store.history import Unreadable
from kantad.store.imported import CodeError
from kantad.store.log import FULL, mapped
from kantad.store.question import message
from kantad.store.task import Further, Order, Report, decode_task, pieces
from kantad.tools.ordered import messages, run
from kantad.values.errors import Problem
from kantad.values.retention import retention


class Work:
    """One order, and what comes of it."""

    def __init__(self, order: Order) -> None:
        self.order, self.disk = order, RealDisk()
        self.fd = os.open(order.file, os.O_RDONLY | os.O_CLOEXEC)
        self.model = os.fstat(self.fd)
        if (self.model.st_dev, self.model.st_ino) != order.identity or self.model.st_size < order.end:
            raise OSError(errno.ESTALE, "it is another file now", order.file)
        self.temporary = temporary_name(order.file)
        self.made: Rewriting | None = None
        self.archive, self.is_new = "", False

    def begin(self) -> Report:
        """Do what was ordered; raises what goes wrong."""
        order = self.order
        with mapped(self.fd, order.end) as buffer:
            framing, codec = format_of(buffer, order.format)
            old = Old(buffer, order.end, framing, codec, order.oldest, order.file)
            cut = old.cut(retention(order.retain), order.rev, order.now)
            if cut <= order.oldest:
                return Report("nothing")
            self.made = rewrite(self.disk, self.temporary, old, cut, (order.rev, order.chain), self.model)
            if order.archive:
                self._keep(buffer, self.made.done)
            kept = old.keys(cut)
        told = () if kept is None else zip(kept.ids, kept.answers, strict=True)
        return self._report(pieces([(key, outline) for (key, _, _), (_, _, outline) in told]))

    def _keep(self, buffer: Any, done: Rewritten) -> None:
        """Keep what is cut off; what is to be removed again if this is stopped is noted before."""
        while not self.is_new:
            self.archive, there = archive_name(self.order.file, buffer, done)
            if there:
                return
            self.is_new = True
            try:
                keep_archive(self.disk, self.order.file, self.archive, buffer, done, self.model)
            except FileExistsError:
                self.is_new = False

    def go_on(self, end: int) -> Report:
        """Copy further records."""
        assert self.made is not None
        with mapped(self.fd, end) as buffer:
            self.made.copy(buffer, end)
        self.made.sync()
        return self._report([])

    def _report(self, outlines: list[Any]) -> Report:
        assert self.made is not None
        return Report("", "", self.made.done, self.temporary, self.archive, self.is_new, outlines)

    def undo(self) -> None:
        """Remove what was made, unless the new file has taken its place."""
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)
            if self.is_new:
                os.unlink(self.archive)


def reported(work: Work, end: int | None) -> Report:
    """Begin, or go on, and say how it went; a bug is told to who ordered it, who logs it."""
    try:
        return work.begin() if end is None else work.go_on(end)
    except Unreadable as error:
        return Report("damaged", str(error))
    except Ambiguous:
        return Report("ambiguous")
    except (Problem, CodeError) as error:  # a format of one's own
        return Report("failed", str(error))
    except OSError as error:
        return Report("full" if error.errno in FULL else "failed", error.strerror or str(error))
    except Exception as error:
        return Report("failed", f"{type(error).__name__}: {error}")


def serve(channel: socket.socket) -> None:
    """Do what is ordered, until the other end says that it is done with, or closes."""
    work: Work | None = None
    with channel.makefile("rb") as stream:
        try:
            for task in map(decode_task, messages(stream)):
                if isinstance(task, Order):
                    work = Work(task)
                    report = reported(work, None)
                elif isinstance(task, Further) and work is not None:
                    report = reported(work, task.end)
                else:
                    work = None  # all of it is to stay
                    report = Report()
                channel.sendall(message(report))
        finally:
            if work is not None:
                work.undo()


if __name__ == "__main__":
    sys.exit(run(serve))
