"""Copies of the database, held against what they must be; and a reader of backups that can stop."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, Self

from kantad.engine.engine import Engine
from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.store.recovery import Recovered
from kantad.store.verify import verify
from kantad.values.content import decode_json, encode_json
from kantad.values.record import cursor
from kantad.web.backup import Backup
from tests.serving import TIMEOUT, Got, Serving, request
from tests.store.logs import T0

ASK = request("GET", "/v1/backup")


def opened(path: Path, data: bytes) -> Recovered:
    """What a start makes of a copy, which must be whole to the last byte, and which it leaves as it is."""
    path.write_bytes(data)
    log, found = open_log(str(path), None, RealDisk(), T0)
    with log.buffer() as buffer:
        verified = verify(buffer, log.size, log.framing, log.codec)
    log.close()
    assert (found.torn, found.warnings, verified.damage) == (0, [], None)
    assert path.read_bytes() == data
    return found


def held_against(serving: Serving, got: Got, path: Path) -> Recovered:
    """Check an answer: a prefix of the file that is the database of the revision and cursor it tells."""
    assert got.status == 200, got.raw[:500]
    assert len(got.body) == int(got.headers["content-length"])
    with open(serving.path, "rb") as file:
        assert file.read(len(got.body)) == got.body
    found = opened(path, got.body)
    assert cursor(found.rev, found.chain) == got.headers["kanta-cursor"]
    assert str(found.rev) == got.headers["kanta-revision"]
    return found


def shown(state: Any) -> Any:
    """A state as JSON shows it."""
    return decode_json(encode_json(state))


async def fill(engine: Engine, mebibytes: int) -> None:
    """Make the file at least so long, with a state that stays small, and a snapshot at its end."""
    for number in range(mebibytes):
        engine.write(engine.places.at(()), {"blob": f"{number}" + "x" * ((1 << 20) - 200)}, "patch", "patch")
        await engine.settled("durable", engine.rev)
    await engine.snapshot()


class Slow:
    """A client of a backup that takes only what it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.head, self.data = sock, b"", b""

    @classmethod
    async def ask(cls, serving: Serving, asked: bytes = ASK) -> Self:
        """Ask for a backup, with a small buffer in the kernel, and read the head of the answer."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", serving.port))
        await loop.sock_sendall(sock, asked)
        slow = cls(sock)
        while b"\r\n\r\n" not in slow.data:
            await slow.take(1)
        slow.head, _, slow.data = slow.data.partition(b"\r\n\r\n")
        return slow

    async def take(self, size: int) -> bool:
        """Take so many bytes more, at least one; False at the end."""
        async with asyncio.timeout(TIMEOUT):
            try:
                data = await asyncio.get_running_loop().sock_recv(self.sock, size)
            except ConnectionResetError:
                return False
        self.data += data
        return bool(data)

    async def rest(self) -> bytes:
        """Everything, up to the end of the connection."""
        parts = [self.data]
        self.data = b""
        while await self.take(1 << 20):
            parts.append(self.data)
            self.data = b""
        self.sock.close()
        return b"".join(parts)

    @property
    def length(self) -> int:
        """The Content-Length."""
        return int(self.head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])


def under_way(serving: Serving) -> list[Backup]:
    """The backups that the server's connections carry."""
    carried = [getattr(connection, "carried", None) for connection in serving.server.aiohttp.connections]
    return [each for each in carried if isinstance(each, Backup)]


def descriptors_of(path: str) -> int:
    """How many descriptors of this process lead to a file."""
    found, real = 0, os.path.realpath(path)
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}") == real
        except FileNotFoundError:
            continue
    return found
