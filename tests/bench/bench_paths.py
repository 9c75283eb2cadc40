"""What a write costs the server while others follow paths: CPU a durable write against the number of feeds.

    python tests/bench/bench_paths.py [FEEDS ...]

For each number a fresh daemon with 10,000 users; so many subscriptions on distinct users, 500 to a WebSocket; then
20,000 updates of one field of a user at random by 64 tasks of one client. Every event is read. Prints the server's
CPU an update, and how long it took; then the same for as many subscriptions that take up what they missed of all
that, an event. Judges nothing.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from kanta_client import KantaClient

USERS = 10_000
UPDATES = 20_000
TASKS = 64
EACH = 500  # subscriptions of a connection


def cpu(pid: int) -> float:
    """Seconds of CPU that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Reader:
    """A WebSocket with subscriptions on users; counts the events."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.events, self.answers = socket, 0, 0

    async def subscribe(self, users: range, since: int | None = None) -> None:
        """Follow these users, from now or from a revision on."""
        more = {} if since is None else {"since": since}
        asked = [{"id": user, "op": "subscribe", "path": f"/users/u{user}", **more} for user in users]
        await self.socket.send_str(json.dumps(asked))
        while self.answers < len(users):
            self.take(await self.socket.receive_str())

    def take(self, text: str) -> None:
        """Count what is in a message."""
        self.events += text.count('"event":"change"')
        self.answers += text.count('"sub":') - text.count('"event":')

    async def read(self) -> None:
        """Read on."""
        while True:
            self.take(await self.socket.receive_str())


async def measure(pid: int, url: str, feeds: int) -> None:
    """Subscribe so many, write, and print."""
    async with KantaClient(url) as db, aiohttp.ClientSession() as session:
        await db.set("/users", {f"u{user}": {"n": 0, "name": f"User {user}"} for user in range(USERS)})
        begin = (await db.status())["rev"]
        readers = [Reader(await session.ws_connect(f"{url}/v1/ws", max_msg_size=0)) for _ in range(0, feeds, EACH)]
        shares = [range(first, min(first + EACH, feeds)) for first in range(0, feeds, EACH)]
        for reader, share in zip(readers, shares, strict=True):
            await reader.subscribe(share)
        reading = [asyncio.create_task(reader.read()) for reader in readers]
        dice, wanted = random.Random(1), 0

        async def write(updates: int) -> None:
            nonlocal wanted
            for number in range(updates):
                user = dice.randrange(USERS)
                wanted += user < feeds
                await db.patch(f"/users/u{user}", {"n": number + 1})

        used, started = cpu(pid), time.perf_counter()
        await asyncio.gather(*(write(UPDATES // TASKS) for _ in range(TASKS)))
        while (events := sum(reader.events for reader in readers)) < wanted * 0.99:  # some write what was there
            await asyncio.sleep(0.001)
        took, used = time.perf_counter() - started, cpu(pid) - used
        for task in reading:
            task.cancel()
        print(f"{feeds:6} feeds: {used / UPDATES * 1e6:6.1f} us of CPU an update, {took:6.2f} s, {events} events")
        if not feeds:
            return
        await asyncio.gather(*(reader.socket.close() for reader in readers))
        late = [Reader(await session.ws_connect(f"{url}/v1/ws", max_msg_size=0)) for _ in readers]
        used, started = cpu(pid), time.perf_counter()
        await asyncio.gather(*(reader.subscribe(share, begin) for reader, share in zip(late, shares, strict=True)))
        reading = [asyncio.create_task(reader.read()) for reader in late]
        while sum(reader.events for reader in late) < events:
            await asyncio.sleep(0.001)
        took, used = time.perf_counter() - started, cpu(pid) - used
        for task in reading:
            task.cancel()
        print(f"{feeds:6} feeds behind: {used:6.2f} s of CPU, {took:6.2f} s, {events} events")


async def main(counts: list[int]) -> None:
    """A server for each number."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "kantad", "--db", f"{folder}/paths.kantadb", "--port", "0"]
            command += ["--max-subscriptions", str(EACH)]
            server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            assert server.stderr is not None
            while b"ready" not in (line := await server.stderr.readline()):
                assert line, "the server did not start"
            url = "http://127.0.0.1:" + line.decode().split("http://127.0.0.1:")[1].split()[0]
            try:
                await measure(server.pid, url, count)
            finally:
                server.terminate()
                await server.communicate()


if __name__ == "__main__":
    asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [0, 1, 100, 1000, 10_000]))
