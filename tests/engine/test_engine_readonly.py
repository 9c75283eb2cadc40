"""An engine that only reads: the file as it was, whatever happens to it meanwhile; and no byte of it changed."""

import asyncio
import os
from pathlib import Path

import pytest

from kantad.engine.opening import open_engine
from kantad.store.log import NotOurs
from kantad.values.errors import Damaged
from tests.engine.engine_kit import Database, proposal, put, write
from tests.store.logs import every_kind


@pytest.fixture(params=["json", "msgpack"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "data.kantadb"
    path.write_bytes(bytes(every_kind(request.param).data))
    return path


async def test_a_file_in_use_is_served_as_it_was_while_it_grows_and_is_replaced(either: Database) -> None:
    writer = either.open()
    for number in range(50):
        await write(writer, proposal("put", "/n", number))
    reader = open_engine(either.path, format=either.format, readonly=True)
    for number in range(50, 2100):
        put(writer, "/n", number)
    await write(writer, proposal("put", "/n", "last"))
    assert reader.read(("n",), lambda value: value) == 49
    assert (await reader.former.value_at(20, ("n",))) == 19
    os.rename(either.path, f"{either.path}.elsewhere")
    assert (await reader.former.value_at(30, ("n",))) == 29
    assert reader.log.codec.chain_in(await reader.feeds.payload(40)) == await asyncio.to_thread(
        writer.past.chain_at, 40
    )
    os.rename(f"{either.path}.elsewhere", either.path)
    await reader.stop()
    assert not writer.broken.done()


async def test_what_is_no_whole_record_is_left_out_and_left_there(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00\x00\x00")
    engine = open_engine(str(path), readonly=True)
    assert engine.rev == 9
    assert "the last 3 bytes are no whole record" in engine.warnings[-1]
    await engine.stop()
    assert path.read_bytes() == whole + b"\x00\x00\x00"
    if whole.endswith(b"\n"):
        path.write_bytes(whole[:-1])
        engine = open_engine(str(path), readonly=True)
        assert engine.rev == 8
        assert "newline" in engine.warnings[-1]
        assert engine.log.codec.chain_in(await engine.feeds.payload(8)) == engine.chain
        await engine.stop()
        assert path.read_bytes() == whole[:-1]


async def test_what_cannot_be_served_is_refused_as_ever(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_engine(str(tmp_path / "none.kantadb"), readonly=True)
    assert not (tmp_path / "none.kantadb").exists()
    with pytest.raises(NotOurs):
        open_engine(str(tmp_path), readonly=True)
    whole = bytearray(path.read_bytes())
    whole[-400] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Damaged):
        open_engine(str(path), readonly=True)


async def test_a_long_log_gets_no_snapshot_at_the_end(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "data.kantadb"))
    engine = database.open()
    for number in range(1500):
        put(engine, "/n", number)
    await engine.committer.drain()
    before = Path(database.path).read_bytes()
    reader = open_engine(database.path, readonly=True)
    await reader.stop()
    assert Path(database.path).read_bytes() == before
    await database.stop()
