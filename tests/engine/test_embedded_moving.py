"""Databases of kanta 0.1.1 and 0.9.4, with their types and migrations, moved over as docs/coming-from-kanta.md says."""

import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from kantad.engine import Engine, Failed
from kantad.tools import check, convert, migrate
from tests.engine.embedded_kit import held
from tests.golden.example import steps
from tests.golden.example.make import After, Before, User
from tests.tools.kit import command

GOLDEN = Path(__file__).parent.parent / "golden" / "example"
PAGE = Path(__file__).parent.parent.parent / "docs" / "coming-from-kanta.md"
SERIALIZERS: dict[str, Any] = {"json": JsonSerializer, "msgpack": MsgPackSerializer}
USERS = {
    UUID(int=0): User("Alice"),
    UUID(int=1): User("Robert", "1@example.com"),
    UUID(int=2): User("$Carol", "2@example.com"),
}


@pytest.fixture(params=["0.1.1.json", "0.1.1.msgpack", "0.9.4.json", "0.9.4.msgpack"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_database_of_kanta_moves_over_with_its_type_and_migrations(path: Path, version: str) -> None:
    shutil.copy(GOLDEN / f"before.{version}.kantadb", path)
    before = path.read_bytes()
    async with Engine(path, After(), migrations="tests.golden.example.steps", consistency="whole") as engine:
        assert (engine.version, engine.data.users) == (1, USERS)
        with engine.transaction("rename") as data:
            data.users[UUID(int=1)].name = "Bob"
        assert (await engine.value(rev=3))["people"][str(UUID(int=0))]["name"] == "Alice"
    assert path.read_bytes().startswith(before)
    async with Engine(path, After, migrations=steps, consistency="whole") as again:
        assert again.data.users[UUID(int=1)] == User("Bob", "1@example.com")


async def test_a_database_that_kanta_0_9_migrated_goes_on(path: Path, version: str) -> None:
    if version.startswith("0.1"):
        pytest.skip("see the next test")
    shutil.copy(GOLDEN / f"after.{version}.kantadb", path)
    async with Engine(path, After, migrations=steps, consistency="whole") as engine:
        assert engine.version == 1
        assert engine.data.users == {**USERS, UUID(int=9): User("Dave")}
        with engine.transaction("rename") as data:
            data.users[UUID(int=9)].name = "David"
    assert held(path).state["users"][str(UUID(int=9))] == {"name": "David", "email": None}


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_what_kanta_0_1_migrated_in_memory_only_is_migrated_by_one_more_step(path: Path, format: str) -> None:
    shutil.copy(GOLDEN / f"after.0.1.1.{format}.kantadb", path)
    found = held(path)
    assert (found.v, len(found.state["people"]), len(found.state["users"])) == (1, 3, 1)  # as kanta would read it
    [program] = re.findall(r"^```python again\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("again")
    exec(program, vars(module))
    vars(module)["migrate_v1"] = steps.migrate_v1
    async with Engine(path, After, migrations=module) as engine:
        assert (engine.version, engine.data.users) == (2, {**USERS, UUID(int=9): User("Dave")})


async def test_what_the_type_cannot_take_is_said_and_nothing_is_written(path: Path, version: str) -> None:
    class Wrong(After):
        people: int = 0

    shutil.copy(GOLDEN / f"before.{version}.kantadb", path)
    before = path.read_bytes()
    with pytest.raises(Failed, match="/people"):
        await Engine(path, Wrong).open()
    assert path.read_bytes() == before


def test_what_the_steps_of_the_docs_show(path: Path, version: str) -> None:
    shutil.copy(GOLDEN / f"before.{version}.kantadb", path)
    before = path.read_bytes()
    assert command(check, path).status == 0
    code = ("--schema", "tests.golden.example.make:After", "--migrations", "tests.golden.example.steps")
    shown = command(migrate, path, *code, "--dry-run")
    assert "migrate:v1 (People are users, and who has no address has none.)" in shown.out
    assert path.read_bytes() == before
    assert command(migrate, path, *code).status == 0
    assert held(path).v == 1


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_file_that_kanta_0_1_began_goes_on_to_kanta_0_9_when_it_was_converted(path: Path, format: str) -> None:
    shutil.copy(GOLDEN / f"before.0.1.1.{format}.kantadb", path)
    async with Engine(path, After, migrations=steps) as engine:
        with engine.transaction("rename") as data:
            data.users[UUID(int=1)].name = "Bob"
    converted = path.with_name("converted.kantadb")
    assert command(convert, path, converted, "--format", format).status == 0
    async with Kanta(str(converted), After(), migrations=steps, serializer=SERIALIZERS[format]()) as kanta:
        assert kanta.data.users == {**USERS, UUID(int=1): User("Bob", "1@example.com")}
        with kanta.transaction("theirs") as theirs:
            theirs.users[UUID(int=9)] = User("Dave")
    async with Engine(converted, After, migrations=steps, consistency="whole") as engine:
        assert engine.data.users[UUID(int=9)] == User("Dave")


async def test_what_would_have_to_be_migrated_is_not_read_as_if_it_had_been(path: Path, version: str) -> None:
    shutil.copy(GOLDEN / f"before.{version}.kantadb", path)
    with pytest.raises(Failed, match="of version 0, the code of 1"):
        await Engine(path, After, migrations=steps, readonly=True).open()

    class Wrong(After):
        people: int = 0

    with pytest.raises(Failed, match="/people"):
        await Engine(path, Wrong, readonly=True).open()
    async with Engine(path, Before, readonly=True) as engine:
        assert len(engine.data.people) == 3
