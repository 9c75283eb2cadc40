"""`kantad migrate` on files that are not whole, or not there; what it brings about is tested in the store."""

from pathlib import Path

from kantad.tools import check, migrate
from tests.store.logs import FORMATS, every_kind
from tests.tools.kit import broken, command, stored

STEPS = ("--migrations", "tests.tools.moved")


def test_a_torn_tail_that_is_cut_off_is_told_of(tmp_path: Path) -> None:
    for format in FORMATS:
        log = every_kind(format)
        path = stored(tmp_path, log, bytes(log.data)[:-3])
        ran = command(migrate, path, *STEPS)
        assert (ran.status, "warning: cut off a torn tail" in ran.err) == (0, True), ran
        assert "version 2, 2 change(s), done" in ran.out
        assert command(check, path).status == 0


def test_a_dry_run_changes_nothing_of_a_torn_file(tmp_path: Path) -> None:
    log = every_kind("json")
    path = stored(tmp_path, log, before := bytes(log.data)[:-3])
    ran = command(migrate, path, *STEPS, "--dry-run")
    assert (ran.status, "version 2, 2 change(s), nothing was written" in ran.out) == (0, True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_no_file_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    assert command(migrate, tmp_path / "none", *STEPS).status == 2
    assert not (tmp_path / "none").exists()
    log = every_kind("json")
    ran = command(migrate, stored(tmp_path, log, broken(log, log.points[-5].end)), *STEPS)
    assert ran.status == 65
    assert "Nothing was written" in ran.err
