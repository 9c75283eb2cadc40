"""What the engine's tests share: a disk that can be slowed, filled and broken, a clock, short proposals.

The disk is the real one with a few levers; it is handed to `open_engine` as any disk would be.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from kantad.engine.engine import Engine
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Condition, Outcome, Proposal
from kantad.store.disk import RealDisk
from kantad.values.content import MISSING, decode_json, encode_json
from kantad.values.errors import Problem
from kantad.values.pointer import parse

START = 1_780_000_000_000_000
TIMEOUT = 10.0


class Clock:
    """A clock that a test sets, in microseconds; each look moves it on by `step`."""

    def __init__(self, step: int = 1000) -> None:
        self.micros, self.step = START, step

    def __call__(self) -> int:
        self.micros += self.step
        return self.micros


class LeverDisk:
    """The operating system with levers.

    `room` is how many more bytes may be written before ENOSPC (None: as many as you like), `longest`
    how many one write takes, `hold()` keeps every sync waiting until `release()`, `sync_error` is
    raised by the next syncs. `calls` names what was asked, `synced` is the size that was synced last.
    """

    def __init__(self) -> None:
        self.real = RealDisk()
        self.room: int | None = None
        self.longest: int | None = None
        self.sync_error: OSError | None = None
        self.write_error: OSError | None = None
        self.calls: list[str] = []
        self.writes: list[bytes] = []
        self.synced = 0
        self.free = threading.Event()
        self.free.set()
        self.syncing = threading.Event()
        self.busy = 0
        self.most_busy = 0

    def open(self, path: str, flags: int) -> int:
        return self.real.open(path, flags)

    def close(self, fd: int) -> None:
        self.real.close(fd)

    def lock(self, fd: int) -> None:
        self.real.lock(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            self.calls.append("write")
            if self.write_error is not None:
                raise self.write_error
            most = len(data) if self.longest is None else min(self.longest, len(data))
            if self.room is not None:
                if self.room <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                most = min(most, self.room)
                self.room -= most
            self.writes.append(bytes(data[:most]))
            return self.real.write(fd, data[:most])
        finally:
            self.busy -= 1

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self.calls.append("pwrite")
        return self.real.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            self.calls.append("sync")
            self.syncing.set()
            if not self.free.wait(TIMEOUT):
                raise AssertionError("the test never released the sync")
            if self.sync_error is not None:
                raise self.sync_error
            self.real.sync(fd)
            self.synced = size
        finally:
            self.busy -= 1

    def truncate(self, fd: int, size: int) -> None:
        self.calls.append("truncate")
        if self.room is not None:
            self.room += os.fstat(fd).st_size - size
        self.real.truncate(fd, size)

    def chown(self, fd: int, owner: int, group: int) -> None:
        self.real.chown(fd, owner, group)

    def chmod(self, fd: int, mode: int) -> None:
        self.real.chmod(fd, mode)

    def fstat(self, fd: int) -> os.stat_result:
        return self.real.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        return self.real.stat(path)

    def link(self, source: str, target: str) -> None:
        self.calls.append("link")
        self.real.link(source, target)

    def rename(self, source: str, target: str) -> None:
        self.calls.append("rename")
        self.real.rename(source, target)

    def unlink(self, path: str) -> None:
        self.real.unlink(path)

    def sync_folder(self, path: str) -> None:
        self.calls.append("sync_folder")
        self.real.sync_folder(path)

    # -- the levers

    def hold(self) -> None:
        """Let the next sync begin and not end."""
        self.free.clear()
        self.syncing.clear()

    def release(self) -> None:
        """Let syncs end."""
        self.free.set()

    async def until_syncing(self) -> None:
        """Return when a sync that is held has begun."""
        assert await asyncio.to_thread(self.syncing.wait, TIMEOUT)


class Asked(NamedTuple):
    """A write of a lane."""

    path: str
    diff: Any
    a: str = "transact"
    u: str | None = None
    key: str | None = None


class Database:
    """One file, opened and opened again; `check` reopens it and compares."""

    def __init__(self, path: str, format: str | None = None) -> None:
        self.path, self.format = path, format
        self.disk, self.clock = LeverDisk(), Clock()
        self.engine: Engine | None = None

    def open(self, **options: Any) -> Engine:
        """Open it with the levers in place."""
        options = {"format": self.format, "disk": self.disk, "clock": self.clock, **options}
        self.engine = open_engine(self.path, **options)
        return self.engine

    async def stop(self) -> None:
        """Stop the engine; what the file says then must be what the engine said."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        self.disk.release()
        self.disk.room = None
        if not engine.stopping:
            await asyncio.wait_for(engine.stop(), TIMEOUT)
        if engine.broken.done():
            return
        again = open_engine(self.path, format=self.format, clock=self.clock)
        assert (again.rev, again.chain) == (engine.rev, engine.chain)
        assert again.rev == 0 or again.micros == engine.micros
        assert again.m == engine.m
        assert encode_json(again.root) == encode_json(engine.root)
        await again.stop()

    def records(self) -> list[dict[str, Any]]:
        """The records of the file, as JSON, the snapshots with their state."""
        with open(self.path, "rb") as file:
            lines = file.read().splitlines()
        return [decode_json(line.removeprefix(b"SNAPSHOT ")) for line in lines]


def proposal(edit: str, pointer: str, body: Any = None, **more: Any) -> Proposal:
    """A proposal with a path in pointer syntax."""
    return Proposal(parse(pointer), edit, body, more.pop("action", edit), **more)  # type: ignore[arg-type]


def put(engine: Engine, pointer: str, body: Any, **more: Any) -> Outcome:
    """Put a value, without waiting for anything."""
    return engine.transact(proposal("put", pointer, body, **more))


def delete(engine: Engine, pointer: str, **more: Any) -> Outcome:
    """Delete a value, without waiting for anything."""
    return engine.transact(proposal("delete", pointer, **more))


async def write(engine: Engine, asked: Proposal) -> Outcome:
    """Transact and wait for the acknowledgement, as the edges do."""
    outcome = engine.transact(asked)
    await asyncio.wait_for(engine.settled(asked.ack, outcome.rev), TIMEOUT)
    return outcome


async def flushed(engine: Engine) -> None:
    """Return when everything is durable."""
    await asyncio.wait_for(engine.settled("durable", engine.rev), TIMEOUT)


def seen(engine: Engine, pointer: str) -> Any:
    """What a reader sees at a path, as an independent copy."""
    return engine.read(parse(pointer), lambda value: MISSING if value is MISSING else decode_json(encode_json(value)))


def when(engine: Engine, outcome: Outcome, ack: Any, told: list[Any], name: Any) -> None:
    """Note in `told` when the answer of this outcome may go out, and with which problem if any."""

    def settle(error: Exception | None) -> None:
        told.append(name if error is None else (name, error.code if isinstance(error, Problem) else error))

    if not engine.settle_when(ack, outcome.rev, settle):
        settle(None)


async def eventually(holds: Callable[[], Any]) -> None:
    """Return when this holds, looking again at each turn of the loop."""
    async with asyncio.timeout(TIMEOUT):
        while not holds():
            await asyncio.sleep(0.001)


def refusal(call: Callable[[], Any]) -> Problem:
    """The problem that a call raises."""
    try:
        call()
    except Problem as problem:
        return problem
    raise AssertionError("it was not refused")


def condition(pointer: str, **more: Any) -> Condition:
    """A precondition with a path in pointer syntax."""
    return Condition(parse(pointer), **more)
