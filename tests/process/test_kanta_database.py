"""A database that kanta made, opened in place and served; and back again."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from kanta import Kanta
from kanta.serialization import MsgPackSerializer

from tests.process.running import Running, ask

Start = Callable[..., Running]
USERS = 10_000


class User(msgspec.Struct):
    """A user of kanta's."""

    name: str = ""
    email: str | None = None
    age: int = 0
    tags: list[str] = []


class Data(msgspec.Struct):
    """kanta's root."""

    users: dict[str, User] = {}


async def make(path: Path, form: str) -> None:
    """Make a database of 10,000 users with kanta, in a few transactions."""
    options = {"serializer": MsgPackSerializer()} if form == "msgpack" else {}
    async with Kanta(str(path), Data(), **options) as kanta:
        for start in range(0, USERS, 2500):
            with kanta.transaction(action="load") as data:
                for i in range(start, start + 2500):
                    data.users[f"u{i:05d}"] = User(f"User {i}", f"u{i}@example.com", i % 90, ["member"])
        with kanta.transaction(action="rename", user="alice") as data:
            data.users["u00007"].name = "$seven"
            del data.users["u00008"]


async def read(path: Path, form: str) -> Data:
    """What kanta reads in a file."""
    options = {"serializer": MsgPackSerializer()} if form == "msgpack" else {}
    kanta = Kanta(str(path), Data(), **options)
    await kanta.open(readonly=True)
    try:
        return kanta.data
    finally:
        await kanta.close()


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_kanta_database_is_served_in_place_and_goes_back(run: Start, tmp_path: Path, form: str) -> None:
    path = tmp_path / "data.kantadb"
    asyncio.run(make(path, form))
    process = run("--port", "0")
    port = process.port()
    users = json.loads(ask(port, "GET", "/v1/data/users")[1])
    assert len(users) == USERS - 1
    assert users["u00007"] == {"name": "$seven", "email": "u7@example.com", "age": 7, "tags": ["member"]}
    status = json.loads(ask(port, "GET", "/v1/status")[1])
    assert status["file"]["format"] == form
    revision = status["rev"]
    patch = b'{"age": 77, "tags": {"$insert": [[0, "$first"]]}}'
    answer = json.loads(ask(port, "PATCH", "/v1/data/users/u00009", patch)[1])
    assert answer["rev"] == revision + 1
    assert process.stop() == 0
    data = asyncio.run(read(path, form))
    assert data.users["u00009"] == User("User 9", "u9@example.com", 77, ["$first", "member"])
    assert len(data.users) == USERS - 1
