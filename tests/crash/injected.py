"""What the crash tests inject, shared: system calls that kill a server at work, and file systems that are small."""

import asyncio
import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.crash.journal import Journal
from tests.crash.process_kit import LOST, Answer, Ended, Process, strace
from tests.own_formats import flags_for


@functools.cache
def why_not() -> str:
    """Why nothing can be injected here, or the empty string.

    Only whether the machine lets strace trace is asked: how the tests call it is theirs to get right, so a mistake
    there fails them, and does not skip them.
    """
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-f", "-o", "/dev/null", "true"]
    found = subprocess.run(command, capture_output=True, timeout=20, check=False)
    return "" if found.returncode == 0 else f"strace may not trace here: {found.stderr.decode()[:100]}"


NEEDS_STRACE: Final = pytest.mark.strace  # see `conftest`


async def killed_meanwhile(
    path: str, journal: Journal, call: str, number: int, work: Callable[[Process], Awaitable[Answer]]
) -> bool:
    """A server and its processes, one of them killed at the n-th of these calls, do this work under load.

    Whether it was met: the work has no answer, or one that says it failed.
    """
    process = Process(path, *flags_for(path), before=strace(f"{call}:signal=KILL:when={number}"))
    await process.spawn()
    met = True
    with contextlib.suppress(Ended, *LOST):
        await process.until_ready()
        writing = asyncio.create_task(journal.write(process))
        await asyncio.wait([writing], timeout=0.05)
        asked = asyncio.ensure_future(work(process))
        await asyncio.wait([asked], timeout=15)
        with contextlib.suppress(Ended, *LOST):
            met = asked.done() and asked.result().status != 200
        if process.running.returncode is None:
            await process.kill()
        await writing
    return met


@contextlib.contextmanager
def small_disk_at(where: Path, size: str) -> Iterator[Path]:
    """A file system of this size, such as `256k`; skips the test where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", where]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "-l", where], check=True)
