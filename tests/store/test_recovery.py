"""Recovery: what is kept, what is torn, what is refused; every truncation, every flip."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.store.recovery import Recovered, recover
from kantad.values.content import same
from kantad.values.errors import Damaged
from kantad.values.record import Kept
from tests.store.logs import ALL, LOOKALIKE, T0, Maker, Point, every_kind


def read(log: Maker, data: bytes | None = None) -> Recovered:
    data = bytes(log.data) if data is None else data
    return recover(data, len(data), log.framing, log.codec)


def assert_is(found: Recovered, point: Point) -> None:
    assert same(found.state, point.state)
    assert (found.rev, found.chain) == (point.rev, point.chain)


@pytest.fixture(params=ALL)
def log(request: pytest.FixtureRequest) -> Maker:
    return every_kind(request.param)


@pytest.fixture(params=ALL)
def empty(request: pytest.FixtureRequest) -> Maker:
    return Maker(request.param)


def test_whole_log_is_read(log: Maker) -> None:
    found = read(log)
    assert_is(found, log.points[-1])
    assert (found.torn, found.newline, found.warnings) == (0, False, [])
    assert found.end == len(log.data)
    assert found.batch == next(p.end for p in reversed(log.points) if p.batch < log.batches)


@pytest.mark.parametrize("last", ["change", "snapshot"])
def test_every_truncation_gives_the_longest_valid_prefix(log: Maker, last: str) -> None:
    if last == "snapshot":
        log.snapshot(kept=Kept([("key-2", "0badcafe", 7)], [(T0, "0" * 16, None)]))
        log.snapshot()
    begin = log.points[0].end
    for size in range(begin, len(log.data)):
        found = read(log, bytes(log.data[:size]))
        if not log.binary and any(p.end == size + 1 for p in log.points[1:]):
            assert found.newline
            assert_is(found, log.prefix(size + 1))
            assert (found.end, found.torn) == (size, 0)
        else:
            point = log.prefix(size)
            assert_is(found, point)
            assert (found.end, found.torn, found.newline) == (point.end, size - point.end, False)


def test_a_file_that_begins_with_a_snapshot_was_put_there_whole(empty: Maker) -> None:
    log = empty
    log.data = log.data[: log.framing.header]
    log.points = []
    log.state, log.rev, log.chain = {"a": 1}, 7, b"chain of"
    log.snapshot()
    header = log.framing.header
    for size in range(header + 4, len(log.data)):
        if not log.binary and size == len(log.data) - 1:
            found = read(log, bytes(log.data[:size]))
            assert_is(found, log.points[-1])
            assert found.newline
            assert found.oldest == 0 or found.oldest == 7
            continue
        with pytest.raises(Damaged, match="begins with"):
            read(log, bytes(log.data[:size]))


def tails(log: Maker) -> list[bytes]:
    """What may stand behind a whole log: zeros, noise, old bytes."""
    chance = random.Random(1)
    made = []
    for size in (1, 2, 3, 9, 17, 100, 511, 512, 513, 4096, 1 << 20):
        made += [bytes(size), chance.randbytes(size), b"\n" * (size // 2) + chance.randbytes(size)]
        starts = [0, 1, 33, chance.randrange(len(log.data)), *(point.end for point in log.points[:-1])]
        for start in starts:
            old = bytes(log.data[start:])
            made.append((old * (1 + size // len(old)))[:size])
    return made


def test_zeros_noise_and_old_bytes_behind_the_end_are_torn(log: Maker) -> None:
    whole = bytes(log.data)
    for tail in tails(log):
        found = read(log, whole + tail)
        assert_is(found, log.points[-1])
        assert found.end + found.torn == len(whole + tail)
        blank = 0 if log.binary else len(tail) - len(tail.lstrip(b"\n"))
        assert found.end in (len(whole), len(whole) + blank)


def test_old_bytes_behind_a_log_of_one_moment_are_torn(log: Maker) -> None:
    """The clock stood still: only the copies themselves tell that they are copies."""
    still = Maker(log.format, tick=0)
    still.batch({"a": 1}, {"b": 2})
    still.snapshot()
    still.batch({"a": 2}, {"b": 3})
    still.batch({"a": 3})
    still.snapshot()
    still.batch({"a": 4})
    whole = bytes(still.data)
    for start in range(len(whole)):
        assert_is(read(still, whole + whole[start:]), still.points[-1])


def test_blank_lines_are_no_damage() -> None:
    log = every_kind("json")
    data = bytes(log.data).replace(b"\n", b"\n\n") + b"\n\n"
    assert_is(read(log, data), log.points[-1])


def hit(log: Maker, offset: int) -> int:
    """The index in `points` of the record that this byte is of."""
    return next(i for i, point in enumerate(log.points) if offset < point.end)


def outcome(log: Maker, data: bytes) -> Recovered | Damaged:
    try:
        return read(log, data)
    except Damaged as error:
        return error


def check_outcome(log: Maker, data: bytes, offset: int) -> None:
    """The allowed outcomes of damage at one offset; see the format's step 4 of opening."""
    number = hit(log, offset)
    found = outcome(log, data)
    if isinstance(found, Damaged):
        successor = log.points[min(number + 1, len(log.points) - 1)]
        assert found.offset < successor.end, (offset, str(found))
        return
    if same(found.state, log.state) and found.rev == log.rev:
        return
    assert log.points[number].batch == log.batches, (offset, found.end)
    earlier = [point for point in log.points if point.batch < log.batches]
    allowed = [point for point in log.points if point.rev >= earlier[-1].rev]
    assert any(found.rev == p.rev and found.chain == p.chain and same(found.state, p.state) for p in allowed)
    assert found.end + found.torn == len(data)
    assert found.torn > 0


def values_for(byte: int, offset: int) -> list[int]:
    """All single-bit flips of a byte and some more."""
    flips = [byte ^ (1 << bit) for bit in range(8)]
    more = [*b'\n "{}]0m', 0, 255, (byte + offset) & 255]
    return [value for value in [*flips, *more] if value != byte]


def flip_every_byte(log: Maker) -> None:
    data = bytearray(log.data)
    for offset in range(log.framing.header + (8 if log.binary else 2), len(data)):
        byte = data[offset]
        for value in values_for(byte, offset):
            data[offset] = value
            check_outcome(log, bytes(data), offset)
        data[offset] = byte


def test_every_flip_of_a_log_that_ends_with_a_batch(log: Maker) -> None:
    flip_every_byte(log)


def test_every_flip_of_a_log_that_ends_with_single_changes(empty: Maker) -> None:
    empty.change({"a": 1})
    empty.change({"a": LOOKALIKE})
    empty.change({"a": {"$replace": 2}}, id="k", q="00000000")
    flip_every_byte(empty)


def test_every_flip_of_a_log_that_ends_with_a_snapshot(empty: Maker) -> None:
    empty.batch({"a": 1}, {"b": [1, 2]})
    empty.snapshot()
    empty.batch({"a": 2}, {"c": None})
    empty.snapshot()
    flip_every_byte(empty)


def test_every_flip_where_another_program_wrote_behind(empty: Maker) -> None:
    empty.change({"a": 1})
    empty.foreign({"b": {"c": 1}})
    empty.change({"a": 2})
    empty.change({"a": 3})
    flip_every_byte(empty)


def records_of(log: Maker) -> list[bytes]:
    ends = [log.framing.header, *(p.end for p in log.points)]
    return [bytes(log.data[a:b]) for a, b in pairwise(ends) if b > a]


def assert_prefix_or_damaged(log: Maker, data: bytes, least: int) -> None:
    found = outcome(log, data)
    if isinstance(found, Damaged):
        return
    assert any(found.rev == p.rev and same(found.state, p.state) for p in log.points if p.rev >= least), found
    assert found.end + found.torn == len(data)


def test_deleted_doubled_and_swapped_records_are_refused(log: Maker) -> None:
    log.change({"z": 1})
    log.change({"z": 2})
    log.change({"z": 3})
    records = records_of(log)
    seed = bytes(log.data[: log.framing.header])
    snapshot = 5 if log.format == "json" else 6
    assert log.points[6].kind == "snapshot"
    for i in range(snapshot + 1, len(records)):
        without = seed + b"".join([*records[:i], *records[i + 1 :]])
        doubled = seed + b"".join([*records[: i + 1], *records[i:]])
        if i < len(records) - 2:
            for data in (without, doubled):
                with pytest.raises(Damaged):
                    read(log, data)
        else:
            assert_prefix_or_damaged(log, without, log.points[i - 1].rev)
            assert_prefix_or_damaged(log, doubled, log.points[i].rev)
        for j in range(i + 1, len(records)):
            order = list(records)
            order[i], order[j] = order[j], order[i]
            with pytest.raises(Damaged):
                read(log, seed + b"".join(order))


def test_damage_before_the_last_snapshot_does_not_stop_the_start(log: Maker) -> None:
    snapshot = next(i for i, p in enumerate(log.points) if i and p.kind == "snapshot")
    data = bytearray(log.data)
    for offset in range(log.points[0].end + 40, log.points[snapshot - 1].end, 7):
        data[offset] ^= 1
        found = read(log, bytes(data))
        assert_is(found, log.points[-1])
        data[offset] ^= 1


class TestBatches:
    """What was acknowledged together is torn together."""

    def test_a_damaged_record_tears_the_rest_of_the_last_batch(self, log: Maker) -> None:
        last = [p for p in log.points if p.batch == log.batches]
        for before, point in zip([log.points[-4], *last], last, strict=False):
            data = bytearray(log.data)
            data[point.end - 8] ^= 1
            found = read(log, bytes(data))
            assert_is(found, before)
            assert (found.end, found.torn) == (before.end, len(data) - before.end)

    def test_zeroed_sectors_in_the_last_batch_are_torn(self, empty: Maker) -> None:
        log = empty
        log.change({"a": 1})
        start = len(log.data)
        log.batch(*({"x" * 50: i, "like": [LOOKALIKE]} for i in range(40)))
        for sector in range(start // 512 + 1, len(log.data) // 512):
            data = bytearray(log.data)
            data[sector * 512 : sector * 512 + 512] = bytes(512)
            found = read(log, bytes(data))
            assert_is(found, log.prefix(sector * 512 + found.newline))

    def test_a_later_batch_makes_it_damage(self, log: Maker) -> None:
        batch = log.batches
        log.change({"later": 1})
        for point in (p for p in log.points if p.batch == batch):
            data = bytearray(log.data)
            data[point.end - 8] ^= 1
            with pytest.raises(Damaged, match="whole record stands behind"):
                read(log, bytes(data))

    def test_a_later_batch_of_many_makes_it_damage(self, empty: Maker) -> None:
        empty.batch({"a": 1}, {"a": 2})
        hit = empty.points[-1].end - 8
        first = empty.points[-1].end
        empty.batch({"a": 3}, {"a": 4})
        data = bytearray(empty.data)
        data[hit] ^= 1
        data[first + 30] ^= 1  # the first of the later batch as well: its second says which batch it is of
        with pytest.raises(Damaged):
            read(empty, bytes(data))


class TestLookalikes:
    """User data that looks like records neither makes a torn tail damage nor hides damage."""

    def test_a_torn_record_full_of_lookalikes_is_torn(self, empty: Maker) -> None:
        empty.change({"a": 1})
        start = len(empty.data)
        inner = bytes(empty.data)[empty.points[0].end :]
        text = inner.decode("latin-1")
        empty.change({"like": [LOOKALIKE, {"x": [LOOKALIKE, LOOKALIKE]}], "text": f"\nSNAPSHOT {text}\n{text}"})
        for size in range(start, len(empty.data) - 1):
            assert_is(read(empty, bytes(empty.data[:size])), empty.points[-2])

    def test_binary_lookalikes_are_torn_too(self) -> None:
        log = Maker("msgpack")
        log.change({"a": 1})
        start = len(log.data)
        log.change({"like": bytes(log.data)})
        for size in range(start, len(log.data)):
            assert_is(read(log, bytes(log.data[:size])), log.points[-2])

    def test_a_chain_value_in_user_data_hides_no_damage(self, empty: Maker) -> None:
        empty.change({"a": 1})
        empty.change({"a": 2})
        late = Maker(empty.format, data=bytearray())
        late.change({"a": 1})
        late.change({"h": {"h": empty.chain.hex()}, "hh": [{"h": empty.chain.hex()}]})
        late.change({"a": 3})
        data = bytearray(late.data)
        data[late.points[-3].end + 40] ^= 1
        with pytest.raises(Damaged):
            read(late, bytes(data))


class TestFirstWrite:
    """A new file whose first write was torn is empty; what is no kantadb is refused."""

    def test_zeros_are_an_empty_json_file(self) -> None:
        log = Maker("json")
        found = read(log, bytes(5000))
        assert (found.rev, found.end, found.torn) == (0, 0, 5000)

    @pytest.mark.parametrize("foreign", [False, True])
    def test_a_binary_file_whose_beginning_became_zeros_is_damaged(self, foreign: bool, tmp_path: Path) -> None:
        log = Maker("msgpack")
        for turn in range(20):
            (log.foreign if foreign else log.change)({f"k{turn}": "x" * 50})
        path = tmp_path / "data.kantadb"
        for size in (16, 100, 512):
            data = bytes(size) + bytes(log.data[size:])
            path.write_bytes(data)
            with pytest.raises(Damaged):
                open_log(str(path), None, RealDisk(), T0)
            assert path.read_bytes() == data

    def test_another_json_file_is_refused(self) -> None:
        log = Maker("json")
        for text in (b'{"hello": 1}\n', b'{"a":1}\n{"b":2}\n', b"{\n}\n"):
            with pytest.raises(Damaged, match="is it a kantadb"):
                read(log, text)


def test_the_place_of_damage_is_named(log: Maker) -> None:
    log.change({"a": 1})
    data = bytearray(log.data)
    data[log.points[-3].end - 8] ^= 1
    with pytest.raises(Damaged) as caught:
        read(log, bytes(data))
    assert caught.value.offset == log.points[-4].end
    number = len(log.points) - (3 if log.format == "json" else 2)
    assert (caught.value.line or caught.value.record) == number
    assert f"byte {caught.value.offset}" in str(caught.value)
