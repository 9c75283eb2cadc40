"""Compaction and retention of an embedded database: the same code as the server's, beside a live value."""

import asyncio
from pathlib import Path

import pytest

from kantad.engine import Engine, Problem
from kantad.engine.compacting import Compaction
from kantad.tools import check
from kantad.values.retention import Retention
from tests.engine.embedded_kit import ANN, Data, held
from tests.tools.kit import command


def count(engine: "Engine[Data]", times: int) -> None:
    """So many transactions."""
    for _ in range(times):
        with engine.transaction("count") as data:
            data.most += 1


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_history_is_dropped_and_kept_as_a_database_of_its_own(engine: "Engine[Data]", path: Path) -> None:
    count(engine, 50)
    before, users = engine.rev, engine.data.users
    done = await engine.compact("10r")
    assert (engine.rev, done.oldest, done.dropped) == (before, before - 10, before - 10)
    assert path.stat().st_size == done.bytes < done.before
    assert held(Path(done.archive)).rev == done.oldest
    assert command(check, path).status == command(check, done.archive).status == 0
    assert (engine.data.users, engine.data.users is users) == (users, True)
    count(engine, 1)
    assert await engine.value("/most", rev=done.oldest) == 1000 + done.oldest - 2
    with pytest.raises(Problem) as refused:
        await engine.value("/most", rev=done.oldest - 1)
    assert (refused.value.code, refused.value.more["oldest"]) == ("history_gone", done.oldest)
    assert (await engine.compact("100r")).dropped == 0
    assert (await engine.compact("none", archive=False)).archive == ""


async def test_transactions_and_iterations_go_on_meanwhile(engine: "Engine[Data]") -> None:
    count(engine, 50)
    await engine.flush()
    following, old = engine.changes(), engine.changes(since=3)
    first = asyncio.create_task(following.__anext__())
    compacting = asyncio.create_task(engine.compact("10r"))
    while not compacting.done():
        with engine.transaction("meanwhile") as data:
            data.users[ANN].age += 1
        await engine.flush()
    done = await compacting
    assert engine.data.users[ANN].age > 31
    assert (await asyncio.wait_for(first, 5)).action == "meanwhile"
    seen = []
    async for change in engine.changes(since=done.oldest):
        seen.append(change.rev)
        if change.rev == engine.rev:
            break
    assert seen == list(range(done.oldest + 1, engine.rev + 1))
    with pytest.raises(Problem, match=f"begins at revision {done.oldest}"):
        await old.__anext__()
    await following.aclose()


async def test_it_compacts_by_itself(path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to = Compaction.keep_to

    def at_once(compaction: Compaction, retain: Retention) -> None:
        compaction.look = 0.01
        keep_to(compaction, retain)

    monkeypatch.setattr(Compaction, "keep_to", at_once)
    async with Engine(path, Data, format=form, retain="10r") as engine:
        count(engine, 50)
        await engine.flush()
        async with asyncio.timeout(20):
            while await held_back_to(engine, 2):
                await asyncio.sleep(0.01)
    assert (held(path).state["most"], held(path).rev) == (1050, 51)


async def held_back_to(engine: "Engine[Data]", rev: int) -> bool:
    """Whether the file still holds this revision."""
    try:
        await engine.value(rev=rev)
    except Problem as problem:
        assert problem.code == "history_gone"
        return False
    return True


async def test_closing_ends_one_that_is_under_way(path: Path) -> None:
    engine = Engine(path, Data)
    await engine.open()
    count(engine, 50)
    await engine.flush()
    compacting = asyncio.create_task(engine.compact("10r"))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises((Problem, asyncio.CancelledError)):
        await compacting
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (held(path).state["most"], held(path).oldest) == (1050, 0)


async def test_what_is_no_retention_is_said(path: Path) -> None:
    for wrong in ("30", "30w", "", "-1d"):
        with pytest.raises(ValueError, match=f"retain is '{wrong}', which is not 30d"):
            Engine(path, Data, retain=wrong)
    with pytest.raises(ValueError, match="readonly"):
        Engine(path, Data, retain="30d", readonly=True)
    async with Engine(path, Data) as engine:
        with pytest.raises(ValueError, match="30d"):
            await engine.compact("all")
