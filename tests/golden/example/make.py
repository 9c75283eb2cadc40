"""Makes the golden files beside it: a small application of kanta, before and after a migration of its own.

Run once with each version of kanta installed from PyPI with its `bin` extra (0.1.1, 0.9.4):

    python -m tests.golden.example.make

`before.<version>.<format>.kantadb` is of the type `Before`; `after.…` is the same file after kanta opened it as `After`,
the type of the README's quick start, with the migrations of `tests.golden.example.steps`, and changed it once more.
"""

import asyncio
import shutil
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import msgspec
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from tests.golden.example import steps

HERE = Path(__file__).parent
FORMATS = {"json": JsonSerializer, "msgpack": MsgPackSerializer}


class Person(msgspec.Struct):
    name: str = ""
    mail: str = ""


class Before(msgspec.Struct):
    """What the application began with."""

    people: dict[UUID, Person] = {}


class User(msgspec.Struct):
    name: str = ""
    email: str | None = None


class After(msgspec.Struct):
    """The type of the quick start."""

    users: dict[UUID, User] = {}


async def make(format: str) -> None:
    before, after = (HERE / f"{name}.{version('kanta')}.{format}.kantadb" for name in ("before", "after"))
    before.unlink(missing_ok=True)
    async with Kanta(str(before), Before(), serializer=FORMATS[format]()) as kanta:
        for number, name in enumerate(["Alice", "Bob", "$Carol"]):
            with kanta.transaction(action="create_person", user="admin") as data:
                data.people[UUID(int=number)] = Person(name, f"{number}@example.com" if number else "")
        with kanta.transaction(action="rename") as data:
            data.people[UUID(int=1)].name = "Robert"
    shutil.copy(before, after)
    async with Kanta(str(after), After(), migrations=steps, serializer=FORMATS[format]()) as kanta:
        with kanta.transaction(action="create_user") as data:
            data.users[UUID(int=9)] = User("Dave")


if __name__ == "__main__":
    for each in FORMATS:
        asyncio.run(make(each))
