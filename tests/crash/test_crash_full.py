"""Full disks of a real process: a small tmpfs (needs root) and RLIMIT_FSIZE (does not)."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.injected import small_disk_at
from tests.crash.journal import Journal
from tests.crash.process_kit import OK, Client, Process, changes, records


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk_at(tmp_path / "small", "256k") as where:
        yield where


async def until_refused(client: Client, size: int) -> int:
    """Write values of this size until one is refused with 507; how many were stored."""
    for number in range(1000):
        answer = await client.ask("PUT", f"/v1/data/big/{number}", "x" * size)
        if answer.status != 200:
            assert (answer.status, answer.body["code"]) == (507, "storage_full")
            return number
    raise AssertionError("the disk never was full")


async def until_stored(client: Client, seconds: float) -> None:
    """Write until it works again, within so many seconds."""
    async with asyncio.timeout(seconds):
        while (await client.ask("PUT", "/v1/data/after", 1)).status != 200:
            await asyncio.sleep(0.05)


async def full_and_free_again(path: str, fill: Any, free: Any, *before: str) -> None:
    """Fill up, look, make room, go on, restart; the state is exactly what was acknowledged."""
    process = await Process(path, before=before).start()
    client = await process.client()
    fill()
    stored = await until_refused(client, 3000)
    size = os.path.getsize(path)
    for _ in range(5):
        refused = await asyncio.gather(*(process.ask("PUT", f"/v1/data/more/{n}", "y" * 9000) for n in range(5)))
        assert {answer.status for answer in refused} == {507}
        assert set((await client.ask("GET", "/v1/data/big")).body) == {str(number) for number in range(stored)}
    assert os.path.getsize(path) == size
    assert (await client.ask("GET", "/healthz")).status == 200
    free(process.pid)
    await until_stored(client, 2.0)
    assert (await client.ask("GET", "/readyz")).status == 200
    root = await process.root()
    client.close()
    assert await process.stop() == OK
    found = changes(path)
    assert len(found) == stored + 1
    again = await Process(path).start()
    assert await again.root() == root
    assert await again.stop() == OK


async def test_a_full_tmpfs_refuses_writes_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        ballast.write_bytes(b"\0" * 160_000)

    await full_and_free_again(str(small_disk / "data.kantadb"), fill, lambda pid: ballast.unlink())


async def test_a_file_size_limit_refuses_writes_and_recovers(tmp_path: Path) -> None:
    limit = 100_000
    before = ("prlimit", f"--fsize={limit}:unlimited")

    def free(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    await full_and_free_again(str(tmp_path / "data.kantadb"), lambda: None, free, *before)


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_writers_on_a_full_disk_keep_what_was_acknowledged(small_disk: Path, policy: str) -> None:
    """Eight writers while the room comes and goes; then the journal must agree, as after a crash."""
    path, ballast = str(small_disk / "data.kantadb"), small_disk / "ballast"
    process = await Process(path, "--ack", policy, "--flush-interval", "0.01").start()
    journal = Journal(5)
    await journal.begin(process)
    for _ in range(4):
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(b"\0" * 4096) == 4096:
                pass
        if policy != "applied":
            await asyncio.wait_for(journal.write(process), 10)
        else:
            answers = await asyncio.gather(*(process.ask("PUT", f"/v1/data/n{n}", "z" * 900) for n in range(20)))
            assert {answer.status for answer in answers} <= {200, 507}
        ballast.unlink()
        client = await process.client()
        async with asyncio.timeout(2.0):
            while (await client.ask("PUT", "/v1/data/values/room?ack=durable", 0)).status != 200:
                await asyncio.sleep(0.02)
            await client.ask("DELETE", "/v1/data/values/room?ack=durable")
        client.close()
        if policy != "applied":
            await journal.settle(process)
    root = await process.root()
    assert await process.stop() == OK
    again = await Process(path).start()
    assert await again.root() == root
    assert await again.stop() == OK


async def test_a_start_on_a_full_disk_with_a_torn_tail_says_so_and_changes_nothing(small_disk: Path) -> None:
    path = str(small_disk / "data.kantadb")
    process = await Process(path).start()
    assert (await process.ask("PUT", "/v1/data/a", 1)).status == 200
    await process.kill()
    with open(path, "ab") as file:
        file.write(b'{"ts":"2026-06-10T02:55:00.1234')
    before = Path(path).read_bytes()
    with contextlib.suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as file:
        while file.write(b"\0" * 4096) == 4096:
            pass
    process = Process(path)
    await process.spawn()
    with contextlib.suppress(Exception):
        await process.until_ready()
    assert process.running.returncode not in (None, OK)
    assert Path(path).read_bytes() == before
    (small_disk / "ballast").unlink()
    again = await Process(path).start()
    assert await again.root() == {"a": 1}
    assert await again.stop() == OK
    assert len(list(records(path))) == 1
