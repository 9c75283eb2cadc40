"""Scripted sockets: a server in a few lines of memory, for what a real one never does, or not at the right moment."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from kanta_client.channel import Channel, Patience, State
from kanta_client.link import Lost, Socket

QUICK = Patience(answer=5.0, ping=0.3, stale=0.6, lost=1.0, retry=0.02)

Answering = Callable[["FakeSocket", dict[str, Any]], None]


def obliging(socket: "FakeSocket", request: dict[str, Any]) -> None:
    """Answers everything: pings and writes with the next revision."""
    socket.answer(request)


def greeting(socket: "FakeSocket", request: dict[str, Any]) -> None:
    """Answers pings, and nothing else."""
    if request["op"] == "ping":
        socket.answer(request)


class FakeSocket:
    """A connection whose other end is a function; see `Socket`."""

    def __init__(self, line: "Line", answering: Answering) -> None:
        self.line, self.answering = line, answering
        self.requests: list[dict[str, Any]] = []
        self.messages: list[bytes] = []
        self.inbox: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.taking = asyncio.Event()
        self.taking.set()
        self.closed = False
        self.bytes = 0

    async def send(self, message: bytes) -> None:
        await self.taking.wait()
        if self.closed:
            raise Lost("the socket is closed")
        self.messages.append(message)
        found = msgspec.json.decode(message)
        for request in found if isinstance(found, list) else [found]:
            self.requests.append(request)
            self.line.seen.append(request)
            self.line.arrived.set()
            self.answering(self, request)

    async def receive(self) -> bytes:
        if self.closed and self.inbox.empty():
            raise Lost("the socket is closed")
        found = await self.inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    def arrived(self) -> int:
        return self.bytes

    async def close(self) -> None:
        self.closed = True
        self.inbox.put_nowait(Lost("the socket is closed"))

    # -- the other end

    def say(self, *messages: dict[str, Any]) -> None:
        """Send a message: one object, or several as a list."""
        self.inbox.put_nowait(msgspec.json.encode(messages[0] if len(messages) == 1 else messages))

    def answer(self, request: dict[str, Any], **members: Any) -> None:
        """Answer a request as a server would that has committed it."""
        if request["op"] == "transact":
            self.line.rev += 1
        rev = self.line.rev
        self.say({"id": request["id"], "rev": rev, "cursor": f"{rev}-c", **members})

    def refuse(self, request: dict[str, Any], code: str, status: int = 503, **members: Any) -> None:
        """Answer with an error."""
        self.say({"id": request["id"], "error": {"code": code, "status": status, "detail": code, **members}})

    def lose(self, code: int | None = None) -> None:
        """The connection is lost."""
        self.closed = True
        self.inbox.put_nowait(Lost("lost by the test", code))


class Line:
    """What a channel dials: the scripted ends in turn, the last one again and again. An exception is raised."""

    def __init__(self, *script: Answering | Exception) -> None:
        self.script = list(script)
        self.sockets: list[FakeSocket] = []
        self.seen: list[dict[str, Any]] = []  # all requests, over all sockets
        self.arrived = asyncio.Event()
        self.dialled = 0
        self.rev = 0
        self.states: list[State] = []

    async def dial(self) -> Socket:
        self.dialled += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.arrived.set()
        if isinstance(step, Exception):
            raise step
        self.sockets.append(FakeSocket(self, step))
        return self.sockets[-1]

    def channel(self, patience: Patience = QUICK) -> Channel:
        """A channel over it."""
        return Channel(self.dial, patience, self.states.append)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so, looking whenever anything was dialled or asked, and now and then."""
        async with asyncio.timeout(10):
            while not condition():
                self.arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.arrived.wait(), 0.02)

    def asked(self, op: str) -> list[dict[str, Any]]:
        """The requests of an operation, over all sockets."""
        return [request for request in self.seen if request["op"] == op]


def write(channel: Channel, name: str, key: str | None = None, seconds: float | None = None) -> Any:
    """A write that is told by its action; its key is its name."""
    id = next(channel.ids)
    key = name if key is None else key
    body = msgspec.json.encode({"op": "transact", "id": id, "a": name, "key": key})
    return channel.ask(id, body, key, seconds)


def read(channel: Channel, path: str = "", seconds: float | None = None) -> Any:
    """A read."""
    id = next(channel.ids)
    return channel.ask(id, msgspec.json.encode({"op": "get", "id": id, "path": path}), None, seconds)


def names(requests: list[dict[str, Any]]) -> list[str]:
    """The writes among them."""
    return [request["a"] for request in requests if request["op"] == "transact"]
