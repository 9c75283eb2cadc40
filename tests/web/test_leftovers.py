"""What is answered leaves nothing for the cyclic collector, whose runs over young objects are pauses."""

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import Serving, Wire, request

COUNT = 200
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def message(wire: Wire, requests: list[dict[str, Any]]) -> list[Any]:
    """Send one frame, masked with zeros, and read frames until all its requests are answered."""
    text = json.dumps(requests).encode()
    wire.send(b"\x81\xfe%b\0\0\0\0%b" % (len(text).to_bytes(2), text))
    answers: list[Any] = []
    while len(answers) < len(requests):
        head = await wire.reader.readexactly(2)
        size = head[1] if head[1] < 126 else int.from_bytes(await wire.reader.readexactly(2))
        got = json.loads(await wire.reader.readexactly(size))
        answers += got if isinstance(got, list) else [got]
    return answers


async def test_an_answered_message_of_a_websocket_is_freed_at_once(serving: Serving, no_collector: None) -> None:
    wire = await serving.connect()
    wire.send(request("GET", "/v1/ws", None, *UPGRADE))
    assert (await wire.answer()).status == 101
    for number in range(COUNT + 1):
        writes = [{"id": n, "op": "transact", "diff": {f"k{n}": number}} for n in range(8)]
        answers = await message(wire, [*writes, {"id": 8, "op": "get", "path": "/k1"}, {"id": 9, "op": "ping"}])
        assert {answer["id"] for answer in answers} == set(range(10))
        if not number:
            gc.collect()  # the handshake
    assert gc.collect() < COUNT
    await wire.close()


async def test_an_answered_request_is_freed_at_once(serving: Serving, no_collector: None) -> None:
    wire = await serving.connect()
    for number in range(COUNT + 1):
        wire.send(request("PATCH", "/v1/data", b'{"a":%d}' % number, "Content-Type: application/json"))
        assert (await wire.answer()).status == 200
        if not number:
            gc.collect()
    assert gc.collect() < COUNT
    await wire.close()
