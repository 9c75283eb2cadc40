"""One field of one of many typed users, in this process: the embedded engine beside kanta 0.9.4, in turn, in one run.

    python tests/bench/bench_embedded.py --sizes 1000 100000

The time of a whole `with engine.transaction(...)` block, on the event loop; what follows it (the disk) is left out.
Each figure is a median. Also with `consistency="whole"`, which compares all of the live value each time.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import msgspec
from kanta import Kanta

from kantad.engine import Engine
from kantad.values.codec import JsonCodec


class User(msgspec.Struct):
    """A user."""

    name: str
    email: str
    age: int = 0
    tags: list[str] = []


class Data(msgspec.Struct):
    """The root."""

    users: dict[UUID, User] = {}
    log: list[User] = []
    numbers: set[int] = set()


def user(number: int) -> dict[str, Any]:
    """A user as it is stored."""
    tags = [f"tag{number % 13}", "member"]
    return {"name": f"User Number {number}", "email": f"user{number}@example.com", "age": number % 70, "tags": tags}


Transact = Callable[[], AbstractContextManager[Data]]


async def spent(transact: Transact, flush: Callable[[], Awaitable[None]], size: int, times: int) -> float:
    """Seconds of a transaction that changes one field."""
    found = []
    for number in range(times):
        key = UUID(int=number * 7919 % size)
        began = time.perf_counter()
        with transact() as data:
            data.users[key].age += 1
        found.append(time.perf_counter() - began)
        if number % 32 == 0:
            await flush()
    return statistics.median(found)


async def measure(folder: str, size: int, rounds: int, beside: int) -> None:
    """Print the figures of one size, with a list and a set of so many `beside`."""
    state: dict[str, Any] = {"users": {str(UUID(int=number)): user(number) for number in range(size)}}
    state |= {"log": [user(number) for number in range(beside)], "numbers": list(range(beside))}
    record = JsonCodec().change(int(time.time() * 1e6), "load", state, bytes(8))[0] + b"\n"
    paths = [os.path.join(folder, f"{name}.{size}") for name in ("ours", "whole", "kanta")]
    for path in paths:
        with open(path, "wb") as file:
            file.write(record)
    ours: Engine[Data] = Engine(paths[0], Data)
    whole: Engine[Data] = Engine(paths[1], Data, consistency="whole")
    async with ours, whole, Kanta(paths[2], Data(), flush_interval=3600) as kanta:
        few = max(3, 20_000 // size)
        ways: dict[str, tuple[Transact, Callable[[], Awaitable[None]], int]] = {
            "kantad.engine": (lambda: ours.transaction("age"), ours.flush, 2000),
            "kantad.engine, consistency whole": (lambda: whole.transaction("age"), whole.flush, few),
            "kanta 0.9.4": (lambda: kanta.transaction("age", logdiff=False), kanta.flush, few),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (transact, flush, times) in ways.items():
                found[name].append(await spent(transact, flush, size, times))
    for name, times_found in found.items():
        print(f"{size:>9,} users  {name:<34} {statistics.median(times_found) * 1e6:12,.1f} us a transaction")


async def run(sizes: list[int], rounds: int, beside: int) -> None:
    """Measure each size."""
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            await measure(folder, size, rounds, beside)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=int, default=0, help="elements of a list and of a set that are not touched")
    asked = parser.parse_args()
    asyncio.run(run(asked.sizes, asked.rounds, asked.beside))


if __name__ == "__main__":
    main()
