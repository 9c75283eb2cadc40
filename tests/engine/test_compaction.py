"""Compaction while changes are made: nothing is lost, nothing waits long, everything of the file goes over at once."""

import asyncio
import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from kantad.engine.compacting import Compacted, Compaction
from kantad.engine.engine import Engine, open_engine
from kantad.engine.since import position
from kantad.store.disk import RealDisk
from kantad.store.log import Locked, open_log, reading
from kantad.store.verify import verify
from kantad.values.content import decode_json, encode_json, same
from kantad.values.errors import Problem
from kantad.values.record import cursor
from kantad.values.retention import retention
from tests.engine.engine_kit import Database, LeverDisk, eventually, flushed, proposal, put, refusal, seen, write
from tests.engine.feed_kit import Follower


def compacting(engine: Engine, retain: str, archive: bool = True) -> "asyncio.Task[Compacted]":
    return asyncio.get_running_loop().create_task(engine.compaction.compact(retention(retain), archive))


async def compacted(engine: Engine, retain: str, archive: bool = True) -> Compacted:
    async with asyncio.timeout(30):
        return await engine.compaction.compact(retention(retain), archive)


async def refused(engine: Engine, retain: str) -> Problem:
    try:
        await compacted(engine, retain)
    except Problem as problem:
        return problem
    raise AssertionError("it was not refused")


def is_whole(path: str) -> bool:
    with reading(path) as (buffer, size, framing, codec):
        verified = verify(buffer, size, framing, codec)
        return verified.damage is None and not verified.torn


async def filled(engine: Engine, count: int, size: int = 20) -> None:
    for number in range(count):
        put(engine, f"/k{number % 50}", {"n": number, "pad": "x" * size})
        if number % 16 == 0:
            await asyncio.sleep(0)
    await flushed(engine)


def others(database: Database) -> list[Path]:
    path = Path(database.path)
    return sorted(each for each in path.parent.iterdir() if each != path)


async def test_history_is_dropped_and_everything_else_goes_on(either: Database) -> None:
    engine = either.open()
    await filled(engine, 500)
    before = encode_json(engine.root)
    done = await compacted(engine, "100r")
    assert (done.oldest, done.dropped) == (400, 400)
    assert done.bytes < done.before
    assert (engine.past.oldest, engine.backlog.oldest, engine.log.size) == (400, 400, os.stat(either.path).st_size)
    assert encode_json(engine.root) == before
    (archive,) = others(either)
    assert is_whole(str(archive))
    assert is_whole(either.path)
    assert str(archive) == done.archive
    for rev in (400, 401, 450, 500):
        value = await engine.former.value_at(rev, (f"k{(rev - 1) % 50}",))
        assert value["n"] == rev - 1
    await write(engine, proposal("put", "/after", 1))
    assert seen(engine, "/after") == 1
    assert engine.log.codec.chain_in(await engine.feeds.payload(401)) == engine.past.chain_at(401)


async def test_a_model_holds_under_writes_feeds_and_one_compaction_after_another(either: Database) -> None:
    engine = either.open(ring_bytes=4000)
    chance = random.Random(7)
    model: dict[str, Any] = {}
    chains = {0: engine.chain}
    states: dict[int, dict[str, Any]] = {0: {}}
    stopped = False

    async def writer() -> None:
        while not stopped:
            key = f"k{chance.randrange(20)}"
            value = {"n": chance.random(), "pad": "y" * chance.randrange(200)}
            outcome = await write(engine, proposal("put", f"/{key}", value, key=f"id{engine.rev}"))
            model[key] = value
            chains[outcome.rev] = outcome.chain
            states[outcome.rev] = dict(model)

    follower = Follower(engine, 0)
    writing = asyncio.get_running_loop().create_task(writer())
    await eventually(lambda: engine.rev > 200)
    dropped = 0
    for retain in ("150r", "50r", "none", "20r"):
        done = await compacted(engine, retain)
        dropped += done.dropped
        assert is_whole(either.path)
        await eventually(lambda at=engine.rev: engine.rev > at + 100)
        oldest = engine.past.oldest
        for rev in {oldest, oldest + 1, (oldest + engine.written.rev) // 2}:
            assert await position(engine, cursor(rev, chains[rev])) == rev
            assert same(await engine.former.value_at(rev, ()), states[rev])
    stopped = True
    await writing
    assert dropped > 300
    await follower.caught_up()
    assert [event["rev"] for event in follower.events] == list(range(1, engine.rev + 1))
    assert same(engine.root, model)
    again = engine.transact(proposal("put", "/nothing", 1, key="new"))
    assert not again.replayed


async def test_cursors_before_the_cut_are_gone_and_later_ones_are_of_this_history(either: Database) -> None:
    engine = either.open(ring_bytes=1000)
    marks = []
    for number in range(300):
        outcome = put(engine, "/n", number)
        marks.append(cursor(outcome.rev, outcome.chain))
    await flushed(engine)
    await compacted(engine, "100r")
    for mark in (marks[0], marks[198], "0", 199):
        with pytest.raises(Problem) as raised:
            await position(engine, mark)
        assert (raised.value.code, raised.value.more["reason"], raised.value.more["oldest"]) == (
            "history_gone",
            "compacted",
            200,
        )
    for rev in (200, 201, 250, 300):
        assert await position(engine, marks[rev - 1]) == rev
    with pytest.raises(Problem, match="not a cursor of this history"):
        await position(engine, f"250-{'0' * 16}")


async def test_readers_that_stood_before_the_cut_are_told_or_begin_anew(either: Database) -> None:
    engine = either.open(ring_bytes=1000)
    await filled(engine, 300)
    told, anew, later = Follower(engine, 10), Follower(engine, 10, whole=True), Follower(engine, 250)
    for follower in (told, anew, later):
        follower.stall()
    await asyncio.sleep(0.01)
    await compacted(engine, "100r")
    for follower in (told, anew, later):
        follower.go_on()
    await told.over()
    await anew.caught_up()
    await later.caught_up()
    assert told.sink.problem is not None
    assert (told.sink.problem.code, told.sink.problem.more["reason"]) == ("history_gone", "compacted")
    assert [(event["event"], event["rev"]) for event in anew.events] == [("reset", 300)]
    assert [event["rev"] for event in later.events] == list(range(251, 301))


async def test_repeated_requests_are_answered_as_before(either: Database) -> None:
    engine = either.open()
    posted = await write(engine, proposal("post", "/users", {"name": "Alice"}, key="k1"))
    await either.stop()
    engine = either.open()  # which does not know the child any more
    await filled(engine, 20)
    await compacted(engine, "none", archive=False)
    assert others(either) == []
    again = engine.transact(proposal("post", "/users", {"name": "Alice"}, key="k1"))
    assert again.replayed
    assert (again.rev, again.chain, again.child) == (posted.rev, posted.chain, posted.child)
    await either.stop()
    engine = either.open()
    again = engine.transact(proposal("post", "/users", {"name": "Alice"}, key="k1"))
    assert (again.rev, again.chain, again.child) == (posted.rev, posted.chain, posted.child)


async def test_what_is_not_older_stays(either: Database) -> None:
    engine = either.open()
    await filled(engine, 20)
    identity = engine.log.identity
    for retain in ("20r", "100r", "30d"):
        done = await compacted(engine, retain)
        assert (done.oldest, done.dropped, done.archive) == (0, 0, "")
    either.clock.micros += 40 * 24 * 3600 * 1_000_000
    await write(engine, proposal("put", "/late", 1))
    assert engine.log.identity == identity
    assert (await compacted(engine, "30d")).oldest == 20


async def test_one_at_a_time_and_none_at_the_end(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    first = compacting(engine, "10r")
    await asyncio.sleep(0)
    problem = await refused(engine, "20r")
    assert (problem.code, problem.more["retry_after"]) == ("unavailable", 5)
    assert engine.compaction.status()["running"]
    assert (await first).oldest == 40
    assert engine.compaction.status()["last"]["oldest"] == 40
    await database.stop()
    assert (await refused(engine, "none")).code == "shutting_down"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.08, 0.11, 0.14])
async def test_a_stop_ends_it_at_any_moment_and_leaves_nothing(database: Database, delay: float) -> None:
    engine = database.open()
    await filled(engine, 2000, 500)
    task = compacting(engine, "10r")
    await asyncio.sleep(delay)
    await database.stop()
    await asyncio.wait([task])
    assert is_whole(database.path)
    assert len(others(database)) == (0 if task.cancelled() else 1), others(database)


async def test_a_stop_waits_for_no_process(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    engine.compaction.command = ("sleep", "1000")
    task = compacting(engine, "10r")
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await database.stop()
    assert task.cancelled()


async def test_it_goes_on_where_who_asked_is_gone(database: Database) -> None:
    engine = database.open()
    await filled(engine, 50)
    task = compacting(engine, "10r")
    await asyncio.sleep(0.01)
    task.cancel()
    await eventually(lambda: engine.past.oldest == 40)
    await eventually(lambda: engine.compaction.running is None)


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


async def test_a_retention_is_kept_to_by_itself(database: Database) -> None:
    engine = database.open()
    await filled(engine, 300)
    engine.compaction = Compaction(engine, look=0.05)
    engine.compaction.keep_to(retention("100r"))
    await eventually(lambda: engine.past.oldest == 200)
    await eventually(lambda: engine.compaction.running is None)
    assert engine.compaction.status()["retain"] == "100r"
    await asyncio.sleep(0.2)
    await write(engine, proposal("put", "/n", 1))
    await asyncio.sleep(0.2)
    assert engine.past.oldest == 200  # it has not grown by half
    await filled(engine, 400, 100)
    await eventually(lambda: engine.past.oldest > 500)


def test_an_answer_names_the_archive_without_its_folder() -> None:
    told = Compacted(5, 5, 100, 50, "/a/b@c.kantadb", "t").told()
    assert decode_json(encode_json(told))["archive"] == "b@c.kantadb"
    assert Compacted(5, 5, 100, 50, "", "t").told()["archive"] is None
