"""Conditions that begin long ago: looked back at beforehand, with the answer that one step would give."""

import random
from typing import Any

import pytest

from kantad.engine import preconditions
from kantad.engine.engine import Engine
from kantad.engine.preconditions import look_back, looks_back
from kantad.engine.proposal import Proposal
from kantad.values.errors import Problem
from kantad.values.record import cursor
from tests.engine.engine_kit import Database, condition, delete, flushed, proposal, put, write

KEYS = ("a", "b", "$c")


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "NEAR", 3)
    monkeypatch.setattr(preconditions, "MOST_LISTED", 6)


async def grown(database: Database, revisions: int = 60) -> Engine:
    """An engine whose ring holds a few changes of a long history."""
    engine, chance = database.open(ring_bytes=600), random.Random(5)
    while engine.rev < revisions:
        path = f"/{chance.choice(KEYS)}/{chance.choice(KEYS)}"
        if chance.random() < 0.2 and engine.read(tuple(path.split("/")[1:]), lambda value: value) in range(999):
            await write(engine, proposal("delete", path))
        else:
            await write(engine, proposal("put", path, engine.rev, user="u"))
        if engine.rev == 40:
            await engine.snapshot()
    await flushed(engine)
    return engine


def told(engine: Engine, asked: Proposal) -> Any:
    """What a proposal comes to, as a dry run."""
    asked.dry_run = True
    try:
        return engine.transact(asked).diff
    except Problem as problem:
        return problem.body()


async def test_looking_back_gives_what_one_step_gives(either: Database) -> None:
    engine, chance = await grown(either), random.Random(7)
    codes = set()
    for _ in range(300):
        marks = [chance.randrange(engine.rev + 2) for _ in range(3)]
        given: list[Any] = [
            mark if chance.random() < 0.5 or mark > engine.rev else cursor(mark, engine.past_now().chain_at(mark))
            for mark in marks
        ]
        path = f"/{chance.choice(KEYS)}/{chance.choice((*KEYS, 'never'))}"

        def asked(given: list[Any] = given, path: str = path) -> Proposal:
            conditions = [condition(path, unchanged_since=mark) for mark in given[1:] if type(mark) is str]
            return proposal("put", path, "new", base=given[0], conditions=conditions)

        expected, ahead = told(engine, asked()), asked()
        if looks_back(engine, ahead):
            try:
                await look_back(engine, ahead)
            except Problem as problem:
                assert problem.code == expected["code"]
                continue
        found = told(engine, ahead)
        codes.add(found.get("code"))
        if expected.get("code") == "conflict":
            assert found.pop("detail").partition(" after")[2] == expected.pop("detail").partition(" after")[2]
        assert found == expected
    assert codes >= {None, "conflict", "precondition_failed"}


async def test_only_what_is_near_is_left_for_the_step(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await grown(database)
    asked = proposal("put", "/never", 1, base=1, conditions=[condition("/never", unchanged_since=2)])
    assert looks_back(engine, asked)
    await look_back(engine, asked)
    past, starts = engine.past_now(), []
    read = past.changes_after

    def counted(rev: int) -> Any:
        starts.append(rev)
        return read(rev)

    monkeypatch.setattr(past, "changes_after", counted)
    assert engine.transact(asked).changed
    assert starts == [engine.written.rev - 3] * 2


async def test_of_large_changes_fewer_are_near(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await grown(database)
    monkeypatch.setattr(preconditions, "NEAR", 1000)
    last = engine.past.ring.first  # what stands before it is in the file
    assert not looks_back(engine, proposal("put", "/never", 1, base=last))
    asked = proposal("put", "/never", 1, base=last - 1)
    assert looks_back(engine, asked)
    await look_back(engine, asked)
    assert asked.looked is not None
    assert asked.looked.rev == last
    assert engine.transact(asked).changed
    await flushed(engine)


async def test_conditions_of_many_revisions_read_the_changes_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await grown(database)
    put(engine, "/b/b", "last")
    await flushed(engine)
    past, starts = engine.past_now(), []
    read = past.changes_after
    monkeypatch.setattr(past, "changes_after", lambda rev: starts.append(rev) or read(rev))
    marks = [engine.rev - back for back in (0, 2, 1, 0, 1)]
    paths = ["/b/b", "/never", "/b", "/b/b/c", ""]
    given = [condition(path, unchanged_since=mark) for path, mark in zip(paths, marks, strict=True)]
    with pytest.raises(Problem) as refused:
        engine.transact(proposal("put", "/x", 1, conditions=given))
    assert [each["path"] for each in refused.value.more["failed"]] == ["/b", ""]
    assert starts == [engine.rev - 2]


async def test_a_change_after_looking_back_is_seen_in_the_step(database: Database) -> None:
    engine = await grown(database)
    asked = proposal("put", "/never", 1, base=1)
    await look_back(engine, asked)
    put(engine, "/never", 0)
    with pytest.raises(Problem, match="touched what this write touches"):
        engine.transact(asked)
    await flushed(engine)


async def test_a_cursor_of_another_history_is_refused_while_looking_back(database: Database) -> None:
    engine = await grown(database)
    for asked in (
        proposal("put", "/x", 1, base=f"5-{'0' * 16}"),
        proposal("put", "/x", 1, conditions=[condition("/x", unchanged_since=f"5-{'0' * 16}")]),
    ):
        assert looks_back(engine, asked)
        with pytest.raises(Problem) as refused:
            await look_back(engine, asked)
        assert refused.value.code == "history_diverged"


async def test_enough_conflicts_end_the_search(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await grown(database)
    asked = proposal("delete", "/a", base=1)
    await look_back(engine, asked)
    with pytest.raises(Problem, match="at least 6 change") as refused:
        engine.transact(asked)
    assert len(refused.value.more["conflicts"]) == 6


async def test_a_first_answer_long_ago_is_told_again(either: Database) -> None:
    engine = either.open(ring_bytes=300)
    await write(engine, proposal("put", "/list", []))
    first = await write(engine, proposal("post", "/list", "x", key="k1"))
    moved = await write(engine, proposal("patch", "", {"a": 1}, key="k2", want_diff=True))
    for number in range(40):
        await write(engine, proposal("put", "/n", number))
    await either.stop()
    engine = either.open(ring_bytes=300)
    asked = [proposal("post", "/list", "x", key="k1"), proposal("patch", "", {"a": 1}, key="k2", want_diff=True)]
    for each in asked:
        assert looks_back(engine, each)
        await look_back(engine, each)
    again, diff = engine.transact(asked[0]), engine.transact(asked[1])
    assert (again.replayed, again.rev, again.child) == (True, first.rev, ("list", "0"))
    assert (diff.replayed, diff.rev, diff.diff) == (True, moved.rev, {"a": 1})
    assert not looks_back(engine, proposal("patch", "", {"a": 1}, key="k2"))


async def test_a_dry_run_tells_what_would_change_whether_its_key_was_used_or_not(database: Database) -> None:
    engine = database.open()
    await write(engine, proposal("put", "/a", 1, key="k"))
    await write(engine, proposal("put", "/a", 2))
    outcome = engine.transact(proposal("put", "/a", 1, key="k", dry_run=True))
    assert (outcome.replayed, outcome.changed, outcome.diff) == (False, True, {"a": 1})
    with pytest.raises(Problem, match="different request"):
        engine.transact(proposal("put", "/a", 3, key="k", dry_run=True))
    assert engine.transact(proposal("put", "/a", 1, key="k")).replayed


async def test_a_thousand_conditions_on_one_value_hash_it_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, hashed = database.open(), []
    await write(engine, proposal("put", "/a", {"x": "y" * 60_000}))
    monkeypatch.setattr(preconditions, "etag", lambda value: hashed.append(value) or "tag")
    asked = proposal("put", "/a", 1, conditions=[condition("/a", etags=("other",)) for _ in range(1000)])
    with pytest.raises(Problem) as refused:
        engine.transact(asked)
    failed = refused.value.more["failed"]
    assert len(hashed) == 1
    assert len(failed) == 1000
    assert sum("value" in each for each in failed) == 16  # 1 MiB of them
    delete(engine, "/a")
    await flushed(engine)
