"""SIGTERM: idle, under load, in the start, twice. Exit 0 within 5 s, every acknowledged write there, none doubled."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.crash.injected import NEEDS_STRACE
from tests.crash.journal import Journal
from tests.crash.process_kit import BROKEN, OK, Ended, Process, strace


async def terminations(path: str, count: int, *flags: str) -> None:
    """Start, write, SIGTERM at a random moment, compare; again and again."""
    journal, dice = Journal(7), random.Random(7)
    process = await Process(path, *flags).start()
    await journal.begin(process)
    for _ in range(count):
        writing = asyncio.create_task(journal.write(process))
        await asyncio.wait([writing], timeout=dice.uniform(0, 0.2))
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert await process.ended(5.0) == OK
        assert time.monotonic() - begun < 5.0
        await asyncio.wait_for(writing, 5.0)
        process = await Process(path, *flags).start()
        await journal.settle(process)
    assert await process.stop() == OK
    total = journal.check_file(path)
    assert total >= journal.acknowledged
    print(f"{count} terminations, {total} changes, {journal.acknowledged} acknowledged")


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
async def test_sigterm_under_load_keeps_every_acknowledged_write(tmp_path: Path, policy: str) -> None:
    await terminations(str(tmp_path / "data.kantadb"), 5 if policy == "durable" else 2, "--ack", policy)


@pytest.mark.long
@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_hundred_sigterms_under_load_keep_every_acknowledged_write(tmp_path: Path, format: str) -> None:
    await terminations(str(tmp_path / "data.kantadb"), 100, "--format", format)


async def test_sigterm_in_the_start_is_no_crash(tmp_path: Path) -> None:
    path = str(tmp_path / "data.kantadb")
    for number in range(8):
        process = Process(path)
        await process.spawn()
        await asyncio.sleep(0.05 * number)
        os.kill(process.pid, signal.SIGTERM)
        try:
            await process.until_ready()
            status = await process.ended(5.0)
        except Ended as ended:
            status = ended.status
        assert status in (OK, -signal.SIGTERM)
    again = await Process(path).start()
    assert await again.stop() == OK


async def test_an_idle_connection_and_a_waiting_reader_do_not_hold_up_sigterm(tmp_path: Path) -> None:
    process = await Process(str(tmp_path / "data.kantadb")).start()
    idle, waiting = await process.client(), await process.client()
    assert (await idle.ask("PUT", "/v1/data/a", 1)).status == 200
    tag = '"' + "0" * 32 + '"'
    held = asyncio.create_task(waiting.ask("GET", "/v1/data/none?wait=60", If_None_Match=tag))
    await idle.ask("GET", "/v1/status")
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert await process.ended(5.0) == OK
    assert time.monotonic() - begun < 5.0
    await asyncio.wait([held])
    held.exception()
    idle.close()
    waiting.close()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = await Process(str(tmp_path / "data.kantadb")).start()
    waiting = await process.client()
    held = asyncio.create_task(waiting.ask("POST", "/v1/transaction", None, Content_Length="9"))
    await process.ask("GET", "/v1/status")
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    assert await process.ended(1.5) in (OK, 1)
    await asyncio.wait([held])
    held.exception()
    waiting.close()


@NEEDS_STRACE
@pytest.mark.parametrize(("ack", "status"), [("applied", BROKEN), ("durable", OK)])
async def test_a_second_signal_does_not_end_it_with_0_where_an_acknowledged_write_is_lost(
    tmp_path: Path, ack: str, status: int
) -> None:
    path = str(tmp_path / "data.kantadb")
    await (await Process(path).start()).stop()
    process = await Process(path, before=strace("fdatasync:delay_enter=1500000", path=path)).start()
    held = [asyncio.create_task(process.ask("PUT", "/v1/data/a", 1))]
    await asyncio.sleep(0.2)  # its sync is under way, so the next write waits for it
    second = asyncio.create_task(process.ask("PUT", f"/v1/data/b?ack={ack}", 2))
    await asyncio.wait([second], timeout=0.2)
    assert second.done() == (ack == "applied")
    os.kill(process.pid, signal.SIGTERM)
    await asyncio.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert await process.ended(5.0) == status
    await asyncio.wait([*held, second])
    for task in (*held, second):
        task.exception()
    again = await Process(path).start()
    assert "b" not in await again.root()
    assert await again.stop() == OK
