"""Snapshots beside the file together with types, migrations, reading only and the engine in one's own process."""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kantad.engine import Engine as Embedded
from kantad.engine.opening import open_engine
from kantad.store.beside import beside
from kantad.store.migrations import Migrations, Step
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.schema import Schema
from tests.engine.compaction_kit import compacted, filled
from tests.engine.engine_kit import START, Database, proposal, write
from tests.engine.test_snapshots_beside import opened, snapshot


class Data(msgspec.Struct):
    users: dict[str, int] = {}
    note: str = ""
    more: dict[str, Any] = {}


def grow(state: dict[str, Any]) -> None:
    state["note"] = f"{len(state['users'])} users"


STEPS = Migrations("steps", {1: Step(1, "migrate_v1", grow, False, "")})


async def typed(database: Database) -> None:
    """A database of a type, with a snapshot beside it and a change behind that."""
    engine = opened(database, schema=Schema(Data))
    for number in range(20):
        await write(engine, proposal("put", f"/users/u{number}", number))
    await snapshot(engine)
    await write(engine, proposal("put", "/users/last", 1))
    await database.stop()
    assert os.path.exists(beside(database.path))


async def test_a_type_and_migrations_find_the_same_with_it_and_without(either: Database, tmp_path: Path) -> None:
    await typed(either)
    shutil.copy(either.path, tmp_path / "other.kantadb")
    found = []
    for path in (either.path, str(tmp_path / "other.kantadb")):
        engine = open_engine(path, format=either.format, schema=Schema(Data), migrations=STEPS, clock=lambda: START * 2)
        found.append((engine.rev, engine.chain, engine.v, engine.snapshots.is_beside, encode_json(engine.root)))
        await engine.stop()
    (rev, chain, version, is_beside, state), other = found
    assert (rev, version, is_beside) == (23, 1, True)
    assert other == (rev, chain, version, False, state)
    again = open_engine(either.path, format=either.format, schema=Schema(Data), migrations=STEPS)
    assert (again.rev, again.v, again.snapshots.is_beside) == (23, 1, True)
    again.snapshots.small = 0
    assert (await snapshot(again))[0] == 23
    await again.stop()
    last = open_engine(either.path, format=either.format, schema=Schema(Data), migrations=STEPS)
    assert (last.rev, last.v, last.snapshots.rev) == (23, 1, 23)
    await last.stop()


async def test_who_only_reads_begins_with_it_and_leaves_it_alone(either: Database) -> None:
    await typed(either)
    content = Path(beside(either.path)).read_bytes()
    engine = open_engine(either.path, format=either.format, readonly=True)
    assert (engine.rev, engine.snapshots.is_beside) == (22, True)
    assert await engine.former.value_at(3, ("users", "u1")) == 1
    with pytest.raises(Problem):
        await engine.snapshot()
    await engine.stop()
    assert Path(beside(either.path)).read_bytes() == content


async def test_the_engine_in_ones_own_process_makes_one_too(path: Path, form: str) -> None:
    async with Embedded(path, Data, format=form) as engine:
        with engine.transaction("fill") as data:
            data.more = {"large": "x" * (5 << 20)}
        await engine.flush()
        assert await engine.snapshot() == 2
        with engine.transaction("more") as data:
            data.users["ann"] = 1
    assert os.path.exists(beside(str(path)))
    async with Embedded(path, Data, format=form) as engine:
        assert engine.data.users == {"ann": 1}
        assert len(engine.data.more["large"]) == 5 << 20


async def test_a_compaction_cuts_at_a_revision_behind_it(either: Database) -> None:
    engine = opened(either)
    await filled(engine, 60, size=30_000)
    await snapshot(engine)
    await filled(engine, 30, size=30_001)
    assert engine.log.size > 2 << 20
    assert (await compacted(engine, "20r", archive=False)).oldest == 70
    assert not os.path.exists(beside(either.path))
    assert await engine.former.value_at(70, ("k9", "pad")) == "x" * 30_001
    assert await engine.former.value_at(70, ("k10", "pad")) == "x" * 30_000


async def test_keys_that_were_used_before_it_are_remembered(either: Database) -> None:
    engine = opened(either)
    await write(engine, proposal("put", "/a", 1, key="first"))
    await filled(engine, 20)
    await snapshot(engine)
    await write(engine, proposal("put", "/b", 1, key="second"))
    await either.stop()
    engine = either.open()
    assert engine.snapshots.is_beside
    for key, pointer, rev in (("first", "/a", 1), ("second", "/b", 22)):
        outcome = await write(engine, proposal("put", pointer, 1, key=key))
        assert (outcome.replayed, outcome.rev) == (True, rev)
