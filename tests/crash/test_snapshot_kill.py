"""The server, or the process that makes a snapshot beside the file, killed, without room, told to end: nothing is lost.

A value of 5 MiB makes the state one whose snapshots are not written into the file.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantad.store.beside import recover_from
from kantad.store.log import reading
from kantad.store.recovery import recover
from kantad.tools import check
from kantad.values.content import encode_json
from tests.crash.injected import NEEDS_STRACE, killed_meanwhile, small_disk_at
from tests.crash.journal import Journal
from tests.crash.process_kit import LOST, OK, TIMEOUT, Answer, Process
from tests.own_formats import CBOR, flags_for, format_flag
from tests.tools.kit import command

CALLS = ["rename", "fsync", "fdatasync", "unlink", "write", "fchmod", "statfs", "close", "read"]
LARGE = "x" * (5 << 20)


def makers(process: Process) -> list[int]:
    """The processes of a server that make a snapshot."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if b"kantad.tools.snapshot" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


async def maker(process: Process) -> int:
    """The process that makes a snapshot, as soon as there is one."""
    async with asyncio.timeout(TIMEOUT):
        while not (found := makers(process)):
            await asyncio.sleep(0.002)
    return found[0]


async def begun(process: Process) -> tuple["asyncio.Task[Answer]", int]:
    """A snapshot that is asked for, after a change, and the process that makes it."""
    assert (await process.ask("POST", "/v1/data/ticks", 1)).status == 201
    asked = asyncio.create_task(snapshot(process))
    return asked, await maker(process)


async def large(path: str, *flags: str, before: tuple[str, ...] = ()) -> tuple[Process, Journal]:
    """A server with a large state and the journal of it; its first snapshot is made."""
    process = await Process(path, *flags, before=before).start()
    journal = Journal(1)
    await journal.begin(process)
    assert (await process.ask("PUT", "/v1/data/large", LARGE)).status == 200
    assert (await process.ask("PUT", "/v1/data/ticks", [])).status == 200
    await snapshot(process)
    assert os.path.exists(f"{path}.snapshot")
    return process, journal


async def snapshot(process: Process) -> Answer:
    return await process.ask("POST", "/v1/snapshot")


def same_without(path: str) -> None:
    """With the snapshot beside it, a file holds what it holds without."""
    with reading(path, format_flag(path)) as (buffer, size, framing, codec):
        one, other = recover_from(path, buffer, size, framing, codec), recover(buffer, size, framing, codec)
    assert (one.rev, one.chain, one.v, one.micros) == (other.rev, other.chain, other.v, other.micros)
    assert encode_json(one.state) == encode_json(other.state)


async def whole_again(path: str, journal: Journal) -> None:
    """The next start has all that was acknowledged, and nothing is left over."""
    same_without(path)
    again = await Process(path, *flags_for(path)).start()
    await journal.settle(again)
    assert (await again.ask("GET", "/v1/data/large")).body == LARGE
    assert await again.stop() == OK
    ran = command(check, Path(path), *flags_for(path))
    assert (ran.status, "not used" in ran.out) == (0, False)
    assert not [name for name in os.listdir(os.path.dirname(path)) if ".new-" in name]


@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_the_process_killed_at_any_moment_costs_that_snapshot_only(tmp_path: Path, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal = await large(path, "--format", format)
    chance = random.Random(5)
    statuses = []
    for number in range(6):
        writing = asyncio.create_task(journal.write(process))
        await asyncio.wait([writing], timeout=0.02)
        content = Path(f"{path}.snapshot").read_bytes()
        asked, victim = await begun(process)
        await asyncio.wait([asked], timeout=chance.random() * 0.2 if number else 0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        answer = await asked
        statuses.append(answer.status)
        assert answer.status in (200, 503)
        if answer.status == 503:
            assert answer.body["code"] == "unavailable"
            assert Path(f"{path}.snapshot").read_bytes() == content
            assert (await process.ask("GET", "/v1/status")).body["snapshot"]["trouble"]
        assert (await process.ask("GET", "/readyz")).status == 200
        await process.kill() if number == 5 else None
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        if number < 5:
            await process.stop()
            await whole_again(path, journal)
            process = await Process(path, *flags_for(path)).start()
    assert statuses[0] == 503
    await whole_again(path, journal)


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.1, 0.2])
async def test_the_server_killed_while_one_is_made(tmp_path: Path, wait: float) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal = await large(path)
    writing = asyncio.create_task(journal.write(process))
    asked, victim = await begun(process)
    await asyncio.sleep(wait)
    os.kill(process.pid, signal.SIGKILL)
    await process.ended()
    await writing
    with contextlib.suppress(*LOST):
        await asked
    async with asyncio.timeout(TIMEOUT):  # it ends by itself
        while _lives(victim):
            await asyncio.sleep(0.01)
    await whole_again(path, journal)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_server_told_to_end_while_one_is_made(tmp_path: Path) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal = await large(path)
    writing = asyncio.create_task(journal.write(process))
    asked, victim = await begun(process)
    os.kill(process.pid, signal.SIGTERM)
    assert await process.ended(5) == OK
    await writing
    with contextlib.suppress(*LOST):
        await asked
    assert not _lives(victim)
    await whole_again(path, journal)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB: not enough for a snapshot, and what is to be left to the log."""
    with small_disk_at(tmp_path / "small", "24m") as where:
        yield where


async def test_a_disk_that_is_nearly_full_is_left_to_the_log(small_disk: Path) -> None:
    path = str(small_disk / "data.kantadb")
    process = await Process(path).start()
    assert (await process.ask("PUT", "/v1/data/large", LARGE)).status == 200
    answer = await snapshot(process)
    assert (answer.status, answer.body["code"]) == (507, "storage_full")
    assert os.listdir(small_disk) == ["data.kantadb"]
    assert (await process.ask("GET", "/readyz")).status == 200
    status = (await process.ask("GET", "/v1/status")).body
    assert (status["trouble"], "no room" in status["snapshot"]["trouble"]) == (None, True)
    assert (await process.ask("PUT", "/v1/data/n", 1)).status == 200
    assert await process.stop() == OK
    again = await Process(path).start()
    assert (await again.ask("GET", "/v1/data/n")).body == 1
    assert await again.stop() == OK


async def killed_at(path: str, journal: Journal, call: str, number: int) -> bool:
    """A server and its process, one of them killed at the n-th of these calls, make a snapshot under load.

    Whether it was met. Whatever happened, the next start has all that was acknowledged.
    """
    met = await killed_meanwhile(path, journal, call, number, snapshot)
    await whole_again(path, journal)
    return met


@NEEDS_STRACE
@pytest.mark.parametrize(("call", "number"), [("rename", 1), ("fchmod", 1)])
async def test_killed_at_a_call_while_one_is_made(tmp_path: Path, call: str, number: int) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal = await large(path)
    await process.kill()
    assert await killed_at(path, journal, call, number)


@NEEDS_STRACE
@pytest.mark.long
@pytest.mark.parametrize(
    "call", ["rename", "fsync", "fdatasync", "unlink", "write", "fchmod", "statfs", "close", "read"]
)
@pytest.mark.parametrize("format", ["json", "msgpack", CBOR])
async def test_killed_at_every_call_while_one_is_made(tmp_path: Path, call: str, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    process, journal = await large(path, "--format", format)
    await process.kill()
    first = 1 if call not in ("close", "read") else 300  # before that, the interpreters start
    for number in range(first, first + 12):
        await killed_at(path, journal, call, number)
