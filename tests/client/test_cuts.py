"""The connection cut at every byte of an exchange, in both directions: done once, told once, and usable after.

In the default suite as many positions as fit into some seconds, spread evenly; all of them with `-m long`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from kanta_client import KantaClient, Patience

from tests.client.proxy import Direction, Proxy
from tests.serving import Serving

QUICK = Patience(ping=1.0, stale=2.0, lost=3.0, retry=0.02)
SECONDS = 4.0  # of each exchange and direction, in the default suite

Exchange = Callable[[KantaClient, int], Awaitable[None]]


async def over_the_socket(db: KantaClient, number: int) -> None:
    """A subscription, writes that would show if they were done twice, and their events."""
    async with db.subscribe("/log", since=0 if number < 0 else await db.ping(), value=False) as changes:
        written = await db.patch("/log", {"$insert": [[0, number]]})
        more = await asyncio.gather(*[db.update("/total", lambda total: (total or 0) + 1) for _ in range(2)])
        last = await db.patch("/log", {"$insert": [[0, -number]]}, base=written)
        assert written.changed
        assert last.rev > written.rev
        assert len({each.rev for each in more}) == 2
        told = [await anext(changes) for _ in range(2)]
    assert [change.rev for change in told] == [written.rev, last.rev]


async def over_http(db: KantaClient, number: int) -> None:
    """An append, a merge patch, a revert."""
    appended = await db.append("/log", number)
    merged = await db.patch("/object", {f"k{number}": number}, merge=True)
    again = await db.append("/log", -number)
    reverted = await db.revert("/object", appended)
    assert appended.rev < merged.rev < again.rev < reverted.rev
    assert reverted.changed
    assert appended.key is not None or appended.replayed  # one that was found in the log has none
    assert await db.get(("object", f"k{number}"), "nothing") == "nothing"


async def with_a_mirror(db: KantaClient, number: int) -> None:
    """A mirror that is filled, and reads the client's own writes."""
    async with db.mirror("/log") as copy:
        before = list(copy.value)
        written = await db.patch("/log", {"$insert": [[0, number]]})
        last = await db.patch("/log", {"$insert": [[0, -number]]})
        await copy.at_least(last)
        assert copy.value == [-number, number, *before]
        assert copy.rev >= last.rev > written.rev


async def measured(serving: Serving, exchange: Exchange, connection: int) -> dict[Direction, int]:
    """How many bytes an exchange takes on a connection."""
    async with Proxy(serving.port, lambda number: None) as proxy:
        before: dict[Direction, int] = {"up": 0, "down": 0}
        async with KantaClient(proxy.url, patience=QUICK) as db:
            if connection:
                await db.ping()
                before = dict(proxy.forwarded)
            await exchange(db, 1_000_000)
        return {way: size - before[way] for way, size in proxy.forwarded.items()}


async def cut(serving: Serving, exchange: Exchange, number: int, way: Direction, place: int, connection: int) -> None:
    """One exchange with a cut."""
    async with Proxy(serving.port, lambda each: (way, place) if each == connection else None) as proxy:
        async with KantaClient(proxy.url, timeout=10, patience=QUICK) as db:
            await exchange(db, number)
            assert -number in await db.get("/log")  # and it goes on
        assert proxy.connections >= 1


async def cut_everywhere(
    serving: Serving, exchange: Exchange, way: Direction, connection: int, all_of_it: bool
) -> None:
    await serving.put("/log", [])
    await serving.put("/object", {})
    size = (await measured(serving, exchange, connection))[way]
    places = list(range(size + 1))
    stride = next(step for step in (89, 61, 97, 1) if size % step)  # spread evenly, each once
    order = places if all_of_it else sorted(places, key=lambda place: place * stride % (size + 1))
    numbers, until = count(1), time.monotonic() + (3_600 if all_of_it else SECONDS)
    done = 0
    for place in order:
        if time.monotonic() > until:
            break
        done = next(numbers)
        try:
            await cut(serving, exchange, done, way, place, connection)
        except Exception as error:
            raise AssertionError(f"cut {way} after {place} of {size} bytes") from error
    assert done > 20
    _exactly_once(serving, done, exchange)


def _exactly_once(serving: Serving, done: int, exchange: Exchange) -> None:
    """What the server's log has, whatever the client was told."""
    keys = Counter(record["id"] for record in serving.records() if "id" in record)
    assert max(keys.values()) == 1
    log: list[Any] = serving.engine.root["log"]
    expected = [sign * number for number in (*range(1, done + 1), 1_000_000) for sign in (1, -1)]
    assert sorted(log) == sorted(expected)
    if exchange is over_the_socket:
        assert serving.engine.root["total"] == 2 * (done + 1)


CASES = [
    pytest.param(exchange, way, connection, id=f"{exchange.__name__}-{way}")
    for exchange, connection in ((over_the_socket, 0), (with_a_mirror, 0), (over_http, 1))
    for way in ("up", "down")
]


@pytest.mark.parametrize(("exchange", "way", "connection"), CASES)
async def test_a_cut_anywhere_leaves_each_write_done_once_and_each_event_told_once(
    serving: Serving, exchange: Exchange, way: Direction, connection: int
) -> None:
    await cut_everywhere(serving, exchange, way, connection, False)


@pytest.mark.long
@pytest.mark.parametrize(("exchange", "way", "connection"), CASES)
async def test_a_cut_at_every_byte_leaves_each_write_done_once_and_each_event_told_once(
    serving: Serving, exchange: Exchange, way: Direction, connection: int
) -> None:
    await cut_everywhere(serving, exchange, way, connection, True)
