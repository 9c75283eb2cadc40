"""A thread with an event loop, for who has none: coroutines are run there, and waited for here.

One for the process, started when it is first needed; a daemon, so that nothing has to be closed for a
script to end. `sync` runs everything on it, `testing.serve` its servers. A process that was forked has
another one, because threads do not survive a fork. What was open in the parent is left alone there and
kept for good: its sockets are the parent's, too, and so is what the kernel watches for its loop.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from kanta_client.errors import KantaError

T = TypeVar("T")

Caller = Callable[[Callable[[Any], Any], Any], Awaitable[Any]]

NAME: Final = "kanta_client"


class Call(NamedTuple):
    """A function to be called in the thread that waits, and the future of the loop that waits for what it returns."""

    function: Callable[[Any], Any]
    argument: Any
    answer: "asyncio.Future[Any]"


class Background:
    """See the module; `background()` gives it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()  # of those who have something here
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=NAME, daemon=True)
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns, or raises, when it was run on the loop.

        Whatever interrupts the waiting (Ctrl-C) cancels it. Raises RuntimeError in the loop's own thread, which
        would wait for itself, and `KantaError` in a process that was forked since, and at the interpreter's end.
        """
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Have a coroutine run; raises as `run` does."""
        try:
            self.check_process()
            if threading.get_ident() == self.thread.ident:
                raise RuntimeError("a callback runs in the thread that would have to answer: it must not wait here")
        except BaseException:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run_calling(self, make: Callable[[Caller], Coroutine[Any, Any, T]]) -> T:
        """As `run`, for a coroutine that has functions called in the thread that waits, each by `await call(f, x)`.

        `make` makes the coroutine, given `call`. What a function raises is raised here, and cancels the coroutine.
        """
        calls: SimpleQueue[Call | None] = SimpleQueue()

        async def call(function: Callable[[Any], Any], argument: Any) -> Any:
            answer = self.loop.create_future()
            calls.put(Call(function, argument, answer))
            return await answer

        future = self.start(make(call))
        future.add_done_callback(lambda _: calls.put(None))
        try:
            while (asked := calls.get()) is not None:
                self.loop.call_soon_threadsafe(_answer, asked.answer, asked.function(asked.argument))
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def check_process(self) -> None:
        """Raise `KantaError` where the thread does not run: in a forked process, and when the interpreter ends."""
        if sys.is_finalizing():
            raise KantaError("the interpreter ends")
        if os.getpid() != self.pid:
            raise KantaError("this was begun before the process was forked, and is its parent's")


def _answer(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


class _Process:
    """What there is once for each process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.background: Background | None = None


_here = _Process()
_left: list[Any] = []  # of a parent's, never to be finalized


def background() -> Background:
    """The one of this process."""
    here = _here
    with here.lock:
        if here.background is None:
            here.background = Background()
        return here.background


def leave(what: object) -> None:
    """Keep for good what is a parent process's."""
    _left.append(what)


def _forked() -> None:
    global _here
    leave(_here)
    _here = _Process()  # with a lock of its own: the other one may have been held


os.register_at_fork(after_in_child=_forked)
