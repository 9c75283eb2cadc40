"""A reader of streams: Server-Sent Events and NDJSON off the wire, chunk by chunk."""

import asyncio
import re
from typing import Any, Self

from kantad.values.content import decode_json
from tests.serving import TIMEOUT, Got, Serving, Wire, request

_EVENT = re.compile(rb"(?:id: (?P<id>\S+)\n)?event: (?P<kind>\w+)\ndata: (?P<data>\{.*\})\Z")

SSE, NDJSON = "text/event-stream", "application/x-ndjson"


class Feed:
    """One stream; `events` are (kind, id, members)."""

    def __init__(self, wire: Wire, head: Got, kind: str) -> None:
        self.wire, self.head, self.kind = wire, head, kind
        self.rest = b""
        self.over = False

    @classmethod
    async def open(cls, serving: Serving, query: str = "", kind: str = NDJSON, *headers: str) -> Self:
        """Ask for a stream, which must be granted."""
        return await cls.on(await serving.connect(), query, kind, *headers)

    @classmethod
    async def on(cls, wire: Wire, query: str = "", kind: str = NDJSON, *headers: str) -> Self:
        """Ask for a stream on this connection."""
        wire.send(request("GET", f"/v1/changes?{query}", None, f"Accept: {kind}", *headers))
        head = await wire.answer()
        assert head.status == 200, head.raw
        assert head.headers["content-type"] == kind
        assert head.headers["transfer-encoding"] == "chunked"
        return cls(wire, head, kind)

    async def event(self) -> tuple[str, str | None, dict[str, Any]]:
        """The next event; raises EOFError at the end of the stream."""
        end = b"\n\n" if self.kind == SSE else b"\n"
        while end not in self.rest:
            if self.over:
                assert not self.rest
                raise EOFError
            await self._chunk()
        text, _, self.rest = self.rest.partition(end)
        if self.kind == NDJSON:
            members = decode_json(text)
            return members.pop("event"), None, members
        if text.startswith(b"retry:"):
            return await self.event()
        found = _EVENT.match(text)
        assert found is not None, text
        return found["kind"].decode(), found["id"].decode() if found["id"] else None, decode_json(found["data"])

    async def _chunk(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            size = int(await self.wire.reader.readuntil(b"\r\n"), 16)
            self.rest += await self.wire.reader.readexactly(size)
            assert await self.wire.reader.readexactly(2) == b"\r\n"
            self.over = size == 0

    async def until(self, rev: int) -> list[tuple[str, str | None, dict[str, Any]]]:
        """The events up to a revision, heartbeats left out."""
        found = []
        while not found or found[-1][2]["rev"] < rev:
            event = await self.event()
            if event[0] != "heartbeat":
                found.append(event)
        return found

    async def rest_of_it(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        """The events up to the end of the stream."""
        found = []
        try:
            while True:
                found.append(await self.event())
        except EOFError:
            return found
