"""An engine over a format of one's own that cannot keep everything: what is refused, and that the rest goes on."""

from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

from kantad.engine import CodeError, Engine, NotOurs
from kantad.engine.former import INLINE
from kantad.engine.lane import write_all
from kantad.engine.opening import open_engine
from kantad.engine.snapshots import OWN_SMALL
from kantad.store.beside import beside
from kantad.store.formats import own
from kantad.values.errors import Problem
from kantad.values.pointer import parse
from tests.engine.compaction_kit import compacted, filled, is_whole, others
from tests.engine.engine_kit import Database, flushed, proposal, put, refusal, seen, write
from tests.engine.test_lane import Asked, admit
from tests.own_formats import CBOR, REVERSED


class Small:
    """CBOR of at most so many bytes."""

    framer = "frames"
    most = 100_000

    def encode(self, obj: Any) -> bytes:
        data = cbor2.dumps(obj)
        if len(data) > self.most:
            raise ValueError(f"more than {self.most} bytes")
        return data

    def decode(self, payload: bytes, *, type: Any) -> Any:
        return msgspec.convert(cbor2.loads(payload), type)


@pytest.fixture
async def small(tmp_path: Any) -> Any:
    database = Database(str(tmp_path / "data.kantadb"), f"{__name__}:Small")
    yield database
    await database.stop()


async def test_what_the_class_cannot_keep_is_refused_and_nothing_has_happened(small: Database) -> None:
    engine = small.open()
    put(engine, "/a", 1)
    before = (engine.rev, engine.chain)
    problem = refusal(lambda: put(engine, "/b", "x" * 100_000))
    assert (problem.code, "more than 100000 bytes" in problem.detail) == ("invalid_value", True)
    assert ((engine.rev, engine.chain), engine.root) == (before, {"a": 1})
    put(engine, "/c", 2)
    await flushed(engine)
    assert seen(engine, "") == {"a": 1, "c": 2}


async def test_the_others_of_a_lane_are_made(small: Database) -> None:
    engine = small.open()
    put(engine, "/a", {"b": ""})
    asked = [
        Asked("/a", {"b": "1"}),
        Asked("/a", {"b": "x" * 100_000}),
        Asked("/a", {"c": "x" * 100_000}),
        Asked("", {"d": 1}),
    ]
    _, results = write_all(engine, asked, admit)
    codes = [result.code if isinstance(result, Problem) else result.rev for result in results]
    assert codes == [2, "invalid_value", "invalid_value", 3]
    await flushed(engine)
    assert seen(engine, "") == {"a": {"b": "1"}, "d": 1}


async def test_a_snapshot_that_it_cannot_keep_is_not_made_and_writes_go_on(small: Database) -> None:
    engine = small.open()
    engine.snapshots.small = 1 << 20
    put(engine, "/a", "x" * 60_000)
    put(engine, "/b", "x" * 60_000)
    await flushed(engine)
    with pytest.raises(Problem, match=r"no snapshot was made: .*more than 100000 bytes"):
        await engine.snapshot()
    put(engine, "/c", 3)
    await flushed(engine)
    assert seen(engine, "/c") == 3


async def test_a_value_that_only_messagepack_has_is_refused(tmp_path: Any) -> None:
    database = Database(str(tmp_path / "data.kantadb"), CBOR)
    engine = database.open()
    assert refusal(lambda: put(engine, "/a", b"x")).code == "validation_failed"
    assert engine.read(parse("/a"), bool) is False
    await database.stop()


class Fickle:
    """Lines of JSON, by a class that does not do what it should where it meets a certain value."""

    framer = "lines"

    def encode(self, obj: Any) -> bytes:
        text = msgspec.json.encode(obj)
        if b'"raise"' in text:
            raise RuntimeError("no luck")
        if b'"exit"' in text:
            raise SystemExit(3)
        return text.replace(b'"newline"', b'"new\nline"').replace(b'"other"', b'"else"').replace(b'"tab"', b'"t\tab"')

    def decode(self, payload: bytes, *, type: Any) -> Any:
        return msgspec.json.decode(payload, type=type)


@pytest.fixture
async def fickle(tmp_path: Path) -> Any:
    database = Database(str(tmp_path / "data.kantadb"), f"{__name__}:Fickle")
    yield database
    await database.stop()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("raise", "RuntimeError: no luck"),
        ("exit", "SystemExit: 3"),
        ("newline", "no line"),
        ("tab", "no line"),
        ("other", "decodes to something else"),
    ],
)
@pytest.mark.parametrize("path", ["/a/b", "/new", ""])
async def test_each_fault_of_the_class_is_met_at_the_write(fickle: Database, path: str, value: str, why: str) -> None:
    engine = fickle.open()
    await write(engine, proposal("put", "/a", {"b": 1}))
    before = engine.rev, engine.chain, engine.log.size
    body = value if path else {"deep": [value]}
    for dry_run in (False, True):
        problem = refusal(lambda dry_run=dry_run: engine.transact(proposal("put", path, body, dry_run=dry_run)))
        assert (problem.code, why in problem.detail) == ("invalid_value", True), problem.detail
    assert refusal(lambda: engine.transact(proposal("put", path, body, key="k"))).code == "invalid_value"
    assert (engine.rev, engine.chain, engine.log.size, engine.root) == (*before, {"a": {"b": 1}})
    await write(engine, proposal("put", "/after", 2, key="k"))  # the key was not used up
    assert (engine.rev, engine.root) == (2, {"a": {"b": 1}, "after": 2})


@pytest.mark.parametrize("format", [CBOR, REVERSED])
async def test_history_is_dropped_in_frames_and_in_lines(tmp_path: Path, format: str) -> None:
    database = Database(str(tmp_path / "data.kantadb"), format)
    engine = database.open()
    first = await write(engine, proposal("post", "/list", {"n": 1}, key="first"))
    await filled(engine, 300)
    done = await compacted(engine, "50r")
    assert (done.oldest, done.dropped) == (251, 251)
    await write(engine, proposal("put", "/after", 1))
    await filled(engine, 60)
    await compacted(engine, "20r")
    await database.stop()
    assert all(_is_whole(each, format) for each in (*others(database), Path(database.path)))
    engine = database.open()
    again = engine.transact(proposal("post", "/list", {"n": 1}, key="first"))
    assert (again.replayed, again.rev, again.child) == (True, 1, first.child)
    await database.stop()


def _is_whole(path: Path, format: str) -> bool:
    return is_whole(str(path), format=format)


async def test_a_compaction_whose_snapshot_it_cannot_keep_is_refused_and_leaves_nothing(small: Database) -> None:
    engine = small.open()
    for number in range(4):
        await write(engine, proposal("put", f"/k{number}", "x" * 60_000))
    with pytest.raises(Problem, match="more than 100000 bytes"):
        await compacted(engine, "none")
    assert others(small) == []
    await write(engine, proposal("put", "/k0", ""))
    assert (engine.rev, engine.past.oldest) == (5, 0)


async def test_an_embedded_transaction_that_it_cannot_keep_changes_nothing(tmp_path: Path) -> None:
    path, name = tmp_path / "data.kantadb", f"{__name__}:Fickle"
    async with Engine(path, format=name) as engine:
        with engine.transaction("one") as data:
            data["a"] = 1
        with pytest.raises(Problem, match="no luck"), engine.transaction("two") as data:
            data["a"] = "raise"
        assert (engine.rev, engine.data) == (1, {"a": 1})
        with engine.transaction("three") as data:
            data["b"] = 2
        await engine.flush()
        assert await engine.value(rev=1) == {"a": 1}
    with pytest.raises(NotOurs, match="a format of one's own"):
        await Engine(path).open()
    with pytest.raises(NotOurs, match="a format of one's own"):
        await Engine(path, readonly=True).open()
    async with Engine(path, readonly=True, format=name) as engine:
        assert engine.data == {"a": 1, "b": 2}


async def test_a_file_of_another_format_is_refused_with_both_names(tmp_path: Path) -> None:
    path = str(tmp_path / "data.kantadb")
    for format in ("json", "msgpack"):
        engine = open_engine(path, format=format)
        put(engine, "/a", 1)
        await engine.stop()
        for readonly in (False, True):
            with pytest.raises(NotOurs, match=f"it is a {format} file; --format {CBOR} contradicts it"):
                open_engine(path, format=CBOR, readonly=readonly)
        Path(path).unlink()


async def test_another_process_finds_the_class_where_this_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "found_here.py").write_text("from tests.own_formats import Cbor\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    database = Database(str(tmp_path / "data.kantadb"), "found_here:Cbor")
    engine = database.open()
    await write(engine, proposal("put", "/long", "x" * INLINE))
    await filled(engine, 30)
    monkeypatch.chdir(tmp_path)
    assert await engine.former.value_at(5, ("k3", "n")) == 3
    assert engine.former.retracer.started == 1
    assert (await compacted(engine, "10r")).oldest == 21
    await database.stop()


class Headed:
    """CBOR behind what a snapshot beside a file begins with, too."""

    framer = "frames"
    head = b"at=0123456789abcdef\0"

    def encode(self, obj: Any) -> bytes:
        return self.head + cbor2.dumps(obj)

    def decode(self, payload: bytes, *, type: Any) -> Any:
        if not payload.startswith(self.head):
            raise ValueError("no header")
        return msgspec.convert(cbor2.loads(payload[len(self.head) :]), type)


class TestBeside:
    """Snapshots that stand beside the file."""

    async def test_one_is_as_the_class_encodes_it(self, tmp_path: Path) -> None:
        database = Database(str(tmp_path / "data.kantadb"), REVERSED)
        engine = database.open()
        await write(engine, proposal("put", "/secret", "hidden", key="my key"))
        await write(engine, proposal("put", "/long", "x" * OWN_SMALL))
        assert (await engine.snapshot())[0].rev == 2
        content = Path(beside(database.path)).read_bytes()
        assert content.startswith(b"SNAPSHOT at=")
        assert not any(text in content for text in (b"secret", b"hidden", b"my key"))
        await database.stop()
        engine = database.open()
        assert (engine.snapshots.is_beside, engine.rev, engine.root["secret"]) == (True, 2, "hidden")
        assert (await write(engine, proposal("put", "/secret", "hidden", key="my key"))).replayed
        await database.stop()

    @pytest.mark.parametrize("small", [0, 1 << 20])
    async def test_records_that_begin_as_one_does_are_the_class(self, tmp_path: Path, small: int) -> None:
        database = Database(str(tmp_path / "data.kantadb"), f"{__name__}:Headed")
        engine = database.open()
        engine.snapshots.small = small
        await write(engine, proposal("put", "/a", 1, key="first"))
        assert (await engine.snapshot())[0].rev == 1
        await write(engine, proposal("put", "/a", 2))
        await database.stop()
        engine = database.open()
        assert (engine.snapshots.rev, engine.snapshots.is_beside, engine.root) == (1, small == 0, {"a": 2})
        assert (await write(engine, proposal("put", "/a", 1, key="first"))).replayed
        await database.stop()

    @pytest.mark.parametrize("stop", [False, True])
    async def test_one_that_the_class_cannot_encode_is_not_made_and_says_so(
        self, small: Database, stop: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = small.open()
        for number in range(8):
            await write(engine, proposal("put", f"/{number}", "x" * 50_000))
        if stop:
            engine.snapshots.rev = -2000
        else:
            with pytest.raises(Problem, match="more than 100000 bytes"):
                await engine.snapshot()
            assert "more than 100000 bytes" in engine.snapshots.status()["trouble"]
            await write(engine, proposal("put", "/on", 1))
        await small.stop()
        assert "more than 100000 bytes" in caplog.text
        assert not Path(beside(small.path)).exists()
        assert others(small) == []


def test_a_class_in_main_is_refused() -> None:
    with pytest.raises(CodeError, match="the class belongs into a module"):
        own("__main__:Cbor")
