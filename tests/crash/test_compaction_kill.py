"""Compaction and conversion killed at system calls: the original or the result, never neither."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check
from kantad.values.content import encode_json
from tests.crash.journal import Journal
from tests.crash.process_kit import LOST, OK, Ended, Process, strace
from tests.crash.test_crash_strace import filled, why_not
from tests.store.logs import FORMATS, Maker, every_kind
from tests.store.test_beside import after, put_beside
from tests.tools.kit import command

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

CALLS = ["write", "fdatasync", "link", "rename", "openat", "unlink", "fsync", "flock", "fchmod", "pwrite64", "close"]
FEW = [("fdatasync", 2), ("rename", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("link", 1), ("unlink", 1)]


def log_of(format: str) -> Maker:
    log = every_kind(format)
    for number in range(20):
        log.change({"n": number}, id=f"key-{number}x", q="0badcafe")
    return log


def killed(arguments: list[str], call: str, number: int) -> bool:
    """Run a command that is killed at the n-th of these calls; whether that was met."""
    run = [*strace(f"{call}:signal=KILL:when={number}"), sys.executable, "-m", "kantad", *arguments]
    return subprocess.run(run, capture_output=True, timeout=60, check=False).returncode != 0


def compact_killed(folder: Path, log: Maker, call: str, number: int, beside: bool = False) -> bool:
    """Whether the call was met; the file is the original or the result in either case.

    With a snapshot of a revision before its last `beside` it, that is used for the original only.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "data.kantadb"
    path.write_bytes(bytes(log.data))
    if beside:
        put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    met = killed(["compact", str(path), "--retain", "5r"], call, number)
    opened, found = open_log(str(path), None, RealDisk(), 0)
    opened.close()
    assert (found.rev, found.chain) == (log.rev, log.chain)
    assert encode_json(found.state) == encode_json(log.state)
    assert found.oldest in (0, log.rev - 5)
    assert found.beside == (beside and found.oldest == 0)
    assert os.path.exists(f"{path}.snapshot") == found.beside
    assert command(check, path).status == 0
    archives = [each for each in folder.iterdir() if "@" in each.name]
    assert len(archives) == 1 if found.oldest else len(archives) < 2
    assert all(command(check, each).status == 0 for each in archives)
    assert all("@" in each.name or each == path or found.beside for each in folder.iterdir())
    return met


def convert_killed(folder: Path, log: Maker, call: str, number: int) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, target = folder / "data.kantadb", folder / "new.kantadb"
    path.write_bytes(bytes(log.data))
    met = killed(["convert", str(path), str(target)], call, number)
    assert path.read_bytes() == log.data
    if target.exists():
        assert command(check, target).status == 0
        opened, found = open_log(str(target), None, RealDisk(), 0)
        opened.close()
        assert found.rev == log.rev
    return met


@pytest.mark.parametrize(("call", "number"), FEW)
def test_a_compaction_killed_at_a_call(tmp_path: Path, call: str, number: int) -> None:
    for beside in (False, True):
        compact_killed(tmp_path / "here", log_of("json"), call, number, beside)


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("call", CALLS)
def test_a_compaction_and_a_conversion_killed_at_every_call(tmp_path: Path, call: str, format: str) -> None:
    log = log_of(format)
    for one in (compact_killed, partial(compact_killed, beside=True), convert_killed):
        first = 1 if call not in ("openat", "close") else 300  # before that, the interpreter starts
        met = [one(tmp_path / "here", log, call, number) for number in range(first, first + 40)]
        assert call in ("openat", "close", "pwrite64", "fchmod", "flock", "rename") or met[0]


async def online_killed(path: str, journal: Journal, call: str, number: int) -> bool:
    """A server and its processes, one of them killed at the n-th of these calls, compact under load.

    Whether it was met. Whatever happened, the next start has all that was acknowledged.
    """
    process = Process(path, before=strace(f"{call}:signal=KILL:when={number}"))
    await process.spawn()
    met = True
    with contextlib.suppress(Ended, *LOST):
        await process.until_ready()
        writing = asyncio.create_task(journal.write(process))
        compacting = asyncio.create_task(process.ask("POST", "/v1/compact", {"retain": "10r"}))
        await asyncio.wait([compacting], timeout=15)
        with contextlib.suppress(Ended, *LOST):
            met = compacting.done() and compacting.result().status != 200
        if process.running.returncode is None:
            await process.kill()
        await writing
    again = await Process(path).start()
    await journal.settle(again)
    assert await again.stop() == OK
    assert command(check, Path(path)).status == 0
    assert not [name for name in os.listdir(os.path.dirname(path)) if ".new-" in name]
    return met


@pytest.mark.parametrize("call", ["rename", "link"])
async def test_a_server_killed_at_a_call_while_it_compacts(tmp_path: Path, call: str) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path)
    assert await online_killed(path, journal, call, 1)


@pytest.mark.long
@pytest.mark.parametrize("call", ["fdatasync", "rename", "link", "unlink", "fsync", "flock", "write"])
@pytest.mark.parametrize("format", FORMATS)
async def test_a_server_killed_at_every_call_while_it_compacts(tmp_path: Path, call: str, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    journal = await filled(path, "--format", format)
    for number in range(1, 9):
        await online_killed(path, journal, call, number)
