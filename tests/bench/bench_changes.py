"""What the log of changes costs the writers: `python tests/bench/bench_changes.py [SECONDS]`.

Durable writes of one field by 64 writers, in this process, without it, with it (its lines go nowhere), and with
it while nobody takes its lines. Tells writes a second and how long a write took, rounds of each in turn.
"""

import asyncio
import logging
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from kantad.changes import ChangeFormatter, ChangeLog
from kantad.engine.opening import open_engine
from kantad.values.pointer import parse

WRITERS = 64


class Nowhere(logging.Handler):
    """Formats, and prints nothing; with a gate, nothing at all."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate, self.told = gate, 0
        self.setFormatter(ChangeFormatter(None, True))

    def emit(self, record: logging.LogRecord) -> None:
        self.gate.wait()
        self.format(record)
        self.told += 1


async def measured(path: str, kind: str, seconds: float) -> tuple[float, list[float], int]:
    """Writes a second, how long each took, and how many lines were told."""
    engine = open_engine(path)
    gate = threading.Event()
    handler = Nowhere(gate)
    log = logging.Logger("bench", logging.INFO)
    log.addHandler(handler)
    changes = None
    if kind != "without":
        changes = ChangeLog(engine.log.codec, log)
        engine.watcher = changes.published
    if kind != "nobody reads":
        gate.set()
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def writer(number: int) -> None:
        place, count = engine.places.at(parse("/users")), 0
        while (began := time.perf_counter()) < until:
            count += 1
            engine.write(place, {f"u{number}": {"name": "Alice", "count": count}}, "patch", "count")
            await engine.settled(None, engine.rev)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*map(writer, range(WRITERS)))
    gate.set()
    if changes is not None:
        changes.close()
    await engine.stop()
    return len(took) / seconds, took, handler.told


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            for kind in ("without", "with", "nobody reads"):
                rate, took, told = asyncio.run(measured(str(Path(folder) / f"{turn}{kind}.kantadb"), kind, seconds))
                quantiles = statistics.quantiles(took, n=100)
                print(
                    f"{kind:>13}: {rate:8.0f} writes/s, median {quantiles[49] * 1e3:.2f} ms, "
                    f"p99 {quantiles[98] * 1e3:.2f} ms, {told} told"
                )


if __name__ == "__main__":
    main()
