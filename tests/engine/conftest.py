"""The database that an engine test works on: every teardown reopens the file and compares."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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
