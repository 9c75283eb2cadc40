"""Readers that stop reading while much is written: bounded memory, unhurried writers, and nothing lost for them.

The readers are so plain that they can be many: they undo the chunks and hash what comes. One of
them decodes every line; the others must have the same bytes.
"""

import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import cast

import pytest
import uvloop
from blake3 import blake3

from tests.crash.process_kit import Process
from tests.engine.engine_kit import eventually
from tests.serving import request
from tests.web.ws_kit import Peer

STREAM = request("GET", "/v1/changes?since=0", None, "Accept: application/x-ndjson")
AT_ONCE = 16  # writes in a message
KEPT = 1 << 16  # bytes of the kernel's buffer of a reader


class Stopped(asyncio.Protocol):
    """A reader that asks for everything, and takes nothing once it is paused."""

    def __init__(self, revisions: int, *, decodes: bool = False) -> None:
        self.revisions, self.decodes = revisions, decodes
        self.digest, self.rest, self.head = blake3(), b"", False
        self.over = asyncio.get_running_loop().create_future()
        self.lines = 0
        self.last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(STREAM)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        place = 0
        if not self.head:
            place = data.find(b"\r\n\r\n") + 4
            assert data.startswith(b"HTTP/1.1 200")
            self.head = True
        while (end := data.find(b"\r\n", place, place + 12)) >= 0:
            size = int(data[place:end], 16)
            if len(data) < end + 4 + size:
                break
            self._chunk(data[end + 2 : end + 2 + size])
            place = end + 4 + size
        self.rest = data[place:]

    def _chunk(self, chunk: bytes) -> None:
        if chunk.startswith(b'{"event":"heartbeat"'):
            return
        self.digest.update(chunk)
        if self.decodes:
            for line in chunk.splitlines():
                self.lines += 1
                event = json.loads(line)
                assert (event["event"], event["rev"]) == ("change", self.lines)
        self.last = chunk[chunk.rfind(b"\n", 0, -1) + 1 :][:60]
        if b'"rev":%d,' % self.revisions in self.last:
            self.over.set_result(self.digest.hexdigest())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(AssertionError(f"closed early, after {self.last!r}"))


def resident(pid: int) -> int:
    """The bytes of memory that a process has."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def write(peer: Peer, first: int, count: int) -> float:
    """Write so many changes of 1 KB, a few messages ahead; how many a second."""
    started, asked = time.perf_counter(), []
    for start in range(first, first + count, AT_ONCE):
        ids = range(start, min(start + AT_ONCE, first + count))
        peer.send(*({"id": n, "op": "transact", "path": f"/k{n % 50}", "diff": {"x": f"{n:01000}"}} for n in ids))
        asked.append(ids[-1])
        if len(asked) > 16:
            assert "rev" in await peer.answer(asked.pop(0))
            peer.answers.clear()
    for last in asked:
        if last not in peer.answers:
            await peer.answer(last)
    return count / (time.perf_counter() - started)


async def stopped(path: Path, readers: int, changes: int) -> tuple[int, float, float]:
    """Write with and without stopped readers; the bytes of memory that they cost and the two rates."""
    process = await Process(str(path)).start()
    peer = await Peer.to(process.port)
    before = min(changes, 20_000)
    alone = await write(peer, 0, before)
    loop, total = asyncio.get_running_loop(), before + changes
    following: list[Stopped] = []
    for number in range(readers):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEPT)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", process.port))
        reader = Stopped(total, decodes=number == 0)
        await loop.create_connection(lambda reader=reader: reader, sock=sock)  # type: ignore[misc]
        reader.transport.pause_reading()  # not in `connection_made`: uvloop starts to read behind it
        following.append(reader)
    async with asyncio.timeout(60):
        while (await process.ask("GET", "/v1/status")).body["subscribers"] < readers:
            assert not any(reader.over.done() for reader in following)
    begun = resident(process.pid)
    together = await write(peer, before, changes)
    grown = resident(process.pid) - begun
    for reader in following:
        reader.transport.resume_reading()
    digests = set(await asyncio.gather(*(reader.over for reader in following)))
    assert len(digests) == 1
    assert following[0].lines == total
    after = resident(process.pid) - begun
    for reader in following:
        reader.transport.close()
    await peer.close()
    await eventually(lambda: all(reader.transport.is_closing() for reader in following))
    assert await process.stop() == 0
    return max(grown, after), alone, together


async def test_readers_that_stop_cost_little_and_get_everything_later(tmp_path: Path) -> None:
    grown, _, _ = await stopped(tmp_path / "data.kantadb", 60, 3000)
    assert grown < 24 << 20


@pytest.mark.long
def test_a_thousand_stopped_readers_cost_64_mb_and_a_tenth_of_the_rate(tmp_path: Path) -> None:
    grown, alone, together = uvloop.run(stopped(tmp_path / "data.kantadb", 1000, 100_000))
    print(f"{grown / 1e6:.1f} MB more, {alone:.0f} changes a second alone, {together:.0f} with them")
    assert grown <= 64_000_000
    assert together >= 0.9 * alone
