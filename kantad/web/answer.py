"""Answers as bytes: one renderer for the plain path and the fast one, so they cannot differ.

An `Answer` is status, header block and body, made once and written in one piece. aiohttp's own
response machinery (header dicts, a writer, an access log) is not used.
"""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kantad.values.content import encode_json, encode_msgpack
from kantad.values.errors import Problem

JSON = b"Content-Type: application/json\r\n"
MSGPACK = b"Content-Type: application/msgpack\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"
COMMON = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\n"

STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}

VARY = b"Vary: Accept\r\n"

BODILESS = (204, 304)
SWITCHING = 101


class Clock:
    """The lines that end every header block, `Date` among them; made once a second."""

    def __init__(self) -> None:
        self.until = 0.0
        self.lines = b""
        self.text = ""

    def __call__(self) -> bytes:
        """The lines of the present second, the empty one that ends the headers included."""
        now = time.time()
        if not self.until - 1.0 <= now < self.until:
            self.until = int(now) + 1.0
            date = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now))
            self.lines = b"%b%b\r\n" % (COMMON, date.encode())
            self.text = self.lines.decode()
        return self.lines


last_lines = Clock()


def render(
    status: int, headers: bytes, body: bytes, *, close: bool = False, head: bool = False, endless: bool = False
) -> bytes:
    """The bytes of a response; `headers` are complete lines. With `head`, the body is left out.

    An `endless` one is only begun with this body, and has no length.
    """
    return b"%b%b%b%b%b%b" % (
        STATUS_LINES[status],
        b"" if endless or status in BODILESS else b"Content-Length: %d\r\n" % len(body),
        headers,
        b"Connection: close\r\n" if close else b"",
        last_lines(),
        b"" if head else body,
    )


class Reply:
    """What a handler returns: status, header lines, body.

    `then` is what goes on behind these bytes, if anything: a stream's events, a copy, or another protocol.
    The answer has no length then but what `headers` tell, and the connection is its until it returns.
    """

    __slots__ = ("body", "close", "headers", "status", "then")

    def __init__(
        self,
        status: int,
        headers: bytes,
        body: bytes,
        close: bool = False,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status, self.headers, self.body, self.close, self.then = status, headers, body, close, then


def json_reply(value: Any, status: int = 200, headers: bytes = b"") -> Reply:
    """A JSON body."""
    return Reply(status, JSON + headers, encode_json(value))


def encoded(value: Any, msgpack: bool) -> tuple[bytes, bytes]:
    """A value's content type line and body, as the client accepts."""
    return (MSGPACK, encode_msgpack(value)) if msgpack else (JSON, encode_json(value))


def fault_reply() -> Reply:
    """The answer where a handler failed for no reason that the client could know."""
    return Reply(500, b"Content-Type: text/plain\r\n", b"a fault of the server; it is in its log\n", True)


def problem_reply(problem: Problem, *, close: bool = False) -> Reply:
    """The RFC 9457 answer of a problem. `retry_after` and `allow` among its members become headers too."""
    headers = PROBLEM
    more = problem.more
    if "retry_after" in more:
        headers += b"Retry-After: %d\r\n" % more["retry_after"]
    if "allow" in more:
        headers += b"Allow: %b\r\n" % more["allow"].encode()
    if problem.code == "unauthorized":
        headers += b"WWW-Authenticate: Bearer\r\n"
    return Reply(problem.status, headers, encode_json(problem.body()), close)


class Answer(web.StreamResponse):
    """A response for aiohttp to hand out: prebuilt bytes, written at once; `written(keep_alive)` is told at its end."""

    def __init__(
        self, reply: Reply, *, head: bool, keep_alive: bool, written: Callable[[bool], None] | None = None
    ) -> None:
        self.written = written
        super().__init__(status=reply.status)
        self.then = reply.then
        close = (reply.close or not keep_alive) and reply.status != SWITCHING
        self.data = render(
            reply.status, reply.headers, reply.body, close=close, head=head, endless=reply.then is not None
        )
        self.alive = keep_alive and not reply.close

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after this answer."""
        return self.alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it all."""
        transport = request.transport
        if transport is not None and not transport.is_closing():
            transport.write(self.data)
        if self.written is not None and self.then is None:
            self.written(self.alive)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Let what goes on behind the answer go on until it ends."""
        if self.then is not None:
            await self.then()
            if self.written is not None and self.status != SWITCHING:
                self.written(self.alive)
