"""Snapshots: when they are written, what stands in them, and what happens when there is no room."""

import asyncio
import datetime
from typing import Any

import pytest

from kantad.engine.opening import open_engine
from kantad.store.log import Broken
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from tests.engine.engine_kit import TIMEOUT, Database, eventually, flushed, proposal, put, write
from tests.own_formats import CBOR

POLICIES = ["durable", "written", "applied"]
TEN_YEARS = 10 * 365 * 86400 * 1_000_000


def check_file(database: Database, states: dict[int, bytes]) -> int:
    """Each snapshot of a JSON file holds what stands before it and `ts` never runs backwards; how many there are."""
    rev = snapshots = 0
    before = ""
    m = None
    for record in database.records():
        assert record["ts"] >= before
        before = record["ts"]
        if "state" not in record:
            rev += 1
            m = record.get("m", m)
            continue
        snapshots += 1
        assert record["r"] == rev
        assert record.get("m") == m
        assert encode_json(record["state"]) == states[rev]
    return snapshots


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_snapshot_holds_nothing_that_does_not_stand_before_it(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.005)
    states = {0: b"{}"}
    waiting: list[Any] = []
    for number in range(400):
        put(engine, f"/k{number % 13}", number, m=number * 1_000_000)
        states[engine.rev] = encode_json(engine.root)
        if number % 40 == 7:
            waiting.append(asyncio.ensure_future(engine.snapshot()))
        if number % 5 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    await flushed(engine)
    assert check_file(database, states) >= 1
    await database.stop()


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_answer_to_a_snapshot_names_its_revision(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=30.0)
    await write(engine, proposal("put", "/a", 1, ack="durable"))
    database.disk.hold()
    asked = asyncio.ensure_future(engine.snapshot())
    await database.disk.until_syncing()
    put(engine, "/a", 2)
    database.disk.release()
    visible, size = await asyncio.wait_for(asked, TIMEOUT)
    snapshot = next(record for record in database.records() if "state" in record)
    assert (visible.rev, visible.chain.hex()) == (snapshot["r"], snapshot["h"])
    assert size == len(encode_json(snapshot))


async def test_snapshots_come_by_size(database: Database) -> None:
    engine = database.open()
    engine.snapshots.least = 4000
    states = {0: b"{}"}
    for number in range(200):
        await write(engine, proposal("put", "/a", number))
        states[engine.rev] = encode_json(engine.root)
    assert 3 <= check_file(database, states) <= 8
    found = engine.past.anchor.offset
    assert engine.log.size - found <= 4000 + 200


async def test_a_large_state_is_written_again_only_when_the_log_doubled_it(database: Database) -> None:
    engine = database.open()
    engine.snapshots.least = 1000
    await write(engine, proposal("put", "/big", "x" * 20_000))
    await eventually(lambda: engine.snapshots.status()["rev"] == 1)
    for number in range(150):
        await write(engine, proposal("put", "/a", number))
    assert sum("state" in record for record in database.records()) == 1
    for number in range(500):
        await write(engine, proposal("put", "/a", -number))
    assert sum("state" in record for record in database.records()) == 2


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_the_size_rule_holds_after_a_restart_of_a_long_log(tmp_path: Any, format: str) -> None:
    database = Database(str(tmp_path / "data.kantadb"), format)
    engine = database.open()
    engine.snapshots.least = 2000
    for number in range(600):
        await write(engine, proposal("put", "/a", number))
    await engine.snapshot()
    await database.stop()
    engine = database.open()
    engine.snapshots.least = 2000
    before = engine.log.size
    count = engine.snapshots.rev
    for number in range(40):
        await write(engine, proposal("put", "/a", -number - 1))
    assert before > 40_000
    assert engine.snapshots.rev > count
    await database.stop()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stop_after_many_changes_writes_a_snapshot(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy)
    for number in range(1000):
        put(engine, "/a", number)
    await database.stop()
    assert not any("state" in record for record in database.records())
    engine = database.open(ack=policy)
    put(engine, "/a", -1)
    await database.stop()
    records = database.records()
    assert [record["r"] for record in records if "state" in record] == [1001]
    assert "state" in records[-1]


@pytest.mark.parametrize("policy", POLICIES)
async def test_no_room_for_a_snapshot_loses_no_write(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.005)
    engine.snapshots.least = 30_000
    await write(engine, proposal("put", "/big", "x" * 20_000, ack="durable"))
    database.disk.room = 12_000
    with pytest.raises(Problem) as problem:
        await engine.snapshot()
    assert (problem.value.code, "the snapshot" in problem.value.detail) == ("storage_full", True)
    database.disk.room = 12_000
    for number in range(50):
        await write(engine, proposal("put", "/a", number, ack="durable"))
    assert engine.rev == engine.durable_rev == 51
    assert not any("state" in record for record in database.records())


async def test_no_room_for_a_snapshot_that_is_due_does_not_stop_small_writes(database: Database) -> None:
    engine = database.open()
    engine.snapshots.least = 1000
    await write(engine, proposal("put", "/big", "x" * 20_000))
    await eventually(lambda: engine.snapshots.status()["rev"] == 1)
    stored = 0
    for number in range(600):
        database.disk.room = 5000
        await write(engine, proposal("put", "/a", number))
        stored += 1
    assert engine.durable_rev == stored + 1


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
@pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS])
async def test_ts_never_runs_backwards(tmp_path: Any, format: str, jump: int) -> None:
    database = Database(str(tmp_path / "data.kantadb"), format)
    engine = database.open()
    last = 0
    for number in range(30):
        if number % 10 == 5:
            database.clock.micros += jump if number != 15 else -jump
            await engine.snapshot()
        if number == 20:
            await database.stop()
            engine = database.open()
        outcome = await write(engine, proposal("put", "/a", number))
        assert outcome.micros >= last
        last = outcome.micros
    await database.stop()
    if format == "json":
        times = [record["ts"] for record in database.records()]
        assert times == sorted(times)
        assert all(datetime.datetime.fromisoformat(time) for time in times)


async def test_a_snapshot_whose_sync_fails_breaks_the_engine(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    database.disk.sync_error = OSError(5, "EIO")
    with pytest.raises(Problem) as problem:
        await asyncio.wait_for(engine.snapshot(), TIMEOUT)
    assert problem.value.code == "unavailable"
    assert isinstance(await engine.broken, Broken)


async def test_a_start_replays_only_what_stands_behind_the_snapshot(either: Database) -> None:
    engine = either.open()
    for number in range(50):
        await write(engine, proposal("put", f"/k{number}", number))
    await engine.snapshot()
    await write(engine, proposal("put", "/a", 1))
    await either.stop()
    again = open_engine(either.path, format=either.format)
    assert (again.past.anchor.rev, again.rev) == (50, 51)
    await again.stop()
