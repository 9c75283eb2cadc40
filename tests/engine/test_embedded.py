"""The database in one's own process: the quick start of kanta, transactions, rollback, the file afterwards."""

import asyncio
import re
import sys
import uuid
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from kantad.engine import Engine, NestedTransaction, Problem
from kantad.values.content import decode_json
from tests.engine.embedded_kit import ANN, BOB, EVE, Address, Data, User, held
from tests.engine.engine_kit import LeverDisk


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


async def test_a_flush_is_on_the_disk(path: Path, form: str) -> None:
    disk = LeverDisk()
    async with Engine(path, Data, disk=disk, format=form, ack="written", flush_interval=60) as engine:
        with engine.transaction("one") as data:
            data.most = 1
        assert disk.synced < path.stat().st_size or b"one" not in path.read_bytes()
        await engine.flush()
        assert b"one" in path.read_bytes()
        assert disk.synced == path.stat().st_size


async def test_an_action_or_user_that_is_none_is_refused(engine: "Engine[Data]") -> None:
    """kanta, and who prints the log, could not read them."""
    wrong: list[Any] = ["x\n", "\x1b[31m", "x" * 257, 5, None, "\ud800"]
    for text in wrong:
        with pytest.raises(Problem, match="at most 256 characters"), engine.transaction(text) as data:
            data.most = 1
        if text is not None:
            with pytest.raises(Problem, match="user has"), engine.transaction("a", user=text) as data:
                data.most = 1
    with engine.transaction("ä" * 256, user="") as data:
        data.most = 1
