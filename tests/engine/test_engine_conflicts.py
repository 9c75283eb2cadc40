"""`base` and `unchanged_since`: by changed paths, from memory and from the file; cursors verified."""

import asyncio
from typing import Any

import pytest

from kantad.engine.engine import Engine
from kantad.engine.ring import RING_BYTES
from kantad.values.errors import Problem
from kantad.values.record import cursor
from tests.engine.engine_kit import Database, condition, delete, flushed, proposal, put, refusal, write


async def grown(database: Database, source: str) -> Engine:
    """An engine at revision 31 whose history is in memory, in the file, or behind the last snapshot."""
    engine = database.open(ring_bytes=RING_BYTES if source == "memory" else 200)
    await write(engine, proposal("put", "", {"a": {"x": 0}, "b": {"x": 0}, "c": [1, 2]}, action="first"))
    for number in range(1, 16):
        await write(engine, proposal("put", f"/{'ab'[number % 2]}/x", number, user="u", action="odd"))
        await write(engine, proposal("put", f"/other/n{number}", number))
    if source == "snapshot":
        await engine.snapshot()
        await write(engine, proposal("put", "/z", 1))
        await write(engine, proposal("delete", "/z"))
    return engine


@pytest.mark.parametrize("source", ["memory", "file", "snapshot"])
async def test_a_base_conflicts_with_what_touched_the_path_since(either: Database, source: str) -> None:
    engine = await grown(either, source)
    for base in (1, "1"):
        problem = refusal(lambda base=base: put(engine, "/a/x", 99, base=base))  # type: ignore[misc]
        assert problem.code == "conflict"
        assert [each["rev"] for each in problem.more["conflicts"]] == [4, 8, 12, 16, 20, 24, 28]
        assert problem.more["conflicts"][0] == {"rev": 4, "a": "odd", "u": "u", "path": "/a/x"}
        assert (problem.more["value"], problem.more["rev"]) == (14, engine.rev)
    assert refusal(lambda: put(engine, "/a", {}, base=27)).code == "conflict"
    assert refusal(lambda: put(engine, "/a/x/y", {}, base=27)).code == "conflict"
    assert refusal(lambda: delete(engine, "/a", base=27)).code == "conflict"
    assert put(engine, "/a/x", 99, base=28).changed
    assert put(engine, "/a/y", 99, base=1).changed
    assert put(engine, "/d/e", 99, base=1).changed


@pytest.mark.parametrize("source", ["memory", "file", "snapshot"])
async def test_cursors_are_verified_wherever_they_are_from(either: Database, source: str) -> None:
    engine = await grown(either, source)
    for rev in (0, 1, 2, 15, 28, 30, 31, engine.rev):
        good = cursor(rev, engine.past_now().chain_at(rev))
        assert engine.past_now().verified(good, "base") == rev
        bad = f"{rev}-{'0' * 15}{'1' if good[-1] != '1' else '2'}"
        assert refusal(lambda bad=bad: put(engine, "/new", 1, base=bad)).code == "history_diverged"  # type: ignore[misc]
    assert refusal(lambda: put(engine, "/new", 1, base=engine.rev + 1)).code == "history_diverged"


async def test_the_chain_at_each_revision_is_that_of_its_answer(either: Database) -> None:
    engine = either.open()
    chains = {}
    for number in range(30):
        outcome = await write(engine, proposal("put", "/a", number))
        chains[outcome.rev] = outcome.chain
        if number % 11 == 5:
            await engine.snapshot()
    await either.stop()
    engine = either.open()
    assert {rev: engine.past_now().chain_at(rev) for rev in chains} == chains


@pytest.mark.parametrize("source", ["memory", "file", "snapshot"])
async def test_unchanged_since_is_by_path(either: Database, source: str) -> None:
    engine = await grown(either, source)

    def asked(pointer: str, since: Any) -> Any:
        return proposal("put", "/new", since, conditions=[condition(pointer, unchanged_since=since)])

    problem = refusal(lambda: engine.transact(asked("/a/x", 27)))
    assert problem.code == "precondition_failed"
    assert problem.more["failed"][0]["value"] == 14
    assert refusal(lambda: engine.transact(asked("", engine.rev - 1))).code == "precondition_failed"
    assert refusal(lambda: engine.transact(asked("/a", 3))).code == "precondition_failed"
    assert engine.transact(asked("/a", 28)).changed
    assert engine.transact(asked("/c", 1)).changed


async def test_a_base_is_held_against_pending_changes(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1))
    database.disk.hold()
    put(engine, "/a", 2)
    await database.disk.until_syncing()
    put(engine, "/b", 2)
    assert refusal(lambda: put(engine, "/a", 3, base=1)).code == "conflict"
    assert refusal(lambda: put(engine, "/b", 3, base=2)).code == "conflict"
    assert put(engine, "/a", 3, base=cursor(2, engine.past_now().chain_at(2))).rev == 4
    database.disk.release()
    await flushed(engine)


async def test_edits_of_a_list_conflict_with_the_list(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/list", list(range(50))))
    await write(engine, proposal("delete", "/list/3"))
    assert refusal(lambda: put(engine, "/list/40", "x", base=1)).code == "conflict"
    await write(engine, proposal("put", "/list/5", "y"))
    assert refusal(lambda: put(engine, "/list/5", "x", base=2)).code == "conflict"
    assert put(engine, "/list/6", "x", base=2).changed


async def test_keys_that_begin_with_a_dollar_conflict_too(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/$a", {"$delete": 1}))
    await write(engine, proposal("put", "/$a/$delete", 2))
    assert refusal(lambda: put(engine, "/$a/$delete", 3, base=1)).code == "conflict"
    await write(engine, proposal("delete", "/$a/$delete"))
    assert refusal(lambda: put(engine, "/$a/$delete", 3, base=2)).code == "conflict"
    assert put(engine, "/a/delete", 3, base=1).changed


BODIES: list[Any] = [
    5,
    None,
    [],
    "x",
    {"$delete": 5},
    {"$delete": None},
    {"$delete": {"a": 1}},
    {"$delete": [None, [1], {}]},
    {"$insert": 5},
    {"$replace": 5, "a": 1},
    {"$what": 1},
    {"a": {"$delete": 5}},
    [5],
    [{"op": 5}],
    [{"op": "add"}],
    [{"op": "add", "path": 5, "value": 1}],
    [{"op": "move", "path": "/a", "from": 5}],
    [{"op": "test", "path": "x", "value": 1}],
]


@pytest.mark.parametrize("edit", ["put", "patch", "merge", "json-patch", "post", "delete"])
@pytest.mark.parametrize("body", BODIES, ids=str)
async def test_a_body_that_is_no_patch_is_a_problem_also_with_a_base(database: Database, edit: str, body: Any) -> None:
    engine = database.open()
    await write(engine, proposal("put", "", {"a": {"b": 1}, "l": [1, {"c": 2}], "s": 1}))
    await write(engine, proposal("put", "/a/b", 2))
    for pointer in ("", "/a", "/l", "/s", "/none")[edit == "delete" :]:
        for more in ({}, {"base": 1}, {"base": 1, "key": "k" + pointer}, {"dry_run": True}):
            try:
                engine.transact(proposal(edit, pointer, body, **more))
            except Problem as problem:
                assert problem.status < 500
    await asyncio.sleep(0)
