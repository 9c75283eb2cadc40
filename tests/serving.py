"""A server for tests, and a client so plain that it hides nothing.

`Serving` is the real server over the real engine, in this process, on 127.0.0.1 and a free port;
stopping it reopens the file and compares. `Wire` is one connection: bytes out, answers in.
"""

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import Any, Self

from kantad.engine.engine import Engine
from kantad.engine.opening import open_engine
from kantad.values.content import decode_json, encode_json
from kantad.web.access import Access
from kantad.web.app import App
from kantad.web.binding import bind
from kantad.web.body import Limits
from kantad.web.connection import Patience
from kantad.web.server import Server
from tests.engine.engine_kit import Clock, LeverDisk

TIMEOUT = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return decode_json(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["code"])

    @property
    def etag(self) -> str:
        """The ETag header, quotes and all."""
        return self.headers["etag"]


class Wire:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=64 << 20))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> Got:
        """The next answer; raises EOFError where the server closed instead."""
        async with asyncio.timeout(TIMEOUT):
            try:
                block = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise EOFError(error.partial) from None
            found = _LENGTH.search(block)
            body = await self.reader.readexactly(int(found[1])) if found and not head else b""
        lines = block.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return Got(int(lines[0].split()[1]), headers, body, block + body)

    async def closed(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(TIMEOUT):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        """Close."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):  # the server was first
            await self.writer.wait_closed()


def request(method: str, target: str, body: bytes | None = None, *headers: str) -> bytes:
    """The bytes of a request."""
    given = {line.partition(":")[0].lower() for line in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in given:
        lines.append("Host: localhost")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + (body or b"")


class Serving:
    """A server on one file, started and started again."""

    def __init__(self, path: str, *, fast_path: bool = True) -> None:
        self.path, self.fast_path = path, fast_path
        self.disk, self.clock = LeverDisk(), Clock()
        self.engine: Engine
        self.server: Server
        self.port = 0
        self.running = False
        self.wire: Wire | None = None
        self.wires: list[Wire] = []

    async def start(
        self,
        *,
        limits: Limits = Limits(),  # noqa: B008
        access: Access | None = None,
        patience: Patience = Patience(),  # noqa: B008
        most_connections: int = 10_000,
        **engine: Any,
    ) -> None:
        """Open the file and listen."""
        options = {"disk": self.disk, "clock": self.clock, "max_depth": limits.max_depth, **engine}
        self.engine = open_engine(self.path, **options)
        self.server = Server(
            App(self.engine, access or Access(), limits),
            fast_path=self.fast_path,
            most_connections=most_connections,
            patience=patience,
        )
        self.port = await self.server.listen(bind("127.0.0.1", 0))
        self.running = True

    async def stop(self) -> None:
        """Stop, reopen the file and compare."""
        if not self.running:
            return
        self.running = False
        self.wire = None
        for wire in self.wires:
            await wire.close()
        self.wires.clear()
        self.disk.release()
        self.disk.room = None
        engine = self.engine
        await self.server.stop()
        await asyncio.wait_for(engine.stop(), TIMEOUT)
        if engine.broken.done():
            return
        again = open_engine(self.path, clock=self.clock, max_depth=engine.max_depth)
        try:
            assert (again.rev, again.chain) == (engine.rev, engine.chain)
            assert encode_json(again.root) == encode_json(engine.root)
        finally:
            await again.stop()

    async def restart(self, **options: Any) -> None:
        """Stop and start."""
        await self.stop()
        await self.start(**options)

    async def connect(self) -> Wire:
        """A connection of the test's own."""
        self.wires.append(await Wire.to(self.port))
        return self.wires[-1]

    async def ask(self, method: str, target: str, value: Any = None, *headers: str, body: bytes | None = None) -> Got:
        """Ask and get the answer, on a connection that is kept while the server keeps it."""
        if body is None and method in ("PUT", "PATCH", "POST"):
            body = encode_json(value)
        data = request(method, target, body, *headers)
        for wire in (self.wire, None):
            if wire is None:
                wire = self.wire = await self.connect()
            wire.send(data)
            try:
                got = await wire.answer(head=method == "HEAD")
            except (EOFError, ConnectionError):
                await wire.close()
                self.wire = None
                continue
            if got.headers.get("connection") == "close":
                await wire.close()
                self.wire = None
            return got
        raise AssertionError("the server closed the connection without an answer")

    async def put(self, pointer: str, value: Any) -> Got:
        """Put a value, which must be accepted."""
        got = await self.ask("PUT", f"/v1/data{pointer}", value)
        assert got.status == 200, got
        return got

    async def value(self, pointer: str = "") -> Any:
        """The value at a path."""
        got = await self.ask("GET", f"/v1/data{pointer}")
        assert got.status == 200, got
        return got.json

    async def transact(self, **members: Any) -> Got:
        """Post a transaction; `when` is its `if`, `want` its `return`."""
        names = {"when": "if", "want": "return"}
        return await self.ask("POST", "/v1/transaction", {names.get(k, k): v for k, v in members.items()})

    def mark(self) -> tuple[int, str, bytes, bytes]:
        """What a refused request leaves as it was: revision, cursor, state, and the file's bytes."""
        with open(self.path, "rb") as file:
            held = file.read()
        return self.engine.rev, self.engine.visible.cursor, encode_json(self.engine.root), held

    def records(self) -> list[dict[str, Any]]:
        """The changes in the file."""
        with open(self.path, "rb") as file:
            return [decode_json(line) for line in file.read().splitlines() if line.startswith(b'{"ts"')]

    @property
    def fast_answers(self) -> int:
        """How many requests the fast path answered."""
        return self.server.app.fast_answers()


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))
