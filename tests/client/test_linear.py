"""Read-modify-write on shared counters under kills, cuts and pauses: no update is lost, and the order is a real one.

The log is the order. An operation that ended before another one began stands before it there (real time), each result
follows from the value before it, and each read shows the value of its revision, which is no older than what had
ended before it began. That is linearisability, decided by the order that the server claims.
"""

import asyncio
import random
import time
from typing import NamedTuple

import pytest
from kanta_client import Change, KantaClient

from tests.client.storm import Run, storm

COUNTERS = 4


class Operation(NamedTuple):
    """What a client did: when it began and ended, on which counter, the value before and after (reads: the same)."""

    began: float
    ended: float
    counter: str
    rev: int
    before: int
    after: int
    write: bool


async def client_of(db: KantaClient, seed: int, count: int) -> list[Operation]:
    """One after another: updates, and a read now and then."""
    dice, done = random.Random(seed), []
    for _ in range(count):
        counter, step = f"c{dice.randrange(COUNTERS)}", dice.randrange(1, 5)
        seen: list[int] = []

        def function(value: int | None, seen: list[int] = seen, step: int = step) -> int:
            seen.append(value or 0)
            return (value or 0) + step

        began = time.monotonic()
        written = await db.update(f"/counters/{counter}", function, attempts=10_000)
        assert written.changed
        done.append(Operation(began, time.monotonic(), counter, written.rev, seen[-1], seen[-1] + step, True))
        if dice.random() < 0.3:
            began = time.monotonic()
            read = await db.read("/counters")
            value = read.value.get(counter, 0)
            done.append(Operation(began, time.monotonic(), counter, read.rev, value, value, False))
    return done


def states(log: list[Change]) -> list[dict[str, int]]:
    """The counters at each revision."""
    found: list[dict[str, int]] = [{}]
    for change in log:
        patch = change.patch["counters"]
        patch = patch.get("$replace", patch)
        assert change.rev == len(found)
        found.append({**found[-1], **patch})
    return found


def check(operations: list[Operation], log: list[Change]) -> None:
    """See the module."""
    at = states(log)
    writes = [each for each in operations if each.write]
    assert sorted(each.rev for each in writes) == list(range(1, len(log) + 1))
    for each in operations:
        assert at[each.rev].get(each.counter, 0) == each.after, each
        if each.write:
            assert at[each.rev - 1].get(each.counter, 0) == each.before, each
    newest, ended = 0, sorted(operations, key=lambda each: each.ended)
    place = 0
    for each in sorted(operations, key=lambda each: each.began):
        while place < len(ended) and ended[place].ended < each.began:
            newest = max(newest, ended[place].rev)
            place += 1
        assert each.rev > newest if each.write else each.rev >= newest, each


async def linear(run: Run, count: int, every: float, cuts: float, longest_pause: float, kills: int) -> None:
    """Rounds of so many updates of each client, until there were enough kills."""
    operations: list[Operation] = []
    rounds = 0
    async with storm(run, 3, every=every, cuts=cuts, longest_pause=longest_pause) as (raging, proxies):
        dbs = [raging.client(proxies[number % 4].url if number % 3 else "") for number in range(16)]
        while rounds == 0 or raging.kills < kills:
            rounds += 1
            working = [client_of(db, 16 * rounds + number, count) for number, db in enumerate(dbs)]
            operations += [each for one in await asyncio.gather(*working) for each in one]
        await asyncio.gather(*[db.close() for db in dbs])
    async with raging.client() as db:
        log = [change async for change in db.history()]
    check(operations, log)
    assert sum(each.write for each in operations) == 16 * count * rounds == len(log)
    print(f"{len(operations)} operations, {raging.kills} kills, {raging.pauses} pauses, ", end="")
    print(f"{sum(proxy.cuts for proxy in proxies)} cuts")


async def test_sixteen_clients_lose_no_update(run: Run) -> None:
    await linear(run, count=5, every=0.4, cuts=0.3, longest_pause=0.3, kills=2)


@pytest.mark.long
async def test_sixteen_clients_lose_no_update_for_long_and_through_long_pauses(run: Run) -> None:
    await linear(run, count=200, every=2.0, cuts=1.0, longest_pause=5.0, kills=6)
