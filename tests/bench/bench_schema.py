"""What a schema costs a write: updates of one field with one and without, in turn, at several sizes of the state.

    python tests/bench/bench_schema.py --sizes 1000 100000 --formats json msgpack

In this process, on the event loop, where the work of a write is done: the time of a step that makes many
writes, by the way of a WebSocket's lane and by that of a plain HTTP request, what follows it (the disk)
left out. Each figure is a median; `x` is how much longer it takes with the schema.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from kantad.engine.engine import Engine
from kantad.engine.lane import write_all
from kantad.engine.opening import open_engine
from kantad.store.formats import new_file
from kantad.values.framing import BinaryFrames
from kantad.values.pointer import parse
from kantad.values.record import CHAIN_START
from kantad.values.schema import Schema

STEP = 64  # writes that are measured together


class Address(msgspec.Struct):
    """What is nested in a user."""

    city: str = ""
    zip: Annotated[str, Meta(max_length=10)] = ""
    lines: list[str] = []


class User(msgspec.Struct):
    """A user of the comparison suite's shape, and a few more types."""

    name: str
    email: str
    age: int = 0
    tags: list[str] = []
    balance: Annotated[float, Meta(ge=0)] = 0.0
    level: Annotated[int, Meta(ge=0, le=1000)] = 0
    seen: datetime | None = None
    owner: UUID | None = None
    address: Address | None = None


class Data(msgspec.Struct):
    """The root."""

    users: dict[UUID, User] = {}


EDITS: dict[str, Any] = {
    "age (int)": lambda pick: {"age": pick.randrange(10**6)},
    "level (int, 0 to 1000)": lambda pick: {"level": pick.randrange(1001)},
    "name (str)": lambda pick: {"name": f"name {pick.randrange(10**6)}"},
    "seen (datetime)": lambda pick: {"seen": f"2026-06-{pick.randrange(1, 29):02}T02:55:{pick.randrange(60):02}Z"},
    "seen (+00:00)": lambda pick: {"seen": f"2026-06-{pick.randrange(1, 29):02}T02:55:{pick.randrange(60):02}+00:00"},
    "seen (timestamp)": lambda pick: {"seen": datetime.fromtimestamp(pick.randrange(10**9), UTC)},
    "owner (UUID)": lambda pick: {"owner": str(UUID(int=pick.getrandbits(128)))},
    "address.city (nested)": lambda pick: {"address": {"city": f"city {pick.randrange(10**6)}"}},
    "address (whole)": lambda pick: {
        "address": {"$replace": {"city": f"city {pick.randrange(10**6)}", "zip": "20100", "lines": ["a", "b"]}}
    },
    "balance and age": lambda pick: {"balance": pick.random() * 100, "age": pick.randrange(10**6)},
    "tags[0] (list)": lambda pick: {"tags": {"0": f"tag{pick.randrange(10**6)}"}},
    "tags (list)": lambda pick: {"tags": [f"tag{pick.randrange(10**6)}", "member"]},
}


def user(number: int) -> dict[str, Any]:
    """A user as it is stored."""
    return {
        "name": f"User Number {number}",
        "email": f"user{number}@example.com",
        "age": 18 + number % 70,
        "tags": [f"tag{number % 13}", "member"],
        "balance": float(number % 100),
        "level": 1,
        "seen": None,
        "owner": None,
        "address": {"city": "Turku", "zip": "20100", "lines": []},
    }


def admit(action: str, user: str | None) -> None:
    """Everybody may."""


async def lane(engine: Engine, writes: list[Any]) -> float:
    """Seconds of one step that makes these writes, as a WebSocket's message does."""
    began = time.perf_counter()
    write_all(engine, writes, admit)
    spent = time.perf_counter() - began
    await engine.settled("durable", engine.rev)
    return spent


async def plain(engine: Engine, writes: list[Any]) -> float:
    """Seconds that the engine spends on these writes, as plain HTTP requests ask for them."""
    places = [engine.places.at(parse(write.path)) for write in writes]
    began = time.perf_counter()
    for place, write in zip(places, writes, strict=True):
        engine.write(place, write.diff, "patch", "patch")
    spent = time.perf_counter() - began
    await engine.settled("durable", engine.rev)
    return spent


async def measure(folder: str, size: int, format: str, steps: int, only: str) -> None:
    """Print the figures of one size and format."""
    keys = [str(UUID(int=number)) for number in range(size)]
    path = os.path.join(folder, f"{size}.{format}.kantadb")
    framing, codec = new_file(format, os.urandom(4))
    state = {"users": {key: user(number) for number, key in enumerate(keys)}}
    micros = int(datetime.now(UTC).timestamp() * 1e6)
    head = framing.seed if isinstance(framing, BinaryFrames) else b""
    snapshot = framing.frame(codec.snapshot(micros, state, 0, CHAIN_START), len(head), True)
    for name in ("without", "with"):
        with open(f"{path}.{name}", "wb") as file:
            file.write(head + snapshot)
    engines = [
        open_engine(f"{path}.without", own_process=True),
        open_engine(f"{path}.with", schema=Schema(Data), own_process=True),
    ]
    pick = random.Random(1)
    for name, edit in EDITS.items():
        if only not in name or (name == "seen (timestamp)" and format == "json"):
            continue
        for way in (lane, plain):
            spent: list[list[float]] = [[], []]
            for _ in range(steps):
                edits = [(f"/users/{pick.choice(keys)}", edit(pick)) for _ in range(STEP)]
                for times, engine in zip(spent, engines, strict=True):
                    writes = [SimpleNamespace(path=p, diff=dict(d), a="patch", u=None, key=None) for p, d in edits]
                    times.append(await way(engine, writes))
            without, checked = (statistics.median(times) / STEP * 1e6 for times in spent)
            print(
                f"{size:>9,} users  {format:<8}{name:<24} {way.__name__:<6}"
                f" {without:6.2f} us without, {checked:6.2f} us with: x {checked / without:.2f}"
            )
    for engine in engines:
        await engine.stop()


async def run(asked: argparse.Namespace) -> None:
    """Measure each size and format."""
    with tempfile.TemporaryDirectory() as folder:
        for size in asked.sizes:
            for format in asked.formats:
                await measure(folder, size, format, asked.steps, asked.only)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--formats", nargs="*", default=["json", "msgpack"])
    parser.add_argument("--only", default="", help="edits with this in their name")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
