"""Integer keys in a MessagePack file: clients, feeds, validators, conversions have them as text, and lose nothing."""

import enum
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kantad.engine import Engine as Embedded
from kantad.engine.engine import Engine
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Proposal
from kantad.store.log import open_readonly
from kantad.tools import check, convert, dump
from kantad.values.content import decode_json, encode_json
from kantad.values.errors import Problem
from kantad.values.event import Events
from kantad.values.schema import Schema
from tests.engine.engine_kit import Database, proposal, write
from tests.store.test_kanta import kanta_reads
from tests.tools.kit import command

ONE = str(uuid.UUID(int=1))


class Data(msgspec.Struct):
    d: dict[int | uuid.UUID, int] = {}
    e: dict[int, dict[str, int]] = {}
    many: list[dict[int, int]] = []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.kantadb"


def opened(path: Path, **options: Any) -> Engine:
    return open_engine(str(path), format="msgpack", schema=Schema(Data), **options)


def asked(edit: str, pointer: str, body: Any = None, **more: Any) -> Proposal:
    """A proposal as a server of a MessagePack file makes it."""
    return proposal(edit, pointer, body, foreign=True, **more)


def shown(engine: Engine) -> Any:
    return decode_json(encode_json(engine.root))


async def test_a_value_that_is_read_and_put_back_is_what_it_was(path: Path) -> None:
    engine = opened(path)
    await write(engine, asked("put", "/d", {ONE: 1, "5": 2, "6": 2}))
    await write(engine, asked("put", "/many", [{}, {"5": 1}, {"6": 1, "7": 1}]))
    assert engine.root["d"] == {ONE: 1, 5: 2, 6: 2}
    outcome = engine.transact(asked("put", "", shown(engine)))
    assert not outcome.changed
    await write(engine, asked("put", "/d", {ONE: 1, "5": 3, "6": 2}))
    assert engine.root["d"] == {ONE: 1, 5: 3, 6: 2}
    await write(engine, asked("put", "/many", [{"5": 1}, {"6": 2, "7": 1, "8": 1}, {}]))
    assert engine.root["many"] == [{5: 1}, {6: 2, 7: 1, 8: 1}, {}]
    await write(engine, asked("patch", "/d", {"$replace": {"6": 4, "7": 1}}))
    assert engine.root["d"] == {6: 4, 7: 1}
    state = shown(engine)
    await engine.stop()
    assert command(check, path).status == 0
    assert decode_json(command(dump, path).out.encode()) == state


async def test_feeds_conflicts_and_kanta_have_the_keys_that_were_deleted(path: Path) -> None:
    engine = opened(path)
    await write(engine, asked("put", "/e", {"5": {"a": 1}, "6": {"b": 1}, "-7": {}}))
    await write(engine, asked("put", "/d", {"5": 1, "6": 1}))
    base = engine.rev
    await write(engine, asked("delete", "/e/5"))
    await write(engine, asked("patch", "", {"d": {"$delete": ["6"]}, "e": {"$delete": ["-7"]}}))
    await write(engine, asked("put", "/e/6/b", 2, base=base))
    with pytest.raises(Problem) as problem:
        engine.transact(asked("put", "/e/5", {}, base=base))
    assert [conflict["path"] for conflict in problem.value.more["conflicts"]] == ["/e/5"]
    events = Events(engine.log.codec)
    payloads = {rev: engine.past.ring.payload(rev) for rev in range(base + 1, engine.rev + 1)}
    diffs = [decode_json(b"{" + events.tail(rev, payload))["diff"] for rev, payload in payloads.items()]
    assert diffs == [
        {"e": {"$delete": ["5"]}},
        {"d": {"$delete": ["6"]}, "e": {"$delete": ["-7"]}},
        {"e": {"6": {"b": 2}}},
    ]
    below = events.below(base + 2, payloads[base + 2], ("e",))
    assert decode_json(b"{" + below)["diff"] == {"$delete": ["-7"]}
    root = engine.root
    await engine.stop()
    assert kanta_reads(path, "msgpack").state == root


async def test_a_conversion_to_json_and_back_keeps_all(path: Path, tmp_path: Path) -> None:
    engine = opened(path)
    await write(engine, asked("put", "/d", {ONE: 2, "5": 1, "6": 1}))
    await write(engine, asked("patch", "/d", {"$delete": ["5"], "7": 1}))
    state, rev = shown(engine), engine.rev
    await engine.stop()
    there, back = tmp_path / "there.kantadb", tmp_path / "back.kantadb"
    for source, target, form in ((path, there, "json"), (there, back, "msgpack")):
        assert command(convert, source, target, "--format", form).status == 0
        assert decode_json(command(dump, target).out.encode()) == state
    engine = opened(back)
    assert engine.rev > rev
    assert engine.root["d"] == {ONE: 2, 6: 1, 7: 1}
    state = shown(engine)
    await engine.stop()
    again = tmp_path / "again.kantadb"
    assert command(convert, back, again, "--format", "json").status == 0
    assert decode_json(command(dump, again).out.encode()) == state


def small(state: Any, touched: list[tuple[str, ...]]) -> None:
    """No number is above 10."""
    for place in touched:
        if len(place) == 2 and place[0] == "d" and place[1] in state["d"] and state["d"][place[1]] > 10:
            raise ValueError(f"{place[1]} is too much")
        if len(place) == 2 and state[place[0]].get(place[1]) is None and place != ("d", "6"):
            raise ValueError(f"{place} may not go")


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_validator_finds_what_a_path_names(path: Path, format: str) -> None:
    engine = open_engine(str(path), format=format, schema=Schema(Data, validators=(small,)))
    await write(engine, asked("put", "/d/5", 1))
    await write(engine, asked("put", "/d/6", 1))
    for edit in (asked("put", "/d/5", 11), asked("delete", "/d/5"), asked("put", "/d", {"5": 11, "6": 1})):
        with pytest.raises(Problem, match=r"too much|may not go"):
            engine.transact(edit)
    await write(engine, asked("delete", "/d/6"))
    await engine.stop()


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Typed(msgspec.Struct):
    colours: dict[Colour, int] = {}
    ids: dict[uuid.UUID, dict[str, int]] = {}
    numbers: dict[int, int] = {}


class Floats(msgspec.Struct):
    floats: dict[float, int] = {}


async def test_keys_of_an_enumeration_of_texts(path: Path, form: str) -> None:
    async with Embedded(path, Typed, format=form, consistency="whole") as engine:
        for value in ({Colour.RED: 1}, {Colour.RED: 2, Colour.BLUE: 1}, {Colour.BLUE: 1}):
            with engine.transaction("put") as data:
                data.colours = dict(value)
            assert engine.data.colours == value
        with engine.transaction("one") as data:
            data.colours[Colour.RED] = 5
            del data.colours[Colour.BLUE]
        assert engine.data.colours == {Colour.RED: 5}


async def test_a_key_of_another_type_than_the_one_that_is_there_is_refused_and_nothing_else(
    path: Path, form: str
) -> None:
    one: Any = ONE
    five: Any = "5"
    async with Embedded(path, Typed, format=form) as engine:
        with engine.transaction("put") as data:
            data.ids[one] = {"a": 1}
            data.numbers[five] = 1
        for _ in range(2):
            with pytest.raises(Problem, match="one of another type") as problem, engine.transaction("again") as data:
                data.ids[one] = {"b": 1}
            assert f"/ids/{ONE}" in str(problem.value.__notes__)
            with pytest.raises(Problem, match="one of another type"), engine.transaction("again") as data:
                data.numbers[five] = 2
            with engine.transaction("right") as data:
                data.ids[uuid.UUID(ONE)]["a"] += 1
                data.numbers[5] += 1
        assert engine.data == Typed(ids={uuid.UUID(ONE): {"a": 3}}, numbers={5: 3})


async def test_an_equal_key_of_another_type_is_the_one_that_is_there(path: Path) -> None:
    async with Embedded(path, Floats, consistency="whole") as engine:
        with engine.transaction("put") as data:
            data.floats[1.0] = 1
        for value in (2, 3):
            with engine.transaction("again") as data:
                data.floats[1] = value
        assert engine.data.floats == {1.0: 3}
        with engine.transaction("gone") as data:
            del data.floats[1]
        assert engine.data.floats == {}


async def test_the_file_tells_keys_from_positions(path: Path) -> None:
    database = Database(str(path), "msgpack")
    engine = database.open()
    await write(engine, asked("put", "/d", {5: 1, 6: 1}))
    await write(engine, asked("put", "/l", [1, 2, 3] * 30))
    await write(engine, asked("delete", "/d/5"))
    await write(engine, asked("delete", "/l/5"))
    await database.stop()
    log, found = open_readonly(str(path), None, database.disk)
    with log.buffer() as buffer:
        assert buffer.find(b"\xa7$delete\x91\xcb") > 0  # a float
        assert buffer.find(b"\xa7$delete\x91\x05") > 0
    log.close()
    assert found.state == {"d": {6: 1}, "l": [1, 2, 3] + [1, 2] + [1, 2, 3] * 28}
