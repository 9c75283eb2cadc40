"""What feeds promise: in order, each change once, no gap, the exact value at a path at every revision."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from kantad.engine import portions, shadow
from kantad.engine.filter import Filter
from kantad.engine.proposal import Proposal
from kantad.engine.reader import Reader
from kantad.values.moment import micros_of, parse_time
from tests.engine.engine_kit import Database, delete, eventually, flushed, put
from tests.engine.feed_kit import Collector, Follower, History, Lines, check

TINY = 1500  # bytes of ring: a few changes


@pytest.mark.parametrize("ring", [TINY, 4 << 20], ids=["file", "memory"])
@pytest.mark.parametrize("seed", range(3))
async def test_events_below_any_path_give_the_value_at_every_revision(either: Database, seed: int, ring: int) -> None:
    engine = either.open(ring_bytes=ring)
    history = History(engine, seed)
    await history.run(30)
    late: list[Follower] = []
    early = [Follower(engine, engine.rev, Filter(history.some_path())) for _ in range(12)]
    for _ in range(8):
        await history.run(15)
        for follower in history.chance.sample(early, 4):
            follower.stall(history.chance.randrange(3))
        begins = [history.chance.randrange(engine.rev + 1) for _ in range(3)]
        late += [Follower(engine, begin, Filter(history.some_path())) for begin in begins]
        for follower in history.chance.sample(early, 4):
            follower.go_on()
    late += [Follower(engine, 0, Filter(history.some_path())) for _ in range(5)]
    everything = Follower(engine, 0)
    for follower in [*early, *late, everything]:
        follower.go_on()
        await follower.caught_up()
        check(follower.events, history.texts, follower.filter.path, follower.start, engine.rev)
    records = [(event["rev"], event["cursor"]) for event in everything.events]
    assert records == [(rev, f"{rev}-{chain.hex()}") for rev, chain in enumerate(history.chains) if rev]


@pytest.mark.parametrize("seed", range(2))
async def test_so_they_do_where_what_is_above_the_path_is_too_large_to_fetch(
    either: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MOST", 10)
    engine = either.open(ring_bytes=TINY)
    history = History(engine, seed)
    await history.run(120)
    followers = [Follower(engine, 0, Filter(history.some_path())) for _ in range(20)]
    for follower in followers:
        await follower.caught_up()
        check(follower.events, history.texts, follower.filter.path, 0, engine.rev)
    assert engine.feeds.shadows.large


async def test_a_large_array_is_not_fetched_for_one_element(database: Database) -> None:
    engine = database.open(ring_bytes=TINY)
    put(engine, "/list", [{"n": number, "text": "x" * 1000} for number in range(500)])
    for number in range(20):
        engine.transact(Proposal(("list",), "patch", {"$insert": [[0, {"n": -number}]]}))
    put(engine, "/else", 1)
    await flushed(engine)
    follower = Follower(engine, 1, Filter(("list", "3", "n")))
    await follower.caught_up()
    assert [event["diff"]["$replace"] for event in follower.events] == [2, 1, 0, *(-n for n in range(1, 17))]
    assert not engine.feeds.shadows.kept


async def test_a_feed_goes_on_over_a_restart(either: Database) -> None:
    engine = either.open(ring_bytes=TINY)
    history = History(engine, 11)
    paths = [(), ("a",), ("b",), ("a", "0"), ("a", "b")]
    got: dict[Any, list[dict[str, Any]]] = {path: [] for path in paths}
    position = dict.fromkeys(paths, 0)
    for _ in range(6):
        followers = [Follower(engine, position[path], Filter(path)) for path in paths]
        await history.run(25)
        for follower in followers:
            if history.chance.random() < 0.5:
                await follower.caught_up()
            position[follower.filter.path] = follower.position
            got[follower.filter.path] += follower.events
        await either.stop()
        assert all(follower.sink.over for follower in followers)
        engine = history.engine = either.open(ring_bytes=TINY)
    for path in paths:
        last = Follower(engine, position[path], Filter(path))
        await last.caught_up()
        check(got[path] + last.events, history.texts, path, 0, engine.rev)


async def test_filters_choose_by_action_user_and_time(either: Database) -> None:
    engine = either.open(ring_bytes=TINY)
    history = History(engine, 4)
    await history.run(80)
    everything = Follower(engine, 0)
    await everything.caught_up()
    times = [event["ts"] for event in everything.events]
    middle = micros_of(parse_time(times[-21], "ts"))
    filters: list[tuple[Filter, Any]] = [
        (Filter((), "put"), lambda event: event["a"] == "put"),
        (Filter((), "*e*"), lambda event: "e" in event["a"]),
        (Filter((), "[mp]*"), lambda event: event["a"][0] in "mp"),
        (Filter((), None, "u1"), lambda event: event.get("u") == "u1"),
        (Filter((), "put", "u2"), lambda event: False),
        (Filter((), None, None, middle), lambda event: event["ts"] >= times[-21]),
        (Filter((), None, None, None, middle), lambda event: event["ts"] <= times[-21]),
    ]
    for filter, passes in filters:
        follower = Follower(engine, 0, filter)
        await follower.caught_up()
        assert follower.events == [event for event in everything.events if passes(event)], filter


async def test_a_path_and_a_user_together_are_changes_of_that_user_there(either: Database) -> None:
    engine = either.open()
    for number in range(10):
        put(engine, f"/{'ab'[number % 2]}", number, user=f"u{number % 3}")
    await flushed(engine)
    follower = Follower(engine, 0, Filter(("a",), None, "u0"))
    await follower.caught_up()
    assert [(event["rev"], event["diff"]) for event in follower.events] == [(1, {"$replace": 0}), (7, {"$replace": 6})]


async def test_nothing_is_sent_before_it_is_durable(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", 1)
    await flushed(engine)
    follower = Follower(engine, 1)
    database.disk.hold()
    put(engine, "/a", 2)
    await database.disk.until_syncing()
    await asyncio.sleep(0.01)
    assert not follower.events
    database.disk.release()
    await eventually(lambda: follower.events)
    assert engine.durable_rev >= 2


async def test_what_was_taken_back_was_never_sent(database: Database) -> None:
    engine = database.open()
    follower, below = Follower(engine, 0), Follower(engine, 0, Filter(("list", "1")))
    put(engine, "/list", [1, 2, 3])
    await flushed(engine)
    database.disk.room = 0
    delete(engine, "/list/0")
    put(engine, "/lost", 1)
    await eventually(lambda: engine.rev == 1)
    database.disk.room = None
    put(engine, "/list/1", "kept")
    await flushed(engine)
    for each in (follower, below):
        await each.caught_up()
    assert [event["rev"] for event in follower.events] == [1, 2]
    assert [event["diff"] for event in below.events] == [{"$replace": 2}, {"$replace": "kept"}]


async def test_a_stalled_reader_keeps_nothing_and_slows_down_nobody(database: Database) -> None:
    engine = database.open(ring_bytes=TINY)
    stalled, other = Follower(engine, 0), Follower(engine, 0)
    stalled.stall()
    for number in range(200):
        put(engine, "/a", number)
        await flushed(engine)
    await other.caught_up()
    assert len(other.events) == 200
    assert (stalled.events, stalled.reader.position) == ([], 0)
    stalled.go_on()
    await stalled.caught_up()
    assert stalled.events == other.events


async def test_a_reader_that_takes_one_portion_at_a_time_gets_all_of_them(database: Database) -> None:
    engine = database.open(ring_bytes=20_000)
    follower = Follower(engine, 0)
    follower.stall(1)
    for number in range(300):
        put(engine, "/a", "x" * 1000 + str(number))
    await flushed(engine)
    while not follower.sink.over and follower.position < engine.rev:
        before = len(follower.sink.sizes)
        follower.stall(1)
        engine.feeds.wake(follower.reader)
        await eventually(lambda before=before: len(follower.sink.sizes) > before)  # type: ignore[misc]
        assert len(follower.sink.sizes) == before + 1
    assert [event["rev"] for event in follower.events] == list(range(1, 301))
    assert max(follower.sink.sizes) < 40_000


@pytest.mark.parametrize("ring", [TINY, 4 << 20], ids=["file", "memory"])
async def test_a_feed_ends_where_it_was_asked_to(database: Database, ring: int) -> None:
    engine = database.open(ring_bytes=ring)
    chains = {}
    for number in range(60):
        chains[number + 1] = put(engine, f"/{'ab'[number % 2]}", number).chain.hex()
        await flushed(engine)
    until, left, both = (
        Follower(engine, 3, until=20),
        Follower(engine, 0, left=7),
        Follower(engine, 0, Filter(("a",)), left=3),
    )
    passed = Follower(engine, 30, until=30)
    for follower in (until, left, both, passed):
        await follower.over()
        assert follower.sink.problem is None
    assert [event["rev"] for event in until.events] == list(range(4, 21))
    assert [event["rev"] for event in left.events] == list(range(1, 8))
    assert [event["rev"] for event in both.events] == [1, 3, 5]
    assert passed.events == []
    ends = [follower.sink.ends[0]["cursor"] for follower in (until, left, both)]
    assert ends == [f"{rev}-{chains[rev]}" for rev in (20, 7, 5)]
    assert passed.sink.ends[0]["rev"] == 30
    future = Follower(engine, engine.rev, until=engine.rev + 2)
    for number in range(4):
        put(engine, "/c", number)
        await flushed(engine)
    await future.over()
    assert [event["rev"] for event in future.events] == [61, 62]


async def test_readers_alike_are_sent_the_same_bytes_made_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    followers = [Follower(engine, 0, Filter(("a",))) for _ in range(50)]
    made: list[int] = []
    below = engine.feeds.events.below

    def counted(rev: int, payload: bytes, path: Any) -> Any:
        made.append(rev)
        return below(rev, payload, path)

    monkeypatch.setattr(engine.feeds.events, "below", counted)
    for number in range(10):
        put(engine, "/a", number)
        await flushed(engine)
        for follower in followers:
            await follower.caught_up()
    assert made == list(range(1, 11))
    assert all(follower.events == followers[0].events for follower in followers)


async def test_the_end_of_the_server_is_told_to_every_reader(database: Database) -> None:
    engine = database.open(ring_bytes=TINY)
    for number in range(50):
        put(engine, "/a", number)
        await flushed(engine)
    behind, level = Follower(engine, 0), Follower(engine, engine.rev)
    behind.stall()
    await database.stop()
    for follower in (behind, level):
        assert follower.sink.problem is not None
        assert follower.sink.problem.code == "shutting_down"


async def test_a_removed_reader_gets_nothing_more(database: Database) -> None:
    engine = database.open()
    follower, other = Follower(engine, 0, Filter(("a",))), Follower(engine, 0, Filter(("a",)))
    put(engine, "/a", 1)
    await flushed(engine)
    await other.caught_up()
    engine.feeds.remove(follower.reader)
    engine.feeds.remove(follower.reader)
    put(engine, "/a", 2)
    await flushed(engine)
    await other.caught_up()
    assert (len(follower.events), len(other.events), follower.sink.over) == (1, 2, False)
    assert engine.feeds.readers == {other.reader}
    assert engine.interest.paths == 1


async def test_what_was_made_of_blocks_is_bounded_also_where_nothing_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portions, "KEPT_BYTES", 20_000)
    engine = database.open(ring_bytes=TINY)
    for number in range(300):
        put(engine, "/a", "x" * 1000 + str(number))
        await flushed(engine)
    tracemalloc.start()
    try:
        for number in range(300):
            follower = Follower(engine, 0, Filter((), None, f"nobody {number}"))
            await follower.caught_up()
            engine.feeds.remove(follower.reader)
            if number == 50:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 150_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ring", [TINY, 4 << 20], ids=["file", "memory"])
async def test_a_fault_ends_the_feed_that_it_happened_in_and_says_so(
    database: Database, ring: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Lines):
        key = "faulty"

        def changes(self, tails: list[bytes]) -> bytes:
            raise ZeroDivisionError

    engine = database.open(ring_bytes=ring)
    for number in range(20):
        put(engine, "/a", str(number) * 500)
        await flushed(engine)
    faulty, sound = Collector(), Follower(engine, 0)
    engine.feeds.add(Reader(Filter(), Faulty(), faulty, 0))
    late = Follower(engine, 0)
    for follower in (sound, late):
        await follower.caught_up()
        assert len(follower.events) == 20
    await eventually(lambda: faulty.over)
    assert faulty.problem is not None
    assert faulty.problem.code == "unavailable"
    assert "a fault while serving a feed" in caplog.text
