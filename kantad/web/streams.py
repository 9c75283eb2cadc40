"""`GET /v1/changes` as a stream: Server-Sent Events (WHATWG HTML section 9.2) and NDJSON.

The head is written as any answer's; then the connection is a feed's sink until the feed or the
client ends it. The chunks of HTTP/1.1 are part of the encoded bytes, so readers of one feed share
those, too.
"""

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.http import HttpVersion11

from kantad.engine.engine import Engine
from kantad.engine.reader import Reader
from kantad.values.content import decode_json, encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.web.answer import JSON, MSGPACK, VARY, Reply
from kantad.web.body import accepts_msgpack
from kantad.web.changes import Asked, Start, asked_of, list_changes, only, start_of
from kantad.web.connection import Connection

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"

RETRY: Final = b"retry: 1000\n\n"  # milliseconds until a browser connects again


def sse_event(kind: bytes, cursor: bytes, members: bytes) -> bytes:
    """One event; JSON text has no line breaks."""
    mark = b"id: %b\n" % cursor if cursor else b""
    return b"%bevent: %b\ndata: {%b\n\n" % (mark, kind, members)


def ndjson_event(kind: bytes, _: bytes, members: bytes) -> bytes:
    """One line."""
    return b'{"event":"%b",%b\n' % (kind, members)


class Text:
    """How a stream's events look, in chunks (RFC 9112 section 7.1) or, to HTTP/1.0, without."""

    def __init__(self, event: Callable[[bytes, bytes, bytes], bytes], chunked: bool) -> None:
        self.one, self.chunked = event, chunked
        self.kind: Hashable = (event, chunked)

    @property
    def key(self) -> Hashable:
        """See `Encoding`."""
        return self.kind

    def changes(self, tails: list[bytes]) -> bytes:
        """See `Encoding`."""
        one = self.one
        return self.framed(b"".join([one(b"change", tail.split(b'"', 6)[5], tail) for tail in tails]))

    def event(self, kind: str, cursor: bytes, members: bytes) -> bytes:
        """See `Encoding`."""
        return self.framed(self.one(kind.encode(), cursor, members))

    def framed(self, data: bytes) -> bytes:
        """As it goes over the wire."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data


class Stream:
    """A connection that carries a feed. `over` is done when it does no more."""

    ends = False

    def __init__(self, engine: Engine, connection: Connection, text: Text) -> None:
        self.engine, self.connection, self.text = engine, connection, text
        self.reader: Reader | None = None
        self.unsent, self.since = 0, 0.0  # bytes that waited at the last sweep, and since when
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def free(self) -> bool:
        """See `Sink`."""
        return not self.connection.writing_paused

    def send(self, data: bytes) -> None:
        """See `Sink`."""
        self.connection.write(data)

    def ended(self, problem: Problem | None) -> None:
        """See `Sink`."""
        if problem is not None:
            self.send(self.text.event("error", b"", encode_json(problem.body())[1:]))
        if self.text.chunked:
            self.send(b"0\r\n\r\n")
        self._finish()

    def resumed(self) -> None:
        """The client took what was sent."""
        if self.reader is not None:
            self.engine.feeds.wake(self.reader)

    def lost(self) -> None:
        """The client is gone."""
        if self.reader is not None:
            self.engine.feeds.remove(self.reader)
        self._finish()

    def sweep(self, now: float) -> None:
        """Give a client up that has taken nothing for long."""
        transport = self.connection.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if not unsent or unsent != self.unsent:
            self.unsent, self.since = unsent, now
        elif now - self.since > self.connection.patience.stalled:
            transport.abort()

    def ending(self) -> None:
        """See `Carried`: the end of the feed was the end of it."""

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def get_changes(engine: Engine, request: web.BaseRequest, query: str) -> Reply:
    """`GET /v1/changes`: a stream or a listing, as the client accepts."""
    asked = asked_of(query)
    accepted = request.headers.get("Accept", "")
    kinds = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
    for kind in kinds if request.method == "GET" else ():
        if kind in (SSE, NDJSON):
            return await stream_changes(engine, request, asked, kind)
    listing = await list_changes(engine, asked)
    body = b"{" + listing.members()
    if accepts_msgpack(request):
        return Reply(200, MSGPACK + VARY, encode_msgpack(decode_json(body)))
    return Reply(200, JSON + VARY, body)


async def stream_changes(engine: Engine, request: web.BaseRequest, asked: Asked, kind: str) -> Reply:
    """Begin a feed; raises `Problem` before anything is sent."""
    only(asked, "a stream", order="asc", wait=0.0)
    connection = request.protocol
    assert isinstance(connection, Connection)
    chunked = request.version >= HttpVersion11
    text = Text(sse_event if kind == SSE else ndjson_event, chunked)
    resumed = request.headers.get("Last-Event-ID")
    if resumed:
        asked.since = resumed
    stream = Stream(engine, connection, text)
    start = await start_of(engine, asked, "Last-Event-ID" if resumed else "since")
    if resumed and kind == SSE and start.until is not None and start.position(engine) >= start.until:
        return Reply(204, b"", b"")  # a browser's EventSource connects again after an end, unless it is told so
    headers = b"Content-Type: %b\r\nX-Accel-Buffering: no\r\n" % kind.encode()
    return Reply(
        200,
        headers + (b"Transfer-Encoding: chunked\r\n" if chunked else b""),
        text.framed(RETRY) if kind == SSE else b"",
        close=not chunked,
        then=partial(_carry, stream, asked, start),
    )


async def _carry(stream: Stream, asked: Asked, start: Start) -> None:
    """Let the connection be the feed's until one of the two ends."""
    connection, engine = stream.connection, stream.engine
    if not connection.carry(stream):
        return
    reader = stream.reader = Reader(
        start.filter,
        stream.text,
        stream,
        start.position(engine),
        until=start.until,
        left=asked.limit,
        whole=asked.value,
    )
    reader.mark = (start.cursor or "").encode()
    if start.whole:
        engine.feeds.snapshot(reader, "reset" if start.reset else "snapshot")
    elif start.rev is None:
        engine.feeds.heartbeat(reader, engine.written.cursor.encode())
    engine.feeds.add(reader)
    try:
        await stream.over
    finally:
        engine.feeds.remove(reader)
        connection.carry(None)
