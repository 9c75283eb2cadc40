"""An engine over a format of one's own that cannot keep everything: what is refused, and that the rest goes on."""

from typing import Any

import cbor2
import msgspec
import pytest

from kantad.engine.lane import write_all
from kantad.values.errors import Problem
from kantad.values.pointer import parse
from tests.engine.engine_kit import Database, flushed, put, refusal, seen
from tests.engine.test_lane import Asked, admit
from tests.own_formats import CBOR


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
