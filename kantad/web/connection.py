"""One client connection: aiohttp's protocol, with a way round it for plain data requests.

`data_received` looks at what arrives between two requests. What `Fast` can answer it answers at
once, without aiohttp; everything else goes to aiohttp unchanged. The way is taken only at a
message boundary: while aiohttp has a request (or part of one), all bytes are its own, and it is
back at a boundary only when exactly one whole request was handed to it and its answer is written.

Also here: how long a client may take. aiohttp would keep an idle connection for an hour and a
half-sent header for ever; a sweep once a second closes what is overdue. And how malformed
requests are answered: with a problem body and one short log line.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from kantad.values.errors import Problem
from kantad.web.answer import Answer, problem_reply, render

if TYPE_CHECKING:
    from kantad.web.fast import Fast

logger = logging.getLogger("kantad.http")

HEAD_SECONDS: Final = 10.0  # to send a request's headers, from its first byte (or from connecting)
IDLE_SECONDS: Final = 75.0  # between two requests
HELD_MOST: Final = 64 << 10  # pipelined bytes that wait for an answer before reading is paused


class Connection(RequestHandler):
    """See the module. `since` is when what the client is in the middle of began, on the loop's clock."""

    __slots__ = ("active", "allowed", "block", "closing", "fast", "held", "missing", "since", "waiting")

    def __init__(self, manager: web.Server, fast: "Fast | None", **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self.fast = fast
        self.since = 0.0
        self.allowed = HEAD_SECONDS  # 0: no limit, a request is being handled
        self.missing: int | None = 0  # bytes of the handed request still to come; None: not known
        self.block = b""  # the header block of the one request that was handed over whole
        self.waiting = False  # a fast request waits for its acknowledgement
        self.closing = False
        self.active = False  # a fast request was answered since the last sweep
        self.held = b""

    # -- what arrives

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time that the first header may take."""
        super().connection_made(transport)
        self.since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Answer a plain request, or hand the bytes to aiohttp."""
        if self.waiting:
            self.hold(data)
        elif self.missing == 0 and self.allowed:
            if self.fast is None or not self.fast.answer(self, data):
                self._hand_over(data)
        else:
            if self.missing is not None:
                self.missing = self.missing - len(data) if self.missing >= len(data) else None
            super().data_received(data)

    def _hand_over(self, data: bytes) -> None:
        """Give aiohttp what arrived at a message boundary, noting whether it is one whole request."""
        self.allowed, self.since = HEAD_SECONDS, self._loop.time()
        self.block = b""
        self.missing = None
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            block = data[data.find(b"\r\n") : end + 2]
            length = body_length(block)
            if length is not None and length >= len(data) - end - 4:
                self.missing = length - (len(data) - end - 4)
                self.block = block
        super().data_received(data)

    def hold(self, data: bytes) -> None:
        """Keep what was sent behind a request that is not answered yet."""
        self.held += data
        if len(self.held) > HELD_MOST and self.transport is not None:
            self.transport.pause_reading()

    # -- what handlers say

    def admitted(self) -> None:
        """A request's headers are read and it may be routed; its body has limits of its own."""
        self.allowed = 0.0
        if self.fast is not None and self.block:
            self.fast.learn(self.block)

    def answered(self, keep_alive: bool) -> None:
        """An answer was written; a request may follow."""
        self.allowed, self.since = IDLE_SECONDS, self._loop.time()
        self.block = b""
        self.closing = self.closing or not keep_alive

    def write(self, data: bytes) -> None:
        """Send bytes, if somebody is still there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def settled(self, data: bytes) -> None:
        """Answer the fast request that waited, and go on with what was sent behind it."""
        self.waiting = False
        self.active = True
        self.write(data)
        if self.held:
            held, self.held = self.held, b""
            if self.transport is not None:
                self.transport.resume_reading()
                self.data_received(held)

    def refused(self, problem: Problem) -> None:
        """Answer the fast request that waited with a problem."""
        reply = problem_reply(problem)
        self.settled(render(reply.status, reply.headers, reply.body))

    # -- what is overdue or malformed

    def sweep(self, now: float) -> None:
        """Close the connection if its client is overdue."""
        if self.active:
            self.active, self.since, self.allowed = False, now, IDLE_SECONDS
        if self.allowed and not self.waiting and now - self.since > self.allowed and self.transport is not None:
            if self.allowed == HEAD_SECONDS and self.missing != 0:
                reply = problem_reply(Problem("too_slow", f"a header arrives within {HEAD_SECONDS:.0f} s"))
                self.write(render(reply.status, reply.headers, reply.body, close=True))
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what aiohttp's parser refused; one short log line, no traceback."""
        if isinstance(exc, LineTooLong):
            target = "request line" in str(exc).lower() or "status line" in str(exc).lower()
            code = "uri_too_long" if target else "headers_too_large"
            problem = Problem(code, "the request line or a header is too long")
        elif "Invalid method" in str(exc):
            allow = "GET, HEAD, PUT, PATCH, DELETE, POST"
            problem = Problem("method_not_allowed", "there is no such method", allow=allow)
        else:
            problem = Problem("invalid_parameter", "the request is not well-formed HTTP/1.1")
        log_refusal(self.peername, message or str(exc))
        return Answer(problem_reply(problem, close=True), head=False, keep_alive=False)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line for what aiohttp would log with a traceback."""
        log_refusal(self.peername, str(kw.get("exc_info", "")))

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Nothing."""


class _Rate:
    """At most ten lines a second, and how many were left out."""

    def __init__(self) -> None:
        self.second = 0
        self.count = 0


_rate = _Rate()


def log_refusal(peer: object, why: str) -> None:
    """Log a refused connection in one line of at most 512 bytes, control characters escaped; rate-limited."""
    second = int(time.monotonic())
    if second != _rate.second:
        if _rate.count > 10:
            logger.warning("%d more malformed requests", _rate.count - 10)
        _rate.second, _rate.count = second, 0
    _rate.count += 1
    if _rate.count <= 10:
        logger.warning("malformed request from %s: %s", peer, ascii(why)[:300])


def body_length(block: bytes) -> int | None:
    """The length of the body that a header block announces, or None where only a parser can tell."""
    lowered = block.lower()
    if b"transfer-encoding" in lowered or b"upgrade" in lowered or lowered.count(b"content-length") > 1:
        return None
    start = lowered.find(b"\r\ncontent-length:")
    if start < 0:
        return 0 if b"content-length" not in lowered else None
    digits = lowered[start + 17 : lowered.find(b"\r\n", start + 2)].strip()
    return int(digits) if digits.isdigit() and len(digits) < 12 else None
