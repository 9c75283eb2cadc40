"""A client from its making to its end: tokens, restarts, cancellation, many tasks, closing, and what comes after."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kanta_client import (
    Closed,
    Conflict,
    HistoryDiverged,
    KantaClient,
    NotFound,
    Patience,
    PreconditionFailed,
    Unauthorized,
    UnknownOutcome,
)

from tests.client.proxy import Proxy
from tests.client.test_http import listening, page, saying
from tests.serving import Serving

QUICK = Patience(ping=0.5, stale=1.0, lost=2.0, retry=0.02)


def client(serving: Serving, **options: Any) -> KantaClient:
    return KantaClient(f"http://127.0.0.1:{serving.port}", **{"patience": QUICK, "timeout": 10.0, **options})


def test_a_client_may_be_made_outside_of_a_loop_and_does_nothing_then() -> None:
    db = KantaClient("http://127.0.0.1:1")
    assert (db.state, db.rev) == ("connecting", 0)

    async def use() -> str:
        await db.close()
        return db.state

    assert asyncio.run(use()) == "closed"


def test_a_client_that_was_never_closed_is_no_trouble_when_its_loop_ends(tmp_path: Path) -> None:
    async def use() -> None:
        serving = Serving(str(tmp_path / "data.kantadb"))
        await serving.start()
        async with client(serving) as db:
            changes = db.subscribe()
            await db.set("/a", 1)
            assert changes.rev == -1
        await serving.stop()

    asyncio.run(use())
    gc.collect()


METHODS: dict[str, Callable[[KantaClient], Awaitable[Any]]] = {
    "get": lambda db: db.get("/a"),
    "read": lambda db: db.read("/a"),
    "keys": lambda db: db.keys(""),
    "ping": lambda db: db.ping(),
    "status": lambda db: db.status(),
    "set": lambda db: db.set("/a", 2),
    "patch": lambda db: db.patch("", {"a": 3}),
    "merge": lambda db: db.patch("", {"a": 4}, merge=True),
    "delete": lambda db: db.delete("/a"),
    "add": lambda db: db.add("/o", 1),
    "append": lambda db: db.append("/l", 1),
    "transact": lambda db: db.transact({"a": 5}),
    "update": lambda db: db.update("/n", lambda value: (value or 0) + 1),
    "revert": lambda db: db.revert("/a", 1),
    "history": lambda db: anext(db.history()),  # type: ignore[call-overload, no-any-return]
    "subscribe": lambda db: anext(db.subscribe("/a", since=0)),  # type: ignore[call-overload, no-any-return]
    "mirror": lambda db: db.mirror("/a").__aenter__(),
}


@pytest.mark.parametrize("name", METHODS)
async def test_after_close_everything_says_that_it_is_closed(serving: Serving, name: str) -> None:
    db = client(serving)
    await db.set("/a", 1)
    await db.close()
    await db.close()
    assert db.state == "closed"
    with pytest.raises(Closed):
        await asyncio.wait_for(call(name, db), 2)
    unused = client(serving)
    await unused.close()
    with pytest.raises(Closed):
        await asyncio.wait_for(call(name, unused), 2)


async def call(name: str, db: KantaClient) -> Any:
    return await METHODS[name](db)


@pytest.mark.parametrize("name", METHODS)
async def test_cancelled_at_any_await_it_leaves_the_client_usable(serving: Serving, name: str) -> None:
    async with client(serving) as db:
        await db.set("/a", 1)
        await db.set("/l", [])
        for steps in range(40):
            task = asyncio.create_task(call(name, db))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            [result] = await asyncio.gather(task, return_exceptions=True)
            assert not isinstance(result, Exception) or isinstance(result, NotFound), result
            if isinstance(result, NotFound):
                await db.set("/a", 1)
        written = await db.set("/last", steps)
        assert await db.get("/last") == steps
        assert written.changed
        assert db.state in ("connected", "catching up")


async def test_cancelled_while_the_connection_is_cut_it_goes_on(serving: Serving) -> None:
    dice = random.Random(2)
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=10, patience=QUICK) as db:
        await db.set("/l", [])
        for number in range(60):
            task = asyncio.create_task(call(dice.choice(list(METHODS)), db))
            for _ in range(dice.randrange(60)):
                await asyncio.sleep(0)
            if number % 3 == 0:
                proxy.cut()
            if number % 2:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await db.set("/end", 1)).changed


async def test_many_tasks_share_a_client(serving: Serving) -> None:
    async with client(serving) as db, db.mirror("/n") as copy:

        async def task(number: int) -> None:
            await db.set(f"/n/{number}", number)
            assert await db.get(f"/n/{number}") == number
            written = await db.update("/n/all", lambda value: (value or 0) + 1)
            await copy.at_least(written)
            assert copy["all"] >= 1

        await asyncio.gather(*[task(number) for number in range(50)])
        assert copy["all"] == 50


async def test_a_restart_goes_by_unnoticed_but_for_the_state(serving: Serving) -> None:
    states: list[str] = []
    async with Proxy(serving.port) as proxy:
        db = KantaClient(proxy.url, timeout=10, patience=QUICK, on_state=states.append)
        async with db.mirror("") as copy, db.subscribe("", since=0) as changes:
            for number in range(1, 5):
                written = await db.set("/a", number)
                assert (await anext(changes)).rev == written.rev == number
                await copy.at_least(written)
                assert copy.value == {"a": number}
                await serving.restart()
                proxy.server = serving.port
                await db.ping()
        await db.close()
    assert states.count("stale") == 4
    assert states[-1] == "closed"


async def test_a_server_restored_from_a_backup_is_not_papered_over(serving: Serving, tmp_path: Path) -> None:
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=5, patience=QUICK) as db:
        await db.set("/a", 1)
        async with db.mirror("/a") as copy, db.subscribe("/a", since=0) as changes:
            assert (await anext(changes)).rev == 1
            other = Serving(str(tmp_path / "other.kantadb"))
            await other.start()
            try:
                await other.put("/b", 2)
                await other.put("/a", 3)
                proxy.server = other.port
                proxy.cut()
                with pytest.raises(HistoryDiverged):
                    await anext(changes)
                with pytest.raises(HistoryDiverged):
                    await copy.at_least(100, 5)
                with pytest.raises(HistoryDiverged):
                    _ = copy.value
                assert await db.get("/a") == 3
            finally:
                await other.stop()


async def test_conditions_and_conflicts_are_told_apart(serving: Serving) -> None:
    async with client(serving) as db:
        first = await db.set("/a", 1)
        await db.set("/a", 2)
        with pytest.raises(Conflict):
            await db.set("/a", 3, base=first)
        with pytest.raises(PreconditionFailed):
            await db.set("/a", 3, exists=False)
        with pytest.raises(PreconditionFailed):
            await db.transact({"a": 3}, conditions=[{"path": "/a", "equals": 1}])
        again = await db.set("/a", 3, key="mine")
        assert await db.set("/a", 3, key="mine") == Replayed(again)


class Replayed:
    """Equal to the answer of a write that was done before."""

    def __init__(self, written: Any) -> None:
        self.written = written

    def __eq__(self, other: object) -> bool:
        same = all(getattr(other, name) == getattr(self.written, name) for name in ("rev", "cursor", "ts", "changed"))
        return same and bool(getattr(other, "replayed", False))

    __hash__ = None  # type: ignore[assignment]


async def test_closing_with_everything_under_way_ends_it_all(serving: Serving) -> None:
    async with Proxy(serving.port) as proxy:
        db = KantaClient(proxy.url, timeout=10, patience=QUICK)
        await db.set("/a", 1)
        copy = await db.mirror("").__aenter__()
        changes = db.subscribe("")
        reading = asyncio.ensure_future(anext(changes))
        waiting = asyncio.create_task(copy.at_least(99))
        await db.ping()
        proxy.flowing.clear()
        writing = [asyncio.create_task(call(name, db)) for name in ("set", "update", "append", "get", "merge")]
        await asyncio.sleep(0.05)
        await db.close()
        results = await asyncio.gather(reading, waiting, *writing, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [Closed, Closed]
        assert all(isinstance(result, Closed | UnknownOutcome) for result in results), results


async def test_a_wrong_token_is_told_to_all_and_the_right_one_works(serving: Serving) -> None:
    problem = b'{"status":401,"code":"unauthorized","detail":"no"}'
    async with (
        listening(saying(page(401, problem))) as wall,
        Proxy(serving.port) as proxy,
        KantaClient(proxy.url, timeout=5, patience=QUICK) as db,
    ):
        await db.set("/a", 1)
        async with db.mirror("/a") as copy, db.subscribe("/a") as changes:
            proxy.server = int(wall.rpartition(":")[2])
            proxy.cut()
            with pytest.raises(Unauthorized):
                await anext(changes)
            with pytest.raises(Unauthorized):
                _ = copy.value
            with pytest.raises(Unauthorized):
                await db.get("/a")
            assert db.state == "stale"
            proxy.server = serving.port
            proxy.cut()
            assert await db.get("/a") == 1
            assert db.state == "stale"  # what the mirror would show
        assert db.state == "connected"


@pytest.mark.parametrize("steps", range(0, 12, 2))
async def test_a_close_that_is_cancelled_leaves_nothing_open(serving: Serving, steps: int) -> None:
    db = client(serving)
    await db.set("/a", 1)
    await db.status()
    closing = asyncio.create_task(db.close())
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    if steps:
        assert db.state == "closed"
    await db.close()
