"""Idempotency keys: replay, reuse, the window's size and age, restarts."""

import asyncio
from argparse import ArgumentParser
from io import StringIO
from typing import Any

import pytest

from kantad.engine import requests
from kantad.engine.preconditions import looks_back
from kantad.engine.requests import DAY, Seen, Window
from kantad.tools import compact
from kantad.values.errors import Problem
from tests.engine.engine_kit import Database, condition, eventually, flushed, proposal, put, refusal, when, write
from tests.own_formats import CBOR


def seen(rev: int, micros: int, changed: bool = True) -> Seen:
    return Seen("q", rev, b"", micros, changed)


async def test_a_repeat_commits_nothing_and_gives_the_first_answer(either: Database) -> None:
    engine = either.open()
    first = await write(engine, proposal("put", "/a", 1, key="k"))
    await write(engine, proposal("put", "/a", 2))
    again = await write(engine, proposal("put", "/a", 1, key="k"))
    assert (again.rev, again.chain, again.micros, again.changed) == (first.rev, first.chain, first.micros, True)
    assert again.replayed
    assert not first.replayed
    assert (engine.rev, engine.root) == (2, {"a": 2})


@pytest.mark.parametrize(
    "other",
    [
        proposal("put", "/a", 2, key="k"),
        proposal("put", "/b", 1, key="k"),
        proposal("patch", "/a", 1, key="k"),
        proposal("put", "/a", True, key="k"),
        proposal("put", "/a", 1.0, key="k"),
        proposal("put", "/a", 1, key="k", action="else"),
        proposal("put", "/a", 1, key="k", user="eve"),
        proposal("put", "/a", 1, key="k", m=5),
        proposal("put", "/a", 1, key="k", base=0),
        proposal("put", "/a", 1, key="k", conditions=[condition("/a", exists=False)]),
    ],
)
async def test_the_key_of_another_request_is_refused(database: Database, other: Any) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1, key="k"))
    problem = refusal(lambda: engine.transact(other))
    assert (problem.code, problem.more["rev"], engine.rev) == ("key_reused", 1, 1)


async def test_the_key_is_looked_at_before_any_other_condition(database: Database) -> None:
    engine = database.open()
    asked = proposal("put", "/a", 1, key="k", base=0, conditions=[condition("/a", exists=False)])
    await write(engine, asked)
    assert (await write(engine, asked)).replayed


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_keys_are_restored_at_the_start(tmp_path: Any, format: str) -> None:
    database = Database(str(tmp_path / "data.kantadb"), format)
    engine = database.open()
    for number in range(20):
        await write(engine, proposal("post", "/list" if number % 2 else "/things", number, key=f"k{number}"))
        await write(engine, proposal("put", "/n", number))
        if number == 10:
            await engine.snapshot()
    firsts = {key: (s.rev, s.chain, s.micros, s.q) for key, s in engine.window.changes.items()}
    children = {key: s.child for key, s in engine.window.changes.items()}
    await database.stop()
    engine = database.open()
    assert {key: (s.rev, s.chain, s.micros, s.q) for key, s in engine.window.changes.items()} == firsts
    for number in range(20):
        again = await write(engine, proposal("post", "/list" if number % 2 else "/things", number, key=f"k{number}"))
        assert (again.replayed, again.child) == (True, children[f"k{number}"])
    assert refusal(lambda: put(engine, "/n", 0, key="k3")).code == "key_reused"
    await database.stop()


async def test_the_child_of_a_replayed_append_is_its_index(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/list", list(range(40))))
    first = await write(engine, proposal("post", "/list", "x", key="k"))
    await database.stop()
    again = await write(database.open(), proposal("post", "/list", "x", key="k"))
    assert first.child == again.child == ("list", "40")


@pytest.mark.parametrize("before", [[{}], [{"a": 1}, 0], [0, 0, {"x": [1]}], [[], {"y": 1}]], ids=str)
@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_the_child_of_a_replayed_post_below_an_array_is_known(tmp_path: Any, before: Any, format: str) -> None:
    database = Database(str(tmp_path / "data.kantadb"), format)
    engine = database.open()
    await write(engine, proposal("put", "/l", before))
    places = [f"/l/{position}" for position, value in enumerate(before) if type(value) in (dict, list)]
    firsts = [(await write(engine, proposal("post", place, {"$n": 1}, key=place))).child for place in places]
    await database.stop()
    engine = database.open()
    agains = [await write(engine, proposal("post", place, {"$n": 1}, key=place)) for place in places]
    assert [again.child for again in agains] == firsts
    assert all(again.replayed for again in agains)
    await database.stop()


async def test_a_post_past_the_end_of_an_array_is_refused(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/l", [1]))
    assert refusal(lambda: engine.transact(proposal("post", "/l/-", 1))).code == "patch_mismatch"


async def test_the_repeat_of_a_write_that_is_still_pending_waits_for_it(database: Database) -> None:
    engine = database.open()
    database.disk.hold()
    told: list[Any] = []
    asked = proposal("put", "/a", 1, key="k")
    when(engine, engine.transact(asked), None, told, "first")
    await database.disk.until_syncing()
    again = engine.transact(asked)
    when(engine, again, None, told, "again")
    await asyncio.sleep(0.01)
    assert (again.replayed, told) == (True, [])
    database.disk.release()
    await eventually(lambda: told == ["first", "again"])


async def test_a_key_that_was_rolled_back_is_forgotten(database: Database) -> None:
    engine = database.open()
    database.disk.room = 0
    told: list[Any] = []
    asked = proposal("put", "/a", 1, key="k")
    when(engine, engine.transact(asked), None, told, "first")
    when(engine, engine.transact(asked), None, told, "again")
    when(engine, engine.transact(proposal("put", "/a", 1, key="same")), None, told, "unchanged")
    await eventually(lambda: len(told) == 3)
    assert {entry[1] for entry in told} == {"storage_full"}
    assert not engine.window.changes
    assert not engine.window.unchanged
    database.disk.room = None
    outcome = await write(engine, proposal("put", "/b", 2, key="k"))
    assert (outcome.replayed, outcome.rev) == (False, 1)
    assert (await write(engine, proposal("put", "/a", 1, key="same"))).changed


async def test_a_keyed_request_that_changed_nothing_is_remembered_by_this_process(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    await write(engine, proposal("put", "/a", 1, key="k"))
    await write(engine, proposal("put", "/a", 2))
    again = await write(engine, proposal("put", "/a", 1, key="k"))
    assert (again.replayed, again.changed, again.rev, engine.root) == (True, False, 1, {"a": 2})
    await database.stop()
    engine = database.open()
    assert (await write(engine, proposal("put", "/a", 1, key="k"))).changed


async def test_a_dry_run_takes_no_key(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1, key="k", dry_run=True))
    assert not (await write(engine, proposal("put", "/a", 1, key="k"))).replayed


async def test_a_refused_request_takes_no_key(database: Database) -> None:
    engine = database.open()
    with pytest.raises(Problem):
        await write(engine, proposal("delete", "/a", key="k"))
    assert not (await write(engine, proposal("put", "/b", 1, key="k"))).replayed


def test_the_window_keeps_ten_thousand_however_old() -> None:
    window = Window()
    for rev in range(10_005):
        window.add(f"k{rev}", seen(rev, rev * DAY))
    window.trim()
    assert len(window.changes) == 10_000
    assert window.peek("k4") is None
    assert window.peek("k5") is not None


def test_the_window_keeps_a_day_beyond_ten_thousand_up_to_a_hundred_thousand() -> None:
    window = Window()
    for rev in range(30_000):
        window.add(f"k{rev}", seen(rev, rev))
    window.trim()
    assert len(window.changes) == 30_000
    window.add("later", seen(30_000, 20_000 + DAY))
    window.trim()
    assert 10_000 <= len(window.changes) <= 10_001
    for rev in range(100_010):
        window.add(f"m{rev}", seen(40_000 + rev, 30_000 + DAY))
    window.trim()
    assert len(window.changes) == 100_000
    assert window.peek("m9") is None


def test_the_window_keeps_ten_thousand_requests_that_changed_nothing() -> None:
    window = Window()
    for number in range(10_005):
        window.add_unchanged(f"k{number}", seen(number // 5, 0, False))
    window.forget_after(1999)
    window.add_unchanged("later", seen(2000, 0, False))
    assert len(window.unchanged) == 9_996
    assert window.peek("k4") is None
    assert window.peek("later") is not None


async def test_the_window_is_the_same_after_a_start(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT", 20)
    monkeypatch.setattr(requests, "MOST", 60)
    monkeypatch.setattr("kantad.store.history.KEYS_KEPT", 20)
    monkeypatch.setattr("kantad.store.history.KEYS_MOST", 60)
    database.clock.step = DAY // 40
    engine = database.open()
    for number in range(100):
        await write(engine, proposal("put", "/a", number, key=f"k{number}"))
        if number == 70:
            database.clock.step = DAY // 100
    before = list(engine.window.changes)
    assert 40 <= len(before) <= 60
    await database.stop()
    engine = database.open()
    assert list(engine.window.changes) == before


async def test_a_rolled_back_write_pushes_no_key_out_of_the_window(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "KEPT", 5)
    monkeypatch.setattr(requests, "MOST", 5)
    engine = database.open()
    for number in range(5):
        await write(engine, proposal("put", "/a", number, key=f"k{number}"))
    database.disk.room = 0
    with pytest.raises(Problem):
        await write(engine, proposal("put", "/a", 9, key="lost"))
    assert list(engine.window.changes) == [f"k{number}" for number in range(5)]
    database.disk.room = None
    await write(engine, proposal("put", "/a", 9, key="new"))
    await flushed(engine)
    assert list(engine.window.changes) == ["k1", "k2", "k3", "k4", "new"]


async def test_a_repeated_request_is_answered_as_before_when_its_record_was_cut_off(either: Database) -> None:
    engine = either.open()
    first = await write(engine, proposal("post", "/users", {"name": "Alice"}, key="k1"))
    listed = await write(engine, proposal("post", "/list", 1, key="k2"))
    await write(engine, proposal("put", "/x", 1, key="k3"))
    await either.stop()
    args = ArgumentParser()
    compact.add_arguments(args)
    given = args.parse_args([either.path, "--format", either.format, "--retain", "none", "--no-archive"])
    assert compact.run(given, StringIO(), StringIO()) == 0
    engine = either.open()
    assert engine.past.oldest == 3
    for outcome, again in (
        (first, proposal("post", "/users", {"name": "Alice"}, key="k1")),
        (listed, proposal("post", "/list", 1, key="k2", want_diff=True)),
    ):
        assert not looks_back(engine, again)
        replayed = engine.transact(again)
        assert replayed.replayed
        assert (replayed.rev, replayed.chain, replayed.micros) == (outcome.rev, outcome.chain, outcome.micros)
        assert replayed.child == outcome.child
    assert refusal(lambda: put(engine, "/x", 2, key="k3")).code == "key_reused"
