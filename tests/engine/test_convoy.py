"""The convoy: readers that are apart come together, each gets everything in order, and nobody starves."""

import asyncio
from collections import Counter, OrderedDict
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from kantad.engine.convoy import MAKINGS, PASSED, Convoy
from kantad.engine.filter import Filter
from kantad.engine.portions import Portion
from kantad.engine.reader import Reader
from kantad.values.errors import Problem
from tests.engine.engine_kit import TIMEOUT, eventually
from tests.engine.feed_kit import Lines

STEP = 10  # revisions in a portion


class Sink:
    """Takes so many portions; any number while `room` is None."""

    def __init__(self) -> None:
        self.room: int | None = None

    def free(self) -> bool:
        return self.room is None or self.room > 0

    def send(self, data: bytes) -> None:
        raise AssertionError("the convoy sends nothing itself")

    def ended(self, problem: Problem | None) -> None:
        raise AssertionError("the convoy ends nothing itself")


class Scene:
    """A convoy over a file whose portions are made in a round of the loop; also its `Portions` and its `Server`."""

    def __init__(self, last: int, keeps: int = 4) -> None:
        self.ring: Any = SimpleNamespace(first=last + 1)
        self.keeps = keeps
        self.lately: OrderedDict[Any, Portion] = OrderedDict()
        self.makings: Counter[int] = Counter()
        self.at_once = self.most_at_once = 0
        self.held: dict[int, asyncio.Event] = {}  # positions whose portions are not made before that
        self.faults: dict[int, Exception] = {}
        self.readers: list[Reader] = []
        self.sent: list[tuple[Reader, int, int]] = []  # to whom, up to where, behind how many makings
        self.there: set[Reader] = set()
        self.told: list[tuple[Reader, Problem | None]] = []
        self.convoy = Convoy(self, self)  # type: ignore[arg-type]

    def reader(self, position: int = 0, user: str | None = None) -> Reader:
        reader = Reader(Filter((), None, user), Lines(), Sink(), position)
        self.readers.append(reader)
        self.convoy.take(reader, stuck=False)
        return reader

    def turns(self, reader: Reader) -> int:
        """How often a reader was sent something."""
        return sum(each is reader for each, *_ in self.sent)

    def leave(self, reader: Reader) -> None:
        reader.finished = True
        self.convoy.leave(reader)

    def leave_all(self) -> None:
        for reader in self.readers:
            self.leave(reader)

    # -- as Portions

    def kept(self, reader: Reader) -> Portion | None:
        return self.lately.get((reader.filter, reader.position))

    async def make(self, reader: Reader) -> Portion:
        place = reader.position
        self.makings[place] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if place in self.held:
                await self.held[place].wait()
            if place in self.faults:
                raise self.faults[place]
        finally:
            self.at_once -= 1
        portion = self.lately[reader.filter, place] = Portion(b"x", 1, place + STEP, b"")
        if len(self.lately) > self.keeps:
            self.lately.popitem(last=False)
        return portion

    # -- as Server

    def advance(self, reader: Reader, portion: Portion) -> None:
        assert reader.sink.free()
        assert portion.upto == reader.position + STEP
        assert isinstance(reader.sink, Sink)
        if reader.sink.room is not None:
            reader.sink.room -= 1
        reader.position = portion.upto
        self.sent.append((reader, portion.upto, self.makings.total()))

    def caught_up(self, reader: Reader) -> None:
        assert not reader.behind
        self.there.add(reader)

    def refused(self, reader: Reader, problem: Problem) -> None:
        self.told.append((reader, problem))

    def failed(self, reader: Reader) -> None:
        self.told.append((reader, None))


async def test_readers_that_are_apart_come_together_and_the_file_is_gone_through_about_once() -> None:
    scene = Scene(2000)
    readers = [scene.reader(number * 2 * STEP) for number in range(50)]
    await eventually(lambda: scene.there == set(readers))
    wanted = sum((2000 - number * 2 * STEP) // STEP for number in range(50))
    assert len(scene.sent) == wanted > 7000
    for reader in readers:
        places = [upto for each, upto, _ in scene.sent if each is reader]
        assert places == list(range(places[0], 2001, STEP))
    assert scene.makings.total() < 1.5 * 2000 // STEP
    assert scene.most_at_once <= MAKINGS


async def test_readers_at_one_place_wait_for_one_making() -> None:
    scene = Scene(STEP)
    readers = [scene.reader() for _ in range(100)]
    await eventually(lambda: scene.there == set(readers))
    assert scene.makings == {0: 1}


async def test_who_is_ahead_goes_on_however_many_come_from_the_beginning() -> None:
    scene = Scene(1_000_000, keeps=0)
    ahead = [scene.reader(500_000), scene.reader(600_000)]
    most = 0
    while min(scene.turns(reader) for reader in ahead) < 20:
        late = scene.reader()
        await eventually(lambda late=late: late.position > 0)  # type: ignore[misc]
        most = max(most, len({reader.position for reader in scene.readers}))
    for reader in ahead:
        at = [makings for each, _, makings in scene.sent if each is reader]
        assert max(two - one for one, two in pairwise(at)) <= (PASSED + 2) * most
    scene.leave_all()


async def test_a_sink_that_was_filled_while_the_portion_was_made_is_sent_nothing() -> None:
    scene = Scene(STEP)
    scene.held[0] = asyncio.Event()
    one, other = scene.reader(), scene.reader()
    await eventually(lambda: scene.makings[0] == 1)
    assert isinstance(one.sink, Sink)
    one.sink.room = 0
    scene.held[0].set()
    await eventually(lambda: other in scene.there)
    assert one.position == 0
    one.sink.room = 1
    scene.convoy.wake(one)
    await eventually(lambda: one in scene.there)
    assert scene.makings == {0: 1}


async def test_a_making_that_takes_long_holds_up_nobody_else() -> None:
    scene = Scene(2 * STEP)
    scene.held[0] = asyncio.Event()
    slow = {scene.reader(user=f"u{number}") for number in range(2 * MAKINGS)}
    await eventually(lambda: scene.makings[0] == len(slow))
    quick = scene.reader(STEP)
    await eventually(lambda: quick in scene.there)
    assert scene.there == {quick}
    scene.held[0].set()
    await eventually(lambda: scene.there == {quick, *slow})


async def test_what_is_made_for_nobody_any_more_is_given_up_and_made_again_for_who_comes() -> None:
    scene = Scene(STEP)
    scene.held[0] = asyncio.Event()
    gone = [scene.reader(), scene.reader()]
    await eventually(lambda: scene.makings[0] == 1)
    for reader in gone:
        scene.leave(reader)
    late = scene.reader()
    await eventually(lambda: scene.makings[0] == 2)
    await eventually(lambda: scene.at_once == 1)
    scene.held[0].set()
    await eventually(lambda: late in scene.there)
    assert [reader for reader, *_ in scene.sent] == [late]


async def test_a_reader_that_leaves_takes_nothing_from_who_waits_with_it() -> None:
    scene = Scene(STEP)
    scene.held[0] = asyncio.Event()
    gone, stays = scene.reader(), scene.reader()
    await eventually(lambda: scene.makings[0] == 1)
    scene.leave(gone)
    scene.held[0].set()
    await eventually(lambda: stays in scene.there)
    assert scene.makings == {0: 1}
    assert [reader for reader, *_ in scene.sent] == [stays]


@pytest.mark.parametrize("fault", [Problem("history_gone", "it is"), ZeroDivisionError()], ids=["problem", "fault"])
async def test_what_cannot_be_made_is_told_to_all_who_wait_for_it_and_to_nobody_else(fault: Exception) -> None:
    scene = Scene(2 * STEP)
    scene.faults[0] = fault
    readers, sound = {scene.reader(), scene.reader()}, scene.reader(STEP)
    await asyncio.wait_for(eventually(lambda: len(scene.told) == 2 and sound in scene.there), TIMEOUT)
    assert {reader for reader, _ in scene.told} == readers
    assert {problem for _, problem in scene.told} == {fault if isinstance(fault, Problem) else None}
    assert not any(reader.behind for reader in readers)
