"""Transactions through proxies that cut, to a server that is killed: each is done exactly once, as it was told."""

import asyncio
import random
from typing import Any

import pytest
from kanta_client import KantaClient, Written

from tests.client.storm import Run, Storm, storm

ABREAST = 4  # transactions of one client


async def write_all(db: KantaClient, client: str, count: int) -> dict[str, Written]:
    """So many transactions that would show in the counter of the client if they were done twice, or not."""
    done: dict[str, Written] = {}
    numbers = iter(range(count))
    dice = random.Random(client)

    async def writer(lane: int) -> None:
        for number in numbers:
            unique = f"{client}.{number}"
            match dice.randrange(4):
                case 0:
                    done[unique] = await db.patch(f"/lists/{client}-{lane}", {"$insert": [[0, unique]]}, action=unique)
                case 1:
                    done[unique] = await db.append(f"/lists/{client}-{lane}", unique, action=unique)
                case 2:
                    value = {unique: {"lane": lane}}
                    done[unique] = await db.transact(value, path=f"/made/{client}", a=unique)
                case _:
                    done[unique] = await db.patch(f"/merged/{client}", {unique: 1}, merge=True, action=unique)

    await asyncio.gather(*[writer(lane) for lane in range(ABREAST)])
    return done


async def check(raging: Storm, told: dict[str, Written]) -> None:
    """Compare what was told with the log, and with the value."""
    async with raging.client() as db:
        log = {change.rev: change async for change in db.history() if change.action != "prepare"}
        value: Any = await db.get()
    assert sorted(change.action for change in log.values()) == sorted(told)
    for unique, written in told.items():
        change = log[written.rev]
        assert (change.action, change.cursor, change.ts) == (unique, written.cursor, written.ts)
        assert written.changed
    held = [unique for each in value["lists"].values() for unique in each]
    held += [unique for kind in ("made", "merged") for each in value.get(kind, {}).values() for unique in each]
    assert sorted(held) == sorted(told)


async def exactly_once(run: Run, clients: int, count: int, every: float, cuts: float, kills: int) -> None:
    """Rounds of so many transactions each, until there were enough kills."""
    told: dict[str, Written] = {}
    rounds = 0
    async with storm(run, 5, every=every, cuts=cuts) as (raging, proxies):
        dbs = [raging.client(proxies[number % 4].url if number % 4 else "") for number in range(clients)]
        while rounds == 0 or raging.kills < kills:
            rounds += 1
            names = [f"{rounds}-{client}" for client in range(clients)]
            lanes: dict[str, list[str]] = {f"{name}-{lane}": [] for name in names for lane in range(ABREAST)}
            await dbs[0].patch("/lists", lanes, action="prepare")
            writing = [write_all(db, name, count // clients) for db, name in zip(dbs, names, strict=True)]
            for each in await asyncio.gather(*writing):
                told.update(each)
        await asyncio.gather(*[db.close() for db in dbs])
    assert len(told) == count // clients * clients * rounds
    await check(raging, told)
    print(f"{len(told)} transactions, {raging.kills} kills, {sum(proxy.cuts for proxy in proxies)} cuts")


async def test_transactions_under_cuts_and_kills_are_done_exactly_once(run: Run) -> None:
    await exactly_once(run, clients=8, count=160, every=0.4, cuts=0.1, kills=2)


@pytest.mark.long
async def test_ten_thousand_transactions_under_cuts_and_kills_are_done_exactly_once(run: Run) -> None:
    await exactly_once(run, clients=16, count=10_000, every=2.0, cuts=0.15, kills=5)
