"""Answers to questions about the past of a log, one after another, from the file alone.

The last state that a replay came to is kept, so that the next revision may be a few records away.
An answer is worked out in steps of a record each: the engine takes them a few at a time, where the
file is small; the process of `tools.retrace` takes them all.
"""

import mmap
import os
from collections.abc import Generator
from typing import Any

from kantad.store.formats import NotOurs, format_of
from kantad.store.history import Unreadable
from kantad.store.imported import CodeError
from kantad.store.question import Answer, Question, Reply
from kantad.store.retrace import Gone, Retrace
from kantad.values.errors import Problem
from kantad.values.pointer import lookup
from kantad.values.view import show


class Answers:
    """The file that was last asked about, and the state in it."""

    def __init__(self) -> None:
        self.identity = (0, 0)
        self.retrace: Retrace | None = None

    def answer(self, asked: Question) -> Generator[None, None, Answer]:
        """The answer to a question and the bytes that follow it; what goes wrong is in the answer."""
        try:
            return (yield from self._answer(asked))
        except Unreadable as error:
            return Reply(code="damaged", detail=str(error)), b""
        except Gone:
            return Reply(code="gone"), b""
        except Problem as problem:
            return Reply(code=problem.code, detail=problem.detail, more=problem.more), b""
        except (OSError, NotOurs, CodeError, MemoryError) as error:
            self.retrace = None
            return Reply(fault=f"{type(error).__name__}: {error}"), b""

    def _answer(self, asked: Question) -> Generator[None, None, Answer]:
        retrace = self._opened(asked)
        if asked.micros is not None:
            found = asked.oldest
            for rev in retrace.moments(asked.micros):
                found = rev
                yield
            return Reply(rev=found), b""
        yield from retrace.steps(asked.rev)
        shown = show(lookup(retrace.state, asked.path), asked.view)
        return Reply(rev=asked.rev, chain=retrace.chain, tag=shown.tag, size=len(shown.body)), shown.body

    def _opened(self, asked: Question) -> Retrace:
        retrace = self.retrace
        if retrace is not None and self.identity == asked.identity and retrace.oldest == asked.oldest:
            if asked.end > retrace.end:
                retrace.grow(_mapped(asked), asked.end)
            return retrace
        self.retrace = retrace = None  # before another state is made
        buffer = _mapped(asked)
        framing, codec = format_of(buffer, asked.format)
        self.identity = asked.identity
        self.retrace = Retrace(buffer, asked.end, framing, codec, asked.oldest, asked.file)
        return self.retrace


def _mapped(asked: Question) -> Any:
    """The file's whole records, mapped. Raises OSError, also where it is not the file that was meant."""
    fd = os.open(asked.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != asked.identity or status.st_size < asked.end:
            raise OSError(f"{asked.file} is another file now")
        return mmap.mmap(fd, asked.end, prot=mmap.PROT_READ) if asked.end else b""
    finally:
        os.close(fd)
