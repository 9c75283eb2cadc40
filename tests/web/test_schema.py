"""A schema over HTTP and WebSocket: refusals, what is stored, `GET /v1/schema`; on both paths."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.schema import Schema
from tests.serving import Serving
from tests.web.ws_kit import Peer

ANN = "00000000-0000-0000-0000-00000000000a"


class User(msgspec.Struct):
    name: str
    age: Annotated[int, Meta(ge=0)] = 0
    seen: datetime | None = None
    raw: bytes = b""
    kind: Literal["a", "b"] = "a"


class Data(msgspec.Struct):
    users: dict[UUID, User] = {}
    total: int = 0
    visits: dict[datetime, int] = {}


def check(state: Any, touched: Any) -> None:
    if state["total"] > 10:
        raise ValueError("total is above 10")


SCHEMA = Schema(Data, (check,))


@pytest.fixture(params=["json", "msgpack"])
async def typed(unstarted: Serving, request: pytest.FixtureRequest) -> Serving:
    await unstarted.start(schema=SCHEMA, format=request.param)
    await unstarted.put(f"/users/{ANN}", {"name": "Ann"})
    return unstarted


both = pytest.mark.parametrize("fast_path", [True, False], indirect=True)

REFUSED: list[tuple[str, str, Any, str, str]] = [
    ("PATCH", f"/users/{ANN}", {"age": -1}, f"/users/{ANN}/age", "Expected `int` >= 0"),
    ("PUT", f"/users/{ANN}/age", True, f"/users/{ANN}/age", "Expected `int`, got `bool`"),
    ("PUT", f"/users/{ANN}/kind", "c", f"/users/{ANN}/kind", "Invalid enum value 'c'"),
    ("PUT", "/users/x", {"name": "X"}, "/users/x", "Invalid UUID"),
    ("PUT", f"/users/{ANN}", {}, f"/users/{ANN}/name", "Object missing required field `name`"),
    ("PUT", "/more", 1, "/more", "Object contains unknown field `more`"),
    ("POST", "/users", {"name": 1}, "", "Expected `str`, got `int`"),
    ("DELETE", f"/users/{ANN}/name", None, f"/users/{ANN}/name", "Object missing required field `name`"),
    ("PUT", "/total", 11, "/total", "total is above 10"),
    ("PATCH", "", {"total": 12}, "/total", "total is above 10"),
]


@both
@pytest.mark.parametrize(("method", "path", "body", "where", "why"), REFUSED)
async def test_what_does_not_fit_is_422_with_path_and_reason_and_changes_nothing(
    typed: Serving, method: str, path: str, body: Any, where: str, why: str
) -> None:
    for _ in range(2):  # the second time by the fast path
        before = typed.mark()
        got = await typed.ask(method, f"/v1/data{path}", body)
        assert (got.status, got.code, got.json["detail"]) == (422, "validation_failed", why)
        assert got.json["path"] == where or (not where and got.json["path"].startswith("/users/"))
        assert typed.mark() == before


@both
async def test_what_fits_is_stored_in_its_normal_form(typed: Serving) -> None:
    assert await typed.value() == {
        "users": {ANN: {"name": "Ann", "age": 0, "seen": None, "raw": "", "kind": "a"}},
        "total": 0,
        "visits": {},
    }
    for seen in ("2026-06-10T02:55:00+00:00", "2026-06-10T02:55:00Z"):
        got = await typed.ask("PATCH", f"/v1/data/users/{ANN}", {"seen": seen, "raw": "AHg="})
        assert got.json["changed"] is (seen[-1] != "Z")
    assert (await typed.value(f"/users/{ANN}"))["seen"] == "2026-06-10T02:55:00Z"
    stored = typed.engine.root["users"][ANN]
    assert stored["raw"] == (b"\0x" if typed.engine.foreign else "AHg=")
    assert isinstance(stored["seen"], datetime) is typed.engine.foreign
    got = await typed.ask("DELETE", f"/v1/data/users/{ANN}/seen")
    assert (got.status, (await typed.value(f"/users/{ANN}"))["seen"]) == (200, None)


@both
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
async def test_a_time_that_a_messagepack_file_has_no_utc_year_for_is_refused(unstarted: Serving, time: str) -> None:
    await unstarted.start(schema=SCHEMA, format="msgpack")
    await unstarted.put(f"/users/{ANN}", {"name": "Ann"})
    before = unstarted.mark()
    for path, body in ((f"/users/{ANN}/seen", time), (f"/users/{ANN}", {"name": "Ann", "seen": time})):
        for _ in range(2):
            got = await unstarted.ask("PUT", f"/v1/data{path}", body)
            assert (got.status, got.json["detail"]) == (422, "OverflowError: date value out of range")
    for _ in range(2):
        got = await unstarted.ask("PUT", f"/v1/data/visits/{time}", 1)
        assert (got.status, got.json["path"]) == (422, f"/visits/{time}")
    assert unstarted.mark() == before


async def test_equal_keys_of_a_dict_are_one_member_also_at_the_next_start(unstarted: Serving) -> None:
    await unstarted.start(schema=SCHEMA)
    await unstarted.put("/visits/2026-06-10T02:55:00Z", 1)
    before = unstarted.mark()
    other = "2026-06-10T04:55:00+02:00"
    for body in ({other: 2}, {"2026-06-10T02:55:00Z": 1, other: 2}):
        got = await unstarted.ask("PATCH", "/v1/data/visits", body)
        assert (got.status, got.json["path"]) == (422, f"/visits/{other}")
        assert got.json["detail"] == "this key is spelled '2026-06-10T02:55:00Z'"
    assert unstarted.mark() == before
    assert SCHEMA.normalised(unstarted.engine.root)[1] is SAME
    with pytest.raises(Problem, match="two of its keys are equal") as refused:
        SCHEMA.normalised({"visits": {other: 5, "2026-06-10T02:55:00Z": 5}})
    assert refused.value.keys == ["visits"]
    assert SCHEMA.normalised({"visits": {other: 5}})[0]["visits"] == {"2026-06-10T02:55:00Z": 5}


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_a_member_that_is_called_by_a_number_is_refused(unstarted: Serving, form: str) -> None:
    await unstarted.start(schema=SCHEMA, format=form)
    await unstarted.put(f"/users/{ANN}", {"name": "Ann"})
    before = unstarted.mark()
    for path, body in (("", {5: 1}), (f"/users/{ANN}", {"name": "Ann", 5: 1}), ("/users", {ANN: {5: 1}})):
        for method in ("PUT", "PATCH"):
            packed = msgspec.msgpack.encode(body)
            got = await unstarted.ask(method, f"/v1/data{path}", None, "Content-Type: application/msgpack", body=packed)
            assert (got.status, got.code) == (422, "validation_failed")
    assert unstarted.mark() == before


@both
async def test_a_post_gives_its_child_the_defaults_under_a_key_that_fits(typed: Serving) -> None:
    got = await typed.ask("POST", "/v1/data/users", {"name": "Bob"})
    assert got.status == 201
    assert (await typed.value(f"/users/{got.json['key']}"))["age"] == 0


async def test_a_merge_patch_and_a_json_patch_are_checked(typed: Serving) -> None:
    for kind, body in (
        ("application/merge-patch+json", {"age": "x"}),
        ("application/json-patch+json", [{"op": "add", "path": "/age", "value": "x"}]),
    ):
        got = await typed.ask("PATCH", f"/v1/data/users/{ANN}", body, f"Content-Type: {kind}")
        assert (got.code, got.json["path"]) == ("validation_failed", f"/users/{ANN}/age")
    got = await typed.ask("PATCH", f"/v1/data/users/{ANN}", {"age": None}, "Content-Type: application/merge-patch+json")
    assert got.json["changed"] is False  # it is at its default


async def test_a_transaction_is_checked_dry_or_not_and_shows_what_is_stored(typed: Serving) -> None:
    for dry_run in (True, False):
        got = await typed.transact(path=f"/users/{ANN}", diff={"age": -1}, dry_run=dry_run)
        assert (got.status, got.code) == (422, "validation_failed")
        got = await typed.transact(diff={"total": 99}, dry_run=dry_run)
        assert (got.status, got.json["detail"]) == (422, "total is above 10")
    got = await typed.transact(diff={"$delete": ["users"], "total": 3}, dry_run=True)
    assert got.json["diff"] == {"users": {"$replace": {}}, "total": 3}
    got = await typed.transact(diff={"total": 3}, want="diff")
    assert got.json["diff"] == {"total": 3}


async def test_a_websocket_is_told_the_same_in_and_out_of_a_lane(typed: Serving) -> None:
    peer = await Peer.open(typed)
    error = (await peer.ask("transact", path=f"/users/{ANN}", diff={"age": -1}))["error"]
    assert (error["code"], error["path"]) == ("validation_failed", f"/users/{ANN}/age")
    asked = [
        {"id": 12, "op": "transact", "path": f"/users/{ANN}", "diff": {"age": 4}},
        {"id": 13, "op": "transact", "path": f"/users/{ANN}", "diff": {"age": "4"}},
        {"id": 14, "op": "transact", "diff": {"total": 11}},
        {"id": 15, "op": "transact", "diff": {"total": 5}, "return": "diff"},
    ]
    peer.send(*asked)
    answers = {request["id"]: await peer.answer(request["id"]) for request in asked}
    assert answers[12]["changed"] is True
    assert answers[13]["error"]["path"] == f"/users/{ANN}/age"
    assert answers[14]["error"]["detail"] == "total is above 10"
    assert answers[15]["diff"] == {"total": 5}
    await peer.close()


async def test_a_refusal_waits_for_the_state_that_it_tells_of(unstarted: Serving) -> None:
    await unstarted.start(schema=SCHEMA)
    unstarted.disk.hold()
    one, other = await unstarted.connect(), await unstarted.connect()
    head = b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
    one.send(b"PATCH /v1/data" + head % (11, b'{"total":7}'))
    await unstarted.disk.until_syncing()
    other.send(b"PATCH /v1/data" + head % (12, b'{"total":11}'))
    answer = asyncio.ensure_future(other.answer())
    await asyncio.sleep(0.05)
    assert not answer.done()
    unstarted.disk.release()
    assert (await answer).status == 422
    assert (await one.answer()).status == 200


async def test_the_schema_is_given_as_json_schema(typed: Serving) -> None:
    got = await typed.ask("GET", "/v1/schema")
    assert got.status == 200
    assert got.json["$ref"] == "#/$defs/Data"
    assert got.json["$defs"]["User"]["properties"]["age"] == {"type": "integer", "minimum": 0, "default": 0}
    assert (await typed.ask("HEAD", "/v1/schema")).status == 200
    assert (await typed.ask("GET", "/v1/status")).json["schema"] == "tests.web.test_schema:Data"


async def test_without_one_there_is_none(serving: Serving) -> None:
    got = await serving.ask("GET", "/v1/schema")
    assert (got.status, got.code) == (404, "not_found")
    status = (await serving.ask("GET", "/v1/status")).json
    assert (status["schema"], status["schema_version"]) == (None, 0)
