"""What the crash tests share: a real process, a small HTTP client on raw sockets, the records of a file.

Nothing here knows more of the server than its command line, its ready line and its wire contract.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from kantad.store.formats import format_of
from kantad.values.framing import Frame
from kantad.values.record import Change, Snapshot

READY = re.compile(rb"ready on http://[^:]+:(\d+) ")
TIMEOUT = 20.0

OK, USAGE, DAMAGED, BROKEN, LOCKED = 0, 2, 65, 74, 75


SPAWNED: list[asyncio.subprocess.Process] = []  # for the teardown to end what a failing test left running
CONNECTED: list["Client"] = []


async def end_all() -> None:
    """SIGKILL to every process group that is still running; close what a failing test left open."""
    for client in CONNECTED:
        client.close()
    CONNECTED.clear()
    for process in SPAWNED:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    SPAWNED.clear()


class Ended(Exception):
    """The process ended before it was ready."""

    def __init__(self, status: int, stderr: bytes) -> None:
        super().__init__(f"exit status {status}: {stderr.decode(errors='replace')}")
        self.status, self.stderr = status, stderr


class Process:
    """One kantad process on a free port; `before` is a command that runs it, such as strace."""

    def __init__(self, path: str, *flags: str, before: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "kantad", "--db", path, "--port", "0", *flags]
        self.command = [*before, *command]
        self.port = 0
        self.lines: list[bytes] = []
        self.process: asyncio.subprocess.Process | None = None
        self.reading: asyncio.Task[None] | None = None

    @property
    def running(self) -> asyncio.subprocess.Process:
        """The process, which was started."""
        assert self.process is not None
        return self.process

    @property
    def pid(self) -> int:
        """The process id of kantad itself, also below strace."""
        if self.command[0] != "strace":
            return self.running.pid
        with open(f"/proc/{self.running.pid}/task/{self.running.pid}/children") as file:
            return int(file.read().split()[0])

    async def spawn(self) -> None:
        """Start it, without waiting for anything."""
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        SPAWNED.append(self.process)

    async def start(self) -> "Process":
        """Start it and wait until it is ready; raises `Ended`."""
        await self.spawn()
        await self.until_ready()
        return self

    async def until_ready(self) -> None:
        """Wait for the ready line; raises `Ended`."""
        assert self.running.stderr is not None
        async with asyncio.timeout(TIMEOUT):
            while line := await self.running.stderr.readline():
                self.lines.append(line)
                if match := READY.search(line):
                    self.port = int(match[1])
                    self.reading = asyncio.create_task(self._read())
                    return
            raise Ended(await self.running.wait(), self.stderr)

    async def _read(self) -> None:
        assert self.running.stderr is not None
        while line := await self.running.stderr.readline():
            self.lines.append(line)

    @property
    def stderr(self) -> bytes:
        """What it said so far."""
        return b"".join(self.lines)

    async def ended(self, seconds: float = TIMEOUT) -> int:
        """Wait for its end; the exit status."""
        async with asyncio.timeout(seconds):
            status = await self.running.wait()
            if self.reading is not None:
                await self.reading
        return status

    async def kill(self) -> None:
        """SIGKILL, to it and what runs it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    async def client(self) -> "Client":
        """A new connection to it."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        CONNECTED.append(client)
        return client

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> "Answer":
        """One request on a connection of its own."""
        client = await self.client()
        try:
            return await client.ask(method, target, body, **headers)
        finally:
            client.close()

    async def root(self) -> Any:
        """The whole state."""
        answer = await self.ask("GET", "/v1/data")
        assert answer.status == 200
        return answer.body


class Answer(NamedTuple):
    """An answer: status and decoded body."""

    status: int
    body: Any


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        """One request and its answer; raises OSError or IncompleteReadError where the connection is lost."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        async with asyncio.timeout(TIMEOUT):
            block = await self.reader.readuntil(b"\r\n\r\n")
            match = re.search(rb"(?i)content-length: (\d+)", block)
            assert match is not None, block
            content = await self.reader.readexactly(int(match[1]))
        return Answer(int(block[9:12]), json.loads(content) if content else None)

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


LOST = (OSError, asyncio.IncompleteReadError)


def records(path: str, format: str | None = None) -> Iterator[tuple[int, Change | Snapshot]]:
    """The records of a file with their revisions (a snapshot's is that before it); all of it must be whole."""
    with open(path, "rb") as file:
        data = file.read()
    framing, codec = format_of(data, format)
    place, rev = framing.header, 0
    while place < len(data):
        frame = framing.next(data, place, len(data))
        assert isinstance(frame, Frame), frame
        if frame.snapshot:
            snapshot = codec.decode(frame.payload, Snapshot)
            assert snapshot.r == rev
            yield rev, snapshot
        else:
            rev += 1
            yield rev, codec.decode(frame.payload, Change)
        place = frame.end


def changes(path: str, format: str | None = None) -> dict[int, Change]:
    """The changes of a file by revision."""
    return {rev: record for rev, record in records(path, format) if isinstance(record, Change)}


def strace(*inject: str, path: str = "", log: str = "/dev/null") -> tuple[str, ...]:
    """The command that runs another with these injections, such as `fdatasync:error=EIO:when=2`.

    They are counted in each thread; with a path, only calls on that file count.
    """
    calls = {rule.partition(":")[0] for rule in inject}
    rules = [part for rule in inject for part in ("-e", f"inject={rule}")]
    only = ("-P", path) if path else ()
    return ("strace", "-f", "-qq", "-o", log, *only, "-e", f"trace={','.join(sorted(calls))}", *rules)
