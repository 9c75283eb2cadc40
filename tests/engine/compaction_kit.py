"""What tests of compaction share: compact, fill, and see what is there."""

import asyncio
from pathlib import Path

from kantad.engine.compacting import Compacted
from kantad.engine.engine import Engine
from kantad.store.log import reading
from kantad.store.verify import verify
from kantad.values.errors import Problem
from kantad.values.retention import retention
from tests.engine.engine_kit import Database, flushed, put
from tests.own_formats import format_flag


def compacting(engine: Engine, retain: str, archive: bool = True) -> "asyncio.Task[Compacted]":
    return asyncio.get_running_loop().create_task(engine.compaction.compact(retention(retain), archive))


async def compacted(engine: Engine, retain: str, archive: bool = True) -> Compacted:
    async with asyncio.timeout(30):
        return await engine.compaction.compact(retention(retain), archive)


async def refused(engine: Engine, retain: str) -> Problem:
    try:
        await compacted(engine, retain)
    except Problem as problem:
        return problem
    raise AssertionError("it was not refused")


def is_whole(path: str, *, written: bool = False, format: str | None = None) -> bool:
    """Whether nothing is damaged; nor torn, unless it is being `written` meanwhile."""
    with reading(path, format or format_flag(path)) as (buffer, size, framing, codec):
        verified = verify(buffer, size, framing, codec)
        return verified.damage is None and (written or not verified.torn)


async def filled(engine: Engine, count: int, size: int = 20) -> None:
    for number in range(count):
        put(engine, f"/k{number % 50}", {"n": number, "pad": "x" * size})
        if number % 16 == 0:
            await asyncio.sleep(0)
    await flushed(engine)


def others(database: Database) -> list[Path]:
    path = Path(database.path)
    return sorted(each for each in path.parent.iterdir() if each != path)
