"""A WebSocket client that hides nothing: frames as bytes, requests and messages as JSON or MessagePack.

Every frame is masked with zeros unless a test says otherwise, so payloads go out as they are.
"""

import asyncio
from collections import deque
from typing import Any, Self

import msgspec

from kantad.values.content import decode_json, encode_json
from tests.serving import TIMEOUT, Got, Serving, Wire, request

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class Closed(Exception):
    """The server closed: with this code and reason, or (None) without a close frame."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def frame(opcode: int, payload: bytes = b"", *, last: bool = True, bits: int = 0, mask: bytes = bytes(4)) -> bytes:
    """A client's frame."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"~%b" % size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if any(mask) else payload
    return bytes([last << 7 | bits << 4 | opcode, 0x80 | length[0]]) + length[1:] + mask + masked


class Peer:
    """One WebSocket. `events` are those that came while an answer was waited for."""

    def __init__(self, wire: Wire, msgpack: bool, answer: Got) -> None:
        self.wire, self.msgpack, self.handshake = wire, msgpack, answer
        self.events: deque[dict[str, Any]] = deque()
        self.answers: dict[Any, dict[str, Any]] = {}
        self.number = 0

    @classmethod
    async def to(cls, port: int, *headers: str, msgpack: bool = False) -> Self:
        """Connect to a server and shake hands."""
        return await cls.on(await Wire.to(port), *headers, msgpack=msgpack)

    @classmethod
    async def on(cls, wire: Wire, *headers: str, msgpack: bool = False) -> Self:
        """Shake hands on a new connection."""
        wanted = ("Sec-WebSocket-Protocol: kanta.v1.msgpack",) if msgpack else ()
        wire.send(request("GET", "/v1/ws", None, *UPGRADE, *wanted, *headers))
        answer = await wire.answer()
        assert answer.status == 101, answer.raw
        return cls(wire, msgpack, answer)

    @classmethod
    async def open(cls, serving: Serving, *headers: str, msgpack: bool = False) -> Self:
        """Connect to this server, which closes the connection when it stops."""
        peer = await cls.to(serving.port, *headers, msgpack=msgpack)
        serving.wires.append(peer.wire)
        return peer

    # -- frames

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload. Raises `Closed` for a close frame and at the end."""
        async with asyncio.timeout(TIMEOUT):
            try:
                head = await self.wire.reader.readexactly(2)
                size = head[1] & 0x7F
                if size > 125:
                    size = int.from_bytes(await self.wire.reader.readexactly(2 if size == 126 else 8))
                payload = await self.wire.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Closed(None) from None
        assert head[1] < 0x80, "a server masks nothing"
        assert head[0] & 0xF0 == 0x80, "the server sends whole messages without extensions"
        if head[0] & 0x0F == CLOSE:
            raise Closed(int.from_bytes(payload[:2]) if payload else None, payload[2:].decode())
        return head[0] & 0x0F, payload

    async def message(self) -> Any:
        """The next message, decoded: an object, or an array of them. Pings are answered."""
        while True:
            opcode, payload = await self.frame()
            if opcode == PING:
                self.wire.send(frame(PONG, payload))
            elif opcode != PONG:
                assert opcode == (BINARY if self.msgpack else TEXT)
                return msgspec.msgpack.decode(payload) if self.msgpack else decode_json(payload)

    # -- requests

    def send(self, *requests: dict[str, Any], single: bool = False) -> None:
        """Send requests in one message, as an array unless it is a `single` one."""
        content: Any = requests[0] if single else list(requests)
        self.send_text(msgspec.msgpack.encode(content) if self.msgpack else encode_json(content))

    def send_text(self, payload: bytes) -> None:
        """Send a message of this content."""
        self.wire.send(frame(BINARY if self.msgpack else TEXT, payload))

    async def ask(self, op: str, **members: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        self.number += 1
        self.send({"id": self.number, "op": op, **members}, single=True)
        return await self.answer(self.number)

    async def answer(self, id: Any) -> dict[str, Any]:
        """The answer to a request; events and other answers that come before it are kept."""
        while id not in self.answers:
            self._sort(await self.message())
        return self.answers.pop(id)

    async def event(self) -> dict[str, Any]:
        """The next event of any subscription, heartbeats left out."""
        while True:
            event = await self.any_event()
            if event["event"] != "heartbeat":
                return event

    async def any_event(self) -> dict[str, Any]:
        """The next event of any subscription."""
        while not self.events:
            self._sort(await self.message())
        return self.events.popleft()

    async def events_until(self, rev: int) -> list[dict[str, Any]]:
        """The events up to the one of a revision."""
        found = [await self.event()]
        while found[-1].get("rev", 0) < rev:
            found.append(await self.event())
        return found

    def _sort(self, message: Any) -> None:
        for each in message if isinstance(message, list) else [message]:
            if "event" not in each:
                self.answers[each.get("id")] = each
            else:
                self.events.append(each)

    async def ended(self) -> Closed:
        """How the server closes."""
        try:
            while True:
                self._sort(await self.message())
        except Closed as closed:
            return closed

    async def close(self) -> None:
        """Drop the connection."""
        await self.wire.close()
