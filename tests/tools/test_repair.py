"""`kantad repair`: cut or adopt, a copy kept, the original or the result at every moment."""

import os
import stat
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check, repair
from kantad.values.content import encode_msgpack, same
from kantad.values.errors import Damaged
from kantad.values.moment import datetime_of
from tests.store.disks import KeepingDisk
from tests.store.logs import FORMATS, Maker, every_kind, foreign_payload
from tests.tools.kit import Ran, broken, command, flipped, stored


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = every_kind(request.param)
    made.change({"z": 1})
    made.change({"z": 2})
    return made


def state_of(path: Path) -> tuple[int, object]:
    log, found = open_log(str(path), None, RealDisk(), 0)
    log.close()
    return found.rev, found.state


def mended(path: Path, *flags: str) -> Ran:
    """Repair; the result is whole, the original is kept, nothing else is left."""
    before = path.read_bytes()
    ran = command(repair, path, *flags)
    assert ran.status == 0
    assert command(check, path).status == 0, command(check, path).err
    copies = [name for name in os.listdir(path.parent) if name != path.name]
    assert len(copies) == 1
    assert copies[0].startswith(f"{path.name}.before-repair-")
    assert path.with_name(copies[0]).read_bytes() == before
    path.with_name(copies[0]).unlink()
    return ran


def test_a_whole_file_is_left_alone(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for flags in ([], ["--adopt"]):
        ran = command(repair, path, *flags)
        assert (ran.status, ran.err) == (0, "")
        assert "nothing was done" in ran.out
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == log.data


def test_it_cuts_at_the_first_damage(log: Maker, tmp_path: Path) -> None:
    for before, point in zip(log.points[1:], log.points[2:], strict=False):
        path = stored(tmp_path, log, flipped(log, point.end - 9))
        ran = mended(path)
        assert path.read_bytes() == log.data[: before.end]
        rev, state = state_of(path)
        assert rev == before.rev
        assert same(state, before.state)
        assert f"revision {rev}" in ran.out


def test_a_torn_tail_is_cut(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    mended(path)
    assert path.read_bytes() == log.data[: log.points[-2].end]


def test_adopting_keeps_what_stands_behind(log: Maker, tmp_path: Path) -> None:
    log.change({"y": 1})
    path = stored(tmp_path, log, broken(log, log.points[-3].end))
    ran = mended(path, "--adopt")
    assert "1 changes adopted" in ran.out
    rev, state = state_of(path)
    lost = log.points[-3].state
    assert same(state, {**lost, "y": 1})
    assert rev == log.rev - 1


def test_a_snapshot_behind_brings_lost_changes_back(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, broken(log, log.points[2].end))
    ran = mended(path, "--adopt")
    assert "1 of them brought back lost changes" in ran.out
    assert same(state_of(path)[1], log.state)


def test_adopting_after_every_flip(log: Maker, tmp_path: Path) -> None:
    log.snapshot()
    end = log.points[-2].end
    header = log.framing.header + (8 if log.format == "msgpack" else 2)
    for offset in range(header, end, 5):
        path = stored(tmp_path, log, flipped(log, offset))
        if log.format == "msgpack" and offset < log.points[0].end:
            continue
        mended(path, "--adopt")
        assert same(state_of(path)[1], log.state), offset


def test_adopting_after_lost_and_doubled_records(log: Maker, tmp_path: Path) -> None:
    log.change({"z": 3})
    start, end = log.points[-4].end, log.points[-3].end
    data = bytes(log.data)
    path = stored(tmp_path, log, data[:start] + data[end:])
    mended(path, "--adopt")
    assert same(state_of(path)[1], log.state)
    path = stored(tmp_path, log, data[:end] + data[start:])
    mended(path, "--adopt")
    rev, state = state_of(path)
    assert same(state, log.state)
    assert rev == log.rev


def test_what_a_migration_was_for_is_adopted(log: Maker, tmp_path: Path) -> None:
    damaged = log.points[-1].end
    log.change({"n": 8})
    log.change({"n": 9}, v=4, about="Names have two parts.")
    path = stored(tmp_path, log, broken(log, damaged))
    assert command(repair, path, "--adopt").status == 0
    assert b"Names have two parts." in path.read_bytes()
    assert command(check, path).status == 0


def test_an_edited_record_is_adopted_as_it_is(tmp_path: Path) -> None:
    log = Maker("json")
    log.change({"a": 1})
    log.change({"a": "before"})
    log.change({"b": 2})
    path = stored(tmp_path, log, bytes(log.data).replace(b"before", b"edited by hand"))
    assert command(check, path).status == 65
    mended(path, "--adopt")
    assert state_of(path) == (3, {"a": "edited by hand", "b": 2})


def test_a_record_with_a_damaged_chain_value_is_adopted(tmp_path: Path) -> None:
    log = Maker("json")
    log.batch({"a": 1}, {"b": 2}, {"c": 3})
    data = bytearray(log.data)
    data[log.points[-2].end - 8] = ord("g")
    path = stored(tmp_path, log, bytes(data))
    mended(path, "--adopt")
    assert state_of(path) == (3, {"a": 1, "b": 2, "c": 3})


def test_records_of_another_program_are_adopted(log: Maker, tmp_path: Path) -> None:
    log.foreign({"f": 1})
    log.change({"z": 9})
    hit = log.points[-3].end - 9
    path = stored(tmp_path, log, flipped(log, hit))
    mended(path, "--adopt")
    assert same(state_of(path)[1], {**log.points[-4].state, "f": 1, "z": 9})


def test_a_doubled_record_of_another_program_is_adopted_once(log: Maker, tmp_path: Path) -> None:
    """One is behind what is whole, one behind what was adopted."""
    log.foreign({"f": [1, 2, 3]})
    log.change({"z": 8})
    hit = log.points[-3].end
    log.foreign({"f": {"$delete": [0]}})
    double = foreign_payload(log.format, log.micros, {"f": {"$delete": [0]}})
    log.data += log.framing.frame(double, len(log.data))
    log.change({"z": 9})
    for offset in (hit, log.points[-3].end):
        path = stored(tmp_path, log, broken(log, offset))
        mended(path, "--adopt")
        assert state_of(path)[1]["z"] == 9
    path = stored(tmp_path, log, broken(log, log.points[-4].end))
    mended(path, "--adopt")
    assert state_of(path)[1]["f"] == [2, 3]


def test_what_was_applied_of_what_is_refused_is_not_adopted_upon(log: Maker, tmp_path: Path) -> None:
    log.change({"o": {"l": [1, 2]}})
    before = dict(log.state)
    log.foreign({"o": {"l": {"$insert": [[0, 0]]}}})
    nonsense = foreign_payload(log.format, log.micros + 1, {"first": 1, "o": {"l": {"$delete": [9]}}})
    log.data += log.framing.frame(nonsense, len(log.data))
    log.change({"z": 9})
    path = stored(tmp_path, log)
    assert command(check, path).status == 65
    assert "did not fit" in mended(path, "--adopt").out
    assert same(state_of(path)[1], {**before, "o": {"l": [0, 1, 2]}, "z": 9})


def test_a_record_that_another_program_put_between_is_adopted_once(log: Maker, tmp_path: Path) -> None:
    log.change({"l": [1, 2]})
    inserted = foreign_payload(log.format, log.micros, {"l": {"$insert": [[0, 0]]}})
    log.data += log.framing.frame(inserted, len(log.data))
    log.change({"z": 9})  # which knows nothing of it
    path = stored(tmp_path, log)
    assert command(check, path).status == 65
    mended(path, "--adopt")
    assert same(state_of(path)[1], {**log.state, "l": [0, 1, 2]})


def test_a_first_record_of_kanta_that_is_torn_leaves_a_file_that_opens(tmp_path: Path) -> None:
    log = Maker("msgpack")
    log.data = log.data[:4]
    log.foreign({"a": 1})
    for flags in ((), ("--adopt",)):
        path = stored(tmp_path, log, bytes(log.data[:-5]))
        mended(path, *flags)
        assert state_of(path) == (0, {})


def test_damage_before_a_snapshot_of_kanta_is_no_miscounted_revision(tmp_path: Path) -> None:
    """Its revision is that of all records before it, which cannot be counted across a damaged frame."""
    log = Maker("msgpack")
    log.data = log.data[:4]
    for turn in range(6):
        log.foreign({"n": turn})
    hit = log.points[-3].end
    payload = encode_msgpack({"ts": datetime_of(log.micros), "v": 0, "state": log.state, "r": 6, "k": 1})
    log.data += log.framing.frame(payload, len(log.data), True)
    log.foreign({"n": 7})
    path = stored(tmp_path, log, broken(log, hit))
    ran = command(check, path)
    assert ran.status == 65
    assert "record 5, byte" in ran.err
    assert "cannot be counted" in ran.err
    with pytest.raises(Damaged, match="cannot be counted"):
        state_of(path)
    mended(path, "--adopt")
    assert state_of(path)[1] == {"n": 7}


def test_a_patch_that_fits_nothing_is_left_out_whole(log: Maker, tmp_path: Path) -> None:
    log.change({"o": {"n": 1}})
    hit = log.points[-1].end
    log.change({"gone": 1})
    log.foreign({"v": "$5"})
    nonsense = foreign_payload(log.format, log.micros + 1, {"v": "$6", "o": {"n": "$2", "$delete": [["n"]]}})
    log.data += log.framing.frame(nonsense, len(log.data))
    log.change({"z": 9})
    path = stored(tmp_path, log, broken(log, hit))
    assert "1 did not fit" in mended(path, "--adopt").out
    assert same(state_of(path)[1], {**log.points[-4].state, "v": "$5", "z": 9})  # which has no "gone" yet


def test_changes_that_do_not_fit_are_left_out(log: Maker, tmp_path: Path) -> None:
    log.change({"arr": [1, 2, 3, 4]})
    log.change({"arr": {"$insert": [[4, 5]]}})
    log.change({"z": 9})
    path = stored(tmp_path, log, broken(log, log.points[-4].end))
    ran = mended(path, "--adopt")
    assert "1 did not fit" in ran.out
    assert same(state_of(path)[1], {**log.points[-4].state, "z": 9})


def test_the_result_has_the_mode_of_the_original(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    path.chmod(0o640)
    mended(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_result_has_the_owner_of_the_original(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    os.chown(path, 12345, 23456)
    path.chmod(0o660)
    mended(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o660)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_result_that_its_owner_cannot_be_given_is_none(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    before = path.read_bytes()
    os.chown(path, 12345, -1)
    ran = command(repair, path, disk=KeepingDisk())
    assert ran.status == 2
    assert "cannot be given to user 12345" in ran.err
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before
    os.chown(path, 0, 23456)  # a group is no reason, but gets no rights
    path.chmod(0o660)
    assert command(repair, path, disk=KeepingDisk()).status == 0
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)


def test_a_locked_file_is_left_alone(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    opened, _ = open_log(str(path), None, RealDisk(), 0)
    assert command(repair, path).status == 75
    opened.close()


def test_a_symlink_stays_one(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    link = tmp_path / "link"
    link.symlink_to(path.name)
    assert command(repair, link).status == 0
    assert link.is_symlink()
    assert path.read_bytes() == log.data[: log.points[-2].end]


def test_what_is_no_kantadb(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"hello", b'{"a": 1}\n', b'{"users": {"ann": 1}}', b'  {"a": 1}\n' * 9):
        path.write_bytes(content)
        for flags in ([], ["--adopt"]):
            ran = command(repair, path, *flags)
            assert (ran.status, "the file is as it was" in ran.err) == (65, True)
            assert path.read_bytes() == content
    for other in (tmp_path / "none", tmp_path):
        ran = command(repair, other)
        assert (ran.status, ran.out) == (2, "")
        assert str(other) in ran.err
    assert os.listdir(tmp_path) == ["x"]
