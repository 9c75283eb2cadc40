"""The listening server: sockets, connections, the sweep of overdue clients, shutting down."""

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Any, Final

from aiohttp import web

from kantad.values.errors import Problem
from kantad.web.answer import problem_reply, render
from kantad.web.app import App
from kantad.web.connection import Connection, Patience, Refusals
from kantad.web.fast import Fast

MOST_CONNECTIONS: Final = 10_000
SETTLING_SECONDS: Final = 3.0  # at a shutdown, for the disk, before who waits for it is left without an answer
HANDLING_SECONDS: Final = 0.5  # for requests that are still arriving; aiohttp takes it twice
TURNED_AWAY: Final = 1000  # connections beyond the most that are told so; the others are just closed
BACKLOG: Final = 4096
FOREVER: Final = 10.0**9  # aiohttp's own keep-alive timer is never to fire: the sweep closes


class _Server(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, app: App, fast: Fast | None, most: int, patience: Patience) -> None:
        line, field = app.limits.max_target + (4 << 10), app.limits.max_header + (8 << 10)
        super().__init__(
            app.handle,
            access_log=None,
            keepalive_timeout=FOREVER,
            max_line_size=line,  # beyond it aiohttp refuses, and tells by this number which of the two it was
            max_field_size=field + (field == line),
            auto_decompress=False,
            lingering_time=1.0,
        )
        self.fast, self.most, self.patience = fast, most, patience
        self.refusals, self.faults, self.limits = Refusals(), app.faults, app.limits

    def __call__(self) -> Connection:
        return Connection(
            self,
            self.fast,
            self.patience,
            self.refusals,
            self.faults,
            self.limits,
            loop=self._loop,
            **self._kwargs,
        )

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self.most:
            detail = f"there are {self.most} connections at most (--max-connections)"
            reply = problem_reply(Problem("unavailable", detail, retry_after=1))
            transport.write(render(reply.status, reply.headers, reply.body, close=True))
            self.refusals.log(transport.get_extra_info("peername"), "too many connections")
            self._turn_away(handler, transport)

    def _turn_away(self, handler: Any, transport: asyncio.Transport) -> None:
        """Close, but not at once: closing with the request unread resets the connection, and the answer with it."""
        if len(self._connections) > self.most + TURNED_AWAY or not transport.can_write_eof():
            handler.force_close()
            return
        transport.write_eof()
        handler.close()
        asyncio.get_running_loop().call_later(self.patience.tick, handler.force_close)


class Server:
    """One running server."""

    def __init__(
        self,
        app: App,
        *,
        fast_path: bool = True,
        most_connections: int = MOST_CONNECTIONS,
        patience: Patience = Patience(),  # noqa: B008
    ) -> None:
        self.app, self.patience = app, patience
        self.fast = Fast(app.engine, app.limits) if fast_path else None
        self.aiohttp = _Server(app, self.fast, most_connections, patience)
        app.connections = lambda: len(self.aiohttp.connections)
        app.fast_answers = lambda: 0 if self.fast is None else self.fast.answers
        self.listening: list[asyncio.Server] = []
        self.sweeper: asyncio.Task[None] | None = None
        self.unix: tuple[str, int, int] | None = None  # path, device, inode

    async def listen(self, sockets: list[socket.socket], tls: ssl.SSLContext | None = None) -> int:
        """Listen on sockets of `bind`; returns the port of the first. Raises OSError, and closes them then."""
        loop = asyncio.get_running_loop()
        handshake = None if tls is None else self.patience.head
        port = int(sockets[0].getsockname()[1])
        for each in sockets:
            server = await loop.create_server(
                self.aiohttp, sock=each, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=handshake
            )
            self._began(server)
        return port

    async def listen_unix(self, bound: socket.socket) -> None:
        """Listen on a socket of `bind_unix`; its path is removed at the end. Raises OSError."""
        path = bound.getsockname()
        status = os.stat(path)
        self.unix = (path, status.st_dev, status.st_ino)
        loop = asyncio.get_running_loop()
        self._began(await loop.create_unix_server(self.aiohttp, sock=bound, backlog=BACKLOG))

    def _began(self, server: asyncio.Server) -> None:
        self.listening.append(server)
        if self.sweeper is None:
            self.sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.patience.tick)
            now = loop.time()
            for connection in list(self.aiohttp.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)

    async def stop(self) -> None:
        """Accept nothing more, let what is being handled finish, close."""
        for server in self.listening:
            server.close()
        self._remove_own()
        engine = self.app.engine
        with contextlib.suppress(Problem, TimeoutError):  # the fast path's requests are no tasks to wait for
            if not engine.broken.done():
                await asyncio.wait_for(engine.settled("durable", engine.rev), SETTLING_SECONDS)
        await engine.feeds.finish(SETTLING_SECONDS)
        for connection in self.aiohttp.connections:
            if isinstance(connection, Connection) and connection.carried is not None:
                connection.carried.ending()
        await self.aiohttp.shutdown(HANDLING_SECONDS)
        if self.sweeper is not None:
            self.sweeper.cancel()

    def _remove_own(self) -> None:
        """Remove the Unix socket, if it is still ours."""
        if self.unix is not None:
            path, *identity = self.unix
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if identity == [status.st_dev, status.st_ino]:
                    os.unlink(path)
