"""A WebSocket's worst clients: the right close code, no log entry with a traceback, nothing kept, others served."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from kantad.web.body import Limits
from kantad.web.connection import Patience
from tests.engine.engine_kit import eventually
from tests.serving import Serving, request
from tests.web.test_frames import BAD_TEXT, FORBIDDEN
from tests.web.ws_kit import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Closed, Peer, frame

SMALL = Limits(max_body=200_000)


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in FORBIDDEN], ids=[case[0] for case in FORBIDDEN])
async def test_a_broken_frame_closes_with_its_code(
    unstarted: Serving, caplog: pytest.LogCaptureFixture, data: bytes, code: int
) -> None:
    await unstarted.start(limits=SMALL)
    peer, other = await Peer.open(unstarted), await Peer.open(unstarted)
    assert (await peer.ask("ping"))["rev"] == 0
    peer.wire.send(data)
    closed = await peer.ended()
    assert closed.code == code
    assert closed.reason
    assert (await other.ask("transact", diff={"a": 1}))["rev"] == 1
    assert not caplog.records


async def test_what_came_before_a_broken_frame_is_done_and_what_is_behind_is_not(serving: Serving) -> None:
    peer = await Peer.open(serving)
    write = json.dumps({"id": 1, "op": "transact", "diff": {"a": 1}}).encode()
    after = json.dumps({"id": 2, "op": "transact", "diff": {"b": 1}}).encode()
    peer.wire.send(frame(TEXT, write) + frame(3, b"") + frame(TEXT, after))
    assert (await peer.ended()).code == 1002
    await eventually(lambda: serving.engine.written.rev == 1)
    assert await serving.value() == {"a": 1}


@pytest.mark.parametrize("sent", [b"", b"\x03\xe8", b"\x03\xe9going", b"\x0f\xa0custom"], ids=repr)
async def test_a_close_is_answered_with_a_close(serving: Serving, sent: bytes) -> None:
    peer = await Peer.open(serving)
    peer.wire.send(frame(CLOSE, sent))
    assert (await peer.ended()).code == (int.from_bytes(sent[:2]) if sent else 1000)
    assert await peer.wire.closed() == b""


@pytest.mark.parametrize("sent", [b"\x03", b"\x03\xed", b"\x00\x00", b"\x03\xe8" + BAD_TEXT[0]], ids=repr)
async def test_a_malformed_close_is_told_so(serving: Serving, sent: bytes) -> None:
    peer = await Peer.open(serving)
    peer.wire.send(frame(CLOSE, sent))
    assert (await peer.ended()).code in (1002, 1007)


async def test_pings_are_answered_with_what_they_carry_also_within_a_message(serving: Serving) -> None:
    peer = await Peer.open(serving)
    text = b'{"id":1,"op":"ping"}'
    peer.wire.send(frame(PING, b"before") + frame(TEXT, text[:5], last=False) + frame(PING, b"\x00\xff"))
    assert await peer.frame() == (PONG, b"before")
    assert await peer.frame() == (PONG, b"\x00\xff")
    peer.wire.send(frame(PONG, b"unasked") + frame(0, text[5:]))
    assert (await peer.message())["id"] == 1


async def until_closed(peer: Peer) -> tuple[list[int], Closed]:
    """The opcodes of the frames that come, and how the server closes."""
    seen = []
    try:
        while True:
            seen.append((await peer.frame())[0])
    except Closed as closed:
        return seen, closed


async def test_a_flood_of_pings_is_a_policy_violation(serving: Serving) -> None:
    peer = await Peer.open(serving)
    peer.wire.send(frame(PING, b"x") * 500)
    seen, closed = await until_closed(peer)
    assert (closed.code, seen) == (1008, [PONG] * 200)


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "invalid_json"),
    (b"x", "invalid_json"),
    (b"{", "invalid_json"),
    (b'{"id":1', "invalid_json"),
    (b"5", "invalid_parameter"),
    (b"null", "invalid_parameter"),
    (b'"get"', "invalid_parameter"),
    (b"[5]", "invalid_parameter"),
    (b"{}", "invalid_parameter"),
    (b'{"op":"get"}', "invalid_parameter"),
    (b'{"id":null,"op":"get"}', "invalid_parameter"),
    (b'{"id":true,"op":"get"}', "invalid_parameter"),
    (b'{"id":[1],"op":"get"}', "invalid_parameter"),
    (b'{"id":{},"op":"get"}', "invalid_parameter"),
    (b'{"id":1e999,"op":"get"}', "invalid_value"),
    (b"[" * 5000, "too_deep"),
    (b'{"id":1,"op":"transact","diff":' + b"[" * 3000 + b"]" * 3000 + b"}", "too_deep"),
]


@pytest.mark.parametrize(("text", "code"), MALFORMED, ids=[repr(case[0][:24]) for case in MALFORMED])
async def test_a_malformed_message_is_answered_with_id_null_and_the_connection_stays(
    serving: Serving, caplog: pytest.LogCaptureFixture, text: bytes, code: str
) -> None:
    peer = await Peer.open(serving)
    peer.send_text(text)
    answer = await peer.answer(None)
    assert answer["error"]["code"] == code
    assert set(answer) == {"id", "error"}
    assert (await peer.ask("ping"))["rev"] == 0
    assert not caplog.records


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"op": "nonsense"}, "invalid_parameter"),
    ({"op": 5}, "invalid_parameter"),
    ({"op": "get", "path": 5}, "invalid_parameter"),
    ({"op": "get", "path": "x"}, "invalid_path"),
    ({"op": "get", "path": "/~2"}, "invalid_path"),
    ({"op": "get", "path": "/a" * 129}, "invalid_path"),
    ({"op": "get", "path": "/none"}, "not_found"),
    ({"op": "get", "more": 1}, "invalid_parameter"),
    ({"op": "get", "rev": 99}, "unknown_revision"),
    ({"op": "get", "rev": -1}, "invalid_parameter"),
    ({"op": "get", "rev": "x"}, "invalid_parameter"),
    ({"op": "get", "rev": 0, "at": "2026-01-01T00:00:00Z"}, "invalid_parameter"),
    ({"op": "get", "at": "yesterday"}, "invalid_parameter"),
    ({"op": "keys", "limit": 0}, "invalid_parameter"),
    ({"op": "keys", "limit": 1.5}, "invalid_parameter"),
    ({"op": "keys", "path": "/none"}, "not_found"),
    ({"op": "transact"}, "invalid_parameter"),
    ({"op": "transact", "diff": 5}, "invalid_value"),
    ({"op": "transact", "diff": {"$x": 1}}, "invalid_patch"),
    ({"op": "transact", "diff": {"a": {"$insert": []}}}, "patch_mismatch"),
    ({"op": "transact", "diff": {}, "base": "x"}, "invalid_parameter"),
    ({"op": "transact", "diff": {}, "base": 99}, "history_diverged"),
    ({"op": "transact", "diff": {}, "if": [{"path": ""}]}, "invalid_parameter"),
    ({"op": "transact", "diff": {}, "if": [{"path": "/a", "exists": True}]}, "precondition_failed"),
    ({"op": "transact", "diff": {}, "ack": "soon"}, "invalid_parameter"),
    ({"op": "transact", "diff": {}, "a": "a\nb"}, "invalid_parameter"),
    ({"op": "transact", "diff": {}, "u": "u" * 257}, "invalid_parameter"),
    ({"op": "transact", "diff": {}, "key": ""}, "invalid_parameter"),
    ({"op": "transact", "diff": {"a": 2**64}}, "invalid_value"),
    ({"op": "subscribe", "since": 99}, "history_diverged"),
    ({"op": "subscribe", "since": "x"}, "invalid_parameter"),
    ({"op": "subscribe", "order": "desc"}, "invalid_parameter"),
    ({"op": "subscribe", "wait": 5}, "invalid_parameter"),
    ({"op": "subscribe", "limit": 0}, "invalid_parameter"),
    ({"op": "unsubscribe", "sub": 5}, "not_found"),
    ({"op": "unsubscribe"}, "invalid_parameter"),
    ({"op": "changes", "limit": 10_001}, "invalid_parameter"),
    ({"op": "changes", "wait": 61}, "invalid_parameter"),
    ({"op": "changes", "value": True}, "invalid_parameter"),
    ({"op": "changes", "order": "up"}, "invalid_parameter"),
    ({"op": "ping", "x": 1}, "invalid_parameter"),
]


@pytest.mark.parametrize("msgpack", [False, True])
async def test_a_bad_request_is_answered_by_its_id_and_the_others_of_its_message_are_done(
    serving: Serving, caplog: pytest.LogCaptureFixture, msgpack: bool
) -> None:
    peer = await Peer.open(serving, msgpack=msgpack)
    before = serving.mark()
    for number, (members, code) in enumerate(REFUSED):
        if msgpack and members.get("diff") == {"a": 2**64}:
            continue  # MessagePack cannot say it
        peer.send({"id": f"a{number}", "op": "ping"}, {"id": number, **members}, {"id": f"b{number}", "op": "ping"})
        answer = await peer.answer(number)
        assert answer.get("error", {}).get("code") == code, (members, answer)
        assert answer["error"]["status"] >= 400
        assert answer["error"]["detail"]
        assert [(await peer.answer(f"{side}{number}"))["rev"] for side in "ab"] == [0, 0]
        peer.send({"id": "alone", **members}, single=True)
        assert (await peer.answer("alone"))["error"]["code"] == code
    assert serving.mark() == before
    assert not caplog.records


@pytest.mark.parametrize("id", [float("nan"), float("inf"), float("-inf")])
async def test_an_id_that_json_does_not_have_is_none(serving: Serving, id: float) -> None:
    peer = await Peer.open(serving, msgpack=True)
    for members in ({"op": "ping"}, {"op": "subscribe"}, {"op": "transact", "diff": {"a": 1}}, {"op": "nonsense"}):
        peer.send({"id": id, **members}, single=True)
        assert (await peer.answer(None))["error"]["status"] == 400
    peer.send({"id": 1, "op": "ping"}, {"id": id, "op": "subscribe"}, {"id": 2, "op": "ping"})
    assert (await peer.answer(None))["error"]["code"] == "invalid_value"
    assert [(await peer.answer(each))["rev"] for each in (1, 2)] == [0, 0]


async def test_the_wrong_kind_of_frame_is_answered_and_the_connection_stays(serving: Serving) -> None:
    for msgpack, opcode in ((False, BINARY), (True, TEXT)):
        peer = await Peer.open(serving, msgpack=msgpack)
        peer.wire.send(frame(opcode, b'{"id":1,"op":"ping"}'))
        assert (await peer.answer(None))["error"]["code"] == "invalid_json"
        assert (await peer.ask("ping"))["rev"] == 0


async def test_an_announced_length_takes_no_memory(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_body=64 << 20))
    peers = [await Peer.open(unstarted) for _ in range(20)]
    tracemalloc.start()
    try:
        for peer in peers:
            peer.wire.send(b"\x81\xff" + (60 << 20).to_bytes(8) + bytes(4) + b"x" * 1000)
        await eventually(
            lambda: all(
                any(session.frames.pieces for session in [connection.carried])  # type: ignore[union-attr,attr-defined]
                for connection in unstarted.server.aiohttp.connections
            )
        )
        assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()


async def test_a_peer_that_reads_nothing_is_read_no_further(unstarted: Serving) -> None:
    await unstarted.start()
    await unstarted.put("/big", "x" * 200_000)
    peer = await Peer.open(unstarted)
    writer = peer.wire.writer
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    text = json.dumps([{"id": 1, "op": "get", "path": "/big"}] * 100).encode()

    async def flood() -> None:
        while True:
            writer.write(frame(TEXT, text))
            await writer.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 1.0)
    (connection,) = (each for each in unstarted.server.aiohttp.connections if each.carried is not None)  # type: ignore[union-attr,attr-defined]
    assert connection.transport.get_write_buffer_size() < 30 << 20  # type: ignore[union-attr]
    assert (await unstarted.ask("GET", "/v1/status")).status == 200
    writer.transport.abort()  # what it has not sent yet would have to wait for the server to give it up


async def test_a_peer_that_answers_no_ping_is_closed(unstarted: Serving) -> None:
    await unstarted.start(patience=Patience(ping=0.05, tick=0.01))
    silent, alive = await Peer.open(unstarted), await Peer.open(unstarted)

    async def answering() -> None:
        while True:
            await alive.message()

    task = asyncio.ensure_future(answering())
    seen, closed = await until_closed(silent)
    assert (closed.code, seen) == (None, [PING, PING])
    assert not task.done()
    task.cancel()
    assert len([each for each in unstarted.server.aiohttp.connections if each.carried is not None]) == 1  # type: ignore[union-attr,attr-defined]


CONNECTION, PROTOCOL, VERSION, KEY = UPGRADE

HANDSHAKES: list[tuple[str, tuple[str, ...], int, str]] = [
    ("no upgrade", (), 400, "invalid_parameter"),
    ("another protocol", (CONNECTION, "Upgrade: h2c", VERSION, KEY), 400, "invalid_parameter"),
    ("no Connection", (PROTOCOL, VERSION, KEY), 400, "invalid_parameter"),
    ("version 8", (CONNECTION, PROTOCOL, "Sec-WebSocket-Version: 8", KEY), 400, "invalid_parameter"),
    ("no version", (CONNECTION, PROTOCOL, KEY), 400, "invalid_parameter"),
    ("no key", (CONNECTION, PROTOCOL, VERSION), 400, "invalid_parameter"),
    ("short key", (CONNECTION, PROTOCOL, VERSION, "Sec-WebSocket-Key: YQ=="), 400, "invalid_parameter"),
    ("no base64", (CONNECTION, PROTOCOL, VERSION, "Sec-WebSocket-Key: " + "!" * 24), 400, "invalid_parameter"),
    ("two keys", (*UPGRADE, KEY), 400, "invalid_parameter"),
    ("foreign origin", (*UPGRADE, "Origin: https://evil.example"), 403, "origin_refused"),
    ("foreign host", (*UPGRADE, "Host: evil.example"), 421, "host_refused"),
]


@pytest.mark.parametrize("name", [case[0] for case in HANDSHAKES])
async def test_a_handshake_that_is_none_is_refused(serving: Serving, name: str) -> None:
    headers, status, code = next(case[1:] for case in HANDSHAKES if case[0] == name)
    wire = await serving.connect()
    wire.send(request("GET", "/v1/ws", None, *headers))
    got = await wire.answer()
    assert (got.status, got.code) == (status, code)
    assert got.headers.get("sec-websocket-version") == ("13" if status == 400 else None)


async def test_a_websocket_is_asked_for_with_get_and_nothing_else(serving: Serving) -> None:
    assert (await serving.ask("POST", "/v1/ws", 1, *UPGRADE)).code == "method_not_allowed"
    assert (await serving.ask("GET", "/v1/ws?x=1", None, *UPGRADE)).code == "invalid_parameter"


async def test_the_handshake_of_the_rfc_has_the_accept_of_the_rfc(serving: Serving) -> None:
    peer = await Peer.open(serving, "Sec-WebSocket-Extensions: permessage-deflate", "Origin: http://localhost")
    assert peer.handshake.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-extensions" not in peer.handshake.headers
    assert "sec-websocket-protocol" not in peer.handshake.headers
    packed = await Peer.open(serving, msgpack=True)
    assert packed.handshake.headers["sec-websocket-protocol"] == "kanta.v1.msgpack"
    wire = await serving.connect()
    wire.send(request("GET", "/v1/ws", None, *UPGRADE, "Sec-WebSocket-Protocol: other, kanta.v1.msgpack"))
    assert (await wire.answer()).headers["sec-websocket-protocol"] == "kanta.v1.msgpack"


async def test_frames_that_come_with_the_handshake_are_not_lost(serving: Serving) -> None:
    wire = await serving.connect()
    ask = frame(TEXT, b'{"id":1,"op":"ping"}')
    wire.send(request("GET", "/v1/ws", None, *UPGRADE) + ask + ask[:5])
    got = await wire.answer()
    peer = Peer(wire, False, got)
    assert (await peer.message())["id"] == 1
    wire.send(ask[5:])
    assert (await peer.message())["id"] == 1
