"""Compaction of a large database while writers write: how long the loop stalls, how late acknowledgements are.

A log of so many changes, each of which adds an object, then as many updates as asked; four writers put one
value after another, each waiting for its sync; a timer looks every millisecond how late it is. The figures
are given for a while before, for the compaction, and for a while after it. Nothing is judged.
"""

import argparse
import asyncio
import gc
import os
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import TextIO

import uvloop

from kantad.engine.engine import Engine
from kantad.engine.memory import return_large_blocks
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Proposal
from kantad.store.formats import new_file
from kantad.values.framing import BinaryFrames
from kantad.values.moment import now_micros
from kantad.values.record import CHAIN_START
from kantad.values.retention import retention

WRITERS = 4


def make(path: Path, objects: int, updates: int, format: str, snapshot: bool = True) -> None:
    """A log, with a snapshot at its end."""
    framing, codec = new_file(format, os.urandom(4))
    micros, chain, rev, size = now_micros() - 10_000_000_000, CHAIN_START, 0, framing.header
    state: dict[str, dict[str, object]] = {}
    with path.open("wb") as file:
        file.write(framing.seed if isinstance(framing, BinaryFrames) else b"")
        for number in range(objects + updates):
            key = f"user{number % objects:07}"
            value = {"name": f"User {number}", "email": f"user{number}@example.com", "age": number % 90, "tags": ["a"]}
            state[key] = value
            payload, chain = codec.change(micros + number, "put", {key: value}, chain)
            size += file.write(framing.frame(payload, size))
            rev += 1
        if snapshot:
            file.write(framing.frame(codec.snapshot(micros + rev, state, rev, chain), size, True))


class Watch:
    """What is measured; all in seconds. Of a stall, also how long of it the thread waited for a processor, which others
    had: on a machine that is not ours alone that says nothing about us."""

    def __init__(self) -> None:
        self.late: list[tuple[float, float]] = []
        self.acks: list[float] = []
        self.since = 0.0  # what began earlier is not counted: it met the printing

    async def look(self) -> None:
        """How late a timer of a millisecond is."""
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
            before = _waited(file)
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0.001)
                late, now = time.perf_counter() - begun - 0.001, _waited(file)
                if begun >= self.since:
                    self.late.append((late, min(late, now - before)))
                before = now

    async def write(self, engine: Engine, keys: list[str]) -> None:
        """One durable write after another."""
        while True:
            begun = time.perf_counter()
            key = random.choice(keys)
            outcome = engine.transact(Proposal((key, "age"), "put", random.random(), action="put"))
            await engine.settled("durable", outcome.rev)
            if begun >= self.since:
                self.acks.append(time.perf_counter() - begun)

    def told(self, name: str, seconds: float) -> None:
        """Print and forget."""
        late, acks = sorted(late for late, _ in self.late), sorted(self.acks)
        own = max(late - waited for late, waited in self.late)
        print(
            f"{name:12} {seconds:5.1f} s   stall: worst {late[-1] * 1000:5.1f} ms ({own * 1000:.1f} but for waiting "
            f"for a processor), 99.9 % {_at(late):4.1f}   acknowledged: worst {acks[-1] * 1000:5.1f} ms, "
            f"99.9 % {_at(acks):4.1f}, {len(acks) / seconds:5.0f}/s"
        )
        self.late.clear()
        self.acks.clear()
        self.since = time.perf_counter()


def _waited(schedstat: TextIO) -> float:
    """Seconds that a thread was ready to run and had no processor."""
    schedstat.seek(0)
    return int(schedstat.read().split()[1]) / 1e9


def _at(times: list[float]) -> float:
    return times[int(len(times) * 0.999)] * 1000


async def run(path: Path, retain: str, pause: float) -> None:
    """Open, measure, compact, measure."""
    begun = time.perf_counter()
    engine = open_engine(str(path))
    print(f"opened in {time.perf_counter() - begun:.1f} s: {path.stat().st_size >> 20} MiB, revision {engine.rev}")
    watch, keys = Watch(), list(engine.root)[:10_000]
    tasks = [asyncio.create_task(watch.write(engine, keys)) for _ in range(WRITERS)]
    tasks.append(asyncio.create_task(watch.look()))
    await asyncio.sleep(pause)
    watch.told("before", pause)
    begun = time.perf_counter()
    done = await engine.compaction.compact(retention(retain))
    watch.told("compacting", time.perf_counter() - begun)
    print(f"{done.before >> 20} MiB are {done.bytes >> 20} MiB, {done.dropped} changes were dropped")
    await asyncio.sleep(pause)
    watch.told("after", pause)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await engine.stop()


def main() -> None:
    """Make a file and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--retain", default="100000r")
    parser.add_argument("--format", default="json", choices=("json", "msgpack"))
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--folder", default=None, help="where the files are; the disk matters")
    given = parser.parse_args()
    return_large_blocks()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "data.kantadb"
        gc.disable()
        make(path, given.objects, given.updates, given.format)
        gc.enable()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(path, given.retain, given.pause))


if __name__ == "__main__":
    main()
