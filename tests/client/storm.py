"""A kantad process that is killed and paused at random, behind proxies that cut: what the long tests share."""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from kanta_client import KantaClient, Patience

from tests.client.proxy import Proxy
from tests.process.running import Running

PATIENT = Patience(ping=1.0, stale=2.0, lost=3.0, retry=0.1)

Run = Callable[..., Running]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class Storm:
    """The server on one file and port, started again after each kill."""

    def __init__(self, run: Run, dice: random.Random, *flags: str) -> None:
        self.run, self.dice, self.flags = run, dice, flags
        self.port = free_port()
        self.kills = self.pauses = 0
        self.process: Running

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.process = self.run("--db", "data.kantadb", "--port", str(self.port), *self.flags)
        await asyncio.to_thread(self.process.ready)

    async def kill(self) -> None:
        """SIGKILL, and start it again."""
        self.kills += 1
        self.process.signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)
        await self.start()

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.pauses += 1
        self.process.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.process.signal(signal.SIGCONT)

    async def rage(self, every: float, longest_pause: float = 0.0) -> None:
        """Kill and pause it again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.5, 1.5) * every)
            if longest_pause and self.dice.random() < 0.5:
                await self.pause(self.dice.uniform(0.05, longest_pause))
            else:
                await asyncio.shield(self.kill())

    def client(self, url: str = "", **options: Any) -> KantaClient:
        """A client that is patient enough for what happens here."""
        options = {"timeout": 60.0, "patience": PATIENT, **options}
        return KantaClient(url or f"http://127.0.0.1:{self.port}", **options)


@asynccontextmanager
async def meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these until the body is through; what they raise is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


@asynccontextmanager
async def storm(
    run: Run, seed: int, *, every: float, cuts: float = 0.0, longest_pause: float = 0.0
) -> AsyncIterator[tuple[Storm, list[Proxy]]]:
    """A server that is killed about every so many seconds, and four proxies to it that cut more often."""
    dice = random.Random(seed)
    raging = Storm(run, dice)
    await raging.start()
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(raging.port)) for _ in range(4)]
        work = [proxy.cut_now_and_then(dice, 0.3 * cuts, 1.7 * cuts) for proxy in proxies] if cuts else []
        async with meanwhile(raging.rage(every, longest_pause), *work):
            yield raging, proxies
