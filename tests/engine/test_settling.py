"""Records of kanta's that can be read in two ways: the first change that kantad writes says how they are read, and
whatever kanta writes behind it does not change that."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kantad.engine.engine import Engine
from kantad.engine.lane import write_all
from kantad.engine.opening import open_engine
from kantad.store.beside import beside
from kantad.store.log import open_readonly
from kantad.store.migrations import Migrations, Step
from kantad.store.recovery import Recovered
from kantad.store.retrace import Retrace
from kantad.tools import check, convert, repair
from kantad.values.errors import Problem
from kantad.values.event import Events
from kantad.values.framing import Frame
from kantad.values.record import Change
from tests.engine.engine_kit import Database, proposal, put, write
from tests.store.logs import FORMATS, Maker
from tests.store.test_kanta import kanta_reads
from tests.tools.kit import broken, command

LATER = 4_000_000_000_000_000  # microseconds: after whatever the engine's clock says
SIGN = {"sign": "$single"}  # kanta 0.9's
READ = {"0.1": "$v", "0.9": "$$v"}


def kantas(format: str, read_as: str, path: Path) -> None:
    """A file of kanta's that is read as it says, though another sign could change that."""
    log = Maker(format, tick=1)
    log.data = log.data[: log.framing.header]
    log.rev, log.chain, log.state = 0, bytes(8), {}
    log.foreign({"n": 1})
    log.foreign({"a": "$$v"})
    log.foreign({"m": 2} if read_as == "0.1" else SIGN)
    path.write_bytes(log.data)


def with_more(format: str, path: Path, diff: dict[str, Any]) -> None:
    """Append a record of kanta's."""
    log = Maker(format)
    log.data, log.micros, log.state = bytearray(path.read_bytes()), LATER, {"n": 1}
    log.framing = _log(path)[0].framing
    log.foreign(diff)
    path.write_bytes(log.data)


def _log(path: Path) -> tuple[Any, Recovered]:
    log, found = open_readonly(str(path), None, Database(str(path)).disk)
    log.close()
    return log, found


def changes(path: Path) -> list[tuple[int, Change]]:
    """The changes of a file and where each ends."""
    log, found = _log(path)
    data = path.read_bytes()
    place, records = log.framing.header, []
    while isinstance(frame := log.framing.next(data, place, found.end), Frame):
        place = frame.end
        if not frame.snapshot:
            records.append((place, log.codec.decode(frame.payload, Change)))
    return records


def marks(path: Path) -> list[str | None]:
    return [record.kanta for _, record in changes(path)]


class Asked(msgspec.Struct):
    path: str
    diff: Any
    a: str = "put"
    u: str | None = None
    key: str | None = None


async def plainly(engine: Engine) -> None:
    await write(engine, proposal("put", "/by", 1))


async def shortly(engine: Engine) -> None:
    put(engine, "/by", 1)
    await engine.committer.drain()


async def in_the_lane(engine: Engine) -> None:
    write_all(engine, [Asked("", {"by": 0}, key="first"), Asked("", {"by": 1})], lambda *_: None)
    await engine.committer.drain()


WAYS = [plainly, shortly, in_the_lane]


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["0.1", "0.9"])
def read_as(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path, format: str, read_as: str) -> Path:
    path = tmp_path / "data.kantadb"
    kantas(format, read_as, path)
    return path


@pytest.fixture
def database(path: Path) -> Database:
    return Database(str(path))


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_change_says_it(
    database: Database, path: Path, format: str, read_as: str, way: Callable[[Engine], Any]
) -> None:
    engine = database.open()
    assert "two kanta dialects" in engine.warnings[0]
    await way(engine)
    await write(engine, proposal("put", "/later", 1))
    await database.stop()
    said = marks(path)
    assert said[:4] == [None, None, None, read_as]
    assert set(said[4:]) == {None}
    state = kanta_reads(path, format).state
    assert (state["by"], state["later"]) == (1, 1)
    with_more(format, path, SIGN | {"last": 1})
    _, found = _log(path)
    assert (found.state["a"], found.state["last"], found.read_as) == (READ[read_as], 1, "")
    assert not any("dialects" in warning for warning in found.warnings)
    assert command(check, path).status == 0


async def test_no_reader_of_changes_sees_it(database: Database, path: Path, read_as: str) -> None:
    engine = database.open()
    batch = engine.write(engine.places.of("/by"), {"x": {"}": ',"b":1'}}, "put", "put")
    put(engine, "/with", "b")
    assert batch is not None
    events = Events(engine.log.codec)
    for change in engine.committer.unsettled():
        assert events.diff(change.payload) == change.diff
        assert b"kanta" not in events.tail(change.rev, change.payload)
    await database.stop()
    assert [record.b for _, record in changes(path)][3:] == [0, 4]


async def test_a_write_that_found_no_room_leaves_it_to_the_next(database: Database, path: Path, read_as: str) -> None:
    engine = database.open()
    database.disk.room = 10
    with pytest.raises(Problem):
        await write(engine, proposal("put", "/lost", "x" * 100))
    database.disk.room = None
    await plainly(engine)
    await database.stop()
    assert marks(path) == [None, None, None, read_as]


async def test_a_migration_says_it(database: Database, path: Path, format: str, read_as: str) -> None:
    def step(data: dict[str, Any]) -> None:
        data["migrated"] = 1

    engine = database.open(migrations=Migrations("steps", {1: Step(1, "migrate_v1", step, False, "one step")}))
    await plainly(engine)
    await database.stop()
    assert marks(path) == [None, None, None, read_as, None]
    with_more(format, path, SIGN)
    assert _log(path)[1].state["a"] == READ[read_as]


async def test_every_revision_is_read_so(database: Database, path: Path, format: str, read_as: str) -> None:
    engine = database.open()
    await plainly(engine)
    await database.stop()
    with_more(format, path, SIGN)
    log, _ = _log(path)
    data = path.read_bytes()
    retrace = Retrace(data, len(data), log.framing, log.codec, 0)
    for rev in (5, 2, 4, 3, 2):
        for _ in retrace.steps(rev):
            pass
        assert retrace.state["a"] == READ[read_as], rev


async def test_a_conversion_keeps_it(database: Database, path: Path, format: str, read_as: str) -> None:
    engine = database.open()
    await plainly(engine)
    await database.stop()
    with_more(format, path, SIGN)
    target = path.with_name("converted.kantadb")
    assert command(convert, path, target, "--format", "json" if format == "msgpack" else "msgpack").status == 0
    _, found = _log(target)
    assert (found.state["a"], found.unverified, found.warnings) == (READ[read_as], 0, [])
    assert set(marks(target)) == {None}


@pytest.mark.parametrize("lost", [3, 4])
async def test_a_repair_keeps_it(database: Database, path: Path, format: str, read_as: str, lost: int) -> None:
    engine = database.open()
    await plainly(engine)
    await write(engine, proposal("put", "/more", 1))
    await database.stop()
    data = bytearray(path.read_bytes())
    data[changes(path)[lost - 1][0] - 4] ^= 1
    path.write_bytes(data)
    assert command(repair, path, "--adopt").status == 0
    with_more(format, path, SIGN)
    _, found = _log(path)
    assert (found.state["more"], found.state["sign"]) == (1, "$single")
    if lost == 3:
        assert found.state["a"] == READ[read_as]


class TestLarge:
    async def test_a_snapshot_beside_it_says_it_until_a_change_does(
        self, database: Database, path: Path, format: str, read_as: str
    ) -> None:
        size = path.stat().st_size
        engine = database.open()
        engine.snapshots.small = 0
        assert (await engine.snapshot())[0].rev == 3
        await database.stop()
        assert path.stat().st_size == size
        assert command(check, path).out.count("snapshot") > 1
        engine = database.open()
        assert (engine.snapshots.is_beside, engine.root["a"], engine.warnings) == (True, READ[read_as], [])
        engine.snapshots.small = 0
        await plainly(engine)
        assert (await engine.snapshot())[0].rev == 4
        await database.stop()
        engine = database.open()
        assert (engine.snapshots.is_beside, engine.snapshots.rev, engine.read_as(4)) == (True, 4, "")
        await database.stop()
        os.unlink(beside(str(path)))
        assert marks(path) == [None, None, None, read_as]
        with_more(format, path, SIGN)
        assert _log(path)[1].state["a"] == READ[read_as]

    async def test_one_that_a_stop_writes_says_it(self, database: Database, path: Path, read_as: str) -> None:
        engine = database.open()
        engine.snapshots.small, engine.snapshots.rev = 0, -2000
        await database.stop()
        engine = open_engine(str(path))
        assert (engine.snapshots.is_beside, engine.rev, engine.read_as(3)) == (True, 3, read_as)
        await engine.stop()

    async def test_nothing_stands_in_the_file_for_it(self, database: Database, path: Path) -> None:
        engine = database.open()
        engine.snapshots.small = engine.snapshots.least = 0
        await plainly(engine)
        assert (await engine.snapshot())[0].rev == 4
        await database.stop()
        log, found = _log(path)
        assert (found.beside, found.start_rev) == (True, 4)
        assert len(changes(path)) == 4
        assert log.framing.last_snapshot(path.read_bytes(), found.end) == -1

    async def test_what_kanta_adds_makes_it_useless_for_the_past_too(
        self, database: Database, path: Path, format: str, read_as: str
    ) -> None:
        with_more(format, path, {"long": "x" * (3 << 20)})
        engine = database.open()
        engine.snapshots.small = 0
        assert (await engine.snapshot())[0].rev == 4
        await database.stop()
        for diff in ({"n": 2}, SIGN):
            with_more(format, path, diff)
            data, (log, found) = path.read_bytes(), _log(path)
            retrace = Retrace(data, len(data), log.framing, log.codec, 0, str(path))
            for rev in (4, 3, 4, found.rev):
                for _ in retrace.steps(rev):
                    pass
                assert retrace.state["a"] == found.state["a"], (diff, rev)
            assert not found.beside
            ran = command(check, path)
            assert (ran.status, "may be read otherwise" in ran.out) == (0, True)
        assert found.state["a"] == "$$v"


class TestRepair:
    """What is adopted behind damage is read as it was, and the result says so."""

    def log(self, format: str) -> Maker:
        log = Maker(format, tick=1)
        log.data = log.data[: log.framing.header]
        log.rev, log.chain, log.state = 0, bytes(8), {}
        return log

    def repaired(self, path: Path, log: Maker, place: int) -> Recovered:
        """The file after a repair of a damaged record that begins at this place; it is whole."""
        path.write_bytes(broken(log, place))
        assert command(repair, path, "--adopt").status == 0
        ran = command(check, path)
        assert ran.status == 0, ran
        return _log(path)[1]

    @pytest.mark.parametrize("mark", [None, "0.1"])
    async def test_where_the_one_that_says_it_is_lost_the_next_says_what_it_said(
        self, tmp_path: Path, format: str, mark: str | None
    ) -> None:
        path = tmp_path / "data.kantadb"
        log = self.log(format)
        log.foreign({"n": 1})
        log.foreign({"a": "$$v"})
        path.write_bytes(log.data)
        place = len(log.data)
        database = Database(str(path))
        database.open().snapshots.small = 0
        assert database.engine is not None
        await database.engine.snapshot()
        await database.stop()
        log.change({"k": 0}, kanta=mark)
        log.change({"k": 1})
        found = self.repaired(path, log, place)
        assert (found.state, found.beside) == ({"n": 1, "a": "$v", "k": 1}, True)
        os.unlink(beside(str(path)))
        with_more(format, path, SIGN)
        assert _log(path)[1].state["a"] == "$v"

    async def test_records_behind_it_are_read_as_the_next_one_says(self, tmp_path: Path, format: str) -> None:
        log = self.log(format)
        log.foreign({"n": "$single"})
        place = len(log.data)
        log.foreign({"l": [1, 2]})
        log.foreign({"a": "$$v"})
        log.change({"k": 0}, kanta="0.9")
        log.change({"l": {"$insert": [[0, 9]]}, "a": "$$v"})  # not a list any more
        log.state = {"n": "$single", "l": [9, 1, 2], "a": "$v", "k": 0}
        log.snapshot()
        log.change({"k": 1})
        found = self.repaired(tmp_path / "data.kantadb", log, place)
        assert found.state == {"n": "$single", "l": [9, 1, 2], "a": "$v", "k": 1}

    async def test_where_a_snapshot_follows_it_is_right(self, tmp_path: Path, format: str) -> None:
        log = self.log(format)
        log.foreign({"n": 1})
        log.foreign({"a": "$$v"})
        place = len(log.data)
        log.change({"k": 0}, kanta="0.1")
        log.foreign({"b": "$$w"})
        log.state = {"n": 1, "a": "$v", "k": 0, "b": "$w"}
        log.snapshot()
        log.foreign({"c": "$$x"})
        found = self.repaired(tmp_path / "data.kantadb", log, place)
        assert found.state == {"n": 1, "a": "$v", "k": 0, "b": "$w", "c": "$$x"}
