"""Compaction while changes are made: nothing is lost, nothing waits long, everything of the file goes over at once."""

import asyncio
import os
import random
from typing import Any

import pytest

from kantad.engine.compacting import Compacted, Compaction
from kantad.engine.since import position
from kantad.values.content import decode_json, encode_json, same
from kantad.values.errors import Problem
from kantad.values.record import cursor
from kantad.values.retention import retention
from tests.engine.compaction_kit import compacted, compacting, filled, is_whole, others, refused
from tests.engine.engine_kit import Database, eventually, flushed, proposal, put, seen, write
from tests.engine.feed_kit import Follower


async def test_history_is_dropped_and_everything_else_goes_on(either: Database) -> None:
    engine = either.open()
    await filled(engine, 500)
    before = encode_json(engine.root)
    done = await compacted(engine, "100r")
    assert (done.oldest, done.dropped) == (400, 400)
    assert done.bytes < done.before
    assert (engine.past.oldest, engine.backlog.oldest, engine.log.size) == (400, 400, os.stat(either.path).st_size)
    assert encode_json(engine.root) == before
    (archive,) = others(either)
    assert is_whole(str(archive))
    assert is_whole(either.path)
    assert str(archive) == done.archive
    for rev in (400, 401, 450, 500):
        value = await engine.former.value_at(rev, (f"k{(rev - 1) % 50}",))
        assert value["n"] == rev - 1
    await write(engine, proposal("put", "/after", 1))
    assert seen(engine, "/after") == 1
    assert engine.log.codec.chain_in(await engine.feeds.payload(401)) == engine.past.chain_at(401)


async def test_a_model_holds_under_writes_feeds_and_one_compaction_after_another(either: Database) -> None:
    engine = either.open(ring_bytes=4000)
    chance = random.Random(7)
    model: dict[str, Any] = {}
    chains = {0: engine.chain}
    states: dict[int, dict[str, Any]] = {0: {}}
    stopped = False

    async def writer() -> None:
        while not stopped:
            key = f"k{chance.randrange(20)}"
            value = {"n": chance.random(), "pad": "y" * chance.randrange(200)}
            outcome = await write(engine, proposal("put", f"/{key}", value, key=f"id{engine.rev}"))
            model[key] = value
            chains[outcome.rev] = outcome.chain
            states[outcome.rev] = dict(model)

    follower = Follower(engine, 0)
    writing = asyncio.get_running_loop().create_task(writer())
    await eventually(lambda: engine.rev > 200)
    dropped = 0
    for retain in ("150r", "50r", "none", "20r"):
        done = await compacted(engine, retain)
        dropped += done.dropped
        assert is_whole(either.path, written=True)
        await eventually(lambda at=engine.rev: engine.rev > at + 100)
        oldest = engine.past.oldest
        for rev in {oldest, oldest + 1, (oldest + engine.written.rev) // 2}:
            assert await position(engine, cursor(rev, chains[rev])) == rev
            assert same(await engine.former.value_at(rev, ()), states[rev])
    stopped = True
    await writing
    assert dropped > 300
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == list(range(1, engine.rev + 1))
    assert same(engine.root, model)
    again = engine.transact(proposal("put", "/nothing", 1, key="new"))
    assert not again.replayed


async def test_cursors_before_the_cut_are_gone_and_later_ones_are_of_this_history(either: Database) -> None:
    engine = either.open(ring_bytes=1000)
    marks = []
    for number in range(300):
        outcome = put(engine, "/n", number)
        marks.append(cursor(outcome.rev, outcome.chain))
    await flushed(engine)
    await compacted(engine, "100r")
    for mark in (marks[0], marks[198], "0", 199):
        with pytest.raises(Problem) as raised:
            await position(engine, mark)
        assert (raised.value.code, raised.value.more["reason"], raised.value.more["oldest"]) == (
            "history_gone",
            "compacted",
            200,
        )
    for rev in (200, 201, 250, 300):
        assert await position(engine, marks[rev - 1]) == rev
    with pytest.raises(Problem, match="not a cursor of this history"):
        await position(engine, f"250-{'0' * 16}")


async def test_readers_that_stood_before_the_cut_are_told_or_begin_anew(either: Database) -> None:
    engine = either.open(ring_bytes=1000)
    await filled(engine, 300)
    told, anew, later = Follower(engine, 10), Follower(engine, 10, whole=True), Follower(engine, 250)
    for follower in (told, anew, later):
        follower.stall()
    await asyncio.sleep(0.01)
    await compacted(engine, "100r")
    for follower in (told, anew, later):
        follower.go_on()
    await told.over()
    await anew.caught_up()
    await later.caught_up()
    assert told.sink.problem is not None
    assert (told.sink.problem.code, told.sink.problem.more["reason"]) == ("history_gone", "compacted")
    assert [(event["event"], event["rev"]) for event in anew.events] == [("reset", 300)]
    assert [event["rev"] for event in later.events] == list(range(251, 301))


async def test_repeated_requests_are_answered_as_before(either: Database) -> None:
    engine = either.open()
    posted = await write(engine, proposal("post", "/users", {"name": "Alice"}, key="k1"))
    await either.stop()
    engine = either.open()  # which does not know the child any more
    await filled(engine, 20)
    await compacted(engine, "none", archive=False)
    assert others(either) == []
    again = engine.transact(proposal("post", "/users", {"name": "Alice"}, key="k1"))
    assert again.replayed
    assert (again.rev, again.chain, again.child) == (posted.rev, posted.chain, posted.child)
    await either.stop()
    engine = either.open()
    again = engine.transact(proposal("post", "/users", {"name": "Alice"}, key="k1"))
    assert (again.rev, again.chain, again.child) == (posted.rev, posted.chain, posted.child)


async def test_what_is_not_older_stays(either: Database) -> None:
    engine = either.open()
    await filled(engine, 20)
    identity = engine.log.identity
    for retain in ("20r", "100r", "30d"):
        done = await compacted(engine, retain)
        assert (done.oldest, done.dropped, done.archive) == (0, 0, "")
    either.clock.micros += 40 * 24 * 3600 * 1_000_000
    await write(engine, proposal("put", "/late", 1))
    assert engine.log.identity == identity
    assert (await compacted(engine, "30d")).oldest == 20


async def test_one_at_a_time_and_none_at_the_end(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    first = compacting(engine, "10r")
    await asyncio.sleep(0)
    problem = await refused(engine, "20r")
    assert (problem.code, problem.more["retry_after"]) == ("unavailable", 5)
    assert engine.compaction.status()["running"]
    assert (await first).oldest == 40
    assert engine.compaction.status()["last"]["oldest"] == 40
    await database.stop()
    assert (await refused(engine, "none")).code == "shutting_down"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.08, 0.11, 0.14])
async def test_a_stop_ends_it_at_any_moment_and_leaves_nothing(database: Database, delay: float) -> None:
    engine = database.open()
    await filled(engine, 2000, 500)
    task = compacting(engine, "10r")
    await asyncio.sleep(delay)
    await database.stop()
    await asyncio.wait([task])
    assert is_whole(database.path)
    assert len(others(database)) == (0 if task.cancelled() else 1), others(database)


async def test_a_stop_waits_for_no_process(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    engine.compaction.command = ("sleep", "1000")
    task = compacting(engine, "10r")
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await database.stop()
    assert task.cancelled()


async def test_it_goes_on_where_who_asked_is_gone(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    task = compacting(engine, "10r")
    await asyncio.sleep(0.01)
    task.cancel()
    await eventually(lambda: engine.past.oldest == 40)
    await eventually(lambda: engine.compaction.running is None)


async def test_a_retention_is_kept_to_by_itself(database: Database) -> None:
    engine = database.open()
    await filled(engine, 300)
    engine.compaction = Compaction(engine, look=0.05)
    engine.compaction.keep_to(retention("100r"))
    await eventually(lambda: engine.past.oldest == 200)
    await eventually(lambda: engine.compaction.running is None)
    assert engine.compaction.status()["retain"] == "100r"
    await asyncio.sleep(0.2)
    await write(engine, proposal("put", "/n", 1))
    await asyncio.sleep(0.2)
    assert engine.past.oldest == 200  # it has not grown by half
    await filled(engine, 400, 100)
    await eventually(lambda: engine.past.oldest > 500)


def test_an_answer_names_the_archive_without_its_folder() -> None:
    told = Compacted(5, 5, 100, 50, "/a/b@c.kantadb", "t").told()
    assert decode_json(encode_json(told))["archive"] == "b@c.kantadb"
    assert Compacted(5, 5, 100, 50, "", "t").told()["archive"] is None
