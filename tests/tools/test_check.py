"""`kantad check`: whole, torn, damaged; what it says and where."""

import os
from pathlib import Path
from typing import Any

import pytest

from kantad.store.beside import Picture, frame_of, put, write
from kantad.store.disk import RealDisk
from kantad.store.recovery import recover
from kantad.tools import check
from kantad.values.record import At, Kept, cursor
from tests.store.logs import FORMATS, Maker, every_kind, parts
from tests.tools.kit import command, flipped, stored

DISK = RealDisk()


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    return every_kind(request.param)


def test_a_whole_file(log: Maker, tmp_path: Path) -> None:
    ran = command(check, stored(tmp_path, log))
    snapshots = "1 snapshot" if log.format == "json" else "2 snapshots"
    assert (ran.status, ran.err) == (0, "")
    assert f"{log.format}, {len(log.data)} bytes; 9 changes and {snapshots}, 0 unverified, revisions 0 to 9" in ran.out
    assert cursor(log.rev, log.chain) in ran.out


def test_an_empty_file_is_whole(tmp_path: Path) -> None:
    assert command(check, stored(tmp_path, Maker("json"), b"")).status == 0


def test_a_torn_tail(log: Maker, tmp_path: Path) -> None:
    end = log.points[-2].end
    ran = command(check, stored(tmp_path, log, bytes(log.data[: end + 20])))
    assert ran.status == 1
    assert f"20 bytes at byte {end}" in ran.err
    assert "unless the file was altered or cut short from outside" in ran.err
    assert "data.kantadb.torn-<time>" in ran.err


def test_a_last_record_without_its_newline_is_whole(tmp_path: Path) -> None:
    ran = command(check, stored(tmp_path, log := every_kind("json"), bytes(log.data[:-1])))
    assert (ran.status, ran.err) == (0, "")
    assert "newline" in ran.out
    assert "9 changes" in ran.out


def test_every_flip_is_noticed(log: Maker, tmp_path: Path) -> None:
    """Unlike an open, check looks at everything: no byte can change without a word."""
    for offset in range(log.framing.header, len(log.data), 3):
        ran = command(check, stored(tmp_path, log, flipped(log, offset)))
        assert ran.status in (1, 65), offset
        point = next(p for p in log.points if offset < p.end)
        if ran.status == 1:
            assert point.batch == log.batches, offset


def test_damage_before_the_last_snapshot_is_found(log: Maker, tmp_path: Path) -> None:
    ran = command(check, stored(tmp_path, log, flipped(log, log.points[2].end + 40)))
    assert ran.status == 65
    place = "line 3" if log.format == "json" else "record 4"
    assert f"{place}, byte {log.points[2].end}" in ran.err
    assert "kantad repair --adopt" in ran.err
    assert "still starts" in ran.err


def test_damage_behind_the_last_snapshot(log: Maker, tmp_path: Path) -> None:
    ran = command(check, stored(tmp_path, log, flipped(log, log.points[6].end + 40)))
    assert ran.status == 65
    assert f"byte {log.points[6].end}" in ran.err
    assert "does not start" in ran.err


def test_a_snapshot_that_does_not_fit_the_replay(log: Maker, tmp_path: Path) -> None:
    log.state["smuggled"] = True
    log.snapshot()
    place = log.points[-2].end
    log.change({"later": 1})
    ran = command(check, stored(tmp_path, log))
    assert ran.status == 65
    assert "not what the records before it make" in ran.err
    assert f"byte {place}" in ran.err


def test_unverified_records_are_counted(log: Maker, tmp_path: Path) -> None:
    log.foreign({"k": 1})
    log.foreign({"k": 2})
    ran = command(check, stored(tmp_path, log))
    assert ran.status == 0
    assert "2 unverified" in ran.out
    assert ran.out.count("warning:") == 2


def test_many_warnings_are_bounded(log: Maker, tmp_path: Path) -> None:
    for i in range(50):
        log.foreign({"k": i})
    ran = command(check, stored(tmp_path, log))
    assert ran.out.count("warning:") == 21
    assert "and 30 more" in ran.out


@pytest.mark.parametrize("content", [b"hello\n", b'{"a": 1}\n', b"\xff\xfe"])
def test_no_kantadb(tmp_path: Path, content: bytes) -> None:
    ran = command(check, stored(tmp_path, Maker("json"), content))
    assert ran.status == 65
    assert "kantadb" in ran.err


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert command(check, tmp_path / "none") == (2, "", f"{tmp_path / 'none'}: No such file or directory\n")
    assert command(check, tmp_path) == (2, "", f"{tmp_path}: it is a folder, not a regular file\n")
    assert command(check, tmp_path / "none" / "x").status == 2
    assert command(check, "/dev/null").status == 65


def test_nothing_a_terminal_would_act_on_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J\u202e.kantadb"
    path.write_bytes(b"hello")
    ran = command(check, path)
    assert "\x1b" not in ran.err
    assert "\u202e" not in ran.err


def test_a_live_file_needs_no_lock(log: Maker, tmp_path: Path) -> None:
    from kantad.store.disk import RealDisk
    from kantad.store.log import open_log

    path = stored(tmp_path, log)
    opened, _ = open_log(str(path), None, RealDisk(), 0)
    assert command(check, path).status == 0
    opened.close()


@pytest.mark.parametrize("format", FORMATS)
def test_golden_files_are_whole(format: str) -> None:
    golden = Path(__file__).parent.parent / "golden"
    assert parts(format)
    for path in golden.glob(f"*.{format}.kantadb"):
        assert command(check, path).status == 0


def test_what_stands_before_the_chain_is_not_passed_off_as_verified(tmp_path: Path) -> None:
    for format in FORMATS:
        log = Maker(format)
        if format == "msgpack":
            log.data[:] = log.data[:4]  # a file of kanta's has no snapshot at its start
        log.foreign({"a": 1})
        log.foreign({"b": 2})
        ran = command(check, stored(tmp_path, log))
        assert (ran.status, "2 unverified" in ran.out) == (0, True)
        assert "2 records of another program, from before the hash chain begins" in ran.out
        log.change({"c": 3})
        assert "2 unverified" in command(check, stored(tmp_path, log)).out


def beside_of(log: Maker, path: Path, *, state: Any = None) -> Path:
    """The snapshot of all of a log, put beside it; perhaps with another state."""
    found = recover(bytes(log.data), len(log.data), log.framing, log.codec)
    picture = Picture(
        found.state if state is None else state,
        *(found.rev, found.chain, found.micros, found.v, found.m, At(found.last), Kept()),
    )
    put(DISK, write(DISK, str(path), frame_of(picture, log.framing, log.codec), os.stat(path)), str(path))
    return Path(f"{path}.snapshot")


def test_a_snapshot_beside_the_file_that_says_what_the_records_make(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    beside_of(log, path)
    ran = command(check, path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith(f"revision {log.rev}, as the records say\n")


def test_a_snapshot_beside_the_file_that_says_something_else_is_damage(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    beside_of(log, path, state={**log.state, "n": 7})
    ran = command(check, path)
    assert ran.status == 65
    assert f"{path}.snapshot is damaged" in ran.err
    assert f"delete {path}.snapshot" in ran.err


def test_a_snapshot_beside_the_file_that_is_not_used_is_told_of(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    beside = beside_of(log, path)
    beside.write_bytes(beside.read_bytes()[:-4])
    ran = command(check, path)
    assert (ran.status, ran.err) == (0, "")
    assert f"warning: {path}.snapshot is not used: " in ran.out


@pytest.mark.parametrize("end", ["-5", "x", "1.5", ""])
def test_an_end_that_is_no_number_of_bytes_is_usage(tmp_path: Path, end: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command(check, stored(tmp_path, Maker("json")), f"--end={end}")
    assert ended.value.code == 2
