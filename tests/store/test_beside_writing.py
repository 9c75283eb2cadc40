"""Writing a snapshot beside a file: whatever fails at whichever call, the old one or the new one is there."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from kantad.store.beside import beside, frame_of, put, write
from kantad.store.log import open_log
from kantad.tools import check, repair
from tests.own_formats import flags_for, format_flag
from tests.store.disks import Death, FaultyDisk
from tests.store.logs import FORMATS, Maker
from tests.store.test_beside import BOTH, DISK, a_log, after, found_in, picture_of, put_beside, told
from tests.tools.kit import command


@pytest.fixture(params=BOTH)
def log(request: pytest.FixtureRequest) -> Maker:
    return a_log(request.param)


@pytest.fixture
def path(tmp_path: Path, log: Maker) -> Path:
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_the_golden_files(format: str) -> None:
    path = Path(__file__).parent.parent / "golden" / "beside" / f"log.{format}.kantadb"
    found = found_in(path)
    assert (found.beside, found.rev - found.start_rev) == (True, 2)
    assert told(found) == told(found_in(path, aside=False))


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, "short", "death", "late death"])
def test_a_fault_at_every_call_leaves_the_old_one_or_the_new_one(log: Maker, path: Path, fault: int | str) -> None:
    content = put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    framing, codec = log.framing, log.codec
    whole = told(found_in(path, aside=False))
    parts = frame_of(picture_of(bytes(log.data)), framing, codec)
    for pace in (None, lambda: None):
        at = 0
        while True:
            disk = FaultyDisk(fault, at)
            try:
                put(disk, write(disk, str(path), parts, os.stat(path), pace), str(path))
            except (OSError, Death):
                pass
            else:
                if disk.count <= at:
                    break
            assert Path(beside(str(path))).read_bytes() in (content, b"".join(parts))
            assert told(found_in(path)) == whole
            if fault not in ("death", "late death"):
                assert [each for each in path.parent.iterdir() if ".new-" in each.name] in ([], _renaming(disk, path))
            opened, found = open_log(str(path), format_flag(path), DISK, 0)
            opened.close()
            assert found.beside
            assert not [each for each in path.parent.iterdir() if ".new-" in each.name]
            Path(beside(str(path))).write_bytes(content)
            at += 1
        assert at > 6


def _renaming(disk: FaultyDisk, path: Path) -> list[Path]:
    """What may be left over where it was the renaming that failed: it is the caller's."""
    return [Path(f"{beside(str(path))}.new-{os.getpid()}")] if disk.log[-1] == "rename" else []


def test_one_that_is_stopped_halfway_leaves_nothing(log: Maker, path: Path) -> None:
    framing, codec = log.framing, log.codec

    def pace() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write(DISK, str(path), frame_of(picture_of(bytes(log.data)), framing, codec), os.stat(path), pace)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("adopt", [False, True])
def test_after_a_repair_the_file_is_what_it_is_without_it(log: Maker, path: Path, adopt: bool) -> None:
    for damaged in range(2, log.rev + 1):
        for beside_at in range(1, log.rev + 1):
            shutil.rmtree(path.parent)
            path.parent.mkdir()
            data = bytearray(log.data)
            data[after(log, damaged) - 3] ^= 1
            path.write_bytes(data)
            put_beside(path, bytes(log.data[: after(log, beside_at)]))
            form = flags_for(path)
            assert command(repair, path, *form, *(["--adopt"] if adopt else [])).status == 0
            assert told(found_in(path)) == told(found_in(path, aside=False))
            assert command(check, path, *form).status == 0
