"""`kantad convert`: there and back the same, kanta's dialects made one, at every moment no file or the whole one."""

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kanta.serialization import JsonSerializer, MsgPackSerializer
from kanta.serialization.base import replay

from kantad.store.disk import RealDisk
from kantad.store.history import keyed
from kantad.store.log import open_log, reading
from kantad.store.recovery import recover
from kantad.store.retrace import Retrace
from kantad.tools import check, compact, convert
from kantad.values.content import decode_json, encode_json, same
from kantad.values.diff import SAME, difference
from kantad.values.framing import Frame
from kantad.values.moment import micros_of
from kantad.values.record import Change
from tests.store.logs import FORMATS, Maker, every_kind, foreign_payload
from tests.tools.kit import Ran, broken, command, stored
from tests.values.documents import TEXTS

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("*.kantadb"))
OTHER = {"json": "msgpack", "msgpack": "json"}
SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer}


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    return every_kind(request.param)


def converted(source: Path, target: Path, *flags: str) -> Ran:
    """Convert; the result is whole."""
    before = source.read_bytes()
    ran = command(convert, source, target, *flags)
    assert ran.status == 0, ran
    assert source.read_bytes() == before
    checked = command(check, target)
    assert checked.status == 0, checked.err
    assert " 0 unverified" in checked.out
    return ran


def changes(path: Path) -> list[tuple[Any, ...]]:
    """What a file tells of its changes, but for the chain."""
    found = []
    with reading(str(path)) as (buffer, size, framing, codec):
        place = framing.header
        while isinstance(frame := framing.next(buffer, place, size), Frame):
            place = frame.end
            if not frame.snapshot:
                record: Change = codec.decode(frame.payload, Change)
                m = None if record.m is None else micros_of(record.m)
                told = (
                    micros_of(record.ts),
                    record.a,
                    record.v,
                    record.u,
                    m,
                    record.id,
                    record.q,
                    record.b,
                    record.about,
                )
                found.append((*told, decode_json(encode_json(record.diff))))
    return found


def test_what_a_migration_was_for_is_kept(log: Maker, tmp_path: Path) -> None:
    log.change({"n": 8}, v=4, about="Names have two parts.")
    path, target = stored(tmp_path, log), tmp_path / "there.kantadb"
    converted(path, target, "--format", OTHER[log.format])
    assert changes(target)[-1][-2] == "Names have two parts."
    assert changes(target) == changes(path)


def states(path: Path) -> list[Any]:
    """The state at every revision that a file holds, as JSON shows it."""
    found = []
    with reading(str(path)) as (buffer, size, framing, codec):
        held = recover(buffer, size, framing, codec)
        for rev in range(held.oldest, held.rev + 1):
            retrace = Retrace(buffer, held.end, framing, codec, held.oldest)
            for _ in retrace.steps(rev):
                pass
            found.append(decode_json(encode_json(retrace.state)))
    return found


def records(path: Path) -> list[tuple[bool, bytes]]:
    """The payloads of a file."""
    found = []
    with reading(str(path)) as (buffer, size, framing, _):
        place = framing.header
        while isinstance(frame := framing.next(buffer, place, size), Frame):
            found.append((frame.snapshot, frame.payload))
            place = frame.end
    return found


def test_revisions_states_and_all_that_is_told_of_a_change_are_kept(log: Maker, tmp_path: Path) -> None:
    source, target = stored(tmp_path, log), tmp_path / "new.kantadb"
    ran = converted(source, target)
    assert f": {OTHER[log.format]}, " in ran.out
    assert changes(target) == changes(source)
    assert all(map(same, states(target), states(source)))
    assert target.stat().st_mode & 0o777 == 0o600


def test_there_and_back_gives_the_same_records_and_cursors(log: Maker, tmp_path: Path) -> None:
    source = stored(tmp_path, log)
    converted(source, tmp_path / "there.kantadb")
    converted(tmp_path / "there.kantadb", tmp_path / "back.kantadb")
    assert records(tmp_path / "back.kantadb") == records(source)


def test_the_same_format_may_be_asked_for(log: Maker, tmp_path: Path) -> None:
    source = stored(tmp_path, log)
    converted(source, tmp_path / "same.kantadb", "--format", log.format)
    assert records(tmp_path / "same.kantadb") == records(source)


def test_a_compacted_file_keeps_its_first_cursor_and_its_keys(log: Maker, tmp_path: Path) -> None:
    source, target = stored(tmp_path, log), tmp_path / "new.kantadb"
    assert command(compact, source, "--retain", "2r").status == 0
    converted(source, target)
    windows = []
    for path in (source, target):
        with reading(str(path)) as (buffer, size, framing, codec):
            windows.append(keyed(buffer, size, framing, codec, recover(buffer, size, framing, codec)))
    assert windows[0] == windows[1]
    assert len(windows[0]) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("format", FORMATS)
def test_files_of_kanta_become_kantads(name: str, format: str, tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    target = tmp_path / "new.kantadb"
    converted(GOLDEN / f"{name}.kantadb", target, "--format", format)
    opened, found = open_log(str(target), None, RealDisk(), 0)
    opened.close()
    assert same(decode_json(encode_json(found.state)), expected["state"])
    assert (found.rev, found.warnings) == (expected["changes"], [])
    assert all(map(same, states(target), states(GOLDEN / f"{name}.kantadb")))
    assert not any(
        b'"h":' not in payload and b"\xa1h\xb0" not in payload for snapshot, payload in records(target) if not snapshot
    )


def test_what_only_messagepack_has_becomes_what_json_shows(tmp_path: Path) -> None:
    log = Maker("msgpack")
    when = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    log.change({"t": when, "b": b"\x00\xff", "n": {1: {2: "x", 3: "y"}, 5: "z"}, "l": [{7: 1, 8: 2}, 0]})
    log.change({"n": {1: {"$delete": [3]}, "$delete": [5]}, "l": {"$delete": [1], "0": {"$delete": [8]}}})
    log.snapshot()
    log.change({"n": {1: {2: "w"}}})
    source, target = stored(tmp_path, log), tmp_path / "new.kantadb"
    converted(source, target)
    assert all(map(same, states(target), states(source)))
    assert states(target)[-1] == {
        "t": "2026-01-02T03:04:05.000006Z",
        "b": "AP8=",
        "n": {"1": {"2": "w"}},
        "l": [{"7": 1}],
    }


class TestKantasRecords:
    def test_doubled_records_count_once_and_dialects_become_one(self, tmp_path: Path) -> None:
        for format in FORMATS:
            log = Maker(format)
            log.foreign({"a": {"x": 1}})
            log.data += log.framing.frame(foreign_payload(format, log.micros, {"a": {"x": 1}}), len(log.data))
            log.foreign({"b": "$$5"})
            log.foreign({"c": "$sign"})
            log.foreign({"d": "$$6"})
            source, target = stored(tmp_path, log), tmp_path / f"{format}.new"
            converted(source, target)
            assert states(target) == states(source)
            assert states(target)[-1] == {"a": {"x": 1}, "b": "$$5", "c": "$sign", "d": "$$6"}

    def test_a_snapshot_that_holds_later_changes_is_left_out(self, tmp_path: Path) -> None:
        log = Maker("json")
        log.foreign({"a": 1})
        state = {"a": 1, "b": 2}
        line = msgspec.json.encode({"ts": "2025-06-15T15:06:40.000007Z", "v": 0, "state": state, "r": 2, "k": 1})
        log.data += b"SNAPSHOT " + line + b"\n"
        source = stored(tmp_path, log)
        converted(source, tmp_path / "ends.kantadb")
        assert states(tmp_path / "ends.kantadb")[-1] == state  # in a change of its own
        log.foreign({"b": 2})
        source = stored(tmp_path, log)
        converted(source, tmp_path / "goes_on.kantadb")
        assert states(tmp_path / "goes_on.kantadb") == [{}, {"a": 1}, state]


def test_kanta_opens_what_was_converted(log: Maker, tmp_path: Path) -> None:
    source, target = stored(tmp_path, log), tmp_path / "new.kantadb"
    converted(source, target)
    serializer = SERIALIZERS[OTHER[log.format]]()
    found = replay(target.read_bytes(), framer=serializer.framer_cls(), decode=serializer.decode)
    assert same(found[0] if isinstance(found, tuple) else found.state, log.state)


def random_value(chance: random.Random, deep: int = 3) -> Any:
    kind = chance.randrange(6 if deep else 4)
    if kind == 4:
        return [random_value(chance, deep - 1) for _ in range(chance.randrange(5))]
    if kind == 5:
        return {chance.choice(TEXTS): random_value(chance, deep - 1) for _ in range(chance.randrange(5))}
    return chance.choice((None, True, False, 0, 1, 1.0, -1, 2**64 - 1, 0.1, 1e300, *TEXTS))


def altered(chance: random.Random, value: Any) -> Any:
    """A copy of a value, changed in some places."""
    if chance.random() < 0.15:
        return random_value(chance)
    if type(value) is dict:
        made = {key: altered(chance, item) for key, item in value.items() if chance.random() < 0.9}
        return {**made, chance.choice(TEXTS): random_value(chance)} if chance.random() < 0.5 else made
    if type(value) is list:
        kept = [altered(chance, item) for item in value if chance.random() < 0.9]
        if chance.random() < 0.5:
            kept.insert(chance.randint(0, len(kept)), random_value(chance))
        return kept
    return value


def random_log(chance: random.Random, format: str) -> Maker:
    """Changes of random documents, in batches, with snapshots between."""
    log = Maker(format)
    for _ in range(chance.randint(0, 30)):
        first = log.rev + 1 if chance.random() < 0.3 else 0
        for number in range(chance.randint(1, 4)):
            new = altered(chance, log.state)
            diff = difference(log.state, new if type(new) is dict else {})
            if diff is not SAME:
                more = {"u": "ann", "id": f"k{log.rev}", "q": "0badcafe"} if chance.random() < 0.3 else {}
                log.change(diff, first if number and log.rev >= first else 0, **more)
        if chance.random() < 0.2:
            log.snapshot()
    return log


def there_and_back(seed: int, folder: Path) -> None:
    chance = random.Random(seed)
    log = random_log(chance, chance.choice(FORMATS))
    source = stored(folder, log)
    there, back = folder / "there.kantadb", folder / "back.kantadb"
    for path in (there, back):
        path.unlink(missing_ok=True)
    converted(source, there)
    converted(there, back)
    assert changes(there) == changes(source)
    assert records(back) == records(source) or not log.rev, seed
    assert all(map(same, states(there), states(source))), seed


@pytest.mark.parametrize("seed", range(20))
def test_random_logs_there_and_back(seed: int, tmp_path: Path) -> None:
    there_and_back(seed, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_random_logs_there_and_back(hundred: int, tmp_path: Path) -> None:
    for seed in range(hundred * 100 + 1000, hundred * 100 + 1100):
        there_and_back(seed, tmp_path)


class TestRefusals:
    def test_what_is_there_is_not_touched(self, log: Maker, tmp_path: Path) -> None:
        source, target = stored(tmp_path, log), tmp_path / "new.kantadb"
        target.write_bytes(b"mine")
        assert command(convert, source, target).status == 2
        assert command(convert, source, source).status == 2
        assert target.read_bytes() == b"mine"
        target.unlink()
        target.symlink_to("nowhere")
        assert command(convert, source, target).status == 2

    def test_damage_is_refused_wherever_it_is(self, log: Maker, tmp_path: Path) -> None:
        log.snapshot()
        starts = [0, *(point.end for point in log.points)]
        for start in starts[1:-2]:  # the last record would be a torn tail
            source = stored(tmp_path, log, broken(log, start))
            ran = command(convert, source, tmp_path / "new.kantadb")
            assert ran.status == 65
            assert not (tmp_path / "new.kantadb").exists()

    def test_a_torn_tail_is_left_out_and_a_missing_newline_is_not_missed(self, log: Maker, tmp_path: Path) -> None:
        source = stored(tmp_path, log, bytes(log.data) + b"\x00\x01\x02")
        ran = converted(source, tmp_path / "torn.kantadb")
        assert "a torn tail of 3 bytes is left out" in ran.err
        assert len(changes(tmp_path / "torn.kantadb")) == log.rev
        if log.format == "json":
            source = stored(tmp_path, log, bytes(log.data)[:-1])
            converted(source, tmp_path / "newline.kantadb")
            assert len(changes(tmp_path / "newline.kantadb")) == log.rev

    def test_no_file_no_kantadb_and_no_folder_are_told_apart(self, log: Maker, tmp_path: Path) -> None:
        assert command(convert, tmp_path / "none", tmp_path / "new").status == 2
        (tmp_path / "text").write_text("hello")
        assert command(convert, tmp_path / "text", tmp_path / "new").status == 65
        assert command(convert, stored(tmp_path, log), tmp_path / "none" / "new").status == 2

    def test_an_empty_database_stays_one(self, tmp_path: Path) -> None:
        for format in FORMATS:
            source = stored(tmp_path, Maker(format))
            converted(source, tmp_path / f"{format}.new")
            assert states(tmp_path / f"{format}.new") == [{}]


def test_a_file_that_is_written_to_meanwhile_is_converted_as_of_a_moment(log: Maker, tmp_path: Path) -> None:
    source = stored(tmp_path, log)
    opened, _ = open_log(str(source), None, RealDisk(), 0)
    copy = tmp_path / "copy.kantadb"
    shutil.copy(source, copy)
    assert command(convert, source, tmp_path / "new.kantadb").status == 0
    opened.close()
