"""The database in one's own process: the quick start of kanta, transactions, rollback, the file afterwards."""

import asyncio
import gc
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from kantad.engine import Engine, Locked, NestedTransaction, Problem
from kantad.values.content import decode_json, encode_json, same
from tests.engine.embedded_kit import ANN, BOB, EVE, NOON, Address, Data, User, filled, held
from tests.engine.engine_kit import LeverDisk

SERIALIZERS: dict[str, Any] = {"json": JsonSerializer, "msgpack": MsgPackSerializer}


@pytest.fixture(params=["json", "msgpack"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.kantadb"


@pytest.fixture
async def engine(path: Path, form: str) -> AsyncIterator["Engine[Data]"]:
    """A filled database of each format; afterwards the file holds what the live value showed."""
    engine = await filled(path, format=form)
    yield engine
    try:
        live = engine.data
        await engine.close()
    except RuntimeError:
        return
    assert msgspec.convert(held(path).state, Data, str_keys=True) == live


def program() -> str:
    """The quick start in the README of kanta."""
    text = metadata("kanta").get_payload() or metadata("kanta")["Description"]
    [found] = re.findall(r"## Quick Start\s+```python\n(.*?)```", str(text), re.DOTALL)
    return str(found)


def test_the_quick_start_of_kanta_runs_with_its_import_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(uuid, "uuid7", uuid.uuid4, raising=False)  # Python has it from 3.14 on
    changed = program().replace("from kanta import Kanta", "from kantad.engine import Engine as Kanta")
    assert "kantad.engine" in changed
    module = type(sys)("quick_start")
    monkeypatch.setitem(sys.modules, "quick_start", module)
    exec(changed, vars(module))
    found = held(tmp_path / "data.kantadb")
    [user] = found.state["users"].values()
    assert user == {"name": "Alice", "email": None}
    assert found.rev == 2
    assert [decode_json(line)["a"] for line in Path("data.kantadb").read_bytes().splitlines()] == [
        "bootstrap",
        "create_user",
    ]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_runs_on_either_loop(loop: Any, path: Path) -> None:
    async def main() -> None:
        async with Engine(path, Data) as engine:
            async with engine.transaction("one") as data:
                data.most = 1
            assert engine.data.most == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert held(path).state["most"] == 1


# -- transactions


async def test_what_a_transaction_made_is_seen_at_once_and_is_in_the_file_after_a_flush(
    engine: "Engine[Data]", path: Path
) -> None:
    transaction = engine.transaction("birthday", user="bob")
    with transaction as data:
        data.users[ANN].age += 1
    assert engine.data.users[ANN].age == 31
    assert transaction.rev == engine.rev == 3
    await engine.flush()
    assert len(path.read_bytes().splitlines()) >= 1
    assert (await engine.value(f"/users/{ANN}/age", rev=3)) == 31


async def test_every_kind_of_change_is_stored_as_it_was_made(engine: "Engine[Data]", path: Path) -> None:
    with engine.transaction("all") as data:
        data.users[UUID4] = User("Zoë", 1, address=Address("Åbo"))
        del data.users[BOB]
        data.users[ANN].tags.append("vip")
        data.users[ANN].settings["theme"]["dark"] = False
        data.users[ANN].settings["$key"] = "$value"
        data.by_number[7].insert(0, 1.5)
        data.by_number[-1] = []
        data.log[3].name = "three"
        del data.log[0]
        data.raw += b"!"
        data.words.discard("a")
    live = engine.data
    assert BOB not in live.users
    assert live.users[ANN].settings == {"theme": {"dark": False}, "$key": "$value"}
    assert (live.by_number, live.raw, live.words) == ({7: [1.5, 0.5, 2.0], -1: []}, b"\x00\x01kanta!", {"b"})
    assert [user.name for user in live.log[:3]] == ["u1", "u2", "three"]
    await engine.close()
    assert msgspec.convert(held(path).state, Data, str_keys=True) == live


UUID4 = uuid.UUID("1b4e28ba-2fa1-4d2e-883f-0016d3cca427")


async def test_an_exception_leaves_everything_as_it_was(engine: "Engine[Data]") -> None:
    before, rev = msgspec.json.encode(engine.data), engine.rev
    with pytest.raises(ZeroDivisionError), engine.transaction("broken") as data:
        data.users[ANN].name = "Nobody"
        del data.users[BOB]
        data.users[ANN].settings["theme"]["dark"] = 1 // 0
    assert (msgspec.json.encode(engine.data), engine.rev) == (before, rev)
    with engine.transaction("next") as data:
        data.most = 2


async def test_the_root_stays_the_same_object_and_what_is_held_of_it_is_current(path: Path) -> None:
    data = Data(most=5)
    engine = Engine(path, data)
    assert engine.data is data
    async with engine:
        users = data.users
        with engine.transaction("one") as draft:
            assert draft is not data
            draft.users[ANN] = User("Ann")
        with pytest.raises(ZeroDivisionError), engine.transaction("two") as draft:
            draft.users = {BOB: User()}
            1 // 0  # noqa: B018
        assert engine.data is data
        assert data.users is users
        assert (list(data.users), data.most) == ([ANN], 5)


async def test_nothing_is_half_visible_while_a_transaction_is_open(engine: "Engine[Data]") -> None:
    async def look() -> int:
        return engine.data.users[ANN].age

    with engine.transaction("slow") as data:
        data.users[ANN].age = 99
        assert engine.data.users[ANN].age == 99  # for the transaction itself
        assert await asyncio.create_task(look()) == 30
    assert await asyncio.create_task(look()) == 99


async def test_the_block_may_use_the_engines_data_as_kantas_users_do(engine: "Engine[Data]") -> None:
    with engine.transaction("rename"):
        engine.data.users[ANN].name = "Anna"
    assert engine.data.users[ANN].name == "Anna"
    with engine.transaction("replace"):
        engine.data = Data(most=3)
    assert (engine.data.users, engine.data.most) == ({}, 3)
    with pytest.raises(RuntimeError, match="within a transaction"):
        engine.data = Data()


async def test_a_nested_transaction_is_refused_and_the_outer_one_goes_on(engine: "Engine[Data]") -> None:
    with engine.transaction("outer") as data:
        data.most = 7
        with pytest.raises(NestedTransaction), engine.transaction("inner"):
            pass
        task = asyncio.create_task(other(engine))
        with pytest.raises(NestedTransaction):
            await task
    assert engine.data.most == 7
    await other(engine)
    assert engine.data.most == 8


async def other(engine: "Engine[Data]") -> None:
    with engine.transaction("other") as data:
        data.most = 8


async def test_a_transaction_that_changes_nothing_makes_no_change(engine: "Engine[Data]") -> None:
    rev = engine.rev
    transaction = engine.transaction("nothing")
    with transaction as data:
        data.users[ANN].age += 1
        data.users[ANN].age -= 1
        data.users[BOB] = User("Bob", 40)
    assert (transaction.rev, engine.rev) == (None, rev)


async def test_what_does_not_fit_the_type_is_refused_with_its_place(engine: "Engine[Data]") -> None:
    with pytest.raises(Problem, match="Expected `int` >= 0") as refused, engine.transaction("bad") as data:
        data.most = 9
        data.users[ANN].age = -1
    assert refused.value.__notes__ == [f"at /users/{ANN}/age"]
    assert (engine.data.users[ANN].age, engine.data.most) == (30, 1000)
    with pytest.raises(Problem) as refused, engine.transaction("bad") as data:
        data.users[ANN].name = object()  # type: ignore[assignment]
    assert refused.value.code == "invalid_value"


async def test_the_validators_of_the_types_module_are_asked(engine: "Engine[Data]") -> None:
    with pytest.raises(Problem, match="not her"), engine.transaction("eve") as data:
        data.users[EVE] = User("Eve")
    assert EVE not in engine.data.users


async def test_objects_that_were_put_in_are_the_callers_own(engine: "Engine[Data]") -> None:
    user = User("Carol", tags=["x"])
    with engine.transaction("add") as data:
        data.users[UUID4] = user
    user.tags.append("y")
    assert engine.data.users[UUID4].tags == ["x"]
    with engine.transaction("again") as data:
        data.users[UUID4].age = 1


async def test_async_with_waits_until_it_is_on_the_disk(path: Path) -> None:
    disk = LeverDisk()
    async with Engine(path, Data, disk=disk) as engine:
        disk.hold()

        async def write() -> None:
            async with engine.transaction("one") as data:
                data.most = 1

        task = asyncio.create_task(write())
        await disk.until_syncing()
        assert engine.data.most == 1
        assert not task.done()
        disk.release()
        await task


# -- its life


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
    async with Engine(path, Data(most=99)) as again:
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
    async with Engine(path, Data, readonly=True) as engine:
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


# -- other programs


@pytest.mark.parametrize("program", ["kanta", "kantad"])
async def test_other_programs_go_on_with_the_file_and_back(path: Path, form: str, program: str) -> None:
    engine = await filled(path, format=form)
    live = msgspec.json.decode(encode_json(engine.data), type=Data)
    await engine.close()
    if program == "kanta":
        async with Kanta(str(path), Data(), serializer=SERIALIZERS[form]()) as kanta:
            assert kanta.data == live
            with kanta.transaction("theirs") as data:
                data.users[ANN].tags.append("kanta")
                data.most = 5
    else:
        async with Engine(path) as plain:
            with plain.transaction("theirs") as state:
                state["users"][str(ANN)]["tags"].append("kanta")
                state["most"] = 5
    live.users[ANN].tags.append("kanta")
    live.most = 5
    async with Engine(path, Data) as engine:
        assert engine.data == live
        with engine.transaction("ours") as data:
            data.users[ANN].tags.remove("kanta")
        assert engine.data.users[ANN].tags == ["new"]
