"""The listening server: sockets, connections, the sweep of overdue clients, shutting down."""

import asyncio
import os
import ssl
from typing import Any, Final

from aiohttp import web

from kantad.values.errors import Problem
from kantad.web.answer import problem_reply, render
from kantad.web.app import App
from kantad.web.connection import Connection, log_refusal
from kantad.web.fast import Fast

MOST_CONNECTIONS: Final = 10_000
SHUTDOWN_SECONDS: Final = 3.0
BACKLOG: Final = 4096
FOREVER: Final = 10.0**9  # aiohttp's own keep-alive timer is never to fire: the sweep closes


class _Server(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, app: App, fast: Fast | None, most: int) -> None:
        super().__init__(
            app.handle,
            access_log=None,
            keepalive_timeout=FOREVER,
            max_line_size=12 << 10,
            max_field_size=24 << 10,
            auto_decompress=False,
            lingering_time=1.0,
        )
        self.fast, self.most = fast, most

    def __call__(self) -> Connection:
        return Connection(self, self.fast, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self.most:
            reply = problem_reply(Problem("unavailable", "too many connections", retry_after=1))
            transport.write(render(reply.status, reply.headers, reply.body, close=True))
            log_refusal(transport.get_extra_info("peername"), "too many connections")
            handler.force_close()


class Server:
    """One running server."""

    def __init__(self, app: App, *, fast_path: bool = True, most_connections: int = MOST_CONNECTIONS) -> None:
        self.app = app
        self.aiohttp = _Server(app, Fast(app.engine, app.limits) if fast_path else None, most_connections)
        app.connections = lambda: len(self.aiohttp.connections)
        self.listening: list[asyncio.Server] = []
        self.sweeper: asyncio.Task[None] | None = None
        self.unix: str | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on an address; returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.aiohttp, host, port, ssl=tls, backlog=BACKLOG)
        self._began(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket that only its owner may use; one that nobody listens on is replaced."""
        loop = asyncio.get_running_loop()
        mask = os.umask(0o177)
        try:
            server = await loop.create_unix_server(self.aiohttp, path, backlog=BACKLOG)
        finally:
            os.umask(mask)
        self.unix = path
        self._began(server)

    def _began(self, server: asyncio.Server) -> None:
        self.listening.append(server)
        if self.sweeper is None:
            self.sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self.aiohttp.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)

    async def stop(self) -> None:
        """Accept nothing more, let what is being handled finish, close."""
        for server in self.listening:
            server.close()
        if self.sweeper is not None:
            self.sweeper.cancel()
        await self.aiohttp.shutdown(SHUTDOWN_SECONDS)
