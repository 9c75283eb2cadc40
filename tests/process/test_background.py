"""Verifying the older part behind a running server: what it says of a whole file, of damage, and of no answer."""

from pathlib import Path
from typing import Any

import pytest

from kantad.background import verify_older_part
from kantad.engine.opening import open_engine
from tests.store.logs import FORMATS, Maker, every_kind
from tests.tools.test_check import beside_of


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    return every_kind(request.param)


async def verified(path: Path, **more: str) -> str:
    """What the engine says of its history after the check."""
    engine = open_engine(str(path))
    await verify_older_part(engine, delay=0, **more)  # type: ignore[arg-type]
    history = engine.history
    await engine.stop()
    return history


async def test_a_whole_older_part_is_verified(log: Maker, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    assert await verified(path) == "verified"


async def test_damage_is_told_with_its_place(log: Maker, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    log.data[log.points[2].end + 40] ^= 1
    path.write_bytes(log.data)
    assert (await verified(path)).startswith("damaged: ")


@pytest.mark.parametrize("status", ["exit 1", "exit 74", "kill -9 $$"])
async def test_a_check_that_fails_is_not_called_damage(log: Maker, tmp_path: Path, status: str) -> None:
    path, script = tmp_path / "data.kantadb", tmp_path / "python"
    path.write_bytes(log.data)
    script.write_text(f"#!/bin/sh\n{status}\n")
    script.chmod(0o700)
    assert (await verified(path, python=str(script))).startswith("not verified: the check ended")


async def test_a_check_that_cannot_be_started_is_not_called_damage(log: Maker, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    assert (await verified(path, python=str(tmp_path / "none"))).startswith("not verified: ")


@pytest.mark.parametrize("state", [None, {"other": 1}])
async def test_the_snapshot_beside_the_file_is_held_against_the_records(
    log: Maker, tmp_path: Path, state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    beside_of(log, path, state=state)
    history = await verified(path)
    assert history.startswith("verified" if state is None else f"damaged: {path}.snapshot is damaged")
    assert ("The state is wrong" in caplog.text) is (state is not None)
