"""Files of kanta, in both directions: what was meant is read, and what kantad writes kanta reads."""

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer
from kanta.serialization.base import replay

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.store.recovery import Recovered, recover
from kantad.store.verify import verify
from kantad.values.content import decode_json, encode_json, same
from kantad.values.diff import SAME, difference
from kantad.values.errors import Damaged
from kantad.values.framing import Frame
from kantad.values.record import CHAIN_START, Kept, chain_after
from tests.store.logs import FORMATS, T0, Maker, foreign_payload, parts

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("*.kantadb"))
SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer}


class Data(msgspec.Struct):
    items: dict[str, Any] = {}


def shown(state: Any) -> Any:
    """The state as JSON shows it."""
    return decode_json(encode_json(state))


def opened(path: Path) -> Recovered:
    log, found = open_log(str(path), None, RealDisk(), T0)
    log.close()
    return found


def kanta_reads(path: Path, format: str) -> Any:
    """What kanta 0.9.4's replay makes of a file."""
    serializer = SERIALIZERS[format]()
    return replay(path.read_bytes(), framer=serializer.framer_cls(), decode=serializer.decode)


def test_there_are_golden_files_of_every_dialect() -> None:
    versions = {name.split("-")[1].rsplit(".", 1)[0] for name in FILES}
    assert versions == {"0.1.1", "0.5.0", "0.9.1", "0.9.4"}


@pytest.mark.parametrize("name", FILES)
class TestGolden:
    """Each file of kanta opens with the state that was meant."""

    def test_state_and_revision(self, name: str) -> None:
        expected = json.loads((GOLDEN / f"{name}.json").read_text())
        data = (GOLDEN / f"{name}.kantadb").read_bytes()
        format = name.rsplit(".", 1)[1]
        framing, codec = parts(format)
        if format == "msgpack":
            framing = type(framing)(data[:4])  # type: ignore[call-arg]
        found = recover(data, len(data), framing, codec)
        assert same(shown(found.state), expected["state"])
        assert found.rev == expected["changes"]
        assert (found.torn, found.hashed) == (0, 0)

    def test_it_goes_on_with_a_stored_chain(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / "data.kantadb"
        shutil.copy(GOLDEN / f"{name}.kantadb", path)
        before = path.read_bytes()
        log, found = open_log(str(path), None, RealDisk(), T0)
        payload, chain = log.codec.change(found.micros, "on", {"kantad": {"was": "here"}}, found.chain)
        log.append(log.framed([(payload, False)]))
        log.sync()
        log.close()
        assert path.read_bytes().startswith(before)
        again = opened(path)
        assert (again.rev, again.chain, again.hashed) == (found.rev + 1, chain, 1)
        assert same(again.state, {**found.state, "kantad": {"was": "here"}})
        assert again.unverified == 0

    def test_natives_stay_what_they_are(self, name: str, tmp_path: Path) -> None:
        if name.endswith("msgpack"):
            path = tmp_path / "data.kantadb"
            shutil.copy(GOLDEN / f"{name}.kantadb", path)
            natives = opened(path).state["items"]["natives"]
            assert natives["raw"] == b"\x00\x01kanta"
            assert natives["by"] == {7: "seven", -1: "minus"}
            assert natives["at"].microsecond == 123456


def random_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(9 if depth < 3 else 7)
    if kind < 7:
        return chance.choice([None, True, 1, -7, 2.5, "text", 'ünï \n"', "$x", "$$y", "", 2**63])
    if kind == 7:
        return [random_value(chance, depth + 1) for _ in range(chance.randrange(5))]
    keys = chance.sample(["a", "b", "$c", "$$d", "ключ", "", "e/f", "0"], chance.randrange(5))
    return {key: random_value(chance, depth + 1) for key in keys}


@pytest.mark.parametrize("format", FORMATS)
async def test_what_kantad_writes_opens_in_kanta(format: str, tmp_path: Path) -> None:
    chance = random.Random(5)
    path = tmp_path / "data.kantadb"
    log, found = open_log(str(path), format, RealDisk(), T0)
    state: dict[str, Any] = {"items": {}}
    chain, rev = found.chain, 0
    for turn in range(300):
        new = {"items": {**state["items"], chance.choice("abcdef"): random_value(chance)}}
        if chance.random() < 0.2 and new["items"]:
            del new["items"][chance.choice(list(new["items"]))]
        diff = difference(state if rev else {}, new)
        records = []
        if diff is not SAME:
            payload, chain = log.codec.change(T0 + turn, "w", diff, chain, id=f"k{turn}", q="00000000")
            records.append((payload, False))
            state, rev = new, rev + 1
        if chance.random() < 0.02:
            records.append(
                (
                    log.codec.snapshot(
                        T0 + turn, state, rev, chain, kept=Kept([("a", "b", 1)], [(T0, "0" * 16, None)])
                    ),
                    True,
                )
            )
        log.append(log.framed(records))
    log.sync()
    log.close()
    mine = opened(path)
    assert same(mine.state, state)
    assert (mine.rev, mine.chain) == (rev, chain)
    theirs = kanta_reads(path, format)
    assert same(theirs.state, state)
    assert theirs.rev == rev
    data = Data()
    kanta = Kanta(str(path), data, serializer=SERIALIZERS[format]())
    await kanta.open()
    assert same(data.items, state["items"])
    with kanta.transaction("theirs") as root:
        root.items["from"] = {"kanta": ["$1", 2]}
    with kanta.transaction("theirs") as root:
        root.items["from"]["kanta"].append(3)
    await kanta.close()
    behind = opened(path)
    assert same(behind.state, {"items": {**state["items"], "from": {"kanta": ["$1", 2, 3]}}})
    assert (behind.rev, behind.unverified) == (rev + 2, 2)
    assert sum("not verified" in warning for warning in behind.warnings) == 2


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    maker = Maker(request.param)
    if maker.format == "msgpack":
        maker.data = maker.data[:4]
    return maker


def read(log: Maker) -> Recovered:
    return recover(bytes(log.data), len(log.data), log.framing, log.codec)


def append(log: Maker, diff: Any) -> bytes:
    """Append kanta's record as it is, whatever it means."""
    log.micros += 5
    payload = foreign_payload(log.format, log.micros, diff)
    log.data += log.framing.frame(payload, len(log.data))
    return payload


def snapshot(log: Maker, state: Any, r: int = 0, k: int = 0) -> None:
    """Append kanta's snapshot."""
    log.micros += 5
    record = {"ts": datetime.fromtimestamp(log.micros / 1e6, UTC), "v": 0, "state": state}
    record |= ({"r": r} if r else {}) | ({"k": k} if k else {})
    payload = encode_json(record) if log.format == "json" else msgspec.msgpack.encode(record)
    log.data += log.framing.frame(payload, len(log.data), True)


class TestPatterns:
    """What kanta's faults leave in a file."""

    def test_a_doubled_record_counts_once(self, log: Maker) -> None:
        append(log, {"a": 1})
        payload = append(log, {"list": [1]})
        log.data += log.framing.frame(payload, len(log.data))
        append(log, {"b": 2})
        found = read(log)
        assert (found.rev, found.state) == (3, {"a": 1, "list": [1], "b": 2})
        assert "doubled" in found.warnings[0]

    def test_a_doubled_list_edit_is_applied_once(self, log: Maker) -> None:
        append(log, {"list": [1, 2, 3, 4]})
        payload = append(log, {"list": {"$delete": [0], "$insert": [[0, 9]]}})
        log.data += log.framing.frame(payload, len(log.data))
        found = read(log)
        assert (found.rev, found.state) == (2, {"list": [9, 2, 3, 4]})

    def test_a_snapshot_that_holds_what_is_written_behind_it(self, log: Maker) -> None:
        append(log, {"a": 1})
        append(log, {"b": {"x": 1}})
        snapshot(log, {"a": 2, "b": {"x": 1, "y": 2}}, r=4, k=1)
        append(log, {"a": 2})
        append(log, {"b": {"y": 2}})
        found = read(log)
        assert (found.rev, found.state) == (4, {"a": 2, "b": {"x": 1, "y": 2}})
        assert "holds already" in found.warnings[0]

    def test_a_snapshot_without_k_counts_from_the_start(self, log: Maker) -> None:
        append(log, {"a": 1})
        append(log, {"a": 2})
        snapshot(log, {"a": 2}, r=77)
        append(log, {"a": 3})
        assert (read(log).rev, read(log).state) == (3, {"a": 3})

    def test_a_rotated_file_begins_with_the_revision_of_its_snapshot(self, log: Maker) -> None:
        snapshot(log, {"a": 2}, r=77, k=1)
        append(log, {"a": 3})
        found = read(log)
        assert (found.rev, found.oldest, found.state) == (78, 77, {"a": 3})
        snapshot(log, {"a": 3}, r=78, k=1)
        append(log, {"a": 4})
        assert (read(log).rev, read(log).oldest) == (79, 77)

    def test_the_chain_runs_over_kantas_payloads(self, log: Maker) -> None:
        first = append(log, {"a": 1})
        snapshot(log, {"a": 1})
        second = append(log, {"a": 2})
        assert read(log).chain == chain_after(chain_after(CHAIN_START, first), second)


def test_not_a_number_is_the_same_as_itself() -> None:
    """kanta's MessagePack files may hold it; a snapshot of it is no damage."""
    log = Maker("msgpack")
    log.foreign({"a": float("nan"), "l": [float("inf"), float("nan")]})
    log.snapshot()
    log.change({"b": 1})
    verified = verify(bytes(log.data), len(log.data), log.framing, log.codec)
    assert verified.damage is None
    assert verified.walk.replayer.rev == 2


@pytest.mark.parametrize("diff", [{"$delete": [["a"]]}, {"$delete": {"a": 1}}, {"a": {"$delete": [{}]}}])
def test_a_patch_that_makes_no_sense_is_damage_and_not_a_fault(log: Maker, diff: Any) -> None:
    append(log, {"a": {"b": 1}})
    append(log, diff)
    append(log, {"c": 1})
    with pytest.raises(Damaged, match="does not fit"):
        read(log)


def test_keys_that_json_does_not_have_are_refused_with_the_place() -> None:
    log = Maker("msgpack", data=bytearray())
    log.data = log.data[:4]
    append(log, {"a": {None: 1}})
    with pytest.raises(Damaged, match="no form in JSON"):
        read(log)


def test_a_torn_first_record_leaves_a_file_that_opens_again(tmp_path: Path) -> None:
    """kanta begins a MessagePack file with a change, and four bytes alone would not tell the format."""
    log = Maker("msgpack")
    log.data = log.data[:4]
    append(log, {"a": 1})
    for size in range(8, len(log.data)):
        path = tmp_path / f"{size}.kantadb"
        path.write_bytes(log.data[:size])
        for torn in (size - 4, 0):
            found = opened(path)
            assert (found.rev, found.state, found.torn) == (0, {}, torn)
        file, found = open_log(str(path), "msgpack", RealDisk(), T0)
        payload, chain = file.codec.change(T0, "on", {"b": 1}, found.chain)
        file.append(file.framed([(payload, False)]))
        file.sync()
        file.close()
        found = opened(path)
        assert (found.rev, found.chain, found.state) == (1, chain, {"b": 1})


def test_a_block_is_not_looked_at_for_each_record_of_another_program(log: Maker) -> None:
    looked = []

    class Counted(type(log.framing)):  # type: ignore[misc]
        def changes(self, block: bytes, offset: int) -> list[bytes]:
            looked.append(offset)
            found: list[bytes] = super().changes(block, offset)
            return found

    for turn in range(50):
        append(log, {"n": turn})
    log.chain, log.rev, log.state = read(log).chain, 50, {"n": 49}
    log.batch({"a": 1}, {"a": 2}, {"a": 3})
    framing = Counted() if log.format == "json" else Counted(bytes(log.data[:4]))
    found = recover(bytes(log.data), len(log.data), framing, log.codec)
    assert (found.rev, found.state, found.hashed) == (53, {"n": 49, "a": 3}, 3)
    assert len(looked) <= 2


def test_a_clock_that_once_ran_ahead_does_not_make_a_start_search_for_every_record(log: Maker) -> None:
    class Counted(bytes):
        searched = 0

        def rfind(self, *args: Any) -> int:
            Counted.searched += 1
            return super().rfind(*args)

    log.micros += 10**13
    append(log, {"first": 1})
    log.micros -= 10**13
    for turn in range(300):
        append(log, {"n": turn})
    whole = Counted(log.data)
    assert recover(whole, len(whole), log.framing, log.codec).state == {"first": 1, "n": 299}
    assert Counted.searched < 30
    start = whole.index(b"n", len(whole) // 2)
    for place in range(start, start + 200):  # an old copy is found all the same
        framed = log.framing.next(whole, place, len(whole))
        if isinstance(framed, Frame) and framed.payload[:1] in (b"{", b"\x83"):
            data = whole + log.framing.frame(framed.payload, len(whole))
            assert recover(data, len(data), log.framing, log.codec).torn == len(data) - len(whole)


class TestAmbiguity:
    """Values that begin with `$$` are read differently by the dialects; see the format."""

    def test_without_any_sign_it_is_a(self, log: Maker) -> None:
        append(log, {"a": "$$v"})
        found = read(log)
        assert found.state == {"a": "$v"}
        assert "0.1 to 0.8" in found.warnings[0]

    @pytest.mark.parametrize("sign", [{"s": "$single"}, {"n": {"o": 1}}, {"l": {}}])
    def test_a_sign_of_b_makes_it_b(self, log: Maker, sign: Any) -> None:
        append(log, {"n": 1, "l": [1]})
        append(log, {"a": "$$v"})
        append(log, sign)
        found = read(log)
        assert found.state["a"] == "$$v"
        assert "0.9" in found.warnings[0]

    def test_a_sign_of_b_before_the_last_snapshot_makes_it_b(self, log: Maker) -> None:
        append(log, {"s": "$single"})
        snapshot(log, {"s": "$single"})
        append(log, {"a": "$$v"})
        assert read(log).state["a"] == "$$v"

    def test_a_snapshot_with_k_makes_it_b(self, log: Maker) -> None:
        append(log, {"s": 1})
        snapshot(log, {"s": 1}, r=1, k=1)
        append(log, {"a": "$$v"})
        found = read(log)
        assert found.state["a"] == "$$v"
        assert not found.warnings

    def test_a_list_edit_is_a_wherever_it_stands(self, log: Maker) -> None:
        snapshot(log, {"l": [1, 2, 3]}, r=5, k=1)
        append(log, {"l": {"$insert": [[0, "$$v"]]}})
        assert read(log).state == {"l": ["$v", 1, 2, 3]}

    def test_both_readings_share_nothing_of_what_they_are_given(self, log: Maker) -> None:
        append(log, {"a": "$$v"})
        append(log, {"l": [1, 2, 3, 4], "o": {"n": {"m": 1}}})
        append(log, {"l": {"$delete": [0]}})
        append(log, {"l": {"$insert": [[0, "$$w"]]}, "o": {"n": {"$delete": ["m"]}}})
        assert read(log).state == {"a": "$v", "l": ["$w", 2, 3, 4], "o": {"n": {}}}

    @pytest.mark.parametrize("new", [{"5": "x"}, {"0": "x", "2": "y"}, {"01": 1}])
    def test_an_object_that_names_no_element_of_the_list_before_it_is_that_object(self, log: Maker, new: Any) -> None:
        append(log, {"l": [1, 2]})
        append(log, {"l": new})
        assert read(log).state == {"l": new}

    def test_replace_under_an_unknown_key_is_a(self, log: Maker) -> None:
        append(log, {"new": {"$replace": {"$$k": "$$v"}}})
        assert read(log).state == {"new": {"$k": "$v"}}

    def test_an_unclear_value_that_is_hashed_is_none(self, log: Maker) -> None:
        log.change({"a": "$$v"})
        found = read(log)
        assert (found.state, found.warnings) == ({"a": "$v"}, [])

    def test_kantad_goes_on_behind_an_unclear_value(self, log: Maker) -> None:
        append(log, {"a": "$$v"})
        log.chain = read(log).chain
        log.change({"b": 1})
        assert read(log).state == {"a": "$v", "b": 1}
