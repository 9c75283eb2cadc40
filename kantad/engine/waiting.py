"""Long polls: who waits for the next change, and who for what a path shows to become another.

A change wakes those whose path it may have touched and nobody else: they are found by what the
patch holds, not by asking each. What a path shows is hashed once after a change, however many wait
there. Nothing here changes the state.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from kantad.engine.interest import Interest
from kantad.values.pointer import Path

MOST_TAGS: Final = 1024  # kept between two changes, which may be far apart

Waiter = asyncio.Future[None]


class Waiting:
    """Who waits. `tag` tells the etag of what a path shows to readers, `""` if that is nothing."""

    def __init__(self, tag: Callable[[Path], str]) -> None:
        self.tag = tag
        self.ended = False
        self._any: set[Waiter] = set()
        self._at: dict[Path, set[Waiter]] = {}
        self._interest = Interest()
        self._tags: dict[Path, str] = {}  # since the last change

    async def differs(self, path: Path, tag: str, seconds: float) -> None:
        """Return when the etag at a path is not this one, when the time is up, or when the server stops."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.ended and self._now(path) == tag:
            waiters = self._at.setdefault(path, set())
            if not waiters:
                self._interest.follow(path)
            try:
                changed = await _wait(waiters, deadline - loop.time())
            finally:
                if not waiters and self._at.get(path) is waiters:
                    del self._at[path]
                    self._interest.leave(path)
            if not changed:
                return

    async def change(self, seconds: float) -> bool:
        """Wait for the next change that is written; False if there was none in this time."""
        return not self.ended and await _wait(self._any, seconds)

    def seen(self, patches: Iterable[Any]) -> None:
        """Readers see these changes now, or no longer."""
        self._tags.clear()
        if not self._at:
            return
        if () in self._at:
            _wake(self._at[()])
        for patch in patches if self._interest.paths else ():
            for node in self._interest.met(patch):
                _wake(self._at[node.path])

    def written(self) -> None:
        """There are new changes in the log."""
        if self._any:
            _wake(self._any)

    def end(self) -> None:
        """Nobody is to wait any longer."""
        self.ended = True
        for waiters in (self._any, *self._at.values()):
            _wake(waiters)

    def _now(self, path: Path) -> str:
        tag = self._tags.get(path)
        if tag is None:
            if len(self._tags) >= MOST_TAGS:
                self._tags.clear()
            tag = self._tags[path] = self.tag(path)
        return tag


async def _wait(waiters: set[Waiter], seconds: float) -> bool:
    if seconds <= 0:
        return False
    future: Waiter = asyncio.get_running_loop().create_future()
    waiters.add(future)
    try:
        await asyncio.wait_for(future, seconds)
    except TimeoutError:
        return False
    finally:
        waiters.discard(future)
    return True


def _wake(waiters: set[Waiter]) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(None)
