"""A type of the state in the engine: every way to write is checked, what is refused leaves no trace; validators."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from kantad.engine.engine import Engine
from kantad.engine.lane import write_all
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Proposal
from kantad.store.migrations import Failed
from kantad.values.content import encode_json
from kantad.values.pointer import parse
from kantad.values.schema import Schema
from kantad.values.validators import ReadOnly, validator
from tests.engine.engine_kit import Database, flushed, proposal, put, refusal, seen

ANN = "00000000-0000-0000-0000-00000000000a"
BOB = "00000000-0000-0000-0000-00000000000b"


class User(msgspec.Struct):
    name: str
    age: Annotated[int, Meta(ge=0)] = 0
    tags: list[str] = []


class Data(msgspec.Struct):
    users: dict[UUID, User] = {}
    total: int = 0
    free: Any = None


SCHEMA = Schema(Data)


def mark(engine: Engine) -> tuple[int, bytes, bytes]:
    return engine.rev, engine.chain, encode_json(engine.root)


def lane(engine: Engine, *writes: tuple[str, Any]) -> list[Any]:
    made = [SimpleNamespace(path=path, diff=diff, a="w", u=None, key=None) for path, diff in writes]
    return write_all(engine, made, lambda action, user: None)[1]


async def test_a_new_file_begins_with_the_types_defaults(either: Database) -> None:
    engine = either.open(schema=SCHEMA)
    assert (engine.rev, engine.root) == (1, {"users": {}, "total": 0, "free": None})
    if either.format == "json":
        assert [record["a"] for record in either.records()] == ["bootstrap"]
    await either.stop()
    assert either.open(schema=SCHEMA).rev == 1


EDITS: list[tuple[str, str, Any, str, str]] = [
    ("put", f"/users/{ANN}/age", -1, f"/users/{ANN}/age", "Expected `int` >= 0"),
    ("put", f"/users/{ANN}/age", "1", f"/users/{ANN}/age", "Expected `int`, got `str`"),
    ("put", f"/users/{ANN}", {"age": 1}, f"/users/{ANN}/name", "Object missing required field `name`"),
    ("put", f"/users/{ANN}/nick", "a", f"/users/{ANN}/nick", "Object contains unknown field `nick`"),
    ("put", "/users/ann", {"name": "Ann"}, "/users/ann", "Invalid UUID"),
    ("put", f"/users/{BOB.upper()}", {"name": "B"}, f"/users/{BOB.upper()}", f"this key is spelled {BOB!r}"),
    ("post", "/nowhere", {"a": 1}, "/nowhere", "Object contains unknown field `nowhere`"),
    ("post", f"/users/{ANN}/tags", 5, f"/users/{ANN}/tags/0", "Expected `str`, got `int`"),
    ("patch", "", {"users": {ANN: {"tags": ["a", 1]}}}, f"/users/{ANN}/tags/1", "Expected `str`, got `int`"),
    ("merge", f"/users/{ANN}", {"name": None}, f"/users/{ANN}/name", "Object missing required field `name`"),
    ("json-patch", f"/users/{ANN}", [{"op": "replace", "path": "/age", "value": 1.5}], f"/users/{ANN}/age", ""),
    ("delete", f"/users/{ANN}/name", None, f"/users/{ANN}/name", "Object missing required field `name`"),
]


@pytest.mark.parametrize(("edit", "path", "body", "where", "why"), EDITS)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_does_not_fit_is_refused_with_its_path_and_leaves_no_trace(
    database: Database, edit: str, path: str, body: Any, where: str, why: str, dry_run: bool
) -> None:
    engine = database.open(schema=SCHEMA)
    put(engine, f"/users/{ANN}", {"name": "Ann"})
    before = mark(engine)
    problem = refusal(lambda: engine.transact(proposal(edit, path, body, dry_run=dry_run)))
    assert (problem.code, problem.body()["path"]) == ("validation_failed", where)
    assert problem.detail.startswith(why)
    assert problem.shows_state
    assert mark(engine) == before


async def test_defaults_are_filled_in_and_are_in_the_record(either: Database) -> None:
    engine = either.open(schema=SCHEMA)
    outcome = engine.transact(proposal("put", f"/users/{ANN}", {"name": "Ann"}, want_diff=True))
    assert outcome.diff == {"users": {ANN: {"name": "Ann", "age": 0, "tags": []}}}
    assert engine.transact(proposal("put", f"/users/{ANN}", {"name": "Ann"}, dry_run=True)).changed is False
    put(engine, f"/users/{ANN}/age", 5)
    engine.transact(proposal("delete", f"/users/{ANN}/age"))
    assert seen(engine, "") == {"users": {}, "total": 0, "free": None}  # nothing is synced yet
    await flushed(engine)
    assert seen(engine, f"/users/{ANN}") == {"name": "Ann", "age": 0, "tags": []}
    engine.transact(proposal("patch", "", {"$replace": {"total": 2}}))
    assert engine.root == {"users": {}, "total": 2, "free": None}


async def test_the_short_ways_do_what_the_long_one_does(either: Database) -> None:
    engine = either.open(schema=SCHEMA)
    put(engine, f"/users/{ANN}", {"name": "Ann"})
    place = engine.places.at(parse(f"/users/{ANN}"))
    assert engine.write(place, {"age": 7}, "patch", "patch") is not None
    for body, edit in (({"age": -7}, "patch"), ({"age": 1}, "put"), ({"nick": 1}, "patch")):
        before = mark(engine)
        problem = refusal(lambda body=body, edit=edit: engine.write(place, body, edit, "x"))  # type: ignore[misc]
        assert problem.code == "validation_failed"
        assert problem.body()["path"].startswith(f"/users/{ANN}/")
        assert mark(engine) == before
    results = lane(
        engine,
        (f"/users/{ANN}", {"age": 8}),
        (f"/users/{ANN}", {"age": -8}),
        (f"/users/{ANN}", {"age": 8}),
        (f"/users/{BOB}", {"name": "Bob"}),
        (f"/users/{ANN}", {"tags": ["x"]}),
        ("/free", {"any": ["thing"]}),
        ("", {"total": True}),
    )
    assert [type(result).__name__ for result in results] == [
        "Applied", "Problem", "Outcome", "Applied", "Applied", "Applied", "Problem",
    ]  # fmt: skip
    assert results[1].body()["path"] == f"/users/{ANN}/age"
    assert engine.root["users"] == {
        ANN: {"name": "Ann", "age": 8, "tags": ["x"]},
        BOB: {"name": "Bob", "age": 0, "tags": []},
    }


async def test_a_former_value_that_no_longer_fits_is_not_brought_back(database: Database) -> None:
    engine = database.open()
    put(engine, "/total", "many")
    put(engine, "/total", 3)
    await database.stop()
    engine = database.open(schema=SCHEMA)
    former = await engine.former.value_at(1, ("total",))
    problem = refusal(lambda: engine.transact(Proposal(("total",), "revert", former, to=1)))
    assert (problem.code, problem.body()["path"]) == ("validation_failed", "/total")


# -- validators


asked: list[tuple[Any, ...]] = []


@validator
def balanced(state: ReadOnly, touched: tuple[tuple[str, ...], ...]) -> None:
    asked.append(touched)
    if state["total"] > 10:
        raise ValueError("total is above 10")
    users = state["users"]
    if ANN in users:
        assert users[ANN].typed(User).age < 100, "too old"


JUDGED = Schema(Data, (balanced,))


@pytest.fixture
async def judged(database: Database) -> Engine:
    engine = database.open(schema=JUDGED)
    asked.clear()
    return engine


async def test_a_validator_sees_the_state_after_and_what_was_touched(judged: Engine) -> None:
    put(judged, f"/users/{ANN}", {"name": "Ann"})
    put(judged, "/total", 1)
    judged.transact(proposal("patch", "", {"total": 2, "users": {ANN: {"age": 3}}}))
    assert asked == [
        (("users", ANN, "name"), ("users", ANN, "age"), ("users", ANN, "tags")),
        (("total",),),
        (("total",), ("users", ANN, "age")),
    ]


async def test_what_a_validator_refuses_leaves_no_trace_on_any_way(judged: Engine) -> None:
    put(judged, f"/users/{ANN}", {"name": "Ann", "age": 99})
    before = mark(judged)
    for dry_run in (False, True):
        problem = refusal(lambda dry_run=dry_run: put(judged, "/total", 11, dry_run=dry_run))  # type: ignore[misc]
        assert (problem.code, problem.detail) == ("validation_failed", "total is above 10")
        assert problem.body()["path"] == "/total"
        assert mark(judged) == before
    place = judged.places.at(("users", ANN))
    problem = refusal(lambda: judged.write(place, {"age": 100}, "patch", "patch"))
    assert problem.detail.startswith("AssertionError: too old")
    assert problem.body()["path"] == f"/users/{ANN}/age"
    results = lane(judged, ("", {"total": 12}), ("", {"total": 3}), ("", {"total": 13, "free": 1}))
    assert [type(result).__name__ for result in results] == ["Problem", "Applied", "Problem"]
    assert (judged.rev, judged.root["total"], judged.root["free"]) == (before[0] + 1, 3, None)
    await flushed(judged)


async def test_a_dry_run_that_validators_accept_changes_nothing(judged: Engine) -> None:
    before = mark(judged)
    outcome = put(judged, "/total", 4, dry_run=True)
    assert (outcome.changed, outcome.diff) == (True, {"total": 4})
    assert mark(judged) == before


async def test_a_validator_cannot_modify_the_state(database: Database) -> None:
    def meddle(state: Any, touched: Any) -> None:
        state["users"].typed(dict)["x"] = 1
        state["users"]["x"] = 1

    engine = database.open(schema=Schema(Data, (lambda state, touched: None,)))
    await database.stop()
    engine = database.open(schema=Schema(Data))
    engine.validators = (meddle,)
    problem = refusal(lambda: put(engine, "/total", 1))
    assert problem.code == "validation_failed"
    assert problem.detail.startswith("TypeError")
    assert engine.root["users"] == {}


class Demanding(msgspec.Struct):
    must: int


async def test_no_file_is_made_that_could_not_begin_as_the_type_has_it(tmp_path: Path) -> None:
    for format in ("json", "msgpack", None):
        with pytest.raises(Failed, match="must"):
            open_engine(str(tmp_path / "data.kantadb"), format=format, schema=Schema(Demanding))
        assert list(tmp_path.iterdir()) == []
    engine = open_engine(str(tmp_path / "data.kantadb"), schema=Schema(Demanding), initial={"must": 5})
    assert (engine.rev, engine.root) == (1, {"must": 5})
    await engine.stop()
