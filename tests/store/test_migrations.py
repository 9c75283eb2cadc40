"""Migrations and normalisation at the start: in order, all or nothing, also where the process dies."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer

from kantad.store.log import NoRoom, open_log
from kantad.store.migrations import Context, Failed, Migrations, Step, upgrade
from kantad.store.recovery import recover
from kantad.store.user_code import migrations_of
from kantad.store.verify import verify
from kantad.tools import check
from kantad.values.content import same
from kantad.values.moment import datetime_of
from kantad.values.record import Change
from kantad.values.schema import Schema
from tests.golden.typed import make as typed
from tests.own_formats import format_flag
from tests.store.disks import FaultyDisk
from tests.store.logs import ALL, FORMATS, T0, Maker
from tests.tools.kit import Ran, command

GOLDEN = Path(__file__).parent.parent / "golden"


class User(msgspec.Struct):
    name: str
    age: int = 0


class Data(msgspec.Struct):
    users: dict[str, User] = {}
    note: str | None = None
    at: datetime | None = None
    key: dict[int, bytes] = {}


def rename(d: dict[str, Any]) -> None:
    d["users"] = d.pop("people")


def stamp(d: dict[str, Any], ctx: Context) -> None:
    d["note"] = f"{ctx.version} {ctx.filename.name} {ctx.clock():%Y}"
    d["at"] = ctx.clock()
    ctx.ctx.told = "v2"


def nothing(d: dict[str, Any], ctx: Context) -> None:
    assert ctx.ctx.told == "v2"


def steps(*functions: Any, first: int = 1) -> Migrations:
    made = {}
    for number, function in enumerate(functions, first):
        two = function in (stamp, nothing)
        made[number] = Step(number, f"migrate_v{number}", function, two, function.__name__)
    return Migrations("steps", made)


THREE = steps(rename, stamp, nothing)


@pytest.fixture(params=ALL)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    log = Maker(request.param)
    log.change({"people": {"ann": {"name": "Ann"}}})
    log.change({"gone": 1})
    path = tmp_path / "data.kantadb"
    path.write_bytes(bytes(log.data))
    return path


def run(path: Path, schema: Schema | None = None, migrations: Migrations | None = None, disk: Any = None) -> Any:
    """Open, upgrade and close; what recovery then finds."""
    log, found = open_log(str(path), format_flag(path) if path.exists() else None, disk or FaultyDisk(), T0 * 2)
    upgrade(log, found, T0 * 2, schema, migrations)
    log.close()
    return found


def checked(path: Path) -> Ran:
    format = format_flag(path)
    return command(check, path, *(() if format is None else ("--format", format)))


def records(path: Path) -> list[Change]:
    log, _ = open_log(str(path), format_flag(path), FaultyDisk(), T0)
    found, place = [], log.framing.header
    with log.buffer() as buffer:
        while place < log.size:
            frame = log.framing.next(buffer, place, log.size)
            place = frame.end  # type: ignore[union-attr]
            if not frame.snapshot:  # type: ignore[union-attr]
                found.append(log.codec.decode(frame.payload, Change))  # type: ignore[union-attr]
    log.close()
    return found


def state_of(path: Path) -> tuple[int, Any]:
    log, found = open_log(str(path), format_flag(path), FaultyDisk(), T0)
    log.close()
    return found.v, found.state


def test_steps_run_in_order_then_the_state_is_normalised_each_as_a_change(made: Path) -> None:
    found = run(made, Schema(Data), THREE)
    assert [(record.a, record.v) for record in records(made)[2:]] == [
        ("migrate:v1", 1),
        ("migrate:v2", 2),
        ("migrate:v3", 3),
        ("migrate:msgspec", 3),
    ]
    assert [record.about for record in records(made)[2:]] == ["rename", "stamp", "nothing", f"{__name__}:Data"]
    assert found.v == 3
    assert found.state["users"] == {"ann": {"name": "Ann", "age": 0}}
    assert found.state["note"] == f"2 data.kantadb {datetime_of(T0 * 2):%Y}"
    assert "gone" not in found.state
    assert (found.rev, found.torn) == (6, 0)
    assert checked(made).status == 0


def test_a_second_start_has_nothing_to_do(made: Path) -> None:
    run(made, Schema(Data), THREE)
    before = made.read_bytes()
    run(made, Schema(Data), THREE)
    assert made.read_bytes() == before


def test_a_new_file_has_the_newest_version_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new.kantadb"
    assert run(path, None, THREE).v == 3
    assert path.read_bytes() == b""
    found = run(path, Schema(Data), THREE)
    assert [(record.a, record.v) for record in records(path)] == [("bootstrap", 3)]
    assert found.state == {"users": {}, "note": None, "at": None, "key": {}}


def raises(d: dict[str, Any]) -> None:
    d.clear()
    raise ValueError("no")


def replaces(d: dict[str, Any]) -> dict[str, Any]:
    return {}


def makes_a_set(d: dict[str, Any]) -> None:
    d["x"] = {1: object()}


def makes_too_much(d: dict[str, Any]) -> None:
    d["x"] = {"y": 2**70}


def exits(d: dict[str, Any]) -> None:
    raise SystemExit(3)


def makes_half_a_character(d: dict[str, Any]) -> None:
    d["x"] = {"\ud800": 1}


REFUSED: list[tuple[Migrations, str]] = [
    (steps(rename, raises), "migrate_v2 (raises) failed: ValueError: no"),
    (steps(exits), "migrate_v1 (exits) failed: SystemExit: 3"),
    (steps(makes_half_a_character), "migrate_v1 (makes_half_a_character) failed: UnicodeEncodeError"),
    (steps(replaces), "migrate_v1 (replaces) failed: TypeError: it returns something"),
    (steps(rename, makes_a_set), "migrate_v2 (makes_a_set) failed: TypeError"),
    (steps(makes_too_much), "migrate_v1 (makes_too_much) made what cannot be stored at /x/y: an integer"),
    (steps(rename, first=2), "the file is of version 0, and steps has no migrate_v1"),
    (Migrations("steps", {1: THREE.steps[1], 3: THREE.steps[3]}), "steps has no migrate_v2"),
]


@pytest.mark.parametrize(("migrations", "why"), REFUSED)
def test_a_step_that_fails_or_is_missing_is_named_and_nothing_is_written(
    made: Path, migrations: Migrations, why: str
) -> None:
    before = made.read_bytes()
    with pytest.raises(Failed) as failure:
        run(made, None, migrations)
    assert why in str(failure.value)
    assert made.read_bytes() == before


def test_a_file_that_is_newer_than_the_code_is_refused(made: Path) -> None:
    run(made, None, THREE)
    before = made.read_bytes()
    for migrations, why in ((steps(rename), "its last step is migrate_v1"), (Migrations("m", {}), "no migrate_vN")):
        with pytest.raises(Failed, match=f"version 3, which is newer than the code: .*{why}"):
            run(made, None, migrations)
    assert made.read_bytes() == before
    assert run(made, None, None).v == 3


def test_steps_that_are_done_may_be_removed_from_the_code(made: Path) -> None:
    run(made, None, steps(rename))
    assert run(made, None, Migrations("steps", {2: THREE.steps[2]})).v == 2


def test_a_state_that_does_not_fit_the_type_is_refused_with_its_path(made: Path) -> None:
    class Other(msgspec.Struct):
        people: dict[str, dict[str, int]]

    before = made.read_bytes()
    with pytest.raises(Failed, match=r"does not fit .*Other at /people/ann/name: Expected `int`, got `str`"):
        run(made, Schema(Other))
    assert made.read_bytes() == before


def test_a_state_that_validators_refuse_is_refused(made: Path) -> None:
    def never(state: Any, touched: Any) -> None:
        assert touched == ((),)
        raise ValueError("never")

    before = made.read_bytes()
    with pytest.raises(Failed, match=r"the validators of .*Data refuse the state: never"):
        run(made, Schema(Data, (never,)), THREE)
    assert made.read_bytes() == before


def test_a_new_file_of_a_type_with_required_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"bootstrap: the state does not fit .*User at /name"):
        run(tmp_path / "new.kantadb", Schema(User))


def test_keys_that_are_floats_or_bytes_are_refused_in_messagepack(tmp_path: Path) -> None:
    class Odd(msgspec.Struct):
        by: dict[float, int] = {}
        at: dict[bytes, int] = {}

    for format, fits in (("json", True), ("msgpack", False)):
        log, found = open_log(str(tmp_path / format), format, FaultyDisk(), T0)
        if fits:
            upgrade(log, found, T0, Schema(Odd), None)
            log.close()
        else:
            with pytest.raises(Failed, match="floats"):
                upgrade(log, found, T0, Schema(Odd), None)


# -- all or nothing


def test_every_truncation_and_a_lost_first_byte_leave_the_original(made: Path, tmp_path: Path) -> None:
    size = made.stat().st_size
    original = state_of(made)
    run(made, Schema(Data), THREE)
    data = made.read_bytes()
    path = tmp_path / "cut.kantadb"
    for end in range(size, len(data)):
        path.write_bytes(data[:size] + bytes((data[size] ^ 0xFF,)) + data[size + 1 : end])
        assert state_of(path) == original, end
        for torn in tmp_path.glob("cut.kantadb.torn-*"):
            torn.unlink()


def test_a_full_disk_leaves_the_original(made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(NoRoom):
        run(made, Schema(Data), THREE, FaultyDisk(28, 0, ("write",)))
    assert made.read_bytes() == before


# -- kanta's files


class Wide(msgspec.Struct):
    """The root that the golden files were made with, and a new field."""

    items: dict[str, Any] = {}
    array: list[Any] = []
    flag: Any = None
    fresh: int = 1


def keyed(d: dict[str, Any]) -> None:
    d["items"]["migrated"] = True


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.kantadb")))
def test_golden_files_of_kanta_are_migrated_and_normalised(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    shutil.copy(GOLDEN / f"{name}.kantadb", path)
    before = run(path)
    found = run(path, Schema(Wide), steps(keyed))
    assert found.rev == before.rev + 2
    assert found.state["items"].pop("migrated") is True
    assert found.state.pop("fresh") == 1
    assert same(found.state, before.state)
    log, _ = open_log(str(path), None, FaultyDisk(), T0)
    with log.buffer() as buffer:
        assert verify(buffer, log.size, log.framing, log.codec).damage is None
        assert recover(buffer, log.size, log.framing, log.codec).v == 1
    log.close()
    if name.startswith("kanta-0.1"):
        return  # which kanta 0.9.4 itself misreads

    async def in_kanta() -> Any:
        serializer: Any = JsonSerializer() if ".json" in name else MsgPackSerializer()
        async with Kanta(str(path), Wide(), serializer=serializer) as kanta:
            return kanta.version, kanta.data

    version, data = asyncio.run(in_kanta())
    assert (version, data.fresh, data.items.pop("migrated")) == (1, 1, True)
    assert same(msgspec.to_builtins(data, builtin_types=(bytes, datetime))["items"], before.state["items"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_kanta_with_a_type_and_migrations_opens_with_the_same_ones(format: str, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    migrations = migrations_of("tests.golden.typed.steps")
    expected = msgspec.json.decode((GOLDEN / "typed" / "after.json").read_bytes(), type=typed.After)
    for name, actions, shape in (
        ("before", ["migrate:v1", "migrate:v2", "migrate:msgspec"], None),
        ("after", ["migrate:msgspec"] if format == "msgpack" else [], typed.Square(3.0)),  # keys that are times
    ):
        shutil.copy(GOLDEN / "typed" / f"{name}.{format}.kantadb", path)
        count = run(path).rev
        found = run(path, Schema(typed.After), migrations)
        assert [record.a for record in records(path)[count:]] == actions
        assert found.v == 2
        expected.shape = shape
        assert msgspec.convert(found.state, typed.After, str_keys=True) == expected
        again = run(path, Schema(typed.After), migrations)
        assert (again.rev, again.warnings) == (found.rev, found.warnings)


class Typed(msgspec.Struct):
    """What keeps its types in kanta."""

    users: dict[UUID, User] = {}
    by_number: dict[int, int] = {}
    by_time: dict[datetime, int] = {}
    raw: bytes = b""
    at: datetime | None = None
    local: datetime | None = None
    words: set[str] = set()


@pytest.mark.parametrize("format", FORMATS)
def test_types_of_kanta_go_round_through_both_programs(format: str, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    serializer: Any = JsonSerializer() if format == "json" else MsgPackSerializer()
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    expected = Typed({UUID(int=1): User("Ann", 3)}, {7: 1}, {noon: 2}, b"\0x", noon, datetime(2026, 6, 1), {"b", "a"})

    async def of_kanta(fill: bool) -> Typed:
        async with Kanta(str(path), Typed(), serializer=serializer) as kanta:
            if fill:
                with kanta.transaction("fill") as data:
                    for name in Typed.__struct_fields__:
                        setattr(data, name, getattr(expected, name))
            return kanta.data

    asyncio.run(of_kanta(True))
    found = run(path, Schema(Typed))
    assert msgspec.convert(found.state, Typed, str_keys=True) == expected
    if format == "msgpack":
        assert (found.state["raw"], found.state["at"], found.state["by_number"]) == (b"\0x", noon, {7: 1})
    assert run(path, Schema(Typed)).rev == found.rev
    assert asyncio.run(of_kanta(False)) == expected
    assert run(path, Schema(Typed)).state == found.state
