"""`--schema` and `--migrations`: the user's code at the start of the real command, and `kantad migrate`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.running import TIMEOUT, Running, ask

MODEL = '''
"""The schema."""
from typing import Annotated
from msgspec import Meta, Struct
from kantad.schema import validator

class User(Struct):
    name: str
    age: Annotated[int, Meta(ge=0)] = 0

class Data(Struct):
    users: dict[str, User] = {}

class Strict(Struct):
    users: dict[str, int] = {}

class NoStruct: ...

number = 5

@validator
def few(state, touched):
    if len(state["users"]) > 2:
        raise ValueError("too many users")
'''

STEPS = '''
"""The migrations."""

def migrate_v1(d):
    """Rename people to users.

    More about that.
    """
    d["users"] = d.pop("people", {})

def migrate_v2(d, ctx):
    """Grow older."""
    for user in d["users"].values():
        user["age"] = ctx.version
'''

BROKEN = 'def migrate_v1(d):\n    """Break."""\n    raise KeyError("x")\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "raising.py").write_text("import nowhere_at_all\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "odd.py").write_text("def migrate_vx(d): ...\n")
    (tmp_path / "odder.py").write_text("def migrate_v1(): ...\n")
    (tmp_path / "waiting.py").write_text("async def migrate_v1(d): ...\n")
    (tmp_path / "nothing.py").write_text("migrate_v1 = None\n")
    (tmp_path / "judging.py").write_text(
        "import msgspec\nfrom kantad.schema import validator\n"
        "class D(msgspec.Struct): ...\n@validator\ndef f(state): ...\n"
    )
    return tmp_path


def old_file(run: Callable[..., Running]) -> None:
    server = run("--port", "0")
    assert ask(server.port(), "PUT", "/v1/data/people/ann", b'{"name":"Ann"}')[0] == 200
    assert server.stop() == 0


def migrate(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "kantad"), "migrate", "data.kantadb", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_a_file_is_migrated_and_then_checked_at_every_write(folder: Path, run: Callable[..., Running]) -> None:
    old_file(run)
    server = run("--port", "0", "--schema", "model:Data", KANTAD_MIGRATIONS="steps")
    port = server.port()
    assert "migrate:v1 (Rename people to users.)" in "".join(server.lines)
    assert json.loads(ask(port, "GET", "/v1/data")[1]) == {"users": {"ann": {"name": "Ann", "age": 2}}}
    status, body = ask(port, "PUT", "/v1/data/users/bob", b"{}")
    assert (status, json.loads(body)["path"]) == (422, "/users/bob/name")
    assert ask(port, "PUT", "/v1/data/users/bob", b'{"name":"Bob"}')[0] == 200
    status, body = ask(port, "PUT", "/v1/data/users/eve", b'{"name":"Eve"}')
    assert (status, json.loads(body)["detail"]) == (422, "too many users")
    assert json.loads(ask(port, "GET", "/v1/schema")[1])["$defs"]["User"]["required"] == ["name"]
    assert json.loads(ask(port, "GET", "/v1/status")[1])["schema_version"] == 2
    assert server.stop() == 0
    actions = [json.loads(line)["a"] for line in (folder / "data.kantadb").read_text().splitlines()]
    assert actions == ["put", "migrate:v1", "migrate:v2", "put"]


def test_the_settings_may_stand_in_the_configuration(folder: Path, run: Callable[..., Running]) -> None:
    (folder / "kantad.toml").write_text('schema = "model:Data"\nport = 0\n')
    server = run("--config", "kantad.toml")
    assert json.loads(ask(server.port(), "GET", "/v1/data")[1]) == {"users": {}}
    assert server.stop() == 0


REFUSED = [
    (("--schema", "nowhere:Data"), "--schema nowhere:Data: there is no module nowhere in "),
    (("--schema", "model"), "'model' is not module:Type"),
    (("--schema", "model:Nothing"), "model has no Nothing"),
    (("--schema", "model:number"), "model:number is no type"),
    (("--schema", "model:NoStruct"), "model:NoStruct is no msgspec.Struct"),
    (("--schema", "model:Strict"), "does not fit model:Strict at /users/ann: Expected `int`, got `object`"),
    (("--schema", "raising:X"), "raising could not be imported: No module named 'nowhere_at_all'"),
    (("--schema", "judging:D"), "the validator f does not take (state, touched)"),
    (("--migrations", "failing"), "failing could not be imported: ZeroDivisionError: division by zero ("),
    (("--migrations", "broken"), "migrate_v1 (Break.) failed: KeyError: 'x'. Nothing was written"),
    (("--migrations", "odd"), "odd.migrate_vx: migrations are called migrate_v1"),
    (("--migrations", "odder"), "migrate_v1 takes neither (d) nor (d, ctx)"),
    (("--migrations", "waiting"), "migrate_v1 is async"),
    (("--migrations", "nothing"), "nothing.migrate_v1 is no function"),
]


@pytest.mark.parametrize(("arguments", "why"), REFUSED)
def test_code_that_cannot_be_used_ends_the_start_with_the_reason(
    folder: Path, run: Callable[..., Running], arguments: tuple[str, ...], why: str
) -> None:
    path = folder / "data.kantadb"
    path.write_bytes(b'{"ts":"2026-06-10T02:55:00.000000Z","a":"x","diff":{"users":{"ann":{}}}}\n')
    before = path.read_bytes()
    server = run("--port", "0", *arguments)
    assert server.wait() == 2
    assert why in "".join(server.lines)
    assert path.read_bytes() == before


def test_a_file_newer_than_the_code_ends_the_start(folder: Path, run: Callable[..., Running]) -> None:
    old_file(run)
    assert migrate(folder, "--migrations", "steps").returncode == 0
    before = (folder / "data.kantadb").read_bytes()
    server = run("--port", "0", "--migrations", "broken")
    assert server.wait() == 2
    assert "of version 2, which is newer than the code: broken knows no migrate_v2" in "".join(server.lines)
    assert (folder / "data.kantadb").read_bytes() == before


# -- kantad migrate


def test_a_dry_run_shows_the_changes_and_makes_none_also_on_a_live_file(
    folder: Path, run: Callable[..., Running]
) -> None:
    server = run("--port", "0")
    assert ask(server.port(), "PUT", "/v1/data/people/ann", b'{"name":"Ann"}')[0] == 200
    before = (folder / "data.kantadb").read_bytes()
    done = migrate(folder, "--migrations", "steps", "--schema", "model:Data", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "r2 migrate:v1 (Rename people to users.)",
        '  people ✗ {"ann":{"name":"Ann"}}',
        "  users =",
        '    ann:          {"name":"Ann"}',
        "r3 migrate:v2 (Grow older.)  users.ann.age = 2",
        "data.kantadb: version 2, 2 change(s), nothing was written",
    ]
    assert (folder / "data.kantadb").read_bytes() == before
    assert migrate(folder, "--migrations", "steps").returncode == 75
    assert server.stop() == 0
    assert (folder / "data.kantadb").read_bytes() == before


def test_migrating_offline_writes_what_a_start_would(folder: Path, run: Callable[..., Running]) -> None:
    old_file(run)
    done = migrate(folder, "--migrations", "steps", "--schema", "model:Data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("data.kantadb: version 2, 2 change(s), done\n")
    again = migrate(folder, "--migrations", "steps", "--schema", "model:Data")
    assert again.stdout == "data.kantadb: version 2, 0 change(s), nothing to do\n"
    actions = [json.loads(line)["a"] for line in (folder / "data.kantadb").read_text().splitlines()]
    assert actions == ["put", "migrate:v1", "migrate:v2"]


def test_what_cannot_be_migrated_is_said_and_has_a_status(folder: Path, run: Callable[..., Running]) -> None:
    assert migrate(folder, "--migrations", "steps").returncode == 2  # there is no file
    assert not (folder / "data.kantadb").exists()
    old_file(run)
    before = (folder / "data.kantadb").read_bytes()
    assert migrate(folder).returncode == 2
    assert migrate(folder, "--migrations", "nowhere").returncode == 2
    done = migrate(folder, "--migrations", "broken")
    assert done.returncode == 2
    assert done.stderr == "data.kantadb: migrate_v1 (Break.) failed: KeyError: 'x'\nNothing was written.\n"
    assert (folder / "data.kantadb").read_bytes() == before
    (folder / "data.kantadb").write_bytes(b"something else\n")
    assert migrate(folder, "--migrations", "steps").returncode == 65
