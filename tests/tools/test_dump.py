"""`kantad dump`: the state now, at a revision, at a moment."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kantad.tools import dump
from kantad.values.content import same
from tests.store.logs import FORMATS, T0, Maker, every_kind
from tests.tools.kit import command, flipped, stored


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = every_kind(request.param)
    made.snapshot()
    made.change({"last": 1})
    return made


def moment(micros: int) -> str:
    return datetime.fromtimestamp(micros // 10**6, UTC).replace(microsecond=micros % 10**6).isoformat()


def test_now_and_at_every_revision(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    assert same(json.loads(command(dump, path).out), log.state)
    for point in log.points:
        ran = command(dump, path, "--rev", str(point.rev))
        assert ran.status == 0
        assert same(json.loads(ran.out), point.state)


def test_at_every_moment(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for point in log.points:
        for shift in (0, 3):
            ran = command(dump, path, "--at", moment(T0 + 7 * point.rev + shift))
            assert same(json.loads(ran.out), point.state)
    assert json.loads(command(dump, path, "--at", "1999-01-01T00:00:00Z").out) == {}


def test_a_revision_that_is_not_there(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for rev in ("11", "1000000", "1" * 30):
        ran = command(dump, path, f"--rev={rev}")
        assert (ran.status, ran.out) == (1, "")
        assert "it has 0 to 10" in ran.err


def test_a_cursor_is_a_revision_that_is_verified(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    for point in log.points:
        cursor = f"{point.rev}-{point.chain.hex()}"
        assert same(json.loads(command(dump, path, "--rev", cursor).out), point.state)
        ran = command(dump, path, "--rev", cursor[:-2] + ("00" if cursor[-2:] != "00" else "11"))
        assert (ran.status, ran.out) == (2, "")
        assert "not a cursor of this history" in ran.err
    assert command(dump, path, "--rev", "0-0000000000000000").out == "{}\n"


@pytest.mark.parametrize("rev", ["-1", "x", "1-", "1.0", ""])
def test_what_is_no_revision_is_usage(log: Maker, tmp_path: Path, rev: str) -> None:
    assert command(dump, stored(tmp_path, log), f"--rev={rev}").status == 2


def test_a_file_that_begins_later(tmp_path: Path) -> None:
    log = Maker("json")
    log.rev, log.state, log.chain = 7, {"a": 1}, b"somechai"
    log.snapshot()
    log.change({"a": 2})
    path = stored(tmp_path, log)
    assert json.loads(command(dump, path, "--rev", "7").out) == {"a": 1}
    assert json.loads(command(dump, path, "--rev", "8").out) == {"a": 2}
    assert command(dump, path, "--rev", "6").status == 1


def test_a_bad_time_is_usage(log: Maker, tmp_path: Path) -> None:
    assert command(dump, stored(tmp_path, log), "--at", "yesterday").status == 2


def test_a_torn_tail_is_left_out(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, bytes(log.data[:-5]))
    assert same(json.loads(command(dump, path).out), log.points[-2].state)


def test_damage(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, flipped(log, log.points[2].end + 40))
    assert command(dump, path).status == 0
    ran = command(dump, path, "--rev", "4")
    assert ran.status == 65
    assert "kantad check" in ran.err


def test_damage_before_a_moment(log: Maker, tmp_path: Path) -> None:
    for offset in range(log.points[1].end + 2, log.points[2].end, 5):
        path = stored(tmp_path, log, flipped(log, offset))
        ran = command(dump, path, "--at", moment(T0 + 7 * 3))
        assert (ran.status, ran.out) == (65, "")
        assert "kantad check" in ran.err


def test_before_the_file_begins_there_is_no_state_to_give(tmp_path: Path) -> None:
    log = Maker("json")
    log.rev, log.state, log.chain = 7, {"a": 1}, b"somechai"
    log.snapshot()
    path = stored(tmp_path, log)
    assert command(dump, path, "--at", moment(T0 - 1)).status == 1
    assert json.loads(command(dump, path, "--at", moment(T0)).out) == {"a": 1}


def test_records_that_read_in_two_ways_are_read_as_what_follows_says(tmp_path: Path) -> None:
    log = Maker("json")
    log.foreign({"a": "$$v"})
    log.foreign({"b": "$5"})  # a sign of kanta 0.9
    assert json.loads(command(dump, stored(tmp_path, log), "--rev", "1").out) == {"a": "$$v"}


def test_unsafe_characters_are_escaped_and_stay_json(tmp_path: Path) -> None:
    log = Maker("json")
    log.change({"k\u202e": "a\x9b\x1b[2J\u2028"})
    ran = command(dump, stored(tmp_path, log))
    assert json.loads(ran.out) == log.state
    assert not set(ran.out) & set("\u202e\x9b\x1b\u2028")


def test_what_is_no_kantadb(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    assert command(dump, path).status == 65
    assert command(dump, tmp_path / "none").status == 2


@pytest.mark.parametrize("name", ["dump", "check", "repair", "log"])
def test_a_locale_that_is_not_utf_8_ends_no_command(name: str, tmp_path: Path) -> None:
    log = Maker("json")
    log.change({"é": "\U0001f600"})
    path = stored(tmp_path, log).rename(tmp_path / "é.kantadb")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-m", "kantad", name, path], capture_output=True, env=environment, check=True)
    assert ran.stderr == b""
    if name == "dump":
        assert json.loads(ran.stdout) == {"é": "\U0001f600"}
