"""Random sessions on many types: the live value is what the same edits make of a plain copy, and nothing is called
changed by hand that was not."""

import random
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest

from kantad.engine import Engine, Problem
from tests.engine.embedded_kit import held
from tests.engine.engine_kit import LeverDisk

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Place(NamedTuple):
    x: int
    y: float


class Pair(TypedDict):
    left: int
    right: str


@dataclass
class Note:
    text: str = ""
    tags: list[str] = field(default_factory=list)


class Circle(msgspec.Struct, tag="circle"):
    radius: float = 1.0


class Group(msgspec.Struct, tag="group"):
    parts: "dict[str, Circle | Group]" = {}


class Sparse(msgspec.Struct, omit_defaults=True, rename="camel"):
    first_name: str = ""
    by_day: dict[date, int] = {}
    of_mine: list[int] = []


class Loose(msgspec.Struct):
    number: int | msgspec.UnsetType = msgspec.UNSET
    more: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Point(msgspec.Struct, frozen=True):
    x: int = 0
    seen: dict[str, int] = {}


class Checked(msgspec.Struct):
    low: int = 0
    high: int = 9
    marks: dict[int, int] = {}

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Root(msgspec.Struct, kw_only=True):
    groups: dict[str, Group] = {}
    sparse: dict[int, Sparse] = {}
    loose: Loose = msgspec.field(default_factory=Loose)
    point: Point | None = None
    checked: Checked = msgspec.field(default_factory=Checked)
    colours: set[Colour] = set()
    places: list[Place] = []
    pair: Pair | None = None
    notes: dict[UUID, Note] = {}
    price: Decimal = Decimal("1.50")
    at: datetime | None = None
    spent: timedelta = timedelta(0)
    raw: bytes = b""
    free: Any = None
    level: Literal["low", "high"] = "low"
    counts: dict[str, dict[int, float]] = {}
    many: list[Sparse] = []


def number(pick: random.Random) -> int:
    return pick.randrange(5)


def shape(pick: random.Random) -> Any:
    return Circle(float(number(pick))) if pick.random() < 0.7 else Group({str(number(pick)): Circle()})


def loosely(root: Root, pick: random.Random) -> None:
    root.loose.number = pick.choice([msgspec.UNSET, number(pick)])
    if isinstance(root.loose.more, dict) and pick.random() < 0.7:
        root.loose.more[f"${number(pick)}"] = {"deep": [number(pick)]}
    else:
        root.loose.more = pick.choice([msgspec.UNSET, {}, {"a": None}])


def sparsely(root: Root, pick: random.Random) -> None:
    one = root.sparse.setdefault(number(pick), Sparse())
    one.first_name = pick.choice(["", "Ann", "$"])
    one.by_day[date(2026, 1, 1 + number(pick))] = number(pick)
    if pick.random() < 0.3:
        one.by_day.clear()
    one.of_mine = [number(pick)] * number(pick)


def grouped(root: Root, pick: random.Random) -> None:
    group = root.groups.setdefault(str(number(pick)), Group())
    for _ in range(2):
        part = group.parts.get("1")
        if isinstance(part, Group):
            group = part
    group.parts[str(number(pick))] = shape(pick)
    if pick.random() < 0.4:
        del group.parts[min(group.parts)]


def noted(root: Root, pick: random.Random) -> None:
    note = root.notes.setdefault(UUID(int=number(pick)), Note())
    note.text += "x"
    note.tags.insert(0, str(number(pick)))


def listed(root: Root, pick: random.Random) -> None:
    root.places.append(Place(number(pick), float(number(pick))))
    root.places[pick.randrange(len(root.places))] = Place(-1, 0.5)
    if len(root.places) > 20:
        del root.places[3:9]
    root.many.append(Sparse(str(number(pick)), {date(2026, 2, 2): number(pick)}))
    root.many[pick.randrange(len(root.many))].of_mine.append(number(pick))
    root.many.sort(key=lambda one: one.first_name)
    if len(root.many) > 25:
        root.many.pop(number(pick))


def pointed(root: Root, pick: random.Random) -> None:
    if root.point is not None and pick.random() < 0.5:
        root.point.seen[str(number(pick))] = number(pick)
    else:
        root.point = pick.choice([None, Point(number(pick)), Point(1, {"a": 1})])


def scalars(root: Root, pick: random.Random) -> None:
    root.price += 1
    root.at = pick.choice([None, NOON + timedelta(seconds=number(pick))])
    root.spent += timedelta(minutes=1)
    root.raw += b"\xff"
    root.level = pick.choice(["low", "high"])
    root.colours ^= {pick.choice(list(Colour))}
    root.pair = pick.choice([None, {"left": number(pick), "right": "$r"}])


def freely(root: Root, pick: random.Random) -> None:
    if isinstance(root.free, dict) and root.free:
        root.free["more"] = [*root.free.get("more", []), {"n": number(pick)}]
        root.free.pop(pick.choice(sorted(root.free)))
    else:
        root.free = pick.choice([None, 1, 1.0, "$x", [1, {"a": []}], {"a": {"b": {}}}])


def checked(root: Root, pick: random.Random) -> None:
    root.checked.high = 9 + number(pick)
    root.checked.low = number(pick)
    root.checked.marks[number(pick)] = number(pick)
    counts = root.counts.setdefault(pick.choice("ab"), {})
    counts[number(pick)] = number(pick) / 2
    if pick.random() < 0.2:
        root.counts = {"c": dict(counts)}


STEPS = [loosely, sparsely, grouped, noted, listed, pointed, scalars, freely, checked]


@pytest.mark.parametrize("consistency", ["touched", "whole"])
@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_the_live_value_is_what_the_same_edits_make_of_a_copy(
    path: Path, form: str, consistency: Literal["touched", "whole"]
) -> None:
    await session(path, form, consistency, random.Random(f"{form} {consistency}"), 150)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_long_sessions(path: Path, form: str, seed: int) -> None:
    await session(path, form, "touched" if seed % 2 else "whole", random.Random(seed), 2000)


async def session(
    path: Path, form: str, consistency: Literal["touched", "whole"], pick: random.Random, steps: int
) -> None:
    disk = LeverDisk()
    model = Root()
    engine = Engine(path, Root, format=form, consistency=consistency, disk=disk)
    await engine.open()
    for _ in range(steps):
        seeds = [(pick.choice(STEPS), pick.random()) for _ in range(pick.randrange(1, 4))]
        full = pick.random() < 0.05
        if full:
            await engine.flush()
            disk.room = 0
        before = deepcopy(model)
        play(model, seeds)
        with engine.transaction("step") as data:
            play(data, seeds)
        assert differing(engine.data, model) == []
        if full:
            try:
                await engine.flush()
            except Problem:  # none where nothing was changed
                model = before
            disk.room = None
            assert differing(engine.data, model) == []
    await engine.close()
    assert msgspec.convert(held(path).state, Root, str_keys=True) == model


def differing(live: Root, model: Root) -> list[Any]:
    """The fields that differ, with both values."""
    both = [(name, getattr(live, name), getattr(model, name)) for name in live.__struct_fields__]
    return [each for each in both if each[1] != each[2]]


def play(root: Root, seeds: list[tuple[Any, float]]) -> None:
    for step, seed in seeds:
        step(root, random.Random(seed))
