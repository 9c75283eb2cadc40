"""What reads of the past cost, and whether anything else has to wait for them.

A database of `--mib` MiB of state and about three times that of log is made in a temporary folder and
opened as the server does, on uvloop. A task ticks all the time; the longest gap between two ticks is how long the loop
was held up. Run: `python -m tests.bench.bench_past [--mib 20]`.
"""

import argparse
import asyncio
import os
import random
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kantad.engine.engine import Engine
from kantad.engine.former import Former
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Proposal
from kantad.values.moment import micros_of
from kantad.values.record import Keyed

PAD = "x" * 90


class Ticks:
    """A task that ticks, and the longest it had to wait."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Tick."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now


async def fill(engine: Engine, mib: int) -> None:
    """Users until the state has that size, then changes of single fields."""
    chance = random.Random(1)
    count = mib * 8_000
    for number in range(0, count, 500):
        users = {f"u{one}": {"name": PAD, "n": one} for one in range(number, number + 500)}
        engine.transact(Proposal(("users",), "patch", users))
        await engine.settled("written", engine.rev)
    await engine.snapshot()
    until = 3 * engine.log.size
    while engine.log.size < until:
        for _ in range(2000):
            engine.transact(Proposal(("users", f"u{chance.randrange(count)}", "n"), "put", chance.random()))
        await engine.settled("written", engine.rev)
    await engine.settled("durable", engine.rev)


async def measured(name: str, call: Callable[[], Awaitable[object]]) -> None:
    """Print how long a call took, and the longest that the loop was held up meanwhile."""
    await asyncio.sleep(0.2)
    ticks = Ticks()
    await asyncio.sleep(0)
    start = time.perf_counter()
    await call()
    took = time.perf_counter() - start
    ticks.task.cancel()
    print(f"{name:48} {took * 1000:9.1f} ms   the loop was held up for {ticks.longest * 1000:6.1f} ms")


async def run(mib: int) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "data.kantadb"))
        engine = open_engine(path, ack="written", own_process=True)
        await fill(engine, mib)
        await engine.stop()
        engine = open_engine(path, ack="written", own_process=True)
        former = engine.former = Former(engine, kept=0)
        last, user = engine.rev, ("users", "u7")
        print(f"{engine.log.size / 2**20:.0f} MiB of log, {last} revisions, snapshot at {engine.snapshots.rev}")
        await measured("the present", lambda: former.show(last, user))
        await measured("the first: a process starts, replays from there", lambda: former.show(last // 2, user))
        await measured("the next revision", lambda: former.show(last // 2 + 1, user))
        await measured("another path of it", lambda: former.show(last // 2 + 1, ("users", "u8")))
        await measured("1,000 revisions later", lambda: former.show(last // 2 + 1001, user))
        await measured("an earlier one, from the snapshot again", lambda: former.show(last // 2, user))
        await measured("the root of a revision", lambda: former.show(last // 2, ()))
        payload = (await engine.backlog.block(last // 2)).payloads[0]
        micros = micros_of(engine.log.codec.decode(payload, Keyed).ts)
        await measured("the revision of a time", lambda: former.revision_at(micros))
        revisions = [random.Random(2).randrange(last) for _ in range(100)]
        some = [former.show(rev, user) for rev in revisions]
        await measured("100 random revisions at once", lambda: asyncio.gather(*some))
        worker = former.retracer.worker
        for who, pid in (("this process", os.getpid()), ("the one that replays", worker.process.pid if worker else 0)):
            peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
            print(f"memory of {who}, at most: {int(peak[1]) / 1024 if peak else 0:.0f} MiB")
        await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=20, help="MiB of state")
    uvloop.run(run(parser.parse_args().mib))
