"""A snapshot made beside the file while it is written to: how late the loop and the acknowledgements are, and opening.

A log of so many changes, each of which adds an object, then as many updates as asked. It is opened without any
snapshot; four writers put one value after another, each waiting for its sync, while a timer looks every millisecond how
late it is: for the first snapshot, which is due at once; a while without; for one that begins with the first; for a
compaction that keeps a million changes; for one after that; and a while without. Then it is opened with the snapshot
beside it. Nothing is judged.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kantad.engine.engine import Engine
from kantad.engine.memory import return_large_blocks
from kantad.engine.opening import open_engine
from kantad.store.beside import beside
from kantad.values.retention import retention
from tests.bench.bench_compact import WRITERS, Watch, make


def opened(path: Path, name: str, format: str) -> Engine:
    """Open it, and say how long that took."""
    begun = time.perf_counter()
    engine = open_engine(str(path), format=format, own_process=True)
    print(f"opened {name} in {time.perf_counter() - begun:.2f} s: {path.stat().st_size >> 20} MiB, rev {engine.rev}")
    return engine


async def largest_child(found: dict[str, int]) -> None:
    """The most memory that a process of ours had, in KiB."""
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    while True:
        with contextlib.suppress(OSError, StopIteration, IndexError):
            status = Path(f"/proc/{mine.read_text().split()[0]}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            found["most"] = max(found.get("most", 0), int(line.split()[1]))
        await asyncio.sleep(0.1)


async def until(holds: Callable[[], bool]) -> None:
    """Return when this holds."""
    while not holds():
        await asyncio.sleep(0.01)


async def run(path: Path, pause: float, format: str) -> None:
    """Open, and measure before, meanwhile and after."""
    engine = opened(path, "without a snapshot", format)
    watch, keys, memory = Watch(), list(engine.root)[:10_000], dict[str, int]()
    tasks = [asyncio.create_task(watch.write(engine, keys)) for _ in range(WRITERS)]
    tasks.append(asyncio.create_task(watch.look()))
    tasks.append(asyncio.create_task(largest_child(memory)))

    async def phase(name: str, work: Awaitable[object]) -> None:
        begun = time.perf_counter()
        await work
        watch.told(name, time.perf_counter() - begun)

    await phase("the first", until(lambda: engine.snapshots.is_beside))
    await phase("between", asyncio.sleep(pause))
    await phase("the second", engine.snapshot())
    size = engine.snapshots.bytes
    print(f"it has {size >> 20} MiB; the process had at most {memory['most'] >> 10} MiB")
    await phase("compacting", engine.compaction.compact(retention("1000000r"), archive=False))
    await phase("the third", engine.snapshot())
    await phase("after", asyncio.sleep(pause))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    begun = time.perf_counter()
    await engine.stop()
    print(f"stopped in {time.perf_counter() - begun:.2f} s")


async def again(path: Path, format: str) -> None:
    """Open with the snapshot, and without."""
    for _ in range(2):
        await opened(path, "with the snapshot", format).stop()
    os.unlink(beside(str(path)))
    engine = opened(path, "without it", format)
    engine.readonly = True  # no snapshot at the stop
    await engine.stop()


def main() -> None:
    """Make a file and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--format", default="json", help="such as tests.own_formats:Cbor")
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--folder", default=None, help="where the files are; the disk matters")
    given = parser.parse_args()
    return_large_blocks()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "data.kantadb"
        gc.disable()
        make(path, given.objects, given.updates, given.format, snapshot=False)
        gc.enable()
        for step in (run(path, given.pause, given.format), again(path, given.format)):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(step)


if __name__ == "__main__":
    main()
