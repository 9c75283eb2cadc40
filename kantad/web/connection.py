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
import re
import socket
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from kantad.values.errors import Problem
from kantad.web.answer import Answer, fault_reply, problem_reply, render
from kantad.web.body import Limits
from kantad.web.faults import Faults

if TYPE_CHECKING:
    from kantad.web.fast import Fast

logger = logging.getLogger("kantad.http")

# What a header block must stand behind and hold, to be learned: HTTP/1.0 and absolute targets have rules of their own.
_LINE: Final = re.compile(rb"[A-Z]+ /[^ \r\n]* HTTP/1\.1\r\n").match
_HOST: Final = re.compile(rb"\r\nhost:", re.IGNORECASE).findall

HELD_MOST: Final = 64 << 10  # pipelined bytes that wait for an answer before reading is paused
FEED_UNSENT: Final = 32 << 10  # bytes of a feed that wait for the client before it is sent no more
FEED_OPTIONS: Final = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_NOTSENT_LOWAT, 64 << 10),  # else the kernel takes up to 4 MiB that a stopped client never asked for
)


class Patience(NamedTuple):
    """How many seconds a client may take."""

    head: float = 10.0  # to send a request's headers, from its first byte (or from connecting)
    idle: float = 75.0  # between two requests, and to take the next bytes of an answer
    tick: float = 1.0  # how often this is looked at
    stalled: float = 900.0  # for the reader of a feed to take anything of what it was sent
    ping: float = 20.0  # between two WebSocket pings; a client that misses two is gone


class Carried(Protocol):
    """What a connection carries instead of requests: a stream, a backup, or a WebSocket."""

    ends: bool  # by itself, and a client that sends no more still gets it all

    def resumed(self) -> None:
        """The client took what was sent."""

    def lost(self) -> None:
        """The client is gone."""

    def sweep(self, now: float) -> None:
        """Called once in a while: close what is dead."""

    def ending(self) -> None:
        """The server shuts down; its feeds have ended."""


class Upgraded(Protocol):
    """What takes the bytes of a connection that speaks another protocol now."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """What the client sent; what is returned is for aiohttp, which hands over what it had read already."""


class Connection(RequestHandler):
    """See the module. `since` is when what the client is in the middle of began, on the loop's clock."""

    __slots__ = (
        "active",
        "allowed",
        "block",
        "carried",
        "closing",
        "cut",
        "ending",
        "fast",
        "faults",
        "handed",
        "held",
        "limits",
        "missing",
        "more",
        "patience",
        "refusals",
        "since",
        "unsent",
        "upgraded",
        "waiting",
    )

    def __init__(
        self,
        manager: web.Server,
        fast: "Fast | None",
        patience: Patience,
        refusals: "Refusals",
        faults: Faults,
        limits: Limits,
        **kwargs: Any,
    ) -> None:
        super().__init__(manager, **kwargs)
        self.limits = limits
        self.fast, self.patience, self.refusals, self.faults = fast, patience, refusals, faults
        self.since = 0.0
        self.allowed = patience.head  # 0: no limit, a request is being handled
        self.handed = False  # aiohttp has a request (or part of one) that is not answered
        self.more = False  # what arrived may reach beyond the request that is being handled
        self.unsent = 0  # bytes of answers that the client had not taken at the last sweep
        self.missing: int | None = 0  # bytes of the handed request still to come; None: not known
        self.block = b""  # the header block of the one request that was handed over whole
        self.waiting = False  # a fast request waits for its acknowledgement
        self.carried: Carried | None = None
        self.upgraded: Upgraded | None = None
        self.closing = False
        self.cut = False  # what was handed over is the beginning of a header block
        self.ending = False  # the client sends no more
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
        elif self.upgraded is not None:
            self.upgraded.feed_data(data)
        elif self.missing == 0 and not self.handed and not self.closing:
            if self.fast is None or not self.fast.answer(self, data):
                self._hand_over(data)
        else:
            if self.missing is not None:
                self.missing = self.missing - len(data) if self.missing >= len(data) else None
            self.more = self.missing is None
            if self.more:
                self.cut = False
                self.block = b""  # what was handed over is no longer one whole request
                if not self.handed:
                    self._began()
            super().data_received(data)

    def _hand_over(self, data: bytes) -> None:
        """Give aiohttp what arrived at a message boundary, noting whether it is one whole request."""
        if not data:  # aiohttp asks itself to look again at what it has
            super().data_received(data)
            return
        self._began()
        self.block = b""
        self.missing = None
        end = data.find(b"\r\n\r\n")
        self.cut = end < 0
        if end >= 0:
            block = data[data.find(b"\r\n") : end + 2]
            length = body_length(block)
            if length is not None and length >= len(data) - end - 4:
                self.missing = length - (len(data) - end - 4)
                if _LINE(data) and len(_HOST(block)) == 1:
                    self.block = block
        self.more = self.missing is None
        super().data_received(data)

    def _began(self) -> None:
        """The first bytes of a request are here."""
        self.handed = True
        self.allowed, self.since = self.patience.head, self._loop.time()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's takes one
        """The client sends no more: it still gets the answer that it waits for, and is then closed."""
        whole = self.handed and not self.missing and not self.cut  # as far as can be told
        waits = self.waiting or (whole and self.upgraded is None and (self.carried is None or self.carried.ends))
        if not waits or self.transport is None or self.transport.get_extra_info("sslcontext") is not None:
            return False
        self.ending = True
        return True

    def hold(self, data: bytes) -> None:
        """Keep what was sent behind a request that is not answered yet."""
        self.held += data
        if len(self.held) > HELD_MOST and self.transport is not None:
            self.transport.pause_reading()

    # -- what handlers say

    def admitted(self) -> None:
        """A request's headers are read and it may be routed; its body has limits of its own."""
        self.allowed, self.handed = 0.0, True
        if self.fast is not None and self.block:
            self.fast.learn(self.block)

    def answered(self, keep_alive: bool) -> None:
        """An answer was written; a request may follow, or be there in part already."""
        self.handed = False
        self.allowed = self.patience.head if self.more else self.patience.idle
        self.since = self._loop.time()
        self.block = b""
        self.closing = self.closing or not keep_alive

    def write(self, data: bytes) -> None:
        """Send bytes, if somebody is still there."""
        if self.transport is not None:
            self.transport.write(data)  # which does nothing on one that is closing

    def settled(self, data: bytes) -> None:
        """Answer the fast request that waited, and go on with what was sent behind it."""
        self.waiting = False
        self.active = True
        if self.transport is not None:
            self.transport.write(data)
        if self.held:
            held, self.held = self.held, b""
            if self.transport is not None:
                if not self.writing_paused:
                    self.transport.resume_reading()
                self.data_received(held)

    def refused(self, problem: Problem, data: bytes) -> None:
        """Answer the fast request that waited with a problem."""
        reply = problem_reply(problem)
        self.settled(render(reply.status, reply.headers, reply.body))

    def failed(self) -> None:
        """Answer a fast request whose handling raised what it must not."""
        self.faults.log("handling a plain request")
        reply = fault_reply()
        self.write(render(reply.status, reply.headers, reply.body, close=True))
        self.closing = True
        self.close()
        self.force_close()

    # -- a feed instead of answers

    def carry(self, carried: Carried | None) -> bool:
        """Carry this until it ends (None: it has ended); False if the client is gone."""
        if self.transport is None:
            return False
        self.carried = carried
        if carried is None:
            self.transport.set_write_buffer_limits()
            return True
        self.transport.set_write_buffer_limits(FEED_UNSENT)
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            for option, value in FEED_OPTIONS:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return True

    def upgrade(self, upgraded: Upgraded) -> None:
        """Speak another protocol from here on."""
        self.set_parser(upgraded)  # type: ignore[arg-type]  # aiohttp calls no more than `feed_data` and `feed_eof`
        self.upgraded = upgraded

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        carried, self.carried = self.carried, None
        if carried is not None:
            carried.lost()
        super().connection_lost(exc)

    # -- a client that does not read

    def pause_writing(self) -> None:
        """The client does not take its answers: take no further requests."""
        super().pause_writing()
        if self.transport is not None and self.carried is None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It took them."""
        super().resume_writing()
        if self.carried is not None:
            self.carried.resumed()
        elif self.transport is not None and len(self.held) <= HELD_MOST:
            self.transport.resume_reading()

    def hang_up(self) -> None:
        """Close when the client has taken what was sent, or does not take it for long."""
        transport = self.transport
        self.force_close()
        if transport is not None and transport.get_write_buffer_size():  # nobody looks at it any more
            self._loop.call_later(self.patience.idle, transport.abort)

    async def drained(self) -> None:
        """Return when the client took enough of its earlier answers; raises ConnectionError if it is gone."""
        await self._drain_helper()

    # -- what is overdue or malformed

    def sweep(self, now: float) -> None:
        """Close the connection if its client is overdue."""
        transport = self.transport
        if transport is None:
            return
        if self.ending and not self.handed and not self.waiting:
            transport.close()
            return
        if self.carried is not None:
            self.carried.sweep(now)
            return
        unsent = transport.get_write_buffer_size()
        if self.active or unsent < self.unsent:
            self.active, self.since = False, now
            self.allowed = self.allowed and self.patience.idle
        self.unsent = unsent
        if unsent:
            if now - self.since > self.patience.idle:
                self.force_close()
                transport.abort()  # closing would wait for the client to take the rest
        elif self.allowed and not self.waiting and now - self.since > self.allowed:
            if self.handed:
                seconds = self.patience.head
                reply = problem_reply(Problem("too_slow", f"a header arrives within {seconds:g} s (--header-timeout)"))
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
            limits = self.limits
            problem = limits.target_too_long() if self.max_line_size in exc.args else limits.header_too_large()
        elif "Too many headers" in str(exc):
            problem = Problem("headers_too_large", f"a request has at most {self.max_headers} header lines")
        elif "url path" in str(exc):
            problem = Problem("invalid_path", "a request target is printable ASCII, the rest percent-encoded")
        elif "Invalid method" in str(exc):
            allow = "GET, HEAD, PUT, PATCH, DELETE, POST"
            problem = Problem("method_not_allowed", "there is no such method", allow=allow)
        else:
            problem = Problem("invalid_parameter", "the request is not well-formed HTTP/1.1")
        self.refusals.log(self.peername, message or str(exc))
        return Answer(problem_reply(problem, close=True), head=False, keep_alive=False)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line for what aiohttp would log with a traceback."""
        self.refusals.log(self.peername, str(kw.get("exc_info", "")))

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Nothing."""


class Refusals:
    """The log of refused connections: one line of at most 512 bytes each, at most ten a second."""

    MOST: Final = 10

    def __init__(self) -> None:
        self.second = self.count = 0

    def log(self, peer: object, why: str) -> None:
        """Log one, control characters escaped; how many were left out is told later."""
        second = int(time.monotonic())
        if second != self.second:
            if self.count > self.MOST:
                logger.warning("%d more were refused", self.count - self.MOST)
            self.second, self.count = second, 0
        self.count += 1
        if self.count <= self.MOST:
            logger.warning("refused %s: %s", peer, ascii(why)[:300])


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
