"""The collector: off while a database is loaded, what was loaded is frozen, and seldom a full collection afterwards."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantad.engine.memory import THRESHOLDS, loading
from kantad.engine.opening import open_engine
from tests.engine.engine_kit import LeverDisk


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    thresholds, enabled = gc.get_threshold(), gc.isenabled()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    if enabled:
        gc.enable()


class Watching(LeverDisk):
    """A disk that notes whether the collector was on when a file was opened or written."""

    def __init__(self) -> None:
        super().__init__()
        self.collecting: list[bool] = []

    def open(self, path: str, flags: int) -> int:
        self.collecting.append(gc.isenabled())
        return super().open(path, flags)


async def test_a_start_loads_without_the_collector_and_freezes_what_it_loaded(tmp_path: Path) -> None:
    gc.unfreeze()
    disk = Watching()
    engine = open_engine(str(tmp_path / "data.kantadb"), disk=disk, own_process=True)
    assert disk.collecting
    assert not any(disk.collecting)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == THRESHOLDS
    await engine.stop()


async def test_a_database_in_somebody_elses_process_leaves_the_collector_alone(tmp_path: Path) -> None:
    gc.unfreeze()
    before, disk = (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()), Watching()
    engine = open_engine(str(tmp_path / "data.kantadb"), disk=disk)
    assert all(disk.collecting)
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before
    await engine.stop()


def test_a_start_that_fails_leaves_the_collector_on() -> None:
    def fail() -> None:
        with loading():
            assert not gc.isenabled()
            raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        fail()
    assert gc.isenabled()
