"""`kantad repair`: what it says is gone, what could be kept instead and how, and what nothing proves."""

import re
import shlex
from pathlib import Path

import pytest

from kantad.tools import check, dump, repair
from tests.store.disks import FaultyDisk
from tests.store.logs import FORMATS, Maker
from tests.tools.kit import broken, command, flipped, stored


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = Maker(request.param)
    for n in range(1, 21):
        made.change({"n": n, f"k{n}": n})
    return made


def start_of(log: Maker, rev: int) -> int:
    """Where the record of a revision begins."""
    return next(point.end for point in reversed(log.points) if point.rev == rev - 1)


def test_a_cut_says_which_revisions_are_gone(log: Maker, tmp_path: Path) -> None:
    ran = command(repair, stored(tmp_path, log, flipped(log, start_of(log, 13) - 9)))
    assert "revisions 12 to 20 are gone" in ran.out
    assert "the database is at revision 11 now" in ran.out
    assert "the original is kept as " in ran.out


def test_one_revision_that_is_gone_is_one(log: Maker, tmp_path: Path) -> None:
    ran = command(repair, stored(tmp_path, log, flipped(log, len(log.data) - 9)))
    assert "revision 20 is gone" in ran.out


def test_a_snapshot_behind_tells_the_revision_whatever_is_unreadable_before_it(log: Maker, tmp_path: Path) -> None:
    log.snapshot()
    log.change({"later": 1})
    start, stop = start_of(log, 5), start_of(log, 9)
    data = bytes(log.data)
    path = stored(tmp_path, log, data[:start] + b"\xff" * (stop - start) + data[stop:])
    assert "revisions 5 to 21 are gone" in command(repair, path).out


def test_what_stands_behind_a_cut_is_kept_by_the_command_that_it_names(log: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = stored(folder, log, broken(log, start_of(log, 12)))
    ran = command(repair, path)
    assert "whole changes behind the place of the cut: 8." in ran.out
    (line,) = re.findall(r"^  kantad (.* && mv .*)$", ran.out, re.MULTILINE)
    first, second = (shlex.split(part) for part in line.split(" && "))
    assert first[:2] == ["repair", "--adopt"]
    assert command(repair, *first[1:]).status == 0
    assert second == ["mv", first[2], str(path)]
    Path(second[1]).rename(second[2])
    assert command(check, path).status == 0
    assert '"n":20' in command(dump, path).out


def test_a_torn_tail_costs_no_whole_change(log: Maker, tmp_path: Path) -> None:
    ran = command(repair, stored(tmp_path, log, bytes(log.data[:-7])))
    assert "no whole change is gone; the database is at revision 19 now" in ran.out
    assert "--adopt" not in ran.out


def test_adopting_names_what_nothing_proves(log: Maker, tmp_path: Path) -> None:
    ran = command(repair, stored(tmp_path, log, broken(log, start_of(log, 12))), "--adopt")
    assert "not proven to be what was written: revision 12\n" in ran.out  # 13 once: what it followed is lost
    assert "from revision 12 on the chain has been made anew: it proves nothing" in ran.out
    assert "the database is at revision 19 now" in ran.out


def test_a_record_that_was_edited_is_named_and_what_follows_it_is_not(tmp_path: Path) -> None:
    log = Maker("json")
    for n in range(1, 10):
        log.change({"n": n, "text": f"text {n}"})
    data = bytes(log.data)
    for n in (3, 4, 7):
        data = data.replace(b"text %d" % n, b"TEXT %d" % n)
    ran = command(repair, stored(tmp_path, log, data), "--adopt")
    assert "not proven to be what was written: revisions 3 to 4, 7\n" in ran.out


def test_many_revisions_that_nothing_proves_are_bounded(tmp_path: Path) -> None:
    log = Maker("json")
    for n in range(1, 101):
        log.change({"n": f"text {n}" if n % 2 else n})
    ran = command(repair, stored(tmp_path, log, bytes(log.data).replace(b"text", b"TEXT")), "--adopt")
    assert "revisions 1, 3, 5, " in ran.out
    assert ", 39, and 30 more such ranges\n" in ran.out


def test_a_result_that_the_disk_may_lose_is_told(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-7]))
    ran = command(repair, path, disk=FaultyDisk(5, 0, ("sync_folder",)))
    assert ran.status == 74
    assert "the original is kept as" in ran.err
    assert "as it was" not in ran.err
    assert len(list(tmp_path.iterdir())) == 2
