"""Disks that fill up or fail, too many waiting writes, and the end."""

import asyncio
import errno
import os
from typing import Any

import pytest

from kantad.engine import committer, making
from kantad.engine.opening import open_engine
from kantad.store.log import Broken
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.patch import merge
from tests.engine.engine_kit import (
    TIMEOUT,
    Database,
    delete,
    eventually,
    flushed,
    proposal,
    put,
    refusal,
    seen,
    when,
    write,
)

EIO = OSError(errno.EIO, os.strerror(errno.EIO))
POLICIES = ["durable", "written", "applied"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_no_room_takes_everything_back_exactly(either: Database, policy: Any) -> None:
    engine = either.open(ack=policy, flush_interval=0.01)
    put(engine, "", {"wide": {str(n): n for n in range(50)}, "list": [1, 2, 3], "x": {"y": 1}})
    put(engine, "/x/y", 2, key="kept", m=5_000_000)
    await flushed(engine)
    before = (engine.rev, engine.chain, engine.micros, engine.m, encode_json(engine.root), dict(engine.window.changes))
    size = engine.log.size
    either.disk.room = 30
    told: list[Any] = []
    first = put(engine, "/wide/200", 1, key="lost", m=9_000_000)
    when(engine, first, "durable", told, "first")
    delete(engine, "/wide/7")
    put(engine, "/x", 5)
    put(engine, "/list/-", 4)
    put(engine, "", {"nothing": "left"})
    when(engine, put(engine, "/again", 6), "written", told, "last")
    await eventually(lambda: len(told) == 2)
    assert sorted(told) == [("first", "storage_full"), ("last", "storage_full")]
    after = (engine.rev, engine.chain, engine.micros, engine.m, encode_json(engine.root), dict(engine.window.changes))
    assert after == before
    assert os.path.getsize(either.path) == size
    assert (engine.visible.rev, engine.visible.chain) == (engine.rev, engine.chain)
    assert seen(engine, "/list") == [1, 2, 3]
    assert engine.trouble is not None
    either.disk.room = None
    outcome = await write(engine, proposal("put", "/wide/200", 1, key="lost", ack="durable"))
    assert (outcome.rev, outcome.replayed) == (3, False)
    assert engine.trouble is None


async def test_all_that_waits_behind_a_failed_write_is_refused_with_it(database: Database) -> None:
    engine = database.open()
    database.disk.hold()
    told: list[Any] = []
    when(engine, put(engine, "/a", 1), None, told, "a")
    await database.disk.until_syncing()
    when(engine, put(engine, "/b", 1), None, told, "b")
    database.disk.room = 0
    when(engine, put(engine, "/c", 1), None, told, "c")
    database.disk.release()
    await eventually(lambda: len(told) == 3)
    assert told == ["a", ("b", "storage_full"), ("c", "storage_full")]
    assert (seen(engine, ""), engine.rev) == ({"a": 1}, 1)


async def test_a_stored_change_is_not_refused_because_the_next_one_finds_no_room(database: Database) -> None:
    engine = database.open(ack="written", flush_interval=60.0)
    stored = await write(engine, proposal("put", "/a", 1))
    database.disk.room = 0
    told: list[Any] = []
    when(engine, put(engine, "/b", 1), "durable", told, "b")
    when(engine, stored, "durable", told, "a")
    await eventually(lambda: len(told) == 2)
    assert sorted(told, key=str) == [("b", "storage_full"), "a"]
    assert (engine.root, engine.durable_rev) == ({"a": 1}, 1)


async def test_reads_go_on_while_the_disk_is_full(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    database.disk.room = 0
    for _ in range(3):
        with pytest.raises(Problem) as problem:
            await write(engine, proposal("put", "/a", 2))
        assert problem.value.status == 507
        assert seen(engine, "/a") == 1


async def test_short_writes_are_finished(either: Database) -> None:
    either.disk.longest = 7
    engine = either.open()
    await asyncio.gather(*(write(engine, proposal("put", f"/k{number}", "x" * number)) for number in range(30)))
    assert engine.durable_rev == 30


@pytest.mark.parametrize("policy", POLICIES)
async def test_nothing_is_acknowledged_after_a_failed_sync(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.01)
    await write(engine, proposal("put", "/a", 1, ack="durable"))
    database.disk.hold()
    told: list[Any] = []
    when(engine, put(engine, "/a", 2), "durable", told, "first")
    await database.disk.until_syncing()
    when(engine, put(engine, "/a", 3), "durable", told, "second")
    when(engine, put(engine, "/a", 4), "written", told, "third")
    database.disk.sync_error = EIO
    database.disk.calls.clear()
    database.disk.release()
    error = await asyncio.wait_for(engine.broken, TIMEOUT)
    assert isinstance(error, Broken)
    assert sorted(told) == [("first", "unavailable"), ("second", "unavailable"), ("third", "unavailable")]
    assert database.disk.calls == []
    assert refusal(lambda: put(engine, "/a", 5)).status == 503
    assert engine.durable_rev == 1
    if policy == "durable":
        assert seen(engine, "/a") == 1


async def test_a_sync_that_failed_is_never_tried_again(database: Database) -> None:
    engine = database.open()
    database.disk.calls.clear()
    database.disk.sync_error = EIO
    told: list[Any] = []
    when(engine, put(engine, "/a", 1), None, told, "a")
    await asyncio.wait_for(engine.broken, TIMEOUT)
    database.disk.sync_error = None
    await asyncio.wait_for(engine.stop(), TIMEOUT)
    assert database.disk.calls == ["write", "sync"]
    assert told == [("a", "unavailable")]


async def test_a_write_error_that_is_not_about_room_stops_the_engine(database: Database) -> None:
    engine = database.open()
    database.disk.write_error = EIO
    told: list[Any] = []
    when(engine, put(engine, "/a", 1), None, told, "a")
    assert isinstance(await asyncio.wait_for(engine.broken, TIMEOUT), Broken)
    assert told == [("a", "unavailable")]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stop_that_meets_a_failing_disk_ends(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=30.0)
    database.disk.sync_error = EIO
    put(engine, "/a", 1)
    await asyncio.wait_for(engine.stop(), TIMEOUT)
    assert engine.broken.done()


async def test_the_last_batch_is_written_again_and_synced_at_the_next_start(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    database.disk.sync_error = EIO
    put(engine, "/a", 2)
    await asyncio.wait_for(engine.broken, TIMEOUT)
    await engine.stop()
    database.disk.sync_error = None
    database.disk.calls.clear()
    engine = database.open()
    assert seen(engine, "/a") in (1, 2)
    assert "pwrite" in database.disk.calls
    assert database.disk.calls.index("pwrite") < database.disk.calls.index("sync")


async def test_a_start_syncs_the_folder_which_the_maker_of_the_file_may_not_have_done(either: Database) -> None:
    either.open()
    assert either.disk.calls.index("link") < either.disk.calls.index("sync_folder")
    await either.stop()
    either.disk.calls.clear()
    either.open()
    assert "sync_folder" in either.disk.calls


async def test_what_is_cut_off_is_kept_durably_before_it_is_cut(either: Database) -> None:
    await write(either.open(), proposal("put", "/a", 1))
    await either.stop()
    with open(either.path, "ab") as file:
        file.write(b"torn")
    either.disk.calls.clear()
    either.open()
    calls = either.disk.calls
    assert calls[: calls.index("truncate")] == ["write", "sync", "link", "sync_folder"]


async def test_too_many_waiting_writes_are_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MOST_WAITING", 50)
    engine = database.open()
    database.disk.hold()
    put(engine, "/a", 0)
    await database.disk.until_syncing()
    for number in range(50):
        put(engine, "/a", -number - 1, key=f"k{number}")
    problem = refusal(lambda: put(engine, "/a", 7, key="over"))
    assert (problem.code, problem.status, problem.more["retry_after"]) == ("unavailable", 503, 1)
    assert engine.rev == 51
    assert seen(engine, "") == {}
    database.disk.release()
    await flushed(engine)
    assert not (await write(engine, proposal("put", "/a", 7, key="over"))).replayed


async def test_too_many_waiting_bytes_are_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MOST_BYTES", 100_000)
    engine = database.open()
    database.disk.hold()
    put(engine, "/a", 0)
    await database.disk.until_syncing()
    put(engine, "/b", "x" * 100_000)
    assert refusal(lambda: put(engine, "/c", 1)).code == "unavailable"
    database.disk.release()
    await flushed(engine)
    await write(engine, proposal("put", "/c", 1))


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stop_under_load_drains(either: Database, policy: Any) -> None:
    engine = either.open(ack=policy, flush_interval=0.01)
    stored = 0

    async def writer(name: int) -> None:
        nonlocal stored
        for number in range(10_000):
            try:
                await write(engine, proposal("put", f"/w{name}", number, ack="durable"))
            except Problem as problem:
                assert problem.code == "shutting_down"
                return
            stored += 1

    writers = [asyncio.create_task(writer(name)) for name in range(8)]
    await eventually(lambda: stored > 40)
    await asyncio.wait_for(engine.stop(), TIMEOUT)
    await asyncio.gather(*writers)
    again = open_engine(either.path, format=either.format)
    assert again.rev == engine.rev == engine.durable_rev
    assert sum(value + 1 for value in again.root.values()) == stored
    await again.stop()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stop_with_a_full_disk_tells_the_writers_and_ends(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=30.0)
    put(engine, "/a", 1)
    await flushed(engine)
    database.disk.room = 0
    told: list[Any] = []
    when(engine, put(engine, "/a", 2), "durable", told, "a")
    await asyncio.wait_for(engine.stop(), TIMEOUT)
    assert told == [("a", "storage_full")]
    assert engine.rev == 1
    again = open_engine(database.path)
    assert again.root == {"a": 1}
    await again.stop()


async def test_a_file_that_was_replaced_is_noticed_before_the_acknowledgement(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    os.rename(database.path, database.path + ".away")
    told: list[Any] = []
    when(engine, put(engine, "/a", 2), None, told, "a")
    await asyncio.wait_for(engine.broken, TIMEOUT)
    assert told == [("a", "unavailable")]


async def test_a_fault_while_a_change_is_made_leaves_no_trace(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    put(engine, "", {"o": {"a": 1, "b": 2}})
    await flushed(engine)
    before = encode_json(engine.root)

    def breaks(target: Any, patch: Any, undo: Any) -> None:
        merge(target, patch, undo)
        raise RuntimeError("planted")

    with monkeypatch.context() as broken:
        broken.setattr(making, "merge", breaks)
        with pytest.raises(RuntimeError, match="planted"):
            engine.write(engine.places.of("/o"), {"$delete": ["a"], "c": [1]}, "patch", "patch")
    assert (encode_json(engine.root), engine.rev) == (before, 1)
    assert put(engine, "/o/d", 4).rev == 2
    await flushed(engine)
