"""The Python client beside the C load generator, on one WebSocket; mirrors that follow; what importing costs.

    PEERS=<folder of the peer scripts> python -m tests.bench.bench_client [--rounds 5] [--secs 2]

The load generator keeps one message of 64 updates in flight, the client's process has 64 tasks that
each wait for their update before the next; both set one field of one of 10,000 users, in turn, round
by round. The client sends an idempotency key with each write; the load generator is run with keys,
which are the same requests, and without. The mirror has 100,000 typed users and is fed by the load
generator as fast as that goes.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import msgspec
from kanta_client import KantaClient

from tests.bench.peer_kantad import Peer, w

TASKS = 64
KEYED = 600_000  # updates with keys, more than a round gets through
IMPORT = "import time; t = time.perf_counter(); import kanta_client; print((time.perf_counter() - t) * 1e3)"


class User(msgspec.Struct):
    """One of the suite's users."""

    name: str
    email: str
    age: int
    tags: list[str]
    balance: float


async def update(url: str, seconds: float) -> dict[str, float]:
    """Updates a second of 64 tasks, and the CPU of each in microseconds."""
    picks, done = w.picks(10_000), 0
    until = time.monotonic() + seconds

    async def work(db: KantaClient, number: int) -> None:
        nonlocal done
        place = number * 1000
        while time.monotonic() < until:
            i, age = picks[place % len(picks)]
            await db.patch(("users", w.uid(i)), {"age": age + place})
            place, done = place + 1, done + 1

    async with KantaClient(url) as db:
        await db.ping()
        began, used = time.monotonic(), time.process_time()
        await asyncio.gather(*(work(db, number) for number in range(TASKS)))
        spent = time.monotonic() - began
        return {"rate": done / spent, "cpu_us": (time.process_time() - used) / done * 1e6}


async def follow(url: str, seconds: float) -> dict[str, float]:
    """Changes a second that a typed mirror takes, its CPU for each, and how late it is at the end."""
    async with KantaClient(url) as db, db.mirror("/users", type=dict[str, User]) as users:
        print("filled", flush=True)
        begun, used, began = users.rev, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        taken, spent, cpu = users.rev - begun, time.monotonic() - began, time.process_time() - used
        now = await db.ping()
        late = time.monotonic()
        await users.at_least(now)
        late = time.monotonic() - late
        key = next(iter(users))
        began = time.perf_counter()
        for _ in range(100_000):
            users.value[key]
        read = (time.perf_counter() - began) * 10
        return {"rate": taken / spent, "cpu_us": cpu / max(taken, 1) * 1e6, "late_ms": late * 1e3, "read_us": read}


def child(what: str, url: str, seconds: float) -> "subprocess.Popen[str]":
    """This file in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bench_client", "--child", what, "--url", url, "--secs", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> dict[str, float]:
    """What a child says at its end."""
    said: dict[str, float] = json.loads(process.communicate()[0].splitlines()[-1])
    return said


def keyed(port: int, number: int) -> Any:
    """The load with keys, made anew for each round: no key is to come twice."""
    picks = w.picks(10_000)

    def write(j: int) -> dict[str, Any]:
        i, age = picks[j % len(picks)]
        path, diff = "/users/" + w.uid(i), {"age": age + j}
        return {"id": j % 64, "op": "transact", "path": path, "diff": diff, "key": f"k{number}-{j}", "a": "patch"}

    messages = range(0, KEYED, TASKS)
    frames = [w.ws_frame(json.dumps([write(first + j) for j in range(TASKS)])) for first in messages]
    return w.Load("ws", port, frames, [w.ws_upgrade("/v1/ws", port)], per=TASKS)


def beside(rounds: int, seconds: float) -> None:
    """Client and load generator in turn."""
    peer: Any = Peer()
    peer.start()
    try:
        peer.load(10_000)
        loads = {"without keys": peer.loads(10_000)["update_durable:ws_batch64"]}
        ratios: dict[str, list[float]] = {"with keys": [], "without keys": []}
        for number in range(rounds):
            loads["with keys"] = keyed(peer.port, number)
            rates = {name: loads[name].run(1, seconds)["rate"] for name in ratios}
            mine = told(child("update", f"http://127.0.0.1:{peer.port}", seconds))
            for name, rate in rates.items():
                ratios[name].append(mine["rate"] / rate)
            native = ", ".join(f"{name} {rate:,.0f}/s ({ratios[name][-1]:.2f})" for name, rate in rates.items())
            print(f"client {mine['rate']:,.0f}/s, {mine['cpu_us']:.1f} us; C {native}", flush=True)
        for name, found in ratios.items():
            print(f"median ratio to C {name} {statistics.median(found):.2f}")
    finally:
        peer.stop()


def mirrored(rounds: int, seconds: float) -> None:
    """A mirror while the load generator writes."""
    peer: Any = Peer()
    peer.start()
    try:
        peer.load(100_000)
        load = peer.loads(100_000)["update_durable:ws_batch16"]
        for _ in range(rounds):
            process = child("follow", f"http://127.0.0.1:{peer.port}", seconds)
            assert process.stdout is not None
            process.stdout.readline()
            written = load.run(4, seconds)["rate"]
            said = told(process)
            print(f"written {written:,.0f}/s  " + "  ".join(f"{name} {value:,.2f}" for name, value in said.items()))
    finally:
        peer.stop()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=2.0)
    parser.add_argument("--only", choices=("import", "update", "mirror"))
    parser.add_argument("--child", choices=("update", "follow"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        work = update if asked.child == "update" else follow
        print(json.dumps(asyncio.run(work(asked.url, asked.secs))))
        return
    w.build_lg()
    if asked.only in (None, "import"):
        times = [float(subprocess.check_output([sys.executable, "-c", IMPORT], env=os.environ)) for _ in range(9)]
        print(f"import {statistics.median(times):.0f} ms")
    if asked.only in (None, "update"):
        beside(asked.rounds, asked.secs)
    if asked.only in (None, "mirror"):
        mirrored(asked.rounds, asked.secs)


if __name__ == "__main__":
    main()
