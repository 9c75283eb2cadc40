"""Readers that were left behind, brought on together: who is served when from the file.

To read a block and make a portion of it costs ten times what sending it does, and what was made is kept for a while
only. So what counts is that readers stand at the same stages of the way. A turn is a stage's: all who wait there are
served with one portion. It is given to the stage that is furthest behind, so that who is ahead is met by the others,
and then the file is gone through once for all. A stage that was passed over in two turns for each other one that waits
comes first: nobody starves, whoever else comes to read from the beginning, and about twice as much is made at most.

A few portions are made at a time, and each is given to all who wait for it before others are made. A sink is looked
at last before something is sent. What is sent, how a feed ends and what comes behind the file is `feed`'s.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Final, Protocol

from kantad.engine.portions import Making, Portion, Portions
from kantad.engine.reader import Reader
from kantad.values.errors import Problem

AT_ONCE: Final = 8  # readers served in a round of the loop: they take whole portions, each time
MAKINGS: Final = 2  # portions that are made at a time: one is read while the other is decoded
LONG: Final = 0.05  # seconds after which the making of one holds up no others
PASSED: Final = 2  # turns for each other stage that waits, in which one is passed over


class Server(Protocol):
    """What the convoy asks of the feeds."""

    def advance(self, reader: Reader, portion: Portion) -> None:
        """Send a reader its next portion."""

    def caught_up(self, reader: Reader) -> None:
        """A reader is where the ring serves it, or at its end."""

    def refused(self, reader: Reader, problem: Problem) -> None:
        """What a reader is to be sent next cannot be had."""

    def failed(self, reader: Reader) -> None:
        """Serving a reader raised what it must not."""


class Stage:
    """A stage of the way: a revision behind which readers wait, and the last turn of the one that waits longest."""

    __slots__ = ("readers", "served")

    def __init__(self, served: int) -> None:
        self.readers: list[Reader] = []
        self.served = served


class Convoy:
    """See the module. One database's, on one event loop."""

    def __init__(self, server: Server, portions: Portions) -> None:
        self.server, self.portions, self.ring = server, portions, portions.ring
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Stage] = {}
        self._served: deque[Reader] = deque()  # whose turn it is
        self._turn = 0
        self._under_way: dict[Hashable, Making] = {}
        self._busy = 0  # those of them that hold up others
        self._made: deque[tuple[Portion, deque[Reader]]] = deque()
        self._going = False

    # -- coming and going

    def take(self, reader: Reader, *, stuck: bool) -> None:
        """Bring a reader on from the file; `stuck`: over a change in memory that is unclear."""
        reader.behind, reader.stuck, reader.served = True, stuck, self._turn
        self.wake(reader)

    def wake(self, reader: Reader) -> None:
        """A reader that is brought on may have room."""
        if reader.asked:
            return
        reader.asked = True
        if reader.stuck:  # it keeps up otherwise
            self._served.append(reader)
        else:
            stage = self._waiting.get(reader.position)
            if stage is None:
                stage = self._waiting[reader.position] = Stage(reader.served)
            stage.served = min(stage.served, reader.served)
            stage.readers.append(reader)
        self._go()

    def leave(self, reader: Reader) -> None:
        """A reader is finished. What is made for it alone is made no further."""
        making = reader.making
        if making is not None and self._under_way.get(making.key) is making:
            making.readers.remove(reader)
            if not making.readers and making.task is not None:
                making.task.cancel()
                self._ended(making)

    # -- who is next

    def _go(self) -> None:
        """Serve some in the loop's next round, if there is somebody to be served."""
        if not self._going and (self._made or (self._busy < MAKINGS and (self._served or self._waiting))):
            self._going = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        self._going = False
        for _ in range(AT_ONCE):
            if self._made:
                portion, readers = self._made[0]
                self._try(readers.popleft(), portion)
                if not readers:
                    self._made.popleft()
            elif self._busy < MAKINGS and (self._served or self._waiting):
                if not self._served:
                    self._next_turn()
                self._try(self._served.popleft(), None)
            else:
                break
        self._go()

    def _next_turn(self) -> None:
        """Choose from the stages where readers wait."""
        self._turn += 1
        position, stage = min(self._waiting.items(), key=_longest)
        if self._turn - stage.served <= PASSED * (len(self._waiting) - 1):
            position = min(self._waiting)
        self._served.extend(self._waiting.pop(position).readers)

    # -- serving one

    def _try(self, reader: Reader, portion: Portion | None) -> None:
        reader.making, reader.asked = None, False
        try:
            self._serve(reader, portion)
        except Exception:
            reader.behind = False
            self.server.failed(reader)

    def _serve(self, reader: Reader, portion: Portion | None) -> None:
        """Send a reader its next portion if its sink takes it, or let it wait until that is made."""
        if reader.finished:
            return
        if self._through(reader):
            reader.behind = False
            self.server.caught_up(reader)
        elif reader.sink.free():
            portion = portion or self.portions.kept(reader)
            if portion is None:
                self._await_portion(reader)
                return
            reader.stuck, reader.served = False, self._turn
            self.server.advance(reader, portion)
            if self._through(reader) or reader.sink.free():
                self.wake(reader)

    def _through(self, reader: Reader) -> bool:
        """Whether a reader needs the convoy no more."""
        return reader.done or (reader.in_memory(self.ring.first) and not reader.stuck)

    # -- making portions

    def _await_portion(self, reader: Reader) -> None:
        """Wait for a portion, with all who want the same."""
        key = (reader.encoding.key, reader.filter, reader.position, reader.until, reader.left)
        making = self._under_way.get(key)
        if making is None:
            making = self._under_way[key] = Making(key)
            self._busy += 1
            making.timer = self._loop.call_later(LONG, self._hold_up_no_more, making)
            making.task = self._loop.create_task(self._make(making, reader))
        making.readers.append(reader)
        reader.making, reader.asked = making, True

    async def _make(self, making: Making, reader: Reader) -> None:
        try:
            portion = await self.portions.make(reader)
        except Problem as problem:
            for each in self._dismissed(making):
                self.server.refused(each, problem)
        except Exception:
            for each in self._dismissed(making):
                self.server.failed(each)
        else:
            self._made.append((portion, making.readers))
            self._ended(making)

    def _dismissed(self, making: Making) -> list[Reader]:
        """Who waited for what could not be made; the convoy is through with them."""
        self._ended(making)
        for reader in making.readers:
            reader.making, reader.asked, reader.behind = None, False, False
        return list(making.readers)

    def _ended(self, making: Making) -> None:
        """Nobody can join it any more."""
        del self._under_way[making.key]
        self._hold_up_no_more(making)

    def _hold_up_no_more(self, making: Making) -> None:
        if making.timer is not None:
            making.timer.cancel()
            making.timer = None
            self._busy -= 1
        self._go()


def _longest(waiting: tuple[int, Stage]) -> tuple[int, int]:
    """Who waits longest, and of those who is furthest behind, comes first."""
    position, stage = waiting
    return stage.served, position
