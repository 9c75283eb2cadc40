"""The life of an embedded database: opening and closing, the past, what follows it, other programs on its file."""

import asyncio
import gc
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from kantad.engine import Engine, Locked, NotOurs, Problem
from kantad.values.content import encode_json, same
from tests.engine.embedded_kit import ANN, NOON, Data, User, filled, held

SERIALIZERS: dict[str, Any] = {"json": JsonSerializer, "msgpack": MsgPackSerializer}


async def test_without_a_type_the_value_is_plain(path: Path, form: str) -> None:
    async with Engine(path, format=form) as engine:
        assert engine.data == {}
        with engine.transaction("one") as data:
            data["users"] = {"ann": {"tags": ["a", "b"]}, "bob": {}}
            data["at"] = NOON
        with engine.transaction("two") as data:
            data["users"]["ann"]["tags"].append("c")
            del data["users"]["bob"]
        assert engine.data == {"users": {"ann": {"tags": ["a", "b", "c"]}}, "at": "2026-06-01T12:00:00Z"}
        live = engine.data
    assert same(held(path).state, live)


async def test_a_new_file_begins_with_the_instance_that_was_given(path: Path, form: str) -> None:
    data = Data(most=3, users={ANN: User("Ann", seen=NOON)}, raw=b"\xff")
    async with Engine(path, data, format=form) as engine:
        assert (engine.rev, engine.data.users[ANN].seen) == (1, NOON)
    async with Engine(path, Data(most=99), format=form) as again:
        assert (again.rev, again.data) == (1, Data(most=3, users={ANN: User("Ann", seen=NOON)}, raw=b"\xff"))


async def test_it_is_opened_once_and_closed_as_often_as_one_likes(path: Path) -> None:
    engine = Engine(path, Data)
    with pytest.raises(RuntimeError, match="not open"):
        engine.data  # noqa: B018
    with pytest.raises(RuntimeError, match="not open"), engine.transaction("early"):
        pass
    await engine.open()
    with pytest.raises(RuntimeError, match="open already"):
        await engine.open()
    with pytest.raises(Locked):
        await Engine(path, Data).open()
    await engine.close()
    await engine.close()
    assert engine.filename == path
    async with engine:
        assert engine.rev == 1


async def test_closing_writes_what_is_queued_and_a_snapshot_where_it_is_worth_it(path: Path) -> None:
    async with Engine(path, Data) as engine:
        for number in range(1200):
            with engine.transaction("count") as data:
                data.most = number
    assert b"\nSNAPSHOT " in path.read_bytes()
    found = held(path)
    assert (found.state["most"], found.replayed) == (1199, 0)


async def test_a_snapshot_is_written_on_request(engine: "Engine[Data]") -> None:
    assert await engine.snapshot() == engine.rev


async def test_a_file_that_is_only_read_is_left_alone(path: Path, form: str) -> None:
    await (await filled(path, format=form)).close()
    before = path.read_bytes()
    async with Engine(path, Data, readonly=True, format=form) as engine:
        assert engine.data.users[ANN].age == 30
        with pytest.raises(Problem), engine.transaction("write") as data:
            data.most = 1
        assert engine.data.most == 1000
    assert path.read_bytes() == before


async def test_nothing_of_the_whole_process_is_changed(path: Path) -> None:
    def belongs_to_the_host() -> Any:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        return gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), handlers, list(sys.path)

    before = belongs_to_the_host()
    async with Engine(path, Data) as engine:
        assert belongs_to_the_host() == before
        with engine.transaction("one") as data:
            data.most = 1
    assert belongs_to_the_host() == before


# -- the past, and what changes


async def test_changes_are_followed_and_resumed(engine: "Engine[Data]") -> None:
    changes = engine.changes()
    following = asyncio.create_task(changes.__anext__())
    await asyncio.sleep(0)
    with engine.transaction("one", user="ann") as data:
        data.most = 1
    change = await asyncio.wait_for(following, 5)
    assert (change.rev, change.action, change.user, change.patch) == (3, "one", "ann", {"most": 1})
    await changes.aclose()
    for number in range(600):
        with engine.transaction("many") as data:
            data.most = number + 2
    await engine.flush()
    found = []
    async for change in engine.changes(since=2):
        found.append(change)
        if change.rev == engine.rev:
            break
    assert [change.rev for change in found] == list(range(3, 604))
    assert found[-1].patch == {"most": 601}


async def test_an_iteration_ends_when_the_database_is_closed(path: Path) -> None:
    engine = await filled(path)

    async def follow() -> list[int]:
        return [change.rev async for change in engine.changes(since=0)]

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    await engine.close()
    assert await asyncio.wait_for(task, 5) == [1, 2]


async def test_a_former_value_is_read(engine: "Engine[Data]") -> None:
    with engine.transaction("one") as data:
        data.most = 1
    assert await engine.value("/most", rev=2) == 1000
    assert (await engine.value(rev=3))["most"] == 1
    with pytest.raises(Problem, match="no value"):
        await engine.value("/nothing", rev=2)


async def test_removing_final_lines_goes_back(path: Path) -> None:
    engine = await filled(path)
    with engine.transaction("one") as data:
        data.most = 1
    await engine.close()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    async with Engine(path, Data, consistency="whole") as engine:
        assert (engine.rev, engine.data.most) == (2, 1000)


# -- other programs


@pytest.mark.parametrize("program", ["kanta", "kantad"])
async def test_other_programs_go_on_with_the_file_and_back(path: Path, form: str, program: str) -> None:
    engine = await filled(path, format=form)
    live = msgspec.json.decode(encode_json(engine.data), type=Data)
    await engine.close()
    if program == "kanta" and form not in SERIALIZERS:
        pytest.skip("kanta is given a serializer, not the name of one")
    if program == "kanta":
        async with Kanta(str(path), Data(), serializer=SERIALIZERS[form]()) as kanta:
            assert kanta.data == live
            with kanta.transaction("theirs") as data:
                data.users[ANN].tags.append("kanta")
                data.most = 5
    else:
        async with Engine(path, format=form) as plain:
            with plain.transaction("theirs") as state:
                state["users"][str(ANN)]["tags"].append("kanta")
                state["most"] = 5
    live.users[ANN].tags.append("kanta")
    live.most = 5
    async with Engine(path, Data, format=form) as engine:
        assert engine.data == live
        with engine.transaction("ours") as data:
            data.users[ANN].tags.remove("kanta")
        assert engine.data.users[ANN].tags == ["new"]


async def test_a_file_of_another_format_is_named_in_the_words_of_the_option(path: Path) -> None:
    async with Engine(path, format="msgpack"):
        pass
    with pytest.raises(NotOurs, match=rf"{path}: it is a msgpack file; format json contradicts it"):
        await Engine(path, format="json").open()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"consistency": "Whole"}, ValueError, "consistency is one of touched, whole"),
        ({"ack": "durabel"}, ValueError, "ack is one of durable, written, applied"),
        ({"flush_interval": -1}, ValueError, "flush_interval"),
        ({"flush_interval": float("nan")}, ValueError, "flush_interval"),
        ({"retian": "30d"}, TypeError, "no option 'retian'"),
        ({"migration_ctx": 5}, TypeError, "no option 'migration_ctx'"),
        ({"migrations": 5}, TypeError, "migrations is a module, or its name, not 5"),
    ],
)
def test_an_option_that_is_misspelled_is_refused(
    tmp_path: Path, options: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        Engine(tmp_path / "a.kantadb", Data, **options)
