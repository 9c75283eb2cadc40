"""Snapshots beside the file: made by another process while everything goes on, begun with at the next start."""

import asyncio
import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from kantad.engine.engine import Engine
from kantad.engine.opening import open_engine
from kantad.store.beside import beside
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from tests.engine.compaction_kit import compacted, compacting, filled, others
from tests.engine.engine_kit import Database, LeverDisk, eventually, flushed, proposal, put, write

POLICIES = ["durable", "written", "applied"]


def opened(database: Database, **options: Any) -> Engine:
    """The database, with a state that counts as large."""
    engine = database.open(**options)
    engine.snapshots.small = 0
    return engine


def aside(database: Database) -> Path:
    return Path(beside(database.path))


async def snapshot(engine: Engine) -> tuple[int, int]:
    async with asyncio.timeout(30):
        at, size = await engine.snapshot()
        return at.rev, size


async def failed(engine: Engine) -> Problem:
    with pytest.raises(Problem) as problem:
        await snapshot(engine)
    return problem.value


@pytest.mark.parametrize("policy", POLICIES)
async def test_it_holds_all_that_was_acknowledged_and_the_next_start_goes_on_from_it(
    either: Database, policy: Any
) -> None:
    engine = opened(either, ack=policy, flush_interval=30.0)
    await filled(engine, 50)
    put(engine, "/last", 1, m=5)
    size = engine.log.size
    assert await snapshot(engine) == (51, aside(either).stat().st_size)
    assert engine.log.size > size - 1
    assert engine.snapshots.status() == {
        "rev": 51,
        "bytes": aside(either).stat().st_size,
        "beside": True,
        "running": False,
        "trouble": None,
    }
    await write(engine, proposal("put", "/after", 1, ack="durable"))
    await either.stop()
    again = open_engine(either.path, format=either.format)
    assert (again.snapshots.rev, again.snapshots.is_beside, again.rev, again.m) == (51, True, 52, 5)
    await again.stop()


async def test_writes_are_acknowledged_while_it_is_made(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 100)
    making = asyncio.ensure_future(snapshot(engine))
    acknowledged = 0
    while not making.done():
        await write(engine, proposal("put", "/n", acknowledged))
        acknowledged += 1
    assert acknowledged > 20
    rev, _ = await making
    assert 100 <= rev < engine.rev
    for _ in range(3):
        before = engine.rev
        rev, _ = await snapshot(engine)
        assert rev == before
        await write(engine, proposal("put", "/n", rev))


async def test_it_is_made_when_the_log_has_grown(database: Database) -> None:
    engine = opened(database)
    engine.snapshots.least = 4000
    await filled(engine, 100)
    await eventually(lambda: engine.snapshots.is_beside)
    first = engine.snapshots.rev
    await filled(engine, 400)
    await eventually(lambda: engine.snapshots.rev > first)
    assert not any("state" in record for record in database.records())
    engine.snapshots.small = 1 << 20
    await filled(engine, 400)
    await eventually(lambda: not engine.snapshots.is_beside)
    await eventually(lambda: any("state" in record for record in database.records()))


async def test_two_that_ask_at_once_share_one_and_who_asks_later_gets_a_later_one(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 50)
    first = [asyncio.ensure_future(snapshot(engine)) for _ in range(2)]
    await asyncio.sleep(0.01)
    await write(engine, proposal("put", "/n", 1))
    later = [asyncio.ensure_future(snapshot(engine)) for _ in range(3)]
    assert {rev for rev, _ in await asyncio.gather(*first)} <= {50, 51}
    assert [rev for rev, _ in await asyncio.gather(*later)] == [51] * 3


async def test_where_nothing_has_changed_the_last_one_is_the_answer(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 50)
    told = await snapshot(engine)
    engine.snapshots.command = ("false",)
    assert await snapshot(engine) == told
    aside(database).unlink()
    assert (await failed(engine)).code == "unavailable"


async def test_who_does_not_wait_any_more_has_it_made_all_the_same(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 50)
    asked = asyncio.ensure_future(snapshot(engine))
    await eventually(lambda: engine.snapshots.running is not None)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    await eventually(lambda: engine.snapshots.is_beside)


async def test_a_stop_ends_the_process_and_leaves_nothing_of_it(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 50)
    engine.snapshots.command = ("sleep", "60")
    asked = asyncio.ensure_future(failed(engine))
    await eventually(lambda: engine.snapshots.running is not None)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(database.stop(), 5)
    assert (await asked).code == "shutting_down"
    assert others(database) == []


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stop_after_many_changes_writes_it_beside(either: Database, policy: Any) -> None:
    engine = opened(either, ack=policy)
    await filled(engine, 1001)
    await either.stop()
    again = open_engine(either.path, format=either.format)
    assert (again.snapshots.rev, again.snapshots.is_beside, again.rev) == (1001, True, 1001)
    assert again.log.size == os.stat(either.path).st_size
    await again.stop()


async def test_it_is_as_private_as_the_file(database: Database) -> None:
    engine = opened(database)
    await filled(engine, 10)
    os.chmod(database.path, 0o640)
    await snapshot(engine)
    assert stat.S_IMODE(aside(database).stat().st_mode) == 0o640


class TestWhatFails:
    async def unchanged(self, database: Database, engine: Engine, content: bytes) -> None:
        """The one before is still there, nothing else is, and everything goes on."""
        assert others(database) == [aside(database)]
        assert aside(database).read_bytes() == content
        await write(engine, proposal("put", "/after", engine.rev))
        assert not engine.broken.done()
        assert engine.trouble is None

    async def test_a_process_that_ends_or_talks_nonsense(self, database: Database) -> None:
        engine = opened(database)
        await filled(engine, 50)
        await snapshot(engine)
        content, command = aside(database).read_bytes(), engine.snapshots.command
        await write(engine, proposal("put", "/more", 1))
        for broken in (("false",), ("echo", "hello"), ("/nowhere/to/be/found",)):
            engine.snapshots.command = broken
            assert (await failed(engine)).code == "unavailable"
            assert engine.snapshots.status()["trouble"]
            await self.unchanged(database, engine, content)
        engine.snapshots.command = command
        assert (await snapshot(engine))[0] == engine.rev
        assert engine.snapshots.status()["trouble"] is None

    async def test_no_room_is_told(self, database: Database) -> None:
        engine = opened(database)
        await filled(engine, 50)
        await snapshot(engine)
        content = aside(database).read_bytes()
        await filled(engine, 600, size=100)
        limited = 'ulimit -f 8; exec "$0" -P -m kantad.tools.snapshot'
        engine.snapshots.command = ("sh", "-c", limited, engine.snapshots.command[0])
        assert (await failed(engine)).code == "storage_full"
        await self.unchanged(database, engine, content)

    @pytest.mark.parametrize(("call", "number"), [("rename", errno.EIO), ("rename", errno.ENOSPC)])
    async def test_the_renaming_fails(self, database: Database, call: str, number: int) -> None:
        disk = NoRename()
        database.disk = disk
        engine = opened(database)
        await filled(engine, 50)
        await snapshot(engine)
        content = aside(database).read_bytes()
        await write(engine, proposal("put", "/more", 1))
        disk.fault = number
        problem = await failed(engine)
        assert problem.code == ("storage_full" if number == errno.ENOSPC else "unavailable")
        await self.unchanged(database, engine, content)

    async def test_a_file_of_another_kind_is_not_replaced(self, database: Database) -> None:
        engine = opened(database)
        await filled(engine, 50)
        aside(database).write_text("notes")
        problem = await failed(engine)
        assert (problem.code, "move it away" in problem.detail) == ("unavailable", True)
        await filled(engine, 1001)
        await self.unchanged(database, engine, b"notes")
        await database.stop()
        assert aside(database).read_text() == "notes"

    async def test_another_is_not_tried_at_once(self, database: Database) -> None:
        engine = opened(database)
        engine.snapshots.command = ("false",)
        engine.snapshots.least = 100
        waits: list[float] = []
        for number in range(4):
            engine.snapshots.not_before = 0.0
            await filled(engine, 50, size=2 * number)
            await eventually(lambda: engine.snapshots.running is None)
            waits.append(engine.snapshots.wait)
            await filled(engine, 50, size=2 * number + 1)
            assert engine.snapshots.running is None
        assert waits == [20.0, 40.0, 80.0, 160.0]


class NoRename(LeverDisk):
    """Fails one rename."""

    fault = 0

    def rename(self, source: str, target: str) -> None:
        number, self.fault = self.fault, 0
        if number:
            raise OSError(number, os.strerror(number))
        super().rename(source, target)


class TestTogetherWithOthers:
    async def test_a_compaction_removes_it_and_takes_its_turn(self, either: Database) -> None:
        engine = opened(either)
        await filled(engine, 100)
        await snapshot(engine)
        await filled(engine, 20)
        making, pressing = asyncio.ensure_future(snapshot(engine)), compacting(engine, "30r", archive=False)
        assert (await making)[0] == 120
        assert (await pressing).oldest == 90
        assert others(either) == []
        assert engine.snapshots.status()["beside"] is False
        assert engine.snapshots.rev == 90
        await filled(engine, 10, size=30)
        assert (await snapshot(engine))[0] == 130
        await write(engine, proposal("put", "/n", 1))
        await either.stop()
        again = open_engine(either.path, format=either.format)
        assert (again.snapshots.rev, again.snapshots.is_beside, again.rev) == (130, True, 131)
        await again.stop()

    async def test_a_file_compacted_to_its_newest_revision_needs_none(self, either: Database) -> None:
        engine = opened(either)
        await filled(engine, 100)
        await compacted(engine, "none", archive=False)
        assert (await snapshot(engine))[0] == 100
        assert others(either) == []
        await write(engine, proposal("put", "/n", 1))
        assert (await snapshot(engine))[0] == 101
        assert others(either) == [aside(either)]

    async def test_the_past_is_read_across_it(self, either: Database) -> None:
        engine = opened(either)
        engine.former.inline = 0
        states = {}
        for number in range(30):
            await write(engine, proposal("put", "/n", {"n": number}))
            states[engine.rev] = encode_json(engine.root)
            if number % 10 == 9:
                await snapshot(engine)
        for rev in (30, 3, 17, 20, 21, 19):
            assert encode_json(await engine.former.value_at(rev, ())) == states[rev]

    async def test_a_log_that_ends_with_a_record_of_another_program(self, database: Database) -> None:
        engine = opened(database)
        await filled(engine, 20)
        await database.stop()
        line = b'{"ts":"2027-01-01T00:00:00.000000Z","a":"edit","diff":{"by":"hand"}}\n'
        Path(database.path).write_bytes(Path(database.path).read_bytes() + line)
        for rev in (21, 22):
            engine = opened(database)
            assert (await snapshot(engine))[0] == rev
            assert others(database) == [aside(database)]
            await write(engine, proposal("put", "/n", 1))
            await database.stop()
            again = open_engine(database.path)
            assert (again.rev, again.snapshots.is_beside, again.snapshots.rev) == (22, True, rev)
            await again.stop()

    async def test_writes_that_found_no_room_are_not_in_it(self, database: Database) -> None:
        engine = opened(database)
        await filled(engine, 20)
        database.disk.room = 10
        with pytest.raises(Problem):
            await write(engine, proposal("put", "/lost", "x" * 100))
        database.disk.room = None
        assert (await snapshot(engine))[0] == 20
        await flushed(engine)
