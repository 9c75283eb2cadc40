"""What a client does after an absence so long that the server may have forgotten its keys."""

import asyncio

import pytest
from kanta_client import KantaClient, Patience, Written
from kanta_client.outcome import REMEMBERED

from tests.client.proxy import Proxy
from tests.client.storm import free_port
from tests.serving import Serving

QUICK = Patience(ping=0.5, stale=1.0, lost=2.0, retry=0.05)


async def lost(serving: Serving, proxy: Proxy, db: KantaClient, kind: str) -> "asyncio.Task[Written]":
    """A write that is committed, whose answer is lost, and no connection any more."""
    await db.set("/list", [0])
    rev = serving.engine.rev
    proxy.muted.add(0 if kind == "socket" else 1)  # HTTP has a connection of its own
    insert = db.patch("/list", {"$insert": [[0, 1]]}) if kind == "socket" else db.append("/list", 1)
    writing = asyncio.create_task(insert)
    async with asyncio.timeout(5):
        while serving.engine.rev == rev:
            await asyncio.sleep(0.005)
    proxy.server = free_port()
    proxy.cut()
    return writing


async def elsewhere(serving: Serving, count: int) -> None:
    """So many changes with keys by somebody else."""
    async with KantaClient(f"http://127.0.0.1:{serving.port}") as other:
        for start in range(0, count, 1_000):
            await asyncio.gather(*[other.set("/n", start + number) for number in range(min(1_000, count - start))])


@pytest.mark.parametrize("kind", ["socket", "http"])
async def test_a_write_whose_answer_was_lost_long_ago_is_found_in_the_log(serving: Serving, kind: str) -> None:
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=60, patience=QUICK) as db:
        writing = await lost(serving, proxy, db, kind)
        await elsewhere(serving, REMEMBERED + 50)
        proxy.server = serving.port
        written = await writing
        assert (written.rev, written.replayed, written.changed) == (2, True, True)
        assert sorted(await db.get("/list")) == [0, 1]
