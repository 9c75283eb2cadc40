"""What goes wrong in one's own process: values changed by hand, full and broken disks, the process killed."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from kantad.engine import Broken, ConsistencyViolation, Engine, Problem
from tests.engine.embedded_kit import ANN, BOB, NOON, Address, Data, User, filled, held
from tests.engine.engine_kit import LeverDisk, eventually

ROOT = Path(__file__).parent.parent.parent


def touch_ann(data: Data) -> None:
    data.users[ANN].age += 1


def touch_all(data: Data) -> None:
    for user in data.users.values():
        user.name += "!"


def replace_users(data: Data) -> None:
    data.users = {}


def delete_ann(data: Data) -> None:
    del data.users[ANN]


def put_ann(data: Data) -> None:
    data.users[ANN] = User("Another")


def touch_most(data: Data) -> None:
    data.most += 1


def touch_theme(data: Data) -> None:
    data.users[ANN].settings["theme"]["dark"] = False


def touch_log(data: Data) -> None:
    data.log.append(User("last"))


VIOLATIONS: list[Any] = [
    (lambda data: setattr(data.users[ANN], "age", 99), touch_ann, f"/users/{ANN}/age"),
    (lambda data: setattr(data.users[ANN], "age", "99"), touch_all, f"/users/{ANN}/age"),
    (lambda data: setattr(data.users[BOB], "age", 40.0), touch_all, f"/users/{BOB}/age"),
    (lambda data: setattr(data.users[BOB], "age", object()), touch_all, f"/users/{BOB}/age"),
    (lambda data: data.users[ANN].tags.append("x"), delete_ann, f"/users/{ANN}"),
    (lambda data: data.users[ANN].tags.append("x"), put_ann, f"/users/{ANN}"),
    (lambda data: setattr(data.users[ANN].address, "city", "Oslo"), touch_ann, f"/users/{ANN}/address"),
    (lambda data: data.users[ANN].settings["theme"].update(light=1), touch_theme, f"/users/{ANN}/settings/theme"),
    (lambda data: data.users[ANN].settings["theme"].update(dark=2), touch_theme, f"/users/{ANN}/settings/theme/dark"),
    (lambda data: data.users[ANN].settings.update(more=1), touch_ann, f"/users/{ANN}/settings"),
    (lambda data: data.users.pop(BOB), touch_ann, "/users"),
    (lambda data: data.users.update({object(): 1}), touch_ann, "/users"),
    (lambda data: setattr(data.users[BOB], "name", "Rob"), replace_users, "/users"),
    (lambda data: setattr(data, "most", 1), touch_ann, "/most"),
    (lambda data: setattr(data, "users", None), touch_most, "/users"),
    (lambda data: data.words.add("c"), touch_most, "/words"),
    (lambda data: data.log.pop(), touch_log, "/log"),
    (lambda data: setattr(data.log[0], "name", "else"), touch_log, "/log"),
    (lambda data: data.log.pop(), touch_most, "/log"),  # a large list beside is compared by its length
    (lambda data: setattr(data, "log", ()), touch_most, "/log"),
]


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize(("by_hand", "touch", "where"), VIOLATIONS)
async def test_a_change_by_hand_is_found_where_a_transaction_touches_it(
    path: Path, form: str, by_hand: Any, touch: Any, where: str
) -> None:
    engine = await filled(path, format=form)
    touchy = engine.transaction("touch")
    by_hand(engine.data)
    with pytest.raises(ConsistencyViolation, match="outside of a transaction") as found, touchy as data:
        touch(data)
    assert found.value.path is not None
    assert found.value.path == where or where.startswith(found.value.path + "/")
    with pytest.raises(ConsistencyViolation), engine.transaction("another") as data:
        data.most = 2
    await engine.close()
    state = held(path).state
    assert (state["most"], state["users"][str(ANN)]["age"], len(state["log"])) == (1000, 30, 40)


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("by_hand", [each[0] for each in VIOLATIONS])
async def test_with_whole_any_change_by_hand_is_found_at_the_next_transaction(
    path: Path, form: str, by_hand: Any
) -> None:
    engine = await filled(path, format=form, consistency="whole")
    by_hand(engine.data)
    entered = False
    with pytest.raises(ConsistencyViolation), engine.transaction("next"):
        entered = True
    assert not entered
    await engine.close()
    assert held(path).rev == 2


async def test_with_whole_it_says_what_was_changed(path: Path) -> None:
    engine = await filled(path, consistency="whole")
    engine.data.users[BOB].name = "Rob"
    with pytest.raises(ConsistencyViolation) as found, engine.transaction("next"):
        pass
    assert found.value.diff == {"users": {str(BOB): {"name": "Rob"}}}
    assert "next" in str(found.value)
    await engine.close()
    async with Engine(path, Data, consistency="whole") as again:
        assert again.data.users[BOB].name == "Bob"
        with again.transaction("rename") as data:
            data.users[BOB].name = "Rob"


async def test_with_whole_a_change_of_the_live_value_within_a_block_is_found(path: Path) -> None:
    engine = await filled(path, consistency="whole")
    live = engine.data
    with pytest.raises(ConsistencyViolation), engine.transaction("next") as data:
        data.most = 1
        live.most = 1
    await engine.close()


async def test_a_plain_value_that_was_changed_by_hand_is_found(path: Path) -> None:
    async with Engine(path) as engine:
        with engine.transaction("fill") as state:
            state["a"] = {"b": 1, "c": [1]}
        engine.data["a"]["b"] = 2
        with pytest.raises(ConsistencyViolation) as found, engine.transaction("next") as state:
            state["a"]["b"] += 1
        assert found.value.path == "/a/b"


async def test_types_with_defaults_left_out_and_checks_of_their_own_agree(path: Path) -> None:
    async with Engine(path, Odd, consistency="whole") as engine:
        for number in range(4):
            with engine.transaction("step") as data:
                data.sparse[str(number)] = Sparse(number % 2, {"k": number} if number % 2 else {})
                data.checked.more["n"] = number
                data.shape = Circle(1.0 + number) if number % 2 else Square(number)
        assert engine.data.checked.more == {"n": 3}
        live = engine.data
    assert msgspec.convert(held(path).state, Odd) == live


class Sparse(msgspec.Struct, omit_defaults=True):
    number: int = 0
    more: dict[str, int] = {}


class Checked(msgspec.Struct):
    more: dict[str, int] = {}

    def __post_init__(self) -> None:
        if len(self.more) > 5:
            raise ValueError("too many")


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: int


class Odd(msgspec.Struct):
    sparse: dict[str, Sparse] = {}
    checked: Checked = msgspec.field(default_factory=Checked)
    shape: Circle | Square | None = None


async def test_large_lists_and_sets_beside_what_is_touched_are_not_looked_through(path: Path) -> None:
    """A transaction costs what it touches: the elements would tell."""
    async with Engine(path, Beside([Told(number) for number in range(40)], set(range(40)))) as engine:
        Told.asked = 0
        for number in range(3):
            with engine.transaction("count") as data:
                data.counts["a"] = number
        assert Told.asked == 0
        engine.data.log[7].number = -1  # by hand, where nothing is touched
        with engine.transaction("count") as data:
            data.counts["a"] = 7
            data.words.discard(3)
        with pytest.raises(ConsistencyViolation, match="/log"), engine.transaction("log") as data:
            data.log[0].number = 5
    assert held(path).state["words"] == [number for number in sorted(range(40), key=str) if number != 3]


class Told(msgspec.Struct):
    asked: ClassVar[int] = 0
    number: int = 0

    def __getattribute__(self, name: str) -> Any:
        Told.asked += name == "number"
        return super().__getattribute__(name)


class Beside(msgspec.Struct):
    log: list[Told] = []
    words: set[int] = set()
    counts: dict[str, int] = {}


# -- the disk


async def test_what_a_full_disk_refused_is_taken_back_from_the_live_value(path: Path) -> None:
    disk = LeverDisk()
    engine = await filled(path, disk=disk)
    live = engine.data
    disk.room = 0
    with engine.transaction("one") as data:
        data.users[ANN].age = 77
        data.users.pop(BOB)
    assert live.users[ANN].age == 77
    with pytest.raises(Problem) as lost:
        await engine.flush()
    assert lost.value.code == "storage_full"
    assert (engine.rev, live.users[ANN].age, BOB in live.users) == (2, 30, True)
    disk.room = None
    async with engine.transaction("two") as data:
        data.users[ANN].age = 78
    assert live is engine.data
    await engine.close()
    assert held(path).state["users"][str(ANN)]["age"] == 78


async def test_async_with_says_that_it_was_lost(path: Path) -> None:
    disk = LeverDisk()
    engine = await filled(path, disk=disk)
    disk.room = 0
    with pytest.raises(Problem):
        async with engine.transaction("one") as data:
            data.most = 1
    assert engine.data.most == 1000
    disk.room = None
    await engine.close()


async def test_a_broken_disk_is_told_and_ends_all_writing(path: Path) -> None:
    disk, told = LeverDisk(), []
    engine = await filled(path, disk=disk, fatal_error=told.append)
    disk.sync_error = OSError(errno.EIO, os.strerror(errno.EIO))
    with engine.transaction("one") as data:
        data.most = 1
    with pytest.raises(Problem):
        await engine.flush()
    await eventually(lambda: told)
    assert isinstance(told[0], Broken)
    with pytest.raises(Broken), engine.transaction("two"):
        pass
    await engine.close()


# -- the process

PROGRAM = """
import asyncio, sys
from tests.engine.embedded_kit import Data, User
from uuid import UUID
from kantad.engine import Engine

async def main():
    engine = Engine(sys.argv[1], Data, format=sys.argv[2])
    await engine.open()
    for number in range(1_000_000):
        with engine.transaction("write") as data:
            data.users[UUID(int=number + 10)] = User(str(number))
            data.most = number
        if number % 3 == 0:
            await engine.flush()
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("after", [1, 40])
def test_what_was_flushed_survives_kill_9_of_the_embedding_process(path: Path, form: str, after: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(path), form]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        flushed = [int(process.stdout.readline()) for _ in range(after)][-1]
        process.send_signal(signal.SIGKILL)
        flushed = int(([str(flushed), *process.stdout.read().split()])[-1])
    found = held(path)
    assert found.state["most"] >= flushed
    assert len(found.state["users"]) == found.state["most"] + 1

    async def go_on() -> None:
        async with Engine(path, Data, consistency="whole") as engine:
            with engine.transaction("on") as data:
                data.users[ANN] = User("Ann", seen=NOON, address=Address())

    asyncio.run(go_on())
    assert str(ANN) in held(path).state["users"]
