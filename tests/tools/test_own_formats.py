"""The offline commands on files in formats of one's own, damaged and whole: what is said, what is kept."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check, compact, convert, dump, log, migrate, repair
from kantad.values.content import decode_json, same
from tests.own_formats import CBOR, OWN
from tests.store.logs import ALL, FORMATS, T0, Maker, every_kind
from tests.tools.kit import Ran, command, flipped, stored


class Choosy:
    """JSON lines of what has no member "later"."""

    framer = "lines"

    def encode(self, obj: Any) -> bytes:
        if "later" in str(obj):
            raise ValueError("not later")
        return msgspec.json.encode(obj)

    def decode(self, payload: bytes, *, type: Any) -> Any:
        return msgspec.json.decode(payload, type=type)


CHOOSY = f"{__name__}:Choosy"


class Data(msgspec.Struct):
    """A type that has what no state of these tests has yet."""

    later: int = 0


@pytest.fixture(params=OWN)
def made(request: pytest.FixtureRequest) -> Maker:
    return every_kind(request.param)


def test_a_whole_file_is_shown(made: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, made)
    assert command(check, "--format", made.format, path).status == 0
    assert same(decode_json(command(dump, "--format", made.format, path).out.encode()), made.state)
    assert len([line for line in command(log, "--format", made.format, path).out.splitlines() if line[0] != " "]) == 9


def test_damage_is_named_and_cut_at_or_bridged(made: Maker, tmp_path: Path) -> None:
    made.change({"later": 1})
    path = stored(tmp_path, made, flipped(made, made.points[-4].end - 30))
    ran = command(check, "--format", made.format, path)
    assert ran.status == 65
    assert ("record " if made.binary else "line ") in ran.err
    adopted = tmp_path / "adopted.kantadb"
    adopted.write_bytes(path.read_bytes())
    assert command(repair, "--format", made.format, path).status == 0
    opened, found = open_log(str(path), made.format, RealDisk(), T0)
    opened.close()
    assert (found.rev, found.chain) == (made.points[-5].rev, made.points[-5].chain)
    assert command(repair, "--adopt", "--format", made.format, adopted).status == 0
    opened, found = open_log(str(adopted), made.format, RealDisk(), T0)
    opened.close()
    assert (found.rev, found.state["later"]) == (made.rev - 1, 1)
    assert command(check, "--format", made.format, adopted).status == 0


def test_a_torn_tail_is_told(made: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, made, bytes(made.data[:-5]))
    assert command(check, "--format", made.format, path).status == 1
    assert "torn tail" in command(log, "--format", made.format, path).err


def test_history_is_dropped_and_kept_as_a_file_of_its_own(made: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, made)
    ran = command(compact, "--format", made.format, "--retain", "3r", path)
    assert (ran.status, ran.err) == (0, "")
    (archive,) = (each for each in tmp_path.iterdir() if each != path)
    for file in (path, archive):
        assert " 0 unverified" in command(check, "--format", made.format, file).out
    assert same(decode_json(command(dump, "--format", made.format, path).out.encode()), made.state)
    opened, found = open_log(str(path), made.format, RealDisk(), T0)
    opened.close()
    assert (found.oldest, found.rev, found.chain) == (made.rev - 3, made.rev, made.chain)


def converted(source: Path, of: str, target: Path, to: str) -> Ran:
    ran = command(convert, "--from", of, "--format", to, source, target)
    assert (ran.status, ran.err) == (0, ""), ran
    assert " 0 unverified" in command(check, "--format", to, target).out
    return ran


@pytest.mark.parametrize("other", ALL)
def test_it_is_converted_there_and_back_to_the_same_bytes(made: Maker, other: str, tmp_path: Path) -> None:
    source, there, back = stored(tmp_path, made), tmp_path / "there", tmp_path / "back"
    converted(source, made.format, there, other)
    assert same(decode_json(command(dump, "--format", other, there).out.encode()), made.state)
    converted(there, other, back, made.format)
    if made.binary:  # another seed
        shown = [command(log, "--format", made.format, file).out for file in (source, back)]
        assert shown[0] == shown[1]
        source_log, back_log = (open_log(str(file), made.format, RealDisk(), T0) for file in (source, back))
        assert source_log[1].chain == back_log[1].chain
        source_log[0].close()
        back_log[0].close()
    else:
        assert back.read_bytes() == source.read_bytes()


def test_without_a_format_it_becomes_json(made: Maker, tmp_path: Path) -> None:
    source, target = stored(tmp_path, made), tmp_path / "target"
    assert command(convert, "--from", made.format, source, target).status == 0
    assert ": json, " in command(check, target).out


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_class_cannot_keep_stops_a_conversion_and_nothing_is_there(format: str, tmp_path: Path) -> None:
    log = every_kind(format)
    log.change({"later": 1})
    source, target = stored(tmp_path, log), tmp_path / "target"
    ran = command(convert, "--format", CHOOSY, source, target)
    assert (ran.status, f"{CHOOSY} cannot keep this: ValueError: not later; nothing was written" in ran.err) == (
        65,
        True,
    )
    assert not target.exists()


def test_a_file_is_brought_to_a_type(made: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, made)
    flags = ("--format", made.format, "--schema", f"{__name__}:Data", path)
    assert "1 change(s), nothing was written" in command(migrate, "--dry-run", *flags).out
    assert "1 change(s), done" in command(migrate, *flags).out
    assert "0 change(s), nothing to do" in command(migrate, *flags).out
    assert decode_json(command(dump, "--format", made.format, path).out.encode())["later"] == 0


def test_what_the_class_cannot_keep_stops_a_migration_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    opened, _ = open_log(str(path), CHOOSY, RealDisk(), T0)
    opened.close()
    before = path.read_bytes()
    ran = command(migrate, "--format", CHOOSY, "--schema", f"{__name__}:Data", path)
    assert (ran.status, "ValueError: not later\nNothing was written." in ran.err) == (2, True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tool", [check, compact, convert, dump, log, migrate, repair])
def test_without_the_name_of_the_class_each_command_says_what_to_pass(tool: Any, tmp_path: Path) -> None:
    path = stored(tmp_path, every_kind(CBOR))
    before = path.read_bytes()
    more: dict[Any, tuple[str | Path, ...]] = {
        compact: ("--retain", "none"),
        convert: (tmp_path / "target",),
        migrate: ("--schema", f"{__name__}:Data"),
    }
    ran = command(tool, path, *more.get(tool, ()))
    flag = "--from" if tool is convert else "--format"
    assert (ran.status, f"in a format of one's own: {flag} module:Class says whose" in ran.err) == (65, True), ran
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["data.kantadb"]
