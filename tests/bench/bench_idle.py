"""What idle WebSockets cost: resident memory each, the server's CPU at rest, one event to all of them.

    python tests/bench/bench_idle.py [SOCKETS ...]

Starts a server for each number on 127.0.0.1; every socket subscribes to one path. The clients live in
this process, so the machine must allow it as many open files. Prints figures and judges nothing.
"""

import asyncio
import json
import os
import resource
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SUBSCRIBE = json.dumps({"id": 1, "op": "subscribe", "path": "/news"}).encode()
REST = 10.0  # seconds over which the CPU at rest is taken
AT_ONCE = 200  # connections that are being made


def frame(payload: bytes) -> bytes:
    """A client's text frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Idle(asyncio.Protocol):
    """A client that subscribes, answers pings by nothing and notes when an event comes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.told: asyncio.Future[float] = loop.create_future()
        self.data = b""

    def data_received(self, data: bytes) -> None:
        """Look for what is waited for."""
        self.data = (self.data + data)[-512:]
        if b'"sub":1' in self.data and not self.subscribed.done():
            self.subscribed.set_result(None)
        if b'"event":"change"' in data and not self.told.done():
            self.told.set_result(time.perf_counter())


async def connect(port: int, gate: asyncio.Semaphore) -> tuple[asyncio.Transport, Idle]:
    """One subscribed client."""
    async with gate:
        transport, client = await asyncio.get_running_loop().create_connection(Idle, "127.0.0.1", port)
        transport.write(UPGRADE % port + frame(SUBSCRIBE))
        await asyncio.wait_for(client.subscribed, 60)
        return transport, client


def put(port: int) -> float:
    """Change what is followed; when it was asked for."""
    started = time.perf_counter()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/data/news", b'{"n": 1}', method="PUT")
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return started


async def measure(pid: int, port: int, count: int) -> None:
    """Connect so many, and print what they cost."""
    before, gate = resident(pid), asyncio.Semaphore(AT_ONCE)
    clients = await asyncio.gather(*(connect(port, gate) for _ in range(count)))
    each = (resident(pid) - before) / count
    at_rest = cpu(pid)
    await asyncio.sleep(REST)
    share = (cpu(pid) - at_rest) / REST
    started = await asyncio.to_thread(put, port)
    last = max(await asyncio.gather(*(client.told for _, client in clients)))
    print(
        f"{count:7} sockets: {each / 1024:5.1f} KiB each, {share:6.1%} of a core at rest, "
        f"one event to all in {(last - started) * 1000:.0f} ms"
    )
    for transport, _ in clients:
        transport.abort()


async def main(counts: list[int]) -> None:
    """A server for each number."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            probe.close()
            command = [sys.executable, "-m", "kantad", "--db", f"{folder}/idle.kantadb", "--port", str(port)]
            command += ["--max-connections", str(count + 16)]
            server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            assert server.stderr is not None
            while b"ready" not in (line := await server.stderr.readline()):
                assert line, "the server did not start"
            try:
                await measure(server.pid, port, count)
            finally:
                server.terminate()
                await server.communicate()


if __name__ == "__main__":
    asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [1000, 10_000]))
