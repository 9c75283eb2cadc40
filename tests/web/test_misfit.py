"""An error names the member or parameter that is wrong, says what is allowed, and speaks no Python."""

from typing import Any

import msgspec
import pytest

from kantad.web import tongue
from kantad.web.misfit import CHOICES
from tests.serving import Serving
from tests.web.ws_kit import Peer

LIMIT = "limit is an integer from 1 to 10000"

TRANSACTIONS: list[tuple[Any, str | None, str]] = [
    ({"diff": {}, "more": 1}, "more", "there is no member 'more' here"),
    ({"diff": {}, "user": "x"}, "user", "there is no member 'user' here; it is called u"),
    ({"diff": {}, "action": "x"}, "action", "there is no member 'action' here; it is called a"),
    ({"diff": {}, "x" * 100: 1}, "x" * 64, f"there is no member '{'x' * 64}' here"),
    ({}, "diff", "diff is missing"),
    ({"diff": {}, "a": 5}, "a", "a is a string, not an integer"),
    ({"diff": {}, "u": True}, "u", "u is a string or null, not a boolean"),
    ({"diff": {}, "base": 1.5}, "base", "base is an integer, a string or null, not a number"),
    ({"diff": {}, "dry_run": 1}, "dry_run", "dry_run is true or false, not an integer"),
    ({"diff": {}, "ack": "soon"}, "ack", "ack is durable, written or applied"),
    ({"diff": {}, "ack": 5}, "ack", "ack is durable, written or applied"),
    ({"diff": {}, "return": "value"}, "return", "return is diff"),
    ({"diff": {}, "if": {}}, "if", "if is an array, not an object"),
    ({"diff": {}, "if": [5]}, "if[0]", "if[0] is an object, not an integer"),
    ({"diff": {}, "if": [{}]}, "if[0].path", "path is missing in if[0]"),
    ({"diff": {}, "if": [{"path": "", "equal": 1}]}, "if[0].equal", "there is no member 'equal' here"),
    ({"diff": {}, "if": [{"path": ""}] * 1001}, "if", "if has at most 1000 elements"),
    ([], None, "an object is expected, not an array"),
]


@pytest.mark.parametrize(("body", "parameter", "detail"), TRANSACTIONS, ids=[str(one[0])[:40] for one in TRANSACTIONS])
async def test_a_transaction_is_told_which_member_is_wrong(
    serving: Serving, body: Any, parameter: str | None, detail: str
) -> None:
    packed = msgspec.msgpack.encode(body)
    for got in (
        await serving.ask("POST", "/v1/transaction", body),
        await serving.ask("POST", "/v1/transaction", None, "Content-Type: application/msgpack", body=packed),
    ):
        assert (got.status, got.code) == (400, "invalid_parameter")
        assert (got.json.get("parameter"), got.json["detail"]) == (parameter, detail)


async def test_the_names_of_members_are_strings_in_messagepack_too(serving: Serving) -> None:
    mime = "Content-Type: application/msgpack"
    got = await serving.ask("POST", "/v1/transaction", None, mime, body=msgspec.msgpack.encode({1: 2}))
    assert (got.code, got.json["detail"]) == ("invalid_parameter", "the name of a member is a string")


async def test_a_revert_is_told_which_member_is_wrong(serving: Serving) -> None:
    for body, parameter, detail in (
        ({"path": ""}, "rev", "rev is missing"),
        ({"rev": 0, "diff": {}}, "diff", "there is no member 'diff' here"),
        ({"rev": 0, "user": "x"}, "user", "there is no member 'user' here; it is called u"),
        ({"rev": None}, "rev", "rev is an integer or a string, not null"),
    ):
        got = await serving.ask("POST", "/v1/revert", body)
        assert (got.code, got.json["parameter"], got.json["detail"]) == ("invalid_parameter", parameter, detail)


@pytest.mark.parametrize(
    ("method", "target", "parameter", "detail"),
    [
        ("PUT", "/v1/data/x?u=alice", "u", "there is no parameter 'u' here; it is called user"),
        ("PUT", "/v1/data/x?a=put", "a", "there is no parameter 'a' here; it is called action"),
        ("PUT", "/v1/data/x?path=/y", "path", "there is no parameter 'path' here"),
        ("GET", "/v1/data?u=alice", "u", "there is no parameter 'u' here"),
        ("GET", "/v1/changes?u=alice", "u", "there is no parameter 'u' here; it is called user"),
        ("GET", "/v1/changes?limit=0", "limit", LIMIT),
        ("GET", "/v1/changes?limit=10001", "limit", LIMIT),
        ("GET", "/v1/changes?limit=x", "limit", LIMIT),
        ("GET", "/v1/keys?limit=0", "limit", "limit is an integer from 1 to 100000"),
        ("GET", "/v1/changes?order=up", "order", "order is asc or desc"),
        ("GET", "/v1/changes?value=maybe", "value", "value is true or false"),
        ("GET", "/v1/changes?wait=x", "wait", "wait is a number of seconds from 0 to 60"),
    ],
)
async def test_a_query_is_told_which_parameter_is_wrong(
    serving: Serving, method: str, target: str, parameter: str, detail: str
) -> None:
    got = await serving.ask(method, target, 1)
    assert (got.status, got.code) == (400, "invalid_parameter")
    assert (got.json["parameter"], got.json["detail"]) == (parameter, detail)


@pytest.mark.parametrize(
    ("request_", "parameter", "detail"),
    [
        ({"op": "nonsense"}, "op", CHOICES["op"]),
        ({"op": 5}, "op", CHOICES["op"]),
        ({}, "op", f"op is missing; {CHOICES['op']}"),
        ({"op": "transact"}, "diff", "diff is missing"),
        ({"op": "transact", "diff": {}, "user": "x"}, "user", "there is no member 'user' here; it is called u"),
        ({"op": "get", "user": "x"}, "user", "there is no member 'user' here"),
        ({"op": "unsubscribe"}, "sub", "sub is missing"),
        ({"op": "changes", "order": "up"}, "order", "order is asc or desc"),
        ({"op": "changes", "limit": 0}, "limit", LIMIT),
        ({"op": "subscribe", "limit": 10**15}, "limit", LIMIT),
        ({"op": "changes", "limit": "x"}, "limit", "limit is an integer or null, not a string"),
    ],
)
async def test_a_request_of_a_websocket_is_told_which_member_is_wrong(
    serving: Serving, request_: dict[str, Any], parameter: str, detail: str
) -> None:
    peer = await Peer.open(serving)
    peer.send({"id": 1, **request_})
    error = (await peer.answer(1))["error"]
    assert (error["code"], error["parameter"], error["detail"]) == ("invalid_parameter", parameter, detail)


def test_the_operations_that_an_error_lists_are_those_that_there_are() -> None:
    requests = (tongue.Get, tongue.Keys, tongue.Transact, tongue.Subscribe, tongue.Unsubscribe, tongue.Changes)
    names = [str(each.__struct_config__.tag) for each in requests]
    assert CHOICES["op"] == f"op is {', '.join(names)} or {tongue.Ping.__struct_config__.tag}"


@pytest.mark.parametrize("mark", ["junk", "2026-13-01T00:00:00Z", "99"])
async def test_a_last_event_id_is_refused_under_its_name(serving: Serving, mark: str) -> None:
    header = f"Last-Event-ID: {mark}"
    got = await serving.ask("GET", "/v1/changes?since=0", None, "Accept: text/event-stream", header)
    assert got.json["detail"].startswith("Last-Event-ID is ")
    assert got.json.get("parameter") == (None if mark == "99" else "Last-Event-ID")


@pytest.mark.parametrize("kind", ["json", "msgpack"])
async def test_a_body_that_is_not_there_or_not_whole_is_said_to_be_so(serving: Serving, kind: str) -> None:
    for method, target in (("PUT", "/v1/data/x"), ("PATCH", "/v1/data/x"), ("POST", "/v1/transaction")):
        got = await serving.ask(method, target, None, f"Content-Type: application/{kind}", body=b"")
        assert (got.code, got.json["offset"], got.json["detail"]) == ("invalid_json", 0, "there is no body")
        half = b"[1" if kind == "json" else b"\x92\x01"
        got = await serving.ask(method, target, None, f"Content-Type: application/{kind}", body=half)
        assert (got.code, got.json["detail"]) == ("invalid_json", "the body ends in the middle of a value")


@pytest.mark.parametrize("key", ["", "x" * 129, "ä"])
async def test_a_key_that_is_none_is_refused_under_the_name_it_was_given(serving: Serving, key: str) -> None:
    got = await serving.transact(diff={}, id=key)
    assert (got.code, got.json["parameter"]) == ("invalid_parameter", "id")
    peer = await Peer.open(serving)
    peer.send({"id": 1, "op": "transact", "diff": {}, "key": key})
    assert (await peer.answer(1))["error"]["parameter"] == "key"
    got = await serving.ask("PUT", "/v1/data/x", 1, f"Idempotency-Key: {'x' * 129}")
    assert got.json["parameter"] == "Idempotency-Key"


async def test_a_condition_without_a_condition_is_refused_as_a_member_of_if(serving: Serving) -> None:
    got = await serving.transact(diff={}, when=[{"path": ""}])
    assert (got.code, got.json["parameter"], got.json["path"]) == ("invalid_parameter", "if", "")


async def test_a_number_that_is_none_is_called_so_without_a_place_in_msgspec_s_words(serving: Serving) -> None:
    got = await serving.ask("POST", "/v1/revert", body=b'{"rev":1e999}')
    assert (got.code, got.json["detail"]) == ("invalid_value", "a number is finite")
