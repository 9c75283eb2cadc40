"""Makes the golden files beside it: databases that kanta 0.9.4 wrote with a Struct as root, before and after migrations.

    python -m tests.golden.typed.make

`before.<format>.kantadb` is of the type `Before`; `after.<format>.kantadb` is the same file after kanta opened it as
`After` with the migrations of `tests.golden.typed.steps`. `after.json` is the state then, as JSON.
"""

import asyncio
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from tests.golden.typed import steps

HERE = Path(__file__).parent
FORMATS = {"json": JsonSerializer, "msgpack": MsgPackSerializer}
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Person(msgspec.Struct):
    name: str
    age: str = "0"
    joined: datetime | None = None


class Before(msgspec.Struct):
    """The first type of the root."""

    people: dict[UUID, Person] = {}
    by_day: dict[datetime, int] = {}
    by_number: dict[int, list[float]] = {}
    raw: bytes = b""
    gone: int = 1


class User(msgspec.Struct):
    name: str
    age: Annotated[int, msgspec.Meta(ge=0)] = 0
    joined: datetime | None = None
    colour: Colour = Colour.RED


class Circle(msgspec.Struct, tag="circle"):
    radius: float = 1.0


class Square(msgspec.Struct, tag="square"):
    side: float = 2.0


class After(msgspec.Struct):
    """The type of the root that the migrations lead to."""

    users: dict[UUID, User] = {}
    by_day: dict[datetime, int] = {}
    by_number: dict[int, list[float]] = {}
    raw: bytes = b""
    shape: Circle | Square | None = None
    price: Decimal = Decimal("1.50")
    words: frozenset[str] = frozenset()


async def make(format: str) -> None:
    before, after = HERE / f"before.{format}.kantadb", HERE / f"after.{format}.kantadb"
    before.unlink(missing_ok=True)
    serializer = FORMATS[format]()
    async with Kanta(str(before), Before(), serializer=serializer) as kanta:
        with kanta.transaction("fill", user="ann") as data:
            data.people[UUID(int=1)] = Person("Ann", "30", NOON)
            data.people[UUID(int=2)] = Person("Bob")
            data.by_day[NOON] = 1
            data.by_number[7] = [0.5, 2.0]
        with kanta.transaction("raw") as data:
            data.raw = b"\x00\x01kanta"
            data.by_number[7].append(-1.0)
    shutil.copy(before, after)
    async with Kanta(str(after), After(), migrations=steps, serializer=serializer) as kanta:
        with kanta.transaction("shape") as data:
            data.shape = Square(3.0)
        (HERE / "after.json").write_bytes(msgspec.json.format(msgspec.json.encode(kanta.data), indent=1) + b"\n")


if __name__ == "__main__":
    for each in FORMATS:
        asyncio.run(make(each))
