"""The snapshot beside the file: it is used where it is of the log, and what it is has no say in what a file holds."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kantad.store.beside import Picture, Unusable, beside, frame_of, known, put, read, recover_from, remove, spot, write
from kantad.store.disk import RealDisk
from kantad.store.history import Unreadable, keyed, packed
from kantad.store.log import format_of, open_log, open_readonly, reading
from kantad.store.recovery import Recovered, recover
from kantad.store.retrace import Retrace
from kantad.values.content import encode_json
from kantad.values.errors import Damaged
from tests.own_formats import CBOR, flag_of, format_flag
from tests.store.logs import ALL, FORMATS, T0, Maker, every_kind

DISK = RealDisk()
BOTH = (*FORMATS, CBOR)


def recovered(data: bytes) -> Recovered:
    return recover(data, len(data), *format_of(data, flag_of(data)))


def picture_of(data: bytes) -> Picture:
    framing, codec = format_of(data, flag_of(data))
    found = recovered(data)
    window = packed(keyed(data, len(data), framing, codec, found))
    place = spot(data, found.last, framing, codec, found.chain, found.read_as)
    return Picture(found.state, found.rev, found.chain, found.micros, found.v, found.m, place, window)


def put_beside(path: Path, data: bytes) -> bytes:
    """Write the snapshot of these records of the log beside a path; the file's content."""
    framing, codec = format_of(data, flag_of(data))
    parts = frame_of(picture_of(data), framing, codec)
    model = os.stat(path) if path.exists() else os.stat(path.parent)
    put(DISK, write(DISK, str(path), parts, model), str(path))
    return Path(beside(str(path))).read_bytes()


def found_in(path: Path, aside: bool = True) -> Recovered:
    with reading(str(path), format_flag(path)) as (buffer, size, framing, codec):
        if aside:
            return recover_from(str(path), buffer, size, framing, codec)
        return recover(buffer, size, framing, codec)


def windows(path: Path) -> tuple[Any, Any]:
    """The idempotency window as a start reads it with the snapshot, and without."""
    with reading(str(path), format_flag(path)) as (buffer, size, framing, codec):
        founds = (recover_from(str(path), buffer, size, framing, codec), recover(buffer, size, framing, codec))
        one, other = (keyed(buffer, found.end, framing, codec, found) for found in founds)
        return one, other


def told(found: Recovered) -> tuple[Any, ...]:
    """All that must not depend on where the reading began."""
    return (
        encode_json(found.state),
        *(found.rev, found.chain, found.v, found.m, found.micros, found.oldest, found.end, found.torn, found.newline),
        *(found.last, found.read_as),
    )


def a_log(format: str) -> Maker:
    log = every_kind(format)
    log.change({"more": [1, 2]}, m=7, v=3)
    log.batch({"n": 5}, {"n": 6}, {"n": 7})
    return log


@pytest.fixture(params=BOTH)
def log(request: pytest.FixtureRequest) -> Maker:
    return a_log(request.param)


@pytest.fixture
def path(tmp_path: Path, log: Maker) -> Path:
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    return path


def after(log: Maker, rev: int) -> int:
    """Where the record of a revision ends."""
    return next(point.end for point in log.points if point.rev == rev and point.kind == "change")


def last_in_file(log: Maker) -> int:
    return max((point.rev for point in log.points if point.kind == "snapshot"), default=0)


def test_a_start_goes_on_from_it(log: Maker, path: Path) -> None:
    rev = log.rev - 3
    size = len(put_beside(path, bytes(log.data[: after(log, rev)])))
    found = found_in(path)
    assert (found.beside, found.start_rev, found.replayed, found.start) == (True, rev, 3, after(log, rev))
    assert size - 32 <= found.snapshot <= size
    assert told(found) == told(found_in(path, aside=False))


def test_it_is_a_database_of_its_own_at_that_revision(log: Maker, path: Path) -> None:
    put_beside(path, bytes(log.data))
    found = found_in(Path(beside(str(path))), aside=False)
    assert (found.rev, found.chain, encode_json(found.state)) == (log.rev, log.chain, encode_json(log.state))


@pytest.mark.parametrize("format", ALL)
def test_wherever_it_is_of_a_start_finds_the_same(tmp_path: Path, format: str) -> None:
    log = a_log(format)
    path = tmp_path / "data.kantadb"
    for point in log.points:
        if point.kind != "change":
            continue
        for other in log.points:
            for more in (b"", bytes(log.data[other.end : other.end + 9])):
                path.write_bytes(bytes(log.data[: other.end]) + more)
                put_beside(path, bytes(log.data[: point.end]))
                try:
                    whole = told(found_in(path, aside=False))
                except Damaged:
                    with pytest.raises(Damaged):
                        found_in(path)
                    continue
                found = found_in(path)
                assert told(found) == whole
                window, whole_window = windows(path)
                assert window == whole_window
                newer = [one for one in log.points if one.kind == "snapshot" and point.end < one.end <= other.end]
                assert found.beside == (point.end <= other.end and not newer), (point, other)


def test_every_truncation_of_it_falls_back_to_the_log(log: Maker, path: Path) -> None:
    content = put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    whole = told(found_in(path, aside=False))
    for size in range(len(content)):
        Path(beside(str(path))).write_bytes(content[:size])
        found = found_in(path)
        assert (found.beside, told(found)) == (False, whole)
        assert "is not used" in found.warnings[-1]


def test_every_flipped_bit_of_it_falls_back_to_the_log(log: Maker, path: Path) -> None:
    content = put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    whole = told(found_in(path, aside=False))
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            Path(beside(str(path))).write_bytes(flipped)
            assert told(found_in(path)) == whole


def test_what_is_not_a_snapshot_beside_a_file_is_not_used_nor_removed(log: Maker, path: Path) -> None:
    whole = told(found_in(path, aside=False))
    aside = Path(beside(str(path)))
    for content in (bytes(log.data), b"notes\n", b'SNAPSHOT {"ts":1}\n'):
        aside.write_bytes(content)
        assert told(found_in(path)) == whole
        opened, _ = open_log(str(path), format_flag(path), DISK, 0)
        opened.close()
        assert aside.read_bytes() == content
    aside.unlink()
    aside.mkdir()
    assert told(found_in(path)) == whole


def test_the_one_of_another_database_is_not_used(tmp_path: Path) -> None:
    for format in ALL:
        one, other, third = Maker(format), Maker(format), Maker("msgpack" if format == "json" else "json")
        for log, value in ((one, 1), (other, 2), (third, 1)):
            for number in range(9):
                log.change({"n": number, "v": value})
        path = tmp_path / "data.kantadb"
        for of in (other, third):
            path.write_bytes(of.data)
            put_beside(path, bytes(of.data))
            path.write_bytes(one.data)
            found = found_in(path)
            assert (found.beside, found.chain, found.state["v"]) == (False, one.chain, 1)


def test_where_records_were_cut_off_and_others_written_it_is_not_used(log: Maker, path: Path) -> None:
    put_beside(path, bytes(log.data))
    stop = after(log, log.rev - 1)
    again = a_log(log.format)
    del again.data[stop:]
    point = again.points[-2]
    again.rev, again.chain, again.state = point.rev, point.chain, point.state
    again.change({"n": 8})
    path.write_bytes(again.data)
    found = found_in(path)
    assert (found.beside, found.rev, found.state["n"]) == (False, again.rev, 8)


def test_damage_behind_it_is_damage(log: Maker, path: Path) -> None:
    data = bytearray(log.data)
    rev = log.rev - 3
    put_beside(path, bytes(log.data[: after(log, rev - 1)]))
    data[after(log, rev) - 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged) as without:
        found_in(path, aside=False)
    with pytest.raises(Damaged) as error:
        found_in(path)
    assert str(error.value) == str(without.value)


def test_damage_before_it_does_not_bear_on_the_state(log: Maker, path: Path) -> None:
    last = last_in_file(log)
    data = bytearray(log.data)
    data[after(log, last + 2) - 3] ^= 1
    put_beside(path, bytes(log.data))
    path.write_bytes(data)
    with pytest.raises(Damaged):
        found_in(path, aside=False)
    found = found_in(path)
    assert (found.beside, found.rev, encode_json(found.state)) == (True, log.rev, encode_json(log.state))


def test_records_of_another_program_behind_it_are_read_from_the_whole_log(log: Maker, path: Path) -> None:
    put_beside(path, bytes(log.data))
    log.foreign({"x": "$$y", "list": [1]})
    log.change({"y": 1})
    path.write_bytes(log.data)
    found = found_in(path)
    assert not found.beside
    assert told(found) == told(found_in(path, aside=False))


@pytest.mark.parametrize("more", [0, 2])
def test_the_one_of_another_programs_record_is_of_all_that_stands_before_it(log: Maker, path: Path, more: int) -> None:
    last = last_in_file(log)
    log.foreign({"x": 1})
    path.write_bytes(log.data)
    size, rev = len(log.data), log.rev
    put_beside(path, bytes(log.data))
    for number in range(more):
        log.change({"x": {"y": number}}, id=f"x{number}", q="0badcafe")
    path.write_bytes(log.data)
    found = found_in(path)
    assert (found.beside, found.start_rev, found.replayed, found.start) == (True, rev, more, size)
    assert told(found) == told(found_in(path, aside=False))
    assert windows(path)[0] == windows(path)[1]
    for at in range(after(log, last) if last else log.framing.header, size, 7):
        data = bytearray(log.data)
        data[at] ^= 1
        path.write_bytes(data)
        try:
            found = found_in(path)
        except Damaged:
            continue
        assert not found.beside, at
        assert told(found) == told(found_in(path, aside=False))


def test_an_open_removes_one_that_is_of_no_use(log: Maker, path: Path) -> None:
    put_beside(path, bytes(log.data))
    opened, found = open_log(str(path), format_flag(path), DISK, 0)
    opened.close()
    assert found.beside
    log.snapshot()
    path.write_bytes(log.data)
    opened, found = open_readonly(str(path), format_flag(path), DISK)
    opened.close()
    assert not found.beside
    assert os.path.exists(beside(str(path)))
    opened, found = open_log(str(path), format_flag(path), DISK, 0)
    opened.close()
    assert (found.beside, found.warnings) == (False, [])
    assert not os.path.exists(beside(str(path)))


def test_what_is_known_of_it_without_reading_its_state(log: Maker, path: Path) -> None:
    with reading(str(path), format_flag(path)) as (buffer, size, framing, codec):
        assert known(str(path), buffer, size, framing, codec) is None
        assert read(str(path), buffer, size, framing, codec) is None
        content = put_beside(path, bytes(log.data))
        assert known(str(path), buffer, size, framing, codec) == (
            *(log.rev, log.micros, after(log, log.rev), log.chain, True),
        )
        Path(beside(str(path))).write_bytes(content[:-1])
        assert known(str(path), buffer, size, framing, codec) is None
        with pytest.raises(Unusable):
            read(str(path), buffer, size, framing, codec)
        remove(DISK, str(path))
        assert not os.path.exists(beside(str(path)))


@settings(deadline=None, max_examples=60)
@given(
    format=st.sampled_from(BOTH),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("change"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1)),
            st.tuples(st.sampled_from(["snapshot", "foreign"]), st.just({"f": {"g": "$x"}})),
        ),
        min_size=1,
        max_size=12,
    ),
    where=st.integers(0, 11),
    cut=st.integers(0, 40),
)
def test_a_start_with_it_and_one_without_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, format: str, steps: list[tuple[str, Any]], where: int, cut: int
) -> None:
    log = Maker(format)
    for kind, diff in steps:
        if kind == "snapshot":
            log.snapshot()
        elif kind == "change":
            log.change(diff, id=f"k{log.rev}", q="0badcafe")
        else:
            log.foreign(diff)
    point = log.points[where % len(log.points)]
    folder = tmp_path_factory.mktemp("beside")
    path = folder / "data.kantadb"
    path.write_bytes(log.data[: len(log.data) - cut])
    try:
        if log.data[: point.end] and recovered(bytes(log.data[: point.end])).last >= 0:
            put_beside(path, bytes(log.data[: point.end]))
        assert told(found_in(path)) == told(found_in(path, aside=False))
        one, other = windows(path)
        assert one == other
    except Damaged:
        with pytest.raises(Damaged):
            found_in(path, aside=False)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("format", ALL)
def test_the_past_is_the_same_whether_or_not_it_is_read_on_from_there(tmp_path: Path, format: str) -> None:
    log = a_log(format)
    for number in range(30):
        log.change({"deep": {"er": {str(number % 7): number}}})
    log.foreign({"by": {"hand": "$x"}})
    log.change({"end": 1})
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    states = {point.rev: encode_json(point.state) for point in log.points}
    chance = random.Random(7)
    used = 0
    for rev in range(1, log.rev - 1):
        put_beside(path, bytes(log.data[: after(log, rev)]))
        retrace = Retrace(bytes(log.data), len(log.data), log.framing, log.codec, 0, str(path))
        retrace.far = retrace.near = 0
        for wanted in chance.sample(range(log.rev + 1), 12):
            for _ in retrace.steps(wanted):
                pass
            assert encode_json(retrace.state) == states[wanted]
            used += retrace.beside == rev
        times = {point.rev: T0 + 7 * point.rev for point in log.points if point.rev < log.rev - 1}
        for wanted in chance.sample(sorted(times), 5):
            assert [0, *retrace.moments(times[wanted])][-1] == wanted
    assert used > 50


def test_the_past_is_read_across_damage_that_stands_before_it(log: Maker, path: Path) -> None:
    data = bytearray(log.data)
    data[after(log, last_in_file(log) + 2) - 3] ^= 1
    put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    for aside in (None, str(path)):
        retrace = Retrace(bytes(data), len(data), log.framing, log.codec, 0, aside)
        retrace.far = 0
        if aside is None:
            with pytest.raises(Unreadable):
                list(retrace.steps(log.rev))
        else:
            list(retrace.steps(log.rev))
            assert encode_json(retrace.state) == encode_json(log.state)
