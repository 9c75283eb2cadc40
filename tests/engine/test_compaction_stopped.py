"""A process that dies at any call of an online compaction: what is acknowledged is there at the next start.

Before and after each call to the disk the folder is copied, which is what a `kill -9` leaves there. With real
system calls and signals it is `tests/crash/test_compaction_kill.py`.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from kantad.engine.engine import Engine
from kantad.store.disk import RealDisk
from kantad.store.formats import is_own
from kantad.store.log import open_log
from kantad.tools import check
from tests.engine.compaction_kit import compacted, filled
from tests.engine.engine_kit import Database, LeverDisk, proposal, write
from tests.tools.kit import command


class Left(NamedTuple):
    """What a death at a call leaves, and the newest revision that was acknowledged before it."""

    call: str
    folder: Path
    acknowledged: int


class Photographed(LeverDisk):
    """Copies the folder before and after each call, while `on`."""

    def __init__(self, folder: Path, album: Path) -> None:
        super().__init__()
        self.folder, self.album, self.on = folder, album, False
        self.acknowledged = 0
        self.left: list[Left] = []
        self.unsynced: list[str] = []

    def photograph(self, call: str) -> None:
        if not self.on:
            return
        copy = self.album / str(len(self.left))
        self.left.append(Left(call, copy, self.acknowledged))
        copy.mkdir(parents=True)
        for each in self.folder.iterdir():
            if each.is_file() and ".archive.new-" not in each.name:  # it comes and goes, in the other process
                shutil.copyfile(each, copy / each.name)

    def open(self, path: str, flags: int) -> int:
        self.photograph("open")
        return super().open(path, flags)

    def lock(self, fd: int) -> None:
        self.photograph("lock")
        super().lock(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.photograph("write")
        half = super().write(fd, data[: 1 + len(data) // 2])
        self.photograph("half a write")
        return half

    def sync(self, fd: int) -> None:
        self.photograph("sync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        if self.synced != os.path.getsize(source):
            self.unsynced.append(source)
        self.photograph("rename")
        super().rename(source, target)
        self.photograph("after the rename")

    def sync_folder(self, path: str) -> None:
        self.photograph("sync_folder")
        super().sync_folder(path)
        self.photograph("after sync_folder")

    def close(self, fd: int) -> None:
        self.photograph("close")
        super().close(fd)


async def keep_writing(engine: Engine, disk: Photographed, enough: asyncio.Event) -> None:
    """Each value is the revision before it."""
    while not enough.is_set():
        outcome = await write(engine, proposal("put", "/n", engine.rev))
        disk.acknowledged = outcome.rev


async def test_a_death_at_any_call_of_a_compaction_loses_nothing(either: Database, tmp_path: Path) -> None:
    disk = Photographed(Path(either.path).parent, tmp_path / "album")
    either.disk = disk
    engine = either.open()
    await filled(engine, 60)
    disk.acknowledged = engine.rev
    enough = asyncio.Event()
    writing = asyncio.get_running_loop().create_task(keep_writing(engine, disk, enough))
    disk.on = True
    done = await compacted(engine, "10r")
    enough.set()
    await writing
    disk.on = False
    assert not disk.unsynced
    assert {"open", "lock", "rename", "sync_folder", "close"} <= {left.call for left in disk.left}
    oldest = {judged(left, done.oldest, either.format) for left in disk.left}
    assert oldest == {0, done.oldest}


def judged(left: Left, cut: int, format: str | None) -> int:
    """A start on what is left has all that was acknowledged, and nothing is over; the oldest revision that it has."""
    path = left.folder / "data.kantadb"
    log, found = open_log(str(path), format, RealDisk(), 0)
    log.close()
    assert found.rev >= left.acknowledged, left
    assert found.state.get("n", -1) == (found.rev - 1 if found.rev > 60 else -1), left
    assert found.oldest in (0, cut), left
    flag = ["--format", format] if is_own(format) else []
    assert command(check, path, *flag).status == 0
    archives = [each for each in left.folder.iterdir() if "@" in each.name]
    assert len(archives) == 1 or not found.oldest
    assert all(command(check, each, *flag).status == 0 for each in archives)
    assert all("@" in each.name or ".torn-" in each.name or each == path for each in left.folder.iterdir()), left
    return found.oldest
