"""Files are read where they are mapped: nothing of the history before a snapshot is taken into memory to open one."""

import mmap
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log, reading
from kantad.store.recovery import recover
from kantad.store.tail import TIME_WINDOW
from tests.store.logs import FORMATS, T0, Maker

HISTORY = 32 << 20  # bytes before the snapshot


class Counting(bytes):
    """A buffer that notes how much was copied out of it."""

    copied = 0

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        part = bytes(super().__getitem__(key))  # type: ignore[index]
        Counting.copied += len(part)
        return part


@pytest.mark.parametrize("format", FORMATS)
def test_a_log_and_an_offline_command_see_the_file_mapped(tmp_path: Path, format: str) -> None:
    path = str(tmp_path / "data.kantadb")
    log, _ = open_log(path, format, RealDisk(), T0)
    made = Maker(format)
    made.change({"a": 1})
    log.append(bytes(made.data) if format == "json" else log.framing.frame(b"\x80", log.size))
    with log.buffer() as buffer:
        assert isinstance(buffer, mmap.mmap)
    log.close()
    with reading(path) as (buffer, size, _, _):
        assert isinstance(buffer, mmap.mmap)
        assert size == Path(path).stat().st_size


@pytest.mark.parametrize("format", FORMATS)
def test_of_what_stands_before_the_last_snapshot_no_more_is_copied_than_a_window(format: str) -> None:
    made = Maker(format)
    number = 0
    while len(made.data) < HISTORY:
        number += 1
        made.change({"blob": f"{number}" + "x" * (1 << 16)})
    made.snapshot()
    made.change({"last": 1})
    Counting.copied = 0
    found = recover(Counting(made.data), len(made.data), made.framing, made.codec)
    assert found.rev == number + 1
    assert found.state["last"] == 1
    assert Counting.copied < TIME_WINDOW + (1 << 20)  # that much is looked at for the times in it
