"""Two servers on one file, files that others touch, copies, and running out of descriptors."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.process_kit import BROKEN, LOCKED, LOST, OK, Ended, Process, changes

WAYS: list[Callable[[Path], str]] = [
    lambda path: str(path),
    lambda path: os.path.relpath(path),
    lambda path: link(path, os.symlink),
    lambda path: link(path, os.link),
]


def link(path: Path, how: Callable[[str, str], None]) -> str:
    """Another name for the file."""
    name = str(path.parent / f"{how.__name__}.kantadb")
    if not os.path.lexists(name):
        how(str(path), name)
    return name


async def second_start(path: str) -> tuple[int, float]:
    """Start on a file that is served already: the exit status, and after how long."""
    begun = time.monotonic()
    process = Process(path)
    await process.spawn()
    try:
        await process.until_ready()
    except Ended as ended:
        return ended.status, time.monotonic() - begun
    await process.kill()
    return 0, time.monotonic() - begun


async def double_starts(path: Path, count: int) -> None:
    """One server, and so many further starts by every name; then two at once."""
    first = await Process(str(path)).start()
    assert (await first.ask("PUT", "/v1/data/a", 1)).status == 200
    before = path.read_bytes()
    names = [way(path) for way in WAYS]
    for number in range(count):
        status, seconds = await second_start(names[number % len(names)])
        assert status == LOCKED
        assert seconds < 2.5
        assert path.read_bytes() == before
    assert (await first.ask("PUT", "/v1/data/a", 2)).status == 200
    assert await first.stop() == OK


@pytest.mark.parametrize("way", range(len(WAYS)))
async def test_of_two_starts_at_once_exactly_one_wins(tmp_path: Path, way: int) -> None:
    path = tmp_path / "data.kantadb"
    if way > 1:
        first = await Process(str(path)).start()
        await first.stop()
    both = [Process(str(path)), Process(WAYS[way](path))]
    await asyncio.gather(*(process.spawn() for process in both))
    results = await asyncio.gather(*(process.until_ready() for process in both), return_exceptions=True)
    ended = [result for result in results if isinstance(result, Ended)]
    assert [result.status for result in ended] == [LOCKED]
    winner = both[results.index(None)]
    assert (await winner.ask("PUT", "/v1/data/a", 1)).status == 200
    assert await winner.stop() == OK


async def test_a_second_start_leaves_with_75_and_changes_nothing(tmp_path: Path) -> None:
    await double_starts(tmp_path / "data.kantadb", 5)


@pytest.mark.long
async def test_a_hundred_second_starts_leave_with_75(tmp_path: Path) -> None:
    await double_starts(tmp_path / "data.kantadb", 100)


def replace(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".other"))
    os.replace(path.with_suffix(".other"), path)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b'{"by":"somebody else"}\n')


def copy_over(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"by":"somebody else"}\n')


TOUCHES: dict[str, Callable[[Path], None]] = {
    "replaced": replace,
    "renamed": lambda path: os.rename(path, path.with_suffix(".away")),
    "removed": os.unlink,
    "truncated": lambda path: os.truncate(path, 50),
    "emptied": lambda path: os.truncate(path, 0),
    "appended to": append,
    "copied over": copy_over,
}


@pytest.mark.parametrize("touch", TOUCHES)
async def test_a_file_that_others_touch_ends_the_service(tmp_path: Path, touch: str) -> None:
    path = tmp_path / "data.kantadb"
    process = await Process(str(path)).start()
    for number in range(5):
        assert (await process.ask("PUT", "/v1/data/a", number)).status == 200
    TOUCHES[touch](path)
    try:
        answer = await process.ask("PUT", "/v1/data/a", "never acknowledged")
        assert answer.status == 503
    except LOST:
        pass
    assert await process.ended(3.0) == BROKEN


async def test_copies_of_a_live_file_open_to_a_prefix(tmp_path: Path) -> None:
    path, copied = str(tmp_path / "data.kantadb"), str(tmp_path / "copy.kantadb")
    process = await Process(path).start()

    async def write(name: str) -> None:
        client = await process.client()
        number = 0
        while running:
            number += 1
            assert (await client.ask("PUT", f"/v1/data/{name}", number)).status == 200
        client.close()

    running = True
    writers = [asyncio.create_task(write(f"w{number}")) for number in range(4)]
    copies = []
    for number in range(8):
        await asyncio.to_thread(subprocess.run, ["cp", path, f"{copied}{number}"], check=True)
        copies.append(f"{copied}{number}")
    running = False
    await asyncio.gather(*writers)
    assert await process.stop() == OK
    whole = changes(path)
    for name in copies:
        opened = await Process(name).start()
        assert await opened.stop() == OK
        found = changes(name)
        assert [change.h for change in found.values()] == [whole[rev].h for rev in found]


async def test_with_few_descriptors_the_log_goes_on_and_nothing_spins(tmp_path: Path) -> None:
    path = str(tmp_path / "data.kantadb")
    process = await Process(path, before=("prlimit", "--nofile=64:64")).start()
    client = await process.client()
    assert (await client.ask("PUT", "/v1/data/a", 0)).status == 200
    clients = [await process.client() for _ in range(100)]
    for number in range(20):
        assert (await client.ask("PUT", "/v1/data/a", number)).status == 200
    assert (await client.ask("PUT", "/v1/data/b?base=1", 1)).status == 200
    assert (await client.ask("POST", "/v1/snapshot")).status == 200
    before = cpu_seconds(process.pid)
    await asyncio.sleep(1.0)
    assert cpu_seconds(process.pid) - before < 0.3
    for each in clients:
        each.close()
    client.close()
    async with asyncio.timeout(5):
        while not await works(process):
            await asyncio.sleep(0.05)
    assert await process.stop() == OK


async def works(process: Process) -> bool:
    """Whether a new connection is answered."""
    try:
        return (await process.ask("PUT", "/v1/data/new", 1)).status == 200
    except LOST:
        return False


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
