"""A proxy over TCP that does to connections what networks do: cuts them after n bytes, delays, pauses, goes silent."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]  # from the client to the server, and back


class Proxy:
    """Forwards what comes to `port` to the server's port, which may change.

    `plan` is asked for each connection (its number from 0): after how many bytes, and in which direction, it is cut.
    """

    def __init__(
        self, server: int, plan: "Callable[[int], tuple[Direction, int] | None]" = lambda number: None
    ) -> None:
        self.server, self.plan = server, plan
        self.port = 0
        self.connections = self.cuts = 0
        self.delay = 0.0  # seconds that each piece takes
        self.piece = 65536  # bytes
        self.flowing = asyncio.Event()  # cleared, nothing is forwarded, and nothing is closed either
        self.flowing.set()
        self.muted: set[int] = set()  # the connections, by their numbers, whose answers are dropped
        self.forwarded: dict[Direction, int] = {"up": 0, "down": 0}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections, as if a cable was pulled: what is on its way is lost."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def cut_now_and_then(self, dice: random.Random, least: float, most: float) -> None:
        """Cut all connections again and again, at random moments, until cancelled."""
        while True:
            await asyncio.sleep(dice.uniform(least, most))
            self.cuts += 1
            self.cut()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        ends = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.server)
            ends.append(back)
            self._writers.update(ends)
            place, most = self.plan(number) or ("up", -1)
            ways: list[tuple[Direction, asyncio.StreamReader, asyncio.StreamWriter]] = [
                ("up", reader, back),
                ("down", there, writer),
            ]
            carriers = [
                asyncio.create_task(self._carry(number, way, source, sink, most if way == place else -1))
                for way, source, sink in ways
            ]
            try:
                await asyncio.wait(carriers, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for carrier in carriers:
                    carrier.cancel()
                await asyncio.gather(*carriers, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.difference_update(ends)
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _carry(
        self, number: int, way: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int
    ) -> None:
        """Forward up to `most` bytes, all if it is negative; then the connection is cut."""
        carried = 0
        while data := await source.read(self.piece):
            await self.flowing.wait()
            if way == "down" and number in self.muted:
                continue
            if self.delay:
                await asyncio.sleep(self.delay)
            if 0 <= most <= carried + len(data):
                self.cuts += 1
                sink.write(data[: most - carried])
                await sink.drain()
                return
            sink.write(data)
            await sink.drain()
            carried += len(data)
            self.forwarded[way] += len(data)
