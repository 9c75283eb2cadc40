"""Transactions through proxies that cut, to a server that is killed: each is done exactly once, as it was told."""

import asyncio
import random
from typing import Any

import pytest
from kanta_client import KantaClient, Written

from tests.client.storm import Run, Storm, storm


async def write_all(db: KantaClient, client: int, chosen: range, abreast: int) -> dict[str, Written]:
    """So many transactions that would show in the counter of the client if they were done twice, or not."""
    done: dict[str, Written] = {}
    numbers = iter(chosen)
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

    await asyncio.gather(*[writer(lane) for lane in range(abreast)])
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


async def exactly_once(run: Run, clients: int, count: int, every: float, cuts: float, abreast: int = 4) -> Storm:
    async with storm(run, 5, every=every, cuts=cuts) as (raging, proxies):
        dbs = [raging.client(proxies[number % 4].url if number % 4 else "") for number in range(clients)]
        lanes = {f"{client}-{lane}": [] for client in range(clients) for lane in range(abreast)}  # type: ignore[var-annotated]
        await dbs[0].set("/lists", lanes, action="prepare")
        together: dict[str, Written] = {}
        each, begun = count // clients, 0
        while not begun or not raging.kills:  # again, if all was done before the first kill
            chosen = range(begun, begun + each)
            told = await asyncio.gather(*[write_all(db, number, chosen, abreast) for number, db in enumerate(dbs)])
            together |= {unique: written for some in told for unique, written in some.items()}
            begun += each
        assert len(together) == begun * clients
        await asyncio.gather(*[db.close() for db in dbs])
    await check(raging, together)
    print(f"{len(together)} transactions, {raging.kills} kills, {sum(proxy.cuts for proxy in proxies)} cuts")
    return raging


async def test_transactions_under_cuts_and_kills_are_done_exactly_once(run: Run) -> None:
    raging = await exactly_once(run, clients=8, count=400, every=0.25, cuts=0.1)
    assert raging.kills


@pytest.mark.long
async def test_ten_thousand_transactions_under_cuts_and_kills_are_done_exactly_once(run: Run) -> None:
    raging = await exactly_once(run, clients=16, count=10_000, every=2.0, cuts=0.15)
    assert raging.kills > 5
