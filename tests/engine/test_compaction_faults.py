"""Compaction where something fails, and where somebody else starts in the middle of it."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from kantad.engine.engine import Engine
from kantad.engine.opening import open_engine
from kantad.store.disk import RealDisk
from kantad.store.log import Locked, open_log
from kantad.values.errors import Problem
from tests.engine.compaction_kit import compacted, filled, is_whole, others, refused
from tests.engine.engine_kit import Database, LeverDisk, eventually, flushed, proposal, refusal, write


class TestWhatFails:
    async def unchanged(self, database: Database, engine: Engine) -> None:
        """Everything is as it was, and goes on."""
        assert engine.past.oldest == 0
        await write(engine, proposal("put", "/after", engine.rev))
        assert others(database) == []
        assert not engine.broken.done()
        assert await engine.former.value_at(3, ("k2", "n")) == 2

    async def test_a_process_that_ends_or_talks_nonsense(self, database: Database) -> None:
        engine = database.open()
        await filled(engine, 50)
        for command in (("false",), ("echo", "hello"), ("/nowhere/to/be/found",)):
            engine.compaction.command = command
            assert (await refused(engine, "10r")).code == "unavailable"
            await self.unchanged(database, engine)
        assert engine.compaction.status()["trouble"]

    async def test_a_folder_that_is_moved_away_and_back(self, tmp_path: Path) -> None:
        here, away = tmp_path / "here", tmp_path / "away"
        here.mkdir()
        database = Database(str(here / "data.kantadb"))
        engine = database.open()
        await filled(engine, 50)
        here.rename(away)
        assert (await refused(engine, "10r")).code == "unavailable"
        away.rename(here)
        await self.unchanged(database, engine)
        assert (await compacted(engine, "10r")).oldest == 41
        await database.stop()

    @pytest.mark.parametrize("call", ["open", "write", "sync", "lock", "rename"])
    async def test_a_system_call_before_the_rename_is_done(self, database: Database, call: str) -> None:
        disk = SwapFaults()
        database.disk = disk
        engine = database.open()
        await filled(engine, 50)
        enough = asyncio.Event()
        writing = asyncio.get_running_loop().create_task(self._keep_writing(engine, enough))
        for number in (errno.EIO, errno.ENOSPC):
            disk.fault = (call, number)
            problem = await refused(engine, "10r")
            assert problem.code == ("storage_full" if number == errno.ENOSPC else "unavailable"), (call, problem)
            assert disk.fault is None
            await self.unchanged(database, engine)
        enough.set()
        await writing
        await flushed(engine)
        assert (await compacted(engine, "10r")).oldest > 40

    @staticmethod
    async def _keep_writing(engine: Engine, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await write(engine, proposal("put", "/n", engine.rev))

    async def test_a_folder_that_cannot_be_synced_after_the_rename_ends_the_process(self, database: Database) -> None:
        disk = SwapFaults()
        database.disk = disk
        engine = database.open()
        await filled(engine, 50)
        disk.fault = ("sync_folder", errno.EIO)
        assert (await refused(engine, "10r")).code == "unavailable"
        assert engine.broken.done()
        assert is_whole(database.path)
        assert [is_whole(str(archive)) for archive in others(database)] == [True]  # what was cut off is nowhere else
        await engine.stop()
        again = open_engine(database.path)
        assert (again.rev, again.past.oldest) == (50, 40)
        await again.stop()

    async def test_damage_behind_the_cut_is_refused_with_where_reading_goes_on(self, database: Database) -> None:
        engine = database.open()
        await filled(engine, 100)
        await engine.snapshot()
        await filled(engine, 20)
        await database.stop()
        data = bytearray(Path(database.path).read_bytes())
        place = data.index(b'"n":69')
        data[place + 4] ^= 1
        Path(database.path).write_bytes(data)
        engine = database.open()
        problem = await refused(engine, "60r")
        assert (problem.code, problem.more) == ("history_gone", {"reason": "damaged", "oldest": 100})
        assert others(database) == []
        assert (await compacted(engine, "20r")).oldest == 100
        assert is_whole(database.path)


class SwapFaults(LeverDisk):
    """Fails one call, of those that a swap makes: what concerns the new file, and the renaming."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: tuple[str, int] | None = None
        self.new: set[int] = set()

    def _may_fail(self, call: str) -> None:
        if self.fault is not None and self.fault[0] == call:
            number, self.fault = self.fault[1], None
            raise OSError(number, os.strerror(number))

    def open(self, path: str, flags: int) -> int:
        if ".compacting." not in path:
            return super().open(path, flags)
        self._may_fail("open")
        fd = super().open(path, flags)
        self.new.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.new.discard(fd)
        super().close(fd)

    def lock(self, fd: int) -> None:
        if fd in self.new:
            self._may_fail("lock")
        super().lock(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if fd in self.new:
            self._may_fail("write")
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        if fd in self.new:
            self._may_fail("sync")
        super().sync(fd)

    def rename(self, source: str, target: str) -> None:
        self._may_fail("rename")
        super().rename(source, target)
        self.new.clear()

    def sync_folder(self, path: str) -> None:
        self._may_fail("sync_folder")
        super().sync_folder(path)


async def test_who_opens_the_path_in_the_middle_of_a_swap_is_locked_out(database: Database) -> None:
    disk = OpenedMeanwhile(database)
    database.disk = disk
    engine = database.open()
    await filled(engine, 50)
    await compacted(engine, "10r")
    await eventually(lambda: len(disk.tried) == 3)
    assert disk.tried == ["locked"] * 3
    assert refusal(lambda: _opened(database.path))
    await write(engine, proposal("put", "/n", 1))


def _opened(path: str) -> None:
    try:
        open_log(path, None, RealDisk(), 0)
    except Locked:
        raise Problem("unavailable", "locked") from None


class OpenedMeanwhile(LeverDisk):
    """Somebody else starts before the rename, after it, and when the old file is closed."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database, self.tried = database, list[str]()
        self.old = -1

    def _try(self) -> None:
        try:
            log, _ = open_log(self.database.path, None, RealDisk(), 0)
        except Locked:
            self.tried.append("locked")
        else:
            log.close()
            self.tried.append("opened")

    def rename(self, source: str, target: str) -> None:
        assert self.database.engine is not None
        self.old = self.database.engine.log.fd
        self._try()
        super().rename(source, target)
        self._try()

    def close(self, fd: int) -> None:
        super().close(fd)
        if fd == self.old:
            self.old = -1
            self._try()


async def test_who_had_opened_the_old_file_before_the_rename_finds_that_it_is_another_now(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    disk = Late(engine)
    starting = asyncio.get_running_loop().run_in_executor(None, _starts, database.path, disk)
    await asyncio.to_thread(disk.opened.wait, 10)
    await compacted(engine, "10r")
    disk.go.set()
    assert await starting == "locked"
    assert disk.files == 2


def _starts(path: str, disk: RealDisk) -> str:
    try:
        log, _ = open_log(path, None, disk, 0)
    except Locked:
        return "locked"
    log.close()
    return "opened"


class Late(RealDisk):
    """A start that is held up between opening the file and locking it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.files = engine, 0
        self.opened, self.go = threading.Event(), threading.Event()

    def open(self, path: str, flags: int) -> int:
        self.files += 1
        return super().open(path, flags)

    def lock(self, fd: int) -> None:
        self.opened.set()
        assert self.go.wait(20)
        super().lock(fd)
