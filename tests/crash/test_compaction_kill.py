"""A server killed, or told of a failure, at each system call of the swap of an online compaction; and its process, too.

The writer thread is the one that swaps. strace is attached to it when the server is ready, so its calls are
counted from there. Nothing else is asked meanwhile, so they are the same each time. Under load, the calls
are counted from the server's start, and met as it happens.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from kantad.tools import check
from kantad.values.errors import Problem
from tests.crash.calls import Call, concerning, tracing
from tests.crash.injected import NEEDS_STRACE, killed_meanwhile
from tests.crash.journal import Journal
from tests.crash.process_kit import BROKEN, LOST, OK, Answer, Process
from tests.crash.test_crash_strace import filled
from tests.engine.compaction_kit import compacted, others
from tests.engine.compaction_kit import filled as with_content
from tests.engine.engine_kit import Database, proposal, write
from tests.tools.kit import command

pytestmark = NEEDS_STRACE

SECONDS = 20.0
FORMATS = ["json", "msgpack"]


class Attached:
    """strace, attached to threads of a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def to(cls, threads: list[int], *options: str) -> "Attached":
        """Attach it; returns when that is done."""
        ids = [part for thread in threads for part in ("-p", str(thread))]
        process = await asyncio.create_subprocess_exec("strace", *options, *ids, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        async with asyncio.timeout(SECONDS):
            for _ in threads:
                assert b"attached" in await process.stderr.readline()
        return cls(process)

    async def end(self) -> None:
        """Detach it, if what it was attached to is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.communicate()


def threads_of(process: Process) -> list[int]:
    """Its threads, in the order in which they were begun."""
    return sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))


class Swaps:
    """A database that a server compacts again and again, each time from the same file."""

    def __init__(self, folder: Path, format: str) -> None:
        self.folder, self.format = folder, format
        self.path = folder / "here" / "data.kantadb"
        self.kept, self.log = folder / "kept", folder / "calls"
        self.thread = 0  # which of the process's threads writes
        self.calls: list[Call] = []

    async def begin(self) -> None:
        """Make the file, and find out which calls the swap consists of."""
        self.path.parent.mkdir()
        process = await Process(str(self.path), "--format", self.format).start()
        for number in range(40):
            assert (await process.ask("PUT", "/v1/data/n", number)).status == 200
        assert await process.stop() == OK
        shutil.copy(self.path, self.kept)
        process = await self.start()
        threads = threads_of(process)
        strace = await Attached.to(threads, "-y", "-e", "trace=%file,%desc", "-e", "signal=none", "-o", str(self.log))
        assert (await self.compact(process)).status == 200
        await strace.end()
        assert await process.stop() == OK
        [writer] = {int(line.split()[0]) for line in self.log.read_text().splitlines() if " rename(" in line}
        self.thread = threads.index(writer)
        lines = [line for line in self.log.read_text().splitlines() if line.startswith(f"{writer} ")]
        self.log.write_text("\n".join(lines))
        self.calls = concerning(self.log, self.path.parent)

    async def start(self) -> Process:
        """Serve the file as it was at first."""
        shutil.rmtree(self.path.parent)
        self.path.parent.mkdir()
        shutil.copy(self.kept, self.path)
        process = await Process(str(self.path)).start()
        assert (await process.ask("PUT", "/v1/data/last", True)).body["rev"] == 41  # the writer thread has begun
        return process

    @staticmethod
    async def compact(process: Process) -> Answer:
        return await process.ask("POST", "/v1/compact", {"retain": "10r"})

    async def with_injected(self, call: Call, what: str) -> tuple[int | None, int]:
        """Compact with this call injected: the answer's status, if there is one, and the oldest revision afterwards."""
        process = await self.start()
        options = ("-e", f"trace={call.name}", "-e", f"inject={call.name}:{what}:when={call.number}")
        strace = await Attached.to([threads_of(process)[self.thread]], *options, "-o", "/dev/null")
        status = None
        with contextlib.suppress(*LOST):
            status = (await self.compact(process)).status
        if "KILL" in what and status is None:
            assert await process.ended() == -9
        await strace.end()
        if process.running.returncode is None and status != 503:
            assert await process.stop() == OK
        elif process.running.returncode is None:
            await self.goes_on_or_ends(process)
        return status, await self.oldest()

    async def goes_on_or_ends(self, process: Process) -> None:
        """After a failure that was told, it takes writes as before, or it stops with the status of a broken disk."""
        with contextlib.suppress(*LOST):
            if (await process.ask("PUT", "/v1/data/last", False)).status == 200:
                assert await process.stop() == OK
                return
        assert await process.ended() == BROKEN

    async def oldest(self) -> int:
        """Start on what is left: everything is there, and nothing is left over; the oldest revision that it has."""
        again = await Process(str(self.path)).start()
        status = (await again.ask("GET", "/v1/status")).body
        assert (await again.root())["n"] == 39
        assert await again.stop() == OK
        names = [each.name for each in self.path.parent.iterdir() if each != self.path]
        assert all("@" in name for name in names), names
        assert names or not status["oldest"]
        assert all(command(check, each).status == 0 for each in self.path.parent.iterdir())
        return int(status["oldest"])


async def test_a_server_killed_before_and_after_the_rename(tmp_path: Path) -> None:
    swaps = Swaps(tmp_path, "json")
    await swaps.begin()
    [rename] = [call for call in swaps.calls if call.name == "rename"]
    behind = swaps.calls[swaps.calls.index(rename) + 1 :]
    assert await swaps.with_injected(rename, "signal=KILL") == (None, 0)
    assert await swaps.with_injected(behind[0], "signal=KILL") == (None, 31)


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
async def test_a_server_killed_at_every_call_of_the_swap(tmp_path: Path, format: str) -> None:
    swaps = Swaps(tmp_path, format)
    await swaps.begin()
    assert {"fdatasync", "flock", "rename", "openat", "fsync"} <= {call.name for call in swaps.calls}
    found = [await swaps.with_injected(call, "signal=KILL") for call in swaps.calls]
    assert {status for status, _ in found} <= {None, 200}
    assert {oldest for _, oldest in found} == {0, 31}


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_every_call_of_the_swap_may_fail(tmp_path: Path, format: str, error: str) -> None:
    swaps = Swaps(tmp_path, format)
    await swaps.begin()
    for call in swaps.calls:
        status, oldest = await swaps.with_injected(call, f"error={error}")
        assert status in (200, 503, 507, None), call
        assert status != 507 or not oldest, call


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("what", ["signal=KILL", "error=EIO", "error=ENOSPC"])
async def test_its_process_may_end_or_fail_at_every_call(tmp_path: Path, format: str, what: str) -> None:
    """The engine goes on as if nothing had been, unless the new file was in its place by then.

    Of one that is killed before it could say what it made, an archive may be left: a whole database, of no harm.
    """
    log, rewrite = tmp_path / "calls", (sys.executable, "-P", "-m", "kantad.tools.rewrite")
    folder = tmp_path / "here"
    folder.mkdir()
    database = Database(str(folder / "data.kantadb"), format)
    engine = database.open()
    await with_content(engine, 60)
    engine.compaction.command = (*tracing(log, None, ""), *rewrite)
    await compacted(engine, "10r")
    calls = concerning(log, folder)
    assert len(calls) > 20
    for call in calls:
        await with_content(engine, 5)
        for each in others(database):
            each.unlink()
        before = engine.past.oldest
        engine.compaction.command = (*tracing(log, call, what), *rewrite)
        with contextlib.suppress(Problem):
            await compacted(engine, "10r")
        kept = others(database)
        assert all("@" in each.name and command(check, each).status == 0 for each in kept), (call, kept)
        assert engine.past.oldest != before or len(kept) <= ("KILL" in what), (call, kept)
        assert len(kept) <= 1, call
        await write(engine, proposal("put", "/after", engine.rev))
        assert not engine.broken.done()
    await database.stop()


async def online_killed(path: str, journal: Journal, call: str, number: int) -> bool:
    """A server and its processes, one of them killed at the n-th of these calls, compact under load.

    Whether it was met. Whatever happened, the next start has all that was acknowledged.
    """

    def compact(process: Process) -> Awaitable[Answer]:
        return process.ask("POST", "/v1/compact", {"retain": "10r"})

    met = await killed_meanwhile(path, journal, call, number, compact)
    again = await Process(path).start()
    await journal.settle(again)
    assert await again.stop() == OK
    assert command(check, Path(path)).status == 0
    assert not [name for name in os.listdir(os.path.dirname(path)) if ".new-" in name]
    return met


@pytest.mark.long
@pytest.mark.parametrize("call", ["fdatasync", "rename", "link", "unlink", "fsync", "flock", "write"])
@pytest.mark.parametrize("format", FORMATS)
async def test_a_server_killed_at_every_call_while_it_compacts(tmp_path: Path, call: str, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path, "--format", format)
    for number in range(1, 9):
        await online_killed(path, journal, call, number)
