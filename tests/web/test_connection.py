"""Where a connection stands between two requests: what it learns, what it reads when, how it ends."""

import pytest

from kantad.web.body import Limits
from kantad.web.connection import Connection, Patience
from tests.engine.engine_kit import eventually
from tests.serving import Serving, Wire, request
from tests.web.ws_kit import Peer

QUICK = Patience(tick=0.02)
PUT = request("PUT", "/v1/data/a", b"1")


@pytest.mark.parametrize(
    ("first", "learned"),
    [
        (b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", 1),
        (b"GET /v1/data HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", 0),
        (b"GET http://localhost/v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
        (b"GET /v1/data HTTP/1.1\r\nAccept: */*\r\n\r\n", 0),
        (b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 0),
        (b"GET /v1/data HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0),
        (b"\r\nGET /v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
        (PUT + PUT, 0),
        (PUT[:-1], 0),
    ],
)
async def test_only_whole_admitted_requests_of_http_1_1_teach(serving: Serving, first: bytes, learned: int) -> None:
    wire = await serving.connect()
    wire.send(first)
    if first != PUT[:-1]:
        await wire.answer()
    await wire.close()
    assert serving.server.fast is not None
    assert len(serving.server.fast.blocks) == learned


async def test_a_body_that_comes_after_its_answer_is_no_request(serving: Serving) -> None:
    plain = request("GET", "/v1/data")
    wire = await serving.connect()
    for _ in range(2):
        wire.send(plain)
        assert (await wire.answer()).status == 200
    before = serving.server.app.fast_answers()
    wire.send(request("GET", "/v1/status", None, "Content-Length: 6"))
    assert (await wire.answer()).status == 200
    (connection,) = serving.server.aiohttp.connections
    assert isinstance(connection, Connection)
    for left in (4, 2, 0):
        wire.send(b"xx")
        await eventually(lambda left=left: connection.missing == left)  # type: ignore[misc]
    wire.send(plain)
    assert (await wire.answer()).json == {}
    assert serving.server.app.fast_answers() > before


HALVES = {
    "plain": [request("GET", "/v1/status")],
    "plain write": [request("PUT", "/v1/data/a?user=u", b"1")],
    "fast write": [PUT],
    "pipelined": [PUT, request("GET", "/v1/data/a")],
    "three": [request("GET", "/v1/status"), PUT, request("GET", "/v1/data/a")],
}


@pytest.mark.parametrize("name", HALVES)
async def test_a_client_that_sends_no_more_gets_its_answers(unstarted: Serving, name: str) -> None:
    await unstarted.start(patience=QUICK)
    await unstarted.ask("PUT", "/v1/data/a", 1)
    unstarted.disk.hold()
    wire = await unstarted.connect()
    wire.send(b"".join(HALVES[name]))
    wire.writer.write_eof()
    unstarted.disk.release()
    for _ in HALVES[name]:
        assert (await wire.answer()).status == 200
    assert await wire.closed() == b""


async def test_a_client_that_says_goodbye_between_two_requests_is_closed(serving: Serving) -> None:
    wire = await serving.connect()
    wire.send(PUT)
    assert (await wire.answer()).status == 200
    wire.writer.write_eof()
    assert await wire.closed() == b""


async def test_half_a_request_and_no_more_is_closed_in_time(unstarted: Serving) -> None:
    await unstarted.start(patience=Patience(head=0.2, tick=0.02))
    for half in (PUT[:20], PUT[:-1]):
        wire = await Wire.to(unstarted.port)
        wire.send(half)
        wire.writer.write_eof()
        await wire.closed()
        await wire.close()
    assert unstarted.engine.rev == 0


@pytest.mark.parametrize("at_once", [False, True])
async def test_nothing_behind_the_last_request_is_a_request(serving: Serving, at_once: bool) -> None:
    last, behind = request("PUT", "/v1/data/a", b"1", "Connection: close"), request("PUT", "/v1/data/b", b"2")
    wire = await serving.connect()
    wire.send(last + behind if at_once else last)
    assert (await wire.answer()).status == (400 if at_once else 200)
    wire.send(behind)
    assert await wire.closed() == b""
    assert (await serving.ask("GET", "/v1/data")).json == ({} if at_once else {"a": 1})


ACCEPTS = [
    ("application/json", False),
    ("application/msgpack", True),
    ("application/msgpack;q=0.5, application/json", False),
    ("application/msgpack;q=0.9, application/json;q=0.8", True),
    ("application/json, application/x-msgpack", True),
    ("application/msgpack;q=0", False),
    ("application/msgpack; q=0.0, */*", False),
    ("application/msgpack;q=nonsense, */*", False),
    ("APPLICATION/VND.MSGPACK; Q=1.0", True),
    ("*/*", False),
]


@pytest.mark.parametrize(("accept", "msgpack"), ACCEPTS)
async def test_the_format_asked_for_is_answered(serving: Serving, accept: str, msgpack: bool) -> None:
    got = await serving.ask("PUT", "/v1/data/a", 1, f"Accept: {accept}")
    assert got.headers["content-type"] == ("application/msgpack" if msgpack else "application/json")
    got = await serving.ask("GET", "/v1/data/a", None, f"Accept: {accept}")
    assert got.body == (b"\x01" if msgpack else b"1")


@pytest.mark.parametrize("query", ["user=%zz", "user=%", "user=a%4", "%zz=1", "user=%ff", "user=%+1"])
async def test_a_query_that_is_no_percent_encoding_is_refused(serving: Serving, query: str) -> None:
    got = await serving.ask("PUT", f"/v1/data/a?{query}", 1)
    assert (got.status, got.code) == (400, "invalid_parameter")
    assert (await serving.ask("PUT", "/v1/data/a?user=%C3%BC+x", 1)).json["rev"] == 1
    assert (await serving.ask("GET", "/v1/changes")).json["changes"][0]["u"] == "ü x"


async def test_limits_are_settings(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_target=100, max_header=200, max_subscriptions=2, max_in_flight=3))
    assert (await unstarted.ask("GET", "/v1/data/" + "a" * 80)).code == "not_found"
    assert (await unstarted.ask("GET", "/v1/data/" + "a" * 100)).code == "uri_too_long"
    assert (await unstarted.ask("GET", "/v1/data", None, "X: " + "a" * 200)).code == "headers_too_large"
    peer = await Peer.open(unstarted)
    answers = [await peer.ask("subscribe") for _ in range(3)]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, None, "too_many"]
    waits = {"op": "changes", "since": 0, "wait": 30}
    peer.send(*({"id": f"w{number}", **waits} for number in range(5)))
    assert {(await peer.answer(f"w{number}"))["error"]["code"] for number in (3, 4)} == {"too_many"}
    assert (await peer.ask("transact", diff={"a": 1}))["rev"] == 1
    assert {(await peer.answer(f"w{number}"))["rev"] for number in range(3)} == {1}
