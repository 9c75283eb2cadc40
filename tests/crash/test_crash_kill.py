"""kill -9 at random moments, in a loop, over one database: nothing acknowledged is lost, nothing is doubled."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.crash.journal import Journal
from tests.crash.process_kit import Process
from tests.own_formats import CBOR

LONGEST = 0.25  # seconds of writing before the kill
STARTING = 0.5  # seconds within which a start is killed


async def cycles(path: str, format: str, count: int, *flags: str) -> None:
    """Start, write, kill, start, compare; again and again."""
    journal, dice = Journal(count), random.Random(count)
    flags = ("--format", format, *flags)
    process = await Process(path, *flags).start()
    await journal.begin(process)
    for number in range(count):
        writing = asyncio.create_task(journal.write(process))
        if number % 7 == 3:
            await asyncio.wait([asyncio.create_task(process.ask("POST", "/v1/snapshot"))])
        await asyncio.wait([writing], timeout=dice.uniform(0, LONGEST))
        await process.kill()
        await writing
        if number % 5 == 4:
            await killed_in_its_start(path, dice.uniform(0, STARTING), *flags)
        process = await Process(path, *flags).start()
        await journal.settle(process)
    assert await process.stop() == 0
    total = journal.check_file(path, format)
    assert total >= journal.acknowledged > count
    print(f"{count} cycles, {total} changes, {journal.acknowledged} acknowledged, {os.path.getsize(path)} bytes")


async def killed_in_its_start(path: str, seconds: float, *flags: str) -> None:
    """Start it and kill it after so many seconds."""
    process = Process(path, *flags)
    await process.spawn()
    ready = asyncio.create_task(process.until_ready())
    await asyncio.wait([ready], timeout=seconds)
    await process.kill()
    await asyncio.wait([ready])
    ready.exception()


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_kill_at_a_random_moment_loses_and_doubles_nothing(tmp_path: Path, format: str) -> None:
    await cycles(str(tmp_path / "data.kantadb"), format, 6)


@pytest.mark.parametrize("policy", ["written"])
async def test_kill_loses_nothing_that_was_acknowledged_as_written(tmp_path: Path, policy: str) -> None:
    await cycles(str(tmp_path / "data.kantadb"), "json", 3, "--ack", policy)


@pytest.mark.long
@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_two_hundred_kills_lose_and_double_nothing(tmp_path: Path, format: str) -> None:
    await cycles(str(tmp_path / "data.kantadb"), format, 200)


@pytest.mark.long
async def test_fifty_kills_lose_nothing_that_was_acknowledged_as_written(tmp_path: Path) -> None:
    await cycles(str(tmp_path / "data.kantadb"), "json", 50, "--ack", "written")
