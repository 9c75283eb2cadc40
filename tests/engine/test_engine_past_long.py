"""The loop is not held up by a replay of tens of megabytes. Depends on times: not for every run."""

import asyncio
import random
import time

import pytest

from kantad.engine.former import Former
from tests.engine.engine_kit import Database, flushed, put

MOST = 0.020  # seconds


class Ticks:
    """A task that ticks, and the longest it had to wait."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.mark.long
async def test_no_replay_of_tens_of_megabytes_holds_up_the_loop_for_20_ms(database: Database) -> None:
    engine = database.open(ack="written")
    chance = random.Random(1)
    for number in range(300):
        put(engine, f"/users/{number}", {f"u{one}": {"name": "x" * 90, "n": 0} for one in range(500)})
    while engine.log.size < 60 << 20:
        for _ in range(1000):
            put(engine, f"/users/{chance.randrange(300)}/u{chance.randrange(500)}/n", chance.random())
        await flushed(engine)
    await database.stop()
    engine = database.open(ack="written")
    former = Former(engine, kept=0)
    micros = engine.micros - 10_000_000
    await asyncio.sleep(0.1)
    worst = []
    for call in (
        *(former.show(rev, ("users", "7", "u7")) for rev in (engine.rev // 2, 400, engine.rev - 5, engine.rev // 3)),
        former.revision_at(micros),
    ):
        ticks = Ticks()
        await call
        ticks.task.cancel()
        worst.append(ticks.longest)
    assert former.retracer.started == 1
    await former.stop()
    assert max(worst) < MOST, worst
