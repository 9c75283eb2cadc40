"""The database that an engine test works on: every teardown reopens the file and compares."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kantad.engine import Engine
from tests.engine.embedded_kit import Data, filled, held
from tests.engine.engine_kit import Database
from tests.own_formats import CBOR


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(str(tmp_path / "data.kantadb"))
    yield database
    await database.stop()


@pytest.fixture(params=["json", "msgpack", CBOR])
async def either(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database of each format."""
    database = Database(str(tmp_path / "data.kantadb"), request.param)
    yield database
    await database.stop()


@pytest.fixture(params=["json", "msgpack", CBOR])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.kantadb"


@pytest.fixture
async def engine(path: Path, form: str) -> AsyncIterator["Engine[Data]"]:
    """An embedded database of each format, filled; afterwards the file holds what the live value showed."""
    engine = await filled(path, format=form)
    yield engine
    try:
        live = engine.data
        await engine.close()
    except RuntimeError:
        return
    assert msgspec.convert(held(path).state, Data, str_keys=True) == live
