"""`kantad compact`: what is older goes into a database of its own, and at every moment there is a whole file."""

from pathlib import Path
from typing import Any

import pytest
from kanta.serialization import JsonSerializer, MsgPackSerializer
from kanta.serialization.base import replay

from kantad.store.disk import RealDisk
from kantad.store.history import keyed
from kantad.store.log import open_log, reading
from kantad.store.recovery import recover
from kantad.store.retrace import Retrace
from kantad.tools import check, compact
from kantad.values.content import same
from kantad.values.record import CHAIN_START
from tests.store.logs import FORMATS, T0, Maker, every_kind, foreign_payload
from tests.tools.kit import Ran, broken, command, stored

SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer}
DAY = 24 * 3600 * 1_000_000


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = every_kind(request.param)
    made.change({"posted": {"0198": {"x": 1}}}, id="key-3", q="0badcafe")
    made.change({"z": 2})
    return made


def compacted(path: Path, retain: str, *flags: str) -> Ran:
    """Compact; the result is whole."""
    ran = command(compact, path, "--retain", retain, *flags)
    assert (ran.status, ran.err) == (0, ""), ran
    assert command(check, path).status == 0, command(check, path).err
    return ran


def state_at(path: Path, rev: int) -> tuple[bytes, Any]:
    """The chain and the state at a revision."""
    with reading(str(path)) as (buffer, size, framing, codec):
        found = recover(buffer, size, framing, codec)
        retrace = Retrace(buffer, found.end, framing, codec, found.oldest)
        for _ in retrace.steps(rev):
            pass
        return retrace.chain, retrace.state


def range_of(path: Path) -> tuple[int, int]:
    with reading(str(path)) as (buffer, size, framing, codec):
        found = recover(buffer, size, framing, codec)
        return found.oldest, found.rev


def others(path: Path) -> list[Path]:
    return sorted(each for each in path.parent.iterdir() if each != path)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_keeps_state_and_cursor_of_every_later_revision(log: Maker, tmp_path: Path, cut: int) -> None:
    path = stored(tmp_path, log)
    compacted(path, f"{log.rev - cut}r")
    assert range_of(path) == (cut, log.rev)
    for point in log.points:
        if point.rev >= cut:
            chain, state = state_at(path, point.rev)
            assert chain == point.chain
            assert same(state, point.state)


@pytest.mark.parametrize("cut", range(1, 12))
def test_what_is_cut_off_is_a_database_of_its_own(log: Maker, tmp_path: Path, cut: int) -> None:
    path = stored(tmp_path, log)
    compacted(path, f"{log.rev - cut}r")
    (archive,) = others(path)
    last = [point for point in log.points if point.rev == cut][-1]  # a snapshot there is in both
    assert archive.read_bytes() == log.data[: last.end]
    assert command(check, archive).status == 0
    assert range_of(archive) == (0, cut)
    assert archive.name.startswith("data@20250615T15064")


def test_kanta_opens_a_compacted_file(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    compacted(path, "3r")
    serializer = SERIALIZERS[log.format]()
    state = replay(path.read_bytes(), framer=serializer.framer_cls(), decode=serializer.decode)
    assert same(state[0] if isinstance(state, tuple) else state.state, log.state)


def test_a_file_is_compacted_again_and_again(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for left in (8, 5, 3):
        compacted(path, f"{left}r")
    compacted(path, "none")
    assert range_of(path) == (log.rev, log.rev)
    assert [range_of(each) for each in others(path)] == [(0, 3), (3, 6), (6, 8), (8, 11)]
    assert state_at(path, log.rev)[0] == log.chain
    assert "nothing is older" in compacted(path, "none").out


def test_history_is_kept_by_age(log: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.micros += 40 * DAY
    log.change({"late": 1})
    path = stored(tmp_path, log)
    monkeypatch.setattr(compact, "now_micros", lambda: T0 + 50 * DAY)
    compacted(path, "30d")
    assert range_of(path) == (log.rev - 1, log.rev)
    assert "nothing is older" in compacted(path, "264h").out


def test_idempotency_keys_survive_with_what_they_were_answered(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for retain in ("8r", "none"):
        compacted(path, retain, "--no-archive")
        with reading(str(path)) as (buffer, size, framing, codec):
            found = recover(buffer, size, framing, codec)
            window = keyed(buffer, size, framing, codec, found)
        assert [(each.key, each.q, each.rev) for each in window] == [
            ("key-1", "0badcafe", 1),
            ("key-2", "0badcafe", 6),
            ("key-3", "0badcafe", 10),
        ]
        points = {point.rev: point.chain for point in log.points}
        assert all(each.chain == points[each.rev] for each in window)
        assert [each.micros for each in window] == [T0 + 7, T0 + 42, T0 + 70]
    assert window[2].outline == {"posted": {"0198": {"x": None}}}
    assert others(path) == []


def test_an_archive_of_the_same_name_is_not_overwritten(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    compacted(path, "3r")
    (archive,) = others(path)
    whole = archive.read_bytes()
    path.write_bytes(bytes(log.data))
    assert str(archive) in compacted(path, "3r").out  # it is the same
    archive.write_bytes(b"mine")
    path.write_bytes(bytes(log.data))
    compacted(path, "3r")
    assert archive.read_bytes() == b"mine"
    assert (tmp_path / f"{archive.stem}.1.kantadb").read_bytes() == whole


def test_mode_is_kept_and_a_torn_tail_is_cut_first(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data) + b"\x00\x01")
    path.chmod(0o640)
    ran = command(compact, path, "--retain", "none")
    assert ran.status == 0
    assert "torn tail" in ran.err
    assert path.stat().st_mode & 0o777 == 0o640
    assert {each.stat().st_mode & 0o777 for each in others(path) if "@" in each.name} == {0o640}


def test_damage_behind_the_cut_is_refused_and_before_it_goes_into_the_archive(log: Maker, tmp_path: Path) -> None:
    log.snapshot()
    log.change({"end": 1})
    starts = [0, *(point.end for point in log.points)]
    bad = next(start for start, point in zip(starts, log.points, strict=False) if point.rev == 9)
    before = broken(log, bad)
    path = stored(tmp_path, log, before)
    ran = command(compact, path, "--retain", "5r")
    assert ran.status == 65
    assert path.read_bytes() == before
    assert others(path) == []
    assert command(compact, path, "--retain", "1r").status == 0
    assert range_of(path) == (11, 12)
    assert command(check, path).status == 0


@pytest.mark.parametrize("arguments", [["--retain", "3x"], ["--retain", ""], ["--retain", "-1r"], []])
def test_a_retention_that_is_none_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(compact, tmp_path / "data.kantadb", *arguments)
    assert ended.value.code == 2


def test_no_file_no_kantadb_and_a_locked_one_are_told_apart(log: Maker, tmp_path: Path) -> None:
    assert command(compact, tmp_path / "none.kantadb", "--retain", "none").status == 2
    (tmp_path / "text").write_text("hello")
    assert command(compact, tmp_path / "text", "--retain", "none").status == 65
    path = stored(tmp_path, log)
    held, _ = open_log(str(path), None, RealDisk(), 0)
    ran = command(compact, path, "--retain", "none")
    assert (ran.status, "POST /v1/compact" in ran.err) == (75, True)
    held.close()


class TestKantasRecords:
    def test_a_doubled_record_at_the_cut_counts_once(self, tmp_path: Path) -> None:
        for format in FORMATS:
            log = Maker(format)
            log.foreign({"a": 1})
            double = foreign_payload(format, log.micros, {"a": 1})
            log.data += log.framing.frame(double, len(log.data))
            log.foreign({"b": 2})
            log.change({"c": 3})
            path = stored(tmp_path, log)
            assert command(compact, path, "--retain", "2r", "--no-archive").status == 0
            assert range_of(path) == (1, 3)
            assert state_at(path, 3) == (log.chain, {"a": 1, "b": 2, "c": 3})

    def test_a_record_that_could_be_read_otherwise_is_not_cut_off_from_what_tells(self, tmp_path: Path) -> None:
        log = Maker("json")
        log.foreign({"a": {"$replace": {"x": 1}}})
        log.foreign({"b": "$$5"})
        path = stored(tmp_path, log)
        ran = command(compact, path, "--retain", "1r")
        assert ran.status == 65
        assert "two ways" in ran.err
        assert others(path) == []
        assert path.read_bytes() == log.data
        assert command(compact, path, "--retain", "none").status == 0
        assert state_at(path, 2) == (log.chain, {"a": {"x": 1}, "b": "$5"})


def test_what_a_killed_one_left_is_removed_by_the_next_start(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    left = tmp_path / "data.kantadb.compacting.new-4194999"
    left.write_bytes(b"half")
    opened, found = open_log(str(path), None, RealDisk(), 0)
    opened.close()
    assert not left.exists()
    assert "compacting.new-4194999" in found.warnings[-1]


def test_an_empty_database_has_nothing_to_drop(tmp_path: Path) -> None:
    for format in FORMATS:
        log = Maker(format)
        path = stored(tmp_path, log)
        assert "nothing is older" in compacted(path, "none").out
        assert range_of(path) == (0, 0)
        assert state_at(path, 0)[0] == CHAIN_START
