"""Many plain writes in one step come to what they come to one by one: state, records, refusals, undoing."""

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from kantad.engine.engine import Engine
from kantad.engine.lane import Result, write_all
from kantad.engine.proposal import Outcome
from kantad.engine.requests import check_key
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.pointer import parse
from tests.engine.engine_kit import Asked, Clock, Database, flushed, proposal, put, refusal
from tests.own_formats import CBOR

SCALARS = [0, 1, 1.0, True, False, None, "", "a", "$a", "$$a", "$delete", -0.0, 0.0, 2**53, 2**63, -(2**63), 0.5]
KEYS = ["a", "b", "n", "", "0", "$a", "$$a", "ü/~"]
STATE: dict[str, Any] = {
    "o": {"a": 1, "b": {"a": "x", "n": None}, "n": [1, {"a": 1}], "$a": "$v", "": 0},
    "list": [0, {"a": 1}, "s"],
    "s": "text",
}


def admit(action: str, user: str | None) -> None:
    """Refuse one action, as the edges refuse bad ones."""
    if action == "bad":
        raise Problem("invalid_parameter", "a bad action", parameter="a")


def a_write(dice: random.Random) -> Asked:
    """A write that may fit, mostly of one member."""
    path = "".join("/" + dice.choice(["o", "b", "list", "1", "s", "n", "$a", "~"]) for _ in range(dice.randint(0, 3)))
    path = dice.choice(["/o", "/o/b", "/list/1", "/o/n/1", path])
    value: Any = dice.choice([*SCALARS, *SCALARS, {}, [], {"a": 1}, {"$replace": 1}, {"$delete": ["a"]}, [1]])
    diff: Any = {dice.choice([*KEYS, "$delete", "$no"]): value}
    if dice.random() < 0.2:
        diff |= {dice.choice(KEYS): dice.choice(SCALARS)}
    if dice.random() < 0.05:
        diff = value
    key = dice.choice([None, None, None, f"k{dice.randint(0, 2000)}", "again", 'quoted "\\', "", "ü"])
    return Asked(path, diff, dice.choice(["transact", "transact", "x", "bad"]), dice.choice([None, None, "ü"]), key)


def one_by_one(engine: Engine, asked: Asked) -> Any:
    """What a write comes to by itself."""
    try:
        admit(asked.a, asked.u)
        parse(asked.path)
        if asked.key is not None:
            check_key(asked.key, "key")
        labels = {"action": asked.a, "user": asked.u, "key": asked.key}
        made = proposal("patch", asked.path, asked.diff, foreign=engine.foreign, **labels)
        return told(engine.transact(made))
    except Problem as problem:
        return told(problem)


def told(result: Result) -> Any:
    """What a client would be told."""
    if isinstance(result, Problem):
        return result.code, result.more
    if isinstance(result, Outcome):
        return result.rev, result.chain, result.changed, result.replayed
    return result.rev, result.chain, True, False


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
@pytest.mark.parametrize("followed", [False, True])
async def test_a_lane_comes_to_what_its_writes_come_to_one_by_one(tmp_path: Path, format: str, followed: bool) -> None:
    dice = random.Random(7)
    pair = [Database(str(tmp_path / name), format) for name in ("lane", "single")]
    lane, single = (database.open(clock=Clock(0)) for database in pair)
    for engine in (lane, single):
        put(engine, "", deepcopy(STATE))
        await flushed(engine)
        if followed:
            engine.interest.follow(("o", "b"))
    for _ in range(250):
        before = encode_json(lane.root)
        asked = [a_write(dice) for _ in range(dice.randint(1, 12))]
        wanted = [one_by_one(single, deepcopy(each)) for each in asked]
        batch, results = write_all(lane, asked, admit)
        assert [told(each) for each in results] == wanted
        assert encode_json(lane.root) == encode_json(single.root)
        assert (lane.window.changes, lane.window.unchanged) == (single.window.changes, single.window.unchanged)
        changes = [] if batch is None else batch.changes
        assert [each.payload for each in changes] == [each.payload for each in single.committer.unsettled()]
        assert [each.narrowed for each in changes] == [each.narrowed for each in single.committer.unsettled()]
        shown = encode_json(lane.root)
        assert encode_json(lane.read((), lambda root: deepcopy(root))) == before
        assert encode_json(lane.root) == shown
        await flushed(lane)
        await flushed(single)
    for database in pair:
        await database.stop()
    read = [(tmp_path / name).read_bytes() for name in ("lane", "single")]
    assert format != "json" or read[0] == read[1]


async def test_a_key_is_known_to_the_writes_behind_it_in_its_lane(database: Database) -> None:
    engine = database.open()
    first = Asked("", {"a": 1}, key="k")
    asked = [first, Asked("", {"a": 2}), first, first._replace(diff={"a": 3}), Asked("", {"a": 2}, key="same")]
    _, results = write_all(engine, asked, admit)
    _, again = write_all(engine, asked[-1:], admit)
    assert [told(each)[0] for each in results] == [1, 2, 1, "key_reused", 2]
    assert [each.replayed for each in (*results, *again) if isinstance(each, Outcome)] == [True, False, True]
    assert (engine.root, list(engine.window.changes), list(engine.window.unchanged)) == ({"a": 2}, ["k"], ["same"])
    await flushed(engine)


async def test_keys_of_a_lane_that_finds_no_room_are_forgotten(database: Database) -> None:
    engine = database.open()
    database.disk.room = 0
    asked = [Asked("", {"a": number}, key=f"k{number}") for number in range(20)]
    write_all(engine, [*asked, Asked("", {"a": 19}, key="same")], admit)
    with pytest.raises(Problem):
        await flushed(engine)
    assert (engine.window.changes, engine.window.unchanged) == ({}, {})
    database.disk.room = None
    _, results = write_all(engine, asked, admit)
    assert [told(each)[0] for each in results] == list(range(1, 21))
    await flushed(engine)
    assert list(engine.window.changes) == [each.key for each in asked]


async def test_a_lane_that_finds_no_room_is_taken_back_as_a_whole(database: Database) -> None:
    engine = database.open()
    put(engine, "", deepcopy(STATE))
    await flushed(engine)
    before = encode_json(engine.root)
    database.disk.room = 10
    write_all(engine, [Asked("/o", {key: number}) for number in range(2, 40) for key in ("a", "b")], admit)
    with pytest.raises(Problem) as refused:
        await flushed(engine)
    assert (refused.value.code, engine.rev) == ("storage_full", 1)
    assert encode_json(engine.root) == before


async def test_a_stopped_engine_takes_no_lane(database: Database) -> None:
    engine = database.open()
    await engine.stop()
    assert refusal(lambda: write_all(engine, [Asked("", {"a": 1})], admit)).code == "shutting_down"
