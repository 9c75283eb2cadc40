"""The offline commands on damaged files in formats of one's own: what is said, what is kept."""

from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check, dump, log, repair
from kantad.values.content import decode_json, same
from tests.own_formats import OWN
from tests.store.logs import T0, Maker, every_kind
from tests.tools.kit import command, flipped, stored


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
