"""What the tests of an embedded database share: types, and a look at the file afterwards."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec

from kantad.engine import Engine
from kantad.schema import validator
from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.values.moment import now_micros
from tests.own_formats import format_flag

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ANN, BOB, EVE = UUID(int=1), UUID(int=2), UUID(int=3)


class Address(msgspec.Struct):
    city: str = ""


class User(msgspec.Struct):
    name: str = ""
    age: Annotated[int, msgspec.Meta(ge=0)] = 0
    tags: list[str] = []
    seen: datetime | None = None
    address: Address | None = None
    settings: dict[str, Any] = {}


class Data(msgspec.Struct):
    users: dict[UUID, User] = {}
    by_number: dict[int, list[float]] = {}
    log: list[User] = []
    raw: bytes = b""
    words: set[str] = set()
    most: int = 1000


@validator
def no_eve(state: Any, touched: Any) -> None:
    """Marked, so it is asked where the type is used."""
    if str(EVE) in state.get("users", {}):
        raise ValueError("not her")


def held(path: Path | str) -> Any:
    """What the file holds, read by nobody's live value."""
    log, found = open_log(str(path), format_flag(path), RealDisk(), now_micros())
    log.close()
    return found


async def filled(path: Path, **options: Any) -> "Engine[Data]":
    """A database with a few users in it, open."""
    engine = Engine(path, Data, **options)
    await engine.open()
    with engine.transaction("fill", user="ann") as data:
        data.users[ANN] = User("Ann", 30, ["new"], NOON, Address("Turku"), {"theme": {"dark": True}})
        data.users[BOB] = User("Bob", 40)
        data.by_number[7] = [0.5, 2.0]
        data.log.extend(User(f"u{number}") for number in range(40))
        data.raw = b"\x00\x01kanta"
        data.words |= {"b", "a"}
    await engine.flush()
    return engine
