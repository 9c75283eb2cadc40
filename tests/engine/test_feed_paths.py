"""Feeds of paths: woken by what meets their path and by nothing else, and nothing is missed for that."""

import asyncio
import random
from typing import Any

import pytest

from kantad.engine import feed
from kantad.engine.filter import Filter
from kantad.engine.interest import REMEMBERED, Interest
from kantad.engine.lane import write_all
from kantad.values.content import MISSING, copied
from kantad.values.pointer import lookup
from tests.engine.engine_kit import Database, eventually, flushed, put
from tests.engine.feed_kit import Follower
from tests.engine.test_lane import Asked, admit

TINY = 1500


def counted(monkeypatch: pytest.MonkeyPatch, engine: Any) -> list[int]:
    """The revisions that are looked at for feeds of paths, as they are."""
    looked: list[int] = []
    below = engine.feeds.events.below

    def noted(rev: int, payload: bytes, path: Any) -> Any:
        looked.append(rev)
        return below(rev, payload, path)

    monkeypatch.setattr(engine.feeds.events, "below", noted)
    return looked


async def test_a_change_is_looked_at_for_the_readers_whose_path_it_met(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    put(engine, "/users", {f"u{number}": {"n": 0} for number in range(40)})
    await flushed(engine)
    followers = [Follower(engine, engine.rev, Filter(("users", f"u{number}"))) for number in range(40)]
    above = Follower(engine, engine.rev, Filter(("users",)))
    looked = counted(monkeypatch, engine)
    for follower in (*followers, above):
        await follower.caught_up()
    for number in range(40):
        put(engine, f"/users/u{number}/n", 1)
        put(engine, f"/other/{number}", 1)
    await flushed(engine)
    for follower in (*followers, above):
        await follower.caught_up()
    assert [event["rev"] for event in above.events] == list(range(2, 82, 2))
    assert [[event["rev"] for event in follower.events] for follower in followers] == [[rev] for rev in range(2, 82, 2)]
    assert sorted(looked) == sorted([*range(2, 82, 2), *range(2, 82, 2)])


async def test_what_was_applied_before_somebody_came_and_published_after_is_not_missed(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", {"n": 0})
    await flushed(engine)
    database.disk.hold()
    put(engine, "/a/n", 1)
    follower = Follower(engine, 1, Filter(("a", "n")))
    await asyncio.sleep(0)  # it is served, and rests
    put(engine, "/a/n", 2)
    database.disk.release()
    await flushed(engine)
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == [2, 3]


async def test_who_rested_while_the_ring_went_by_is_still_served_from_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open(ring_bytes=TINY)
    put(engine, "/a", 0)
    await flushed(engine)
    follower = Follower(engine, 1, Filter(("a",)))
    await follower.caught_up()
    for number in range(200):
        put(engine, "/b", number)
        await flushed(engine)
    assert engine.feeds.position(follower.reader) == 201 < engine.past.ring.last + 1
    taken: list[Any] = []
    monkeypatch.setattr(engine.feeds.convoy, "take", lambda reader, stuck: taken.append(reader))
    put(engine, "/a", 1)
    await flushed(engine)
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == [202]
    assert not taken


async def test_a_stalled_reader_whose_path_nothing_met_has_nothing_to_catch_up_with(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open(ring_bytes=TINY)
    follower = Follower(engine, 0, Filter(("a",)))
    await follower.caught_up()
    put(engine, "/a", 0)
    follower.stall()
    await flushed(engine)
    for number in range(200):
        put(engine, "/b", number)
        await flushed(engine)
    follower.go_on()
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == [1]


async def test_more_changes_than_are_remembered_are_looked_for_in_the_ring(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", 0)
    await flushed(engine)
    follower, stalled = Follower(engine, 1, Filter(("a",))), Follower(engine, 1, Filter(("a",)))
    await follower.caught_up()
    await stalled.caught_up()
    stalled.stall()
    for round in range(3):
        for number in range(2 * REMEMBERED):
            put(engine, "/a", [round, number])
            put(engine, "/b", [round, number])
        await flushed(engine)
        await follower.caught_up()
    stalled.go_on()
    await stalled.caught_up()
    node = follower.reader.node
    assert node is not None
    assert len(node.revs) <= REMEMBERED < node.since
    wanted = list(range(2, 2 + 12 * REMEMBERED, 2))
    assert [event["rev"] for event in follower.events] == wanted
    assert stalled.events == follower.events


async def test_an_end_by_revision_comes_also_where_nothing_meets_the_path(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", 0)
    await flushed(engine)
    follower = Follower(engine, 1, Filter(("a",)), until=4)
    await follower.caught_up()
    for number in range(6):
        put(engine, "/b", number)
        await flushed(engine)
    await follower.over()
    assert (follower.events, follower.sink.ends[0]["rev"]) == ([], 4)


async def test_a_heartbeat_of_one_who_rests_carries_the_newest_position(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    put(engine, "/a", 0)
    await flushed(engine)
    follower = Follower(engine, 1, Filter(("a",)))
    await follower.caught_up()
    for number in range(6):
        put(engine, "/b", number)
        await flushed(engine)
    monkeypatch.setattr(feed, "HEARTBEAT", 0.0)
    await eventually(lambda: follower.sink.heartbeats)
    assert follower.sink.heartbeats[0]["cursor"] == engine.written.cursor
    put(engine, "/a", 1)
    await flushed(engine)
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == [8]


@pytest.mark.parametrize("ring", [TINY, 4 << 20], ids=["file", "memory"])
async def test_of_the_past_a_reader_of_a_path_is_shown_what_met_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    engine = database.open(ring_bytes=ring)
    put(engine, "/users", {f"u{number}": 0 for number in range(30)})
    for number in range(1, 1501):
        put(engine, f"/users/u{number % 30}", number)
    await flushed(engine)
    looked, decoded = counted(monkeypatch, engine), 0
    diff = engine.feeds.events.diff

    def noted(payload: bytes) -> Any:
        nonlocal decoded
        decoded += 1
        return diff(payload)

    monkeypatch.setattr(engine.feeds.events, "diff", noted)
    followers = [Follower(engine, 1, Filter(("users", f"u{number}"))) for number in range(30)]
    for follower in followers:
        await follower.caught_up()
    for number, follower in enumerate(followers):
        assert [event["rev"] for event in follower.events] == [
            rev for rev in range(2, 1502) if (rev - 1) % 30 == number
        ]
    assert sorted(looked) == list(range(2, 1502))
    assert decoded < 2 * 1501 + 500  # each for the notes, and for whom it met; the last block may have grown


@pytest.mark.parametrize("seed", range(4))
async def test_writes_of_one_message_reach_the_feeds_of_what_they_replace(database: Database, seed: int) -> None:
    dice = random.Random(seed)
    engine = database.open()
    put(engine, "", {"o": {"a": 1, "b": {"c": 1, "d": {"e": 1}}}})
    await flushed(engine)
    paths: list[tuple[str, ...]] = [("o",), ("o", "a"), ("o", "b"), ("o", "b", "c"), ("o", "b", "d", "e")]
    followers = [Follower(engine, 1, Filter(path)) for path in paths]
    told: dict[tuple[str, ...], list[int]] = {path: [] for path in paths}
    for _ in range(60):
        writes = [
            Asked(dice.choice(("/o", "/o/b")), {dice.choice("abc"): dice.choice((1, 2, "x", {"$replace": {"c": 5}}))})
            for _ in range(dice.randint(1, 5))
        ]
        for write in writes:
            before = copied(engine.root)
            write_all(engine, [write], admit)
            for path in paths:
                old, new = lookup(before, path), lookup(engine.root, path)
                if (old is MISSING) is not (new is MISSING) or old != new:
                    told[path].append(engine.rev)
        await flushed(engine)
    for follower, path in zip(followers, paths, strict=True):
        await follower.caught_up()
        assert [event["rev"] for event in follower.events] == told[path], path


def test_what_is_followed_anew_begins_anew() -> None:
    interest = Interest()
    interest.follow(("a", "b"))
    first = interest.follow(("a",), 5)
    assert first is not None
    first.meets(6)
    assert first.between(5, 9) == [6]
    interest.leave(("a",))
    again = interest.follow(("a",), 9)
    assert again is first
    assert (list(again.between(4, 6)), again.between(9, 12)) == ([5, 6], [])
