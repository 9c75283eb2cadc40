"""Batches, acknowledgements, and what is visible when."""

import asyncio
from typing import Any

import pytest

from kantad.engine.engine import Engine
from kantad.engine.lane import write_all
from kantad.values.content import MISSING
from kantad.values.errors import Problem
from kantad.values.etag import etag
from tests.engine.engine_kit import (
    TIMEOUT,
    Asked,
    Database,
    condition,
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


async def test_all_that_arrives_during_a_sync_is_the_next_batch(database: Database) -> None:
    engine = database.open()
    before = engine.committer.batches
    database.disk.hold()
    put(engine, "/a", 1)
    await database.disk.until_syncing()
    for number in range(5):
        put(engine, f"/k{number}", number)
        await asyncio.sleep(0)
    assert engine.committer.batches == before + 1
    database.disk.release()
    await flushed(engine)
    assert engine.committer.batches == before + 2
    assert [record.get("b") for record in database.records()] == [None, None, 2, 2, 2, 2]


@pytest.mark.parametrize(("frames", "of", "length"), [(2, 1024, 1), (2, 16, 50_000)])
async def test_what_comes_together_waits_for_the_loop_unless_it_is_much(
    database: Database, frames: int, of: int, length: int
) -> None:
    engine = database.open()
    put(engine, "/n", {"0": ""})
    await flushed(engine)
    before = engine.committer.batches
    database.disk.hold()
    for frame in range(frames):
        values = [f"{frame}-{number}".ljust(length, "x") for number in range(of)]
        batch, _ = write_all(engine, [Asked("/n", {"0": value}) for value in values], lambda _, __: None)
        assert batch is not None
        if frame < frames - 1:
            assert (engine.committer.due, engine.committer.batches) == (False, before)
    assert database.disk.syncing.wait(TIMEOUT)  # while the loop does nothing else
    assert engine.committer.batches == before + 1
    database.disk.release()
    await flushed(engine)
    assert engine.rev == 1 + frames * of


@pytest.mark.parametrize("policy", ["written", "applied"])
async def test_what_is_synced_together_says_so(database: Database, policy: Any) -> None:
    """A power cut may lose the first of several unsynced writes and keep the last: a torn tail, no damage."""
    engine = database.open(ack=policy, flush_interval=30.0)
    for number in range(3):
        await write(engine, proposal("put", f"/a{number}", 1, ack="written"))
    await flushed(engine)
    await write(engine, proposal("put", "/b", 1, ack="written"))
    await engine.snapshot()
    for number in range(2):
        await write(engine, proposal("put", f"/c{number}", 1, ack="written"))
    changes = [record for record in database.records() if "diff" in record]
    assert [record.get("b", 0) for record in changes] == [0, 1, 1, 0, 0, 5]
    await database.stop()
    with open(database.path, "rb") as file:
        whole = file.read()
    place = whole.index(b'{"c0":1}') - 30
    with open(database.path, "wb") as file:
        file.write(whole[:place] + bytes(20) + whole[place + 20 :])
    assert database.open().rev == 4


async def test_a_snapshot_does_not_part_the_changes_that_wait_behind_it(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", 1)
    await flushed(engine)
    database.disk.hold()
    asked = asyncio.create_task(engine.snapshot())
    await database.disk.until_syncing()
    put(engine, "/b", 1)
    put(engine, "/c", 1)
    database.disk.release()
    await asked
    await flushed(engine)
    database.disk.hold()
    put(engine, "/d", 1)
    await database.disk.until_syncing()
    put(engine, "/e", 1)
    asked = asyncio.create_task(engine.snapshot())
    await asyncio.sleep(0)
    put(engine, "/f", 1)
    database.disk.release()
    await asked
    put(engine, "/g", 1)
    await flushed(engine)
    kinds = [record.get("b", 0) if "diff" in record else "snapshot" for record in database.records()]
    assert kinds[:6] == [0, "snapshot", 0, 2, 0, "snapshot"]
    assert kinds[6:] in ([0, 5, 5], [0, 5, 0])


async def test_a_batch_is_one_write_and_one_sync(database: Database) -> None:
    engine = database.open()
    for number in range(10):
        put(engine, f"/k{number}", number)
    database.disk.calls.clear()
    await flushed(engine)
    assert database.disk.calls == ["write", "sync"]


async def test_one_flight_at_a_time(database: Database) -> None:
    engine = database.open()
    await asyncio.gather(*(write(engine, proposal("put", f"/k{number % 7}", number)) for number in range(300)))
    assert database.disk.most_busy == 1
    assert engine.durable_rev == 300


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_writers_are_answered_in_order(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.01)
    told: list[Any] = []
    for number in range(200):
        when(engine, put(engine, "/a", number), "durable", told, number)
        if number % 17 == 0:
            await asyncio.sleep(0.001)
    await flushed(engine)
    assert told == list(range(200))


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_each_level_of_acknowledgement_comes_at_its_time(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=60.0)
    told: list[Any] = []
    database.disk.hold()
    written = put(engine, "/a", 1)
    when(engine, written, "applied", told, "applied")
    assert told == ["applied"]
    when(engine, written, "written", told, "written")
    when(engine, written, "durable", told, "durable")
    assert told == ["applied"]
    await database.disk.until_syncing()
    await eventually(lambda: "written" in told)
    assert told == ["applied", "written"]
    assert b'"a":1' in b"".join(database.disk.writes)
    database.disk.release()
    await eventually(lambda: "durable" in told)
    assert database.disk.synced == engine.log.size


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
@pytest.mark.parametrize("level", ["durable", "written", "applied"])
async def test_a_write_that_changes_nothing_is_answered_too(database: Database, policy: Any, level: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.02)
    await write(engine, proposal("put", "/a", 1, ack="durable"))
    outcome = await write(engine, proposal("put", "/a", 1, ack=level))
    assert not outcome.changed


@pytest.mark.parametrize("policy", ["written", "applied"])
async def test_a_sequence_of_written_acknowledgements_does_not_wait_for_the_timer(
    database: Database, policy: Any
) -> None:
    engine = database.open(ack=policy, flush_interval=30.0)
    for number in range(20):
        await write(engine, proposal("put", "/a", number, ack="written"))
    assert engine.rev == 20


@pytest.mark.parametrize("policy", ["written", "applied"])
async def test_relaxed_writes_are_synced_within_the_interval_also_under_load(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=0.02)
    async with asyncio.timeout(10):
        while engine.durable_rev < 100:
            put(engine, "/a", engine.rev)
            await asyncio.sleep(0)
    assert engine.durable_rev <= engine.rev


async def test_an_applied_change_is_on_disk_within_the_interval(database: Database) -> None:
    engine = database.open(ack="applied", flush_interval=0.02)
    put(engine, "/a", 1)
    await eventually(lambda: b'"a":1' in b"".join(database.disk.writes))


@pytest.mark.parametrize("level", ["written", "durable"])
async def test_what_was_acknowledged_as_written_is_seen_under_written(database: Database, level: str) -> None:
    engine = database.open(ack="written", flush_interval=60.0)
    database.disk.hold()
    told: list[Any] = []
    outcome = put(engine, "/a", 1)
    when(engine, outcome, "durable" if level == "durable" else "written", [], "other")
    when(engine, outcome, "written", told, "written")
    await eventually(lambda: told)
    assert seen(engine, "/a") == 1
    assert engine.visible.rev == 1


async def held(database: Database, prepare: Any = None) -> Engine:
    """An engine with `{"a":{"x":1,"y":2},"b":[1,2]}` whose next sync does not end."""
    engine = database.open()
    put(engine, "", {"a": {"x": 1, "y": 2}, "b": [1, 2], "w": {str(n): n for n in range(40)}})
    await flushed(engine)
    database.disk.hold()
    return engine


async def test_a_read_during_a_sync_sees_the_old_value_at_once(database: Database) -> None:
    engine = await held(database)
    put(engine, "/a/x", 10)
    await database.disk.until_syncing()
    put(engine, "/a/x", 11)
    put(engine, "/a/z", 12)
    delete(engine, "/a/y")
    put(engine, "/b/-", 3)
    before = {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert seen(engine, "/a") == before["a"]
    assert list(seen(engine, "/a")) == ["x", "y"]
    assert seen(engine, "/a/x") == 1
    assert seen(engine, "/a/z") is MISSING
    assert seen(engine, "/b") == [1, 2]
    assert {**seen(engine, ""), "w": 0} == {**before, "w": 0}
    assert engine.visible.rev == 1
    assert engine.root["a"] == {"x": 11, "z": 12}
    database.disk.release()
    await flushed(engine)
    assert seen(engine, "/a") == {"x": 11, "z": 12}
    assert engine.visible.rev == engine.rev == 6


async def test_a_deletion_and_a_new_creation_stay_hidden(database: Database) -> None:
    engine = await held(database)
    delete(engine, "/a")
    put(engine, "/a", {"new": True})
    delete(engine, "/w/7")
    put(engine, "/w/7", "seven")
    put(engine, "/w/99", 99)
    await database.disk.until_syncing()
    delete(engine, "/a")
    assert list(seen(engine, "")) == ["a", "b", "w"]
    assert seen(engine, "/a") == {"x": 1, "y": 2}
    assert seen(engine, "/a/new") is MISSING
    assert list(seen(engine, "/w")) == [str(n) for n in range(40)]
    assert seen(engine, "/w/7") == 7
    put(engine, "", {"other": 1})
    assert seen(engine, "/a/x") == 1
    assert seen(engine, "/other") is MISSING
    database.disk.release()
    await flushed(engine)
    assert seen(engine, "") == {"other": 1}


async def test_keys_that_begin_with_a_dollar_stay_hidden_too(database: Database) -> None:
    engine = await held(database)
    put(engine, "/$a/$b", 1)
    await database.disk.until_syncing()
    put(engine, "/$a/$b", "$2")
    assert seen(engine, "/$a/$b") is MISSING
    assert seen(engine, "/$a") is MISSING
    database.disk.release()
    await flushed(engine)
    assert seen(engine, "/$a/$b") == "$2"


async def test_preconditions_are_about_the_pending_state(database: Database) -> None:
    engine = await held(database)
    put(engine, "/a/x", 10)
    await database.disk.until_syncing()
    put(engine, "/a/x", 11)
    stale = proposal("put", "/a/x", 12, conditions=[condition("/a/x", etags=(etag(1),))])
    problem = refusal(lambda: engine.transact(stale))
    assert problem.code == "precondition_failed"
    assert problem.more["value"] == 11
    fresh = proposal("put", "/a/x", 12, conditions=[condition("/a/x", etags=(etag(11),))])
    assert engine.transact(fresh).rev == 4


async def test_a_refusal_that_shows_pending_state_waits_for_its_sync(database: Database) -> None:
    engine = await held(database)
    told: list[Any] = []
    put(engine, "/a/x", 10)
    await database.disk.until_syncing()
    with pytest.raises(Problem):
        put(engine, "/a/x/deeper", 1)
    assert engine.settle_when(None, engine.rev, told.append)
    await asyncio.sleep(0.01)
    assert told == []
    database.disk.release()
    await eventually(lambda: told == [None])


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_readers_see_what_the_policy_promises(database: Database, policy: Any) -> None:
    engine = database.open(ack=policy, flush_interval=60.0)
    database.disk.hold()
    put(engine, "/a", 1)
    assert seen(engine, "/a") == (1 if policy == "applied" else MISSING)
    assert engine.visible.rev == (1 if policy == "applied" else 0)
    if policy == "written":
        await eventually(lambda: engine.visible.rev == 1)
    assert engine.durable_rev == 0
    database.disk.release()
    await flushed(engine)
    assert (seen(engine, "/a"), engine.durable_rev) == (1, 1)


async def test_the_diff_of_an_answer_is_not_changed_by_later_writes(database: Database) -> None:
    engine = database.open()
    outcome = engine.transact(proposal("put", "/a", {"list": [1]}, want_diff=True))
    put(engine, "/a/list/-", 2)
    await flushed(engine)
    assert outcome.diff == {"a": {"list": [1]}}
    assert engine.root == {"a": {"list": [1, 2]}}


async def test_a_copy_is_a_value_of_its_own(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", {"list": [1], "o": {"x": 1}})
    engine.transact(proposal("json-patch", "", [{"op": "copy", "from": "/a", "path": "/b"}]))
    put(engine, "/a/list/-", 2)
    put(engine, "/b/o/x", 2)
    assert engine.root == {"a": {"list": [1, 2], "o": {"x": 1}}, "b": {"list": [1], "o": {"x": 2}}}
    await flushed(engine)


async def test_a_waiting_reader_wakes_when_the_change_is_durable(database: Database) -> None:
    engine = await held(database)
    waiting = asyncio.create_task(engine.waiting.differs(("a", "x"), etag(1), 10.0))
    put(engine, "/a/x", 10)
    await database.disk.until_syncing()
    assert not waiting.done()
    database.disk.release()
    await asyncio.wait_for(waiting, 5)
    assert seen(engine, "/a/x") == 10


@pytest.mark.parametrize("path", [("a", "k"), ("a", "$delete"), ("a",), ("a", "z", "y"), ()])
@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_a_waiting_reader_does_not_meet_what_later_changes_made_of_a_patch(
    database: Database, policy: Any, path: Any
) -> None:
    engine = database.open(ack=policy, flush_interval=0.01)
    await write(engine, proposal("put", "/x", 1))
    waiting = asyncio.create_task(engine.waiting.differs(path, engine.tag(path), 10.0))
    await asyncio.sleep(0)
    database.disk.hold()
    put(engine, "/a", {"k": 1, "z": {"y": 2}})
    put(engine, "/a/$delete", 5)  # an ordinary key, now in the object that the first patch assigned
    last = put(engine, "/a/z/$delete", [0])
    database.disk.release()
    await asyncio.wait_for(engine.settled("durable", last.rev), 5)
    await asyncio.wait_for(waiting, 5)
    assert seen(engine, "/a") == {"k": 1, "z": {"y": 2, "$delete": [0]}, "$delete": 5}
