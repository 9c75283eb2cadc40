"""Faults injected into a real process's system calls: killed, refused, cut short or slowed at the n-th call.

Needs strace and the right to trace: see `conftest`.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash.injected import NEEDS_STRACE
from tests.crash.journal import Journal
from tests.crash.process_kit import BROKEN, LOST, OK, Ended, Process, changes, strace

pytestmark = NEEDS_STRACE

CALLS = ["write", "fdatasync", "link", "rename", "ftruncate", "openat", "unlink", "fsync", "flock", "pwrite64"]


async def filled(path: str, *flags: str) -> Journal:
    """A database with some content, and the journal of it."""
    process = await Process(path, *flags).start()
    journal = Journal(1)
    await journal.begin(process)
    writing = asyncio.create_task(journal.write(process))
    await asyncio.wait([writing], timeout=0.1)
    await process.stop()
    await writing
    return journal


async def killed_at(path: str, journal: Journal, call: str, number: int) -> bool:
    """Run it, killed at the n-th of these calls; whether that was met. Whatever happened, the next start is whole."""
    process = Process(path, before=strace(f"{call}:signal=KILL:when={number}", path=path))
    await process.spawn()
    met = True
    with contextlib.suppress(Ended):
        await process.until_ready()
        writing = asyncio.create_task(journal.write(process))
        met = bool((await asyncio.wait([writing], timeout=0.5))[0])
        await (process.ended() if met else process.kill())
        await writing
    again = await Process(path).start()
    if journal.acknowledged:
        await journal.settle(again)
    else:
        await journal.begin(again)
    assert await again.stop() == OK
    journal.check_file(path)
    return met


@pytest.mark.parametrize(("call", "number"), [("write", 5), ("fdatasync", 3), ("fdatasync", 20), ("pwrite64", 1)])
async def test_killed_at_a_call_under_load(tmp_path: Path, call: str, number: int) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path)
    assert await killed_at(path, journal, call, number)


@pytest.mark.long
@pytest.mark.parametrize("call", ["write", "fdatasync", "pwrite64"])
@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_killed_at_every_call_under_load(tmp_path: Path, call: str, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path, "--format", format)
    for number in range(1, 40):
        await killed_at(path, journal, call, number)


async def first_start_killed(path: str, call: str, number: int, format: str) -> bool:
    """Kill the first start at a call (traced where it names the database); whether it was met."""
    process = Process(path, "--format", format, before=(*strace(f"{call}:signal=KILL:when={number}"),))
    await process.spawn()
    met = False
    try:
        await process.until_ready()
    except Ended:
        met = True
    else:
        await process.kill()
    again = await Process(path, "--format", format).start()
    assert (await again.ask("PUT", "/v1/data/a", number)).status == 200
    assert await again.stop() == OK
    assert len(changes(path)) == 1
    return met


@pytest.mark.parametrize("call", ["link", "fdatasync", "unlink", "fsync", "flock"])
async def test_a_first_start_killed_at_a_call_leaves_nothing_in_the_way(tmp_path: Path, call: str) -> None:
    met = []
    for number in range(1, 4):
        met.append(await first_start_killed(str(tmp_path / f"{number}.kantadb"), call, number, "msgpack"))
        if not met[-1]:
            break
    assert met[0]


@pytest.mark.long
@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_first_start_killed_at_each_call_leaves_nothing_in_the_way(
    tmp_path: Path, call: str, format: str
) -> None:
    last = 30 if call in ("write",) else 12
    for number in range(1, last):
        if not await first_start_killed(str(tmp_path / f"{number}.kantadb"), call, number, format):
            break
    if call == "openat":
        for number in range(150, 700, 25):
            await first_start_killed(str(tmp_path / f"{number}.kantadb"), call, number, format)


async def broken_by(path: str, rule: str) -> tuple[Process, Journal, float]:
    """Run writers into a fault; the process has ended, so long after the last acknowledgement."""
    journal = await filled(path)
    process = await Process(path, before=strace(rule, path=path)).start()
    writing = asyncio.create_task(journal.write(process))
    latest, count = time.monotonic(), journal.acknowledged
    ended = asyncio.create_task(process.ended())
    while not ended.done():
        await asyncio.wait([ended], timeout=0.01)
        if journal.acknowledged > count:
            latest, count = time.monotonic(), journal.acknowledged
    await writing
    assert ended.result() == BROKEN
    assert b"stopping" in process.stderr
    return process, journal, time.monotonic() - latest


@pytest.mark.parametrize("rule", ["fdatasync:error=EIO:when=30", "write:error=EIO:when=20"])
async def test_a_disk_that_fails_once_stops_the_process(tmp_path: Path, rule: str) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal, seconds = await broken_by(path, rule)
    assert seconds < 1.5
    assert process.stderr.count(b"CRITICAL") <= 1
    again = await Process(path).start()
    await journal.settle(again)
    assert await again.stop() == OK
    journal.check_file(path)


async def test_a_failed_sync_tells_the_waiting_writers_and_exits(tmp_path: Path) -> None:
    """Also a client that holds its connection, and one that waits for a change, do not delay the end."""
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path)
    log = str(tmp_path / "calls")
    process = await Process(path, before=strace("fdatasync:error=EIO:when=3", path=path, log=log)).start()
    idle, waiting = await process.client(), await process.client()
    tag = '"' + "0" * 32 + '"'
    held = asyncio.create_task(waiting.ask("GET", "/v1/data/none?wait=60", If_None_Match=tag))
    clients = [await process.client() for _ in range(6)]
    told: list[Any] = []
    refused = 0.0
    for number in range(50):
        asked = [client.ask("PUT", f"/v1/data/values/x{i}", number) for i, client in enumerate(clients)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told += answers
        if any(not isinstance(answer, BaseException) and answer.status == 503 for answer in answers):
            refused = time.monotonic()
            break
    assert refused
    assert await process.ended() == BROKEN
    assert time.monotonic() - refused < 1.5
    assert not [answer for answer in told[-6:] if not isinstance(answer, LOST) and answer.status not in (200, 503)]
    with open(log) as file:
        assert sum("EIO" in line for line in file) == 1
    held.cancel()
    await asyncio.wait([held])
    for client in (idle, waiting, *clients):
        client.close()
    assert journal.acknowledged


async def traced(path: str, calls: str, log: str) -> Process:
    """Run it with these calls written to a log."""
    return await Process(path, before=("strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}")).start()


async def test_a_new_file_and_its_folder_are_synced_before_it_is_ready(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    process = await traced(str(tmp_path / "data.kantadb"), "link,linkat,fsync,fdatasync", str(log))
    calls = [line.split()[1].partition("(")[0] for line in log.read_text().splitlines()]
    linked = calls.index("link") if "link" in calls else calls.index("linkat")
    assert "fdatasync" in calls[:linked]
    assert "fsync" in calls[linked:]
    assert await process.stop() == OK


async def test_each_of_the_writes_one_after_another_has_a_sync_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    process = await traced(str(tmp_path / "data.kantadb"), "fdatasync", str(log))
    before = log.read_text().count("fdatasync(")
    client = await process.client()
    for number in range(20):
        assert (await client.ask("PUT", "/v1/data/a", number)).status == 200
        assert log.read_text().count("fdatasync(") > before + number
    client.close()
    assert await process.stop() == OK


async def test_a_slow_sync_does_not_slow_readers(tmp_path: Path) -> None:
    path = str(tmp_path / "data.kantadb")
    await filled(path)
    process = await Process(path, before=strace("fdatasync:delay_exit=1000000", path=path)).start()
    before = await process.root()
    writing = [asyncio.create_task(process.ask("PUT", "/v1/data/values/slow", number)) for number in range(2)]
    client = await process.client()
    slowest, reads, began = 0.0, 0, time.monotonic()
    while not all(task.done() for task in writing):
        start = time.monotonic()
        answer = await client.ask("GET", "/v1/data/values")
        slowest = max(slowest, time.monotonic() - start)
        reads += 1
        if time.monotonic() - began < 0.7:
            assert answer.body == before["values"]
    assert slowest < 0.5
    assert reads > 20
    assert {task.result().status for task in writing} == {200}
    client.close()
    await process.kill()


@pytest.mark.parametrize("rule", ["write:error=ENOSPC:when=10..20", "write:retval=37:when=10"])
async def test_a_write_that_finds_no_room_or_lies_is_survived(tmp_path: Path, rule: str) -> None:
    """A `retval` injection does not write at all: the file is then shorter than was told, which must be noticed."""
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path)
    process = await Process(path, before=strace(rule, path=path)).start()
    writing = asyncio.create_task(journal.write(process))
    await asyncio.wait([writing], timeout=1.0)
    if "retval" in rule:
        assert await process.ended() == BROKEN
    else:
        await process.kill()
    await writing
    again = await Process(path).start()
    await journal.settle(again)
    assert await again.stop() == OK
    journal.check_file(path)


@pytest.mark.long
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["write", "fdatasync", "ftruncate", "pwrite64"])
async def test_an_error_at_each_call_is_survived(tmp_path: Path, call: str, error: str) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path)
    for number in [*range(1, 8), 20, 21, 22]:
        process = Process(path, before=strace(f"{call}:error={error}:when={number}", path=path))
        await process.spawn()
        try:
            await process.until_ready()
        except Ended as ended:
            assert ended.status != OK
        else:
            writing = asyncio.create_task(journal.write(process))
            await asyncio.wait([writing], timeout=0.3)
            if process.running.returncode is None:
                await process.kill()
            await writing
        again = await Process(path).start()
        await journal.settle(again)
        assert await again.stop() == OK
    journal.check_file(path)
    assert not [name for name in os.listdir(tmp_path) if ".new-" in name and os.path.getsize(tmp_path / name) > 1 << 20]
