"""`kantad log`: which changes it prints, how, and what it says of a file that is not whole."""

import argparse
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kantad.store.log import reading
from kantad.store.verify import Walk
from kantad.tools import log as tool
from kantad.values.content import MISSING, same
from kantad.values.lines import value_text
from kantad.values.pointer import lookup, parse
from kantad.values.record import cursor
from tests.store.logs import FORMATS, T0, Maker, every_kind, foreign_payload
from tests.tools.kit import Ran, command, flipped, stored
from tests.tools.test_dump import moment

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.kantadb"))


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = Maker(request.param)
    made.change({"users": {"ann": {"age": 41, "tags": ["a", "b"]}}}, u="root")
    made.batch({"users": {"ann": {"age": 42}}}, {"users": {"bob": 1}}, {"other": 1}, u="ann")
    made.snapshot()
    made.change({"users": {"ann": {"tags": {"$delete": [0]}}}})
    made.change({"users": {"$delete": ["ann"]}, "other": 2}, u="ann")
    made.change({"users": {"$replace": {"ann": {"age": 42}}}})
    made.snapshot()
    made.change({"$delete": ["users"]})
    return made


def told(path: Path, *arguments: str) -> Ran:
    ran = command(tool, path, *arguments)
    assert (ran.status, ran.err) == (0, "")
    return ran


def revisions(ran: Ran) -> list[int]:
    return [int(line.split()[0]) for line in ran.out.splitlines() if not line.startswith(" ")]


def test_every_change_with_what_it_did(log: Maker, tmp_path: Path) -> None:
    out = re.sub(r"\S+Z ", "T ", told(stored(tmp_path, log)).out)
    assert out.splitlines() == [
        "1 T act by root",
        "  users =",
        '    ann:          {"age":41,"tags":["a","b"]}',
        "2 T act by ann  users.ann.age = 41 → 42",
        "3 T act by ann  users.bob = 1",
        "4 T act by ann  other = 1",
        '5 T act  users.ann.tags.0 ✗ "a"',
        "6 T act by ann",
        '  users.ann ✗ {"age":42,"tags":["b"]}',
        "  other = 1 → 2",
        "7 T act",
        "  users.bob ✗ 1",
        "  users.ann =",
        "    age:          42",
        '8 T act  users ✗ {"ann":{"age":42}}',
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/users/ann/age", {1: "= 41", 2: "= 41 → 42", 6: "✗ 42", 7: "= 42", 8: "✗ 42"}),
        ("/users/ann/tags/0", {1: '= "a"', 5: '= "a" → "b"', 6: '✗ "b"'}),
        ("/other", {4: "= 1", 6: "= 1 → 2"}),
        ("/nowhere", {}),
    ],
)
def test_a_path_shows_only_what_changed_there(log: Maker, tmp_path: Path, path: str, found: dict[int, str]) -> None:
    lines = told(stored(tmp_path, log), "--path", path).out.splitlines()
    assert {int(line.split()[0]): line.split("  ")[1] for line in lines} == found


@pytest.mark.parametrize("format", FORMATS)
def test_a_path_is_shown_exactly_when_its_value_differs(format: str, tmp_path: Path) -> None:
    log = every_kind(format)
    path = stored(tmp_path, log)
    states = {point.rev: point.state for point in log.points}
    for pointer in ("", "/a", "/list", "/list/0", "/list/1/0", "/b/x", "/like/1/diff/z", "/n", "/deep/er/n", "/none"):
        values = {rev: lookup(state, parse(pointer)) for rev, state in states.items()}
        differs = [rev for rev in values if rev and not same(values[rev - 1], values[rev])]
        assert revisions(told(path, "--path", pointer)) == differs, pointer


def test_filters(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    assert revisions(told(path, "--user", "ann")) == [2, 3, 4, 6]
    assert revisions(told(path, "--user", "an")) == []
    assert revisions(told(path, "--action", "a?t")) == list(range(1, 9))
    assert revisions(told(path, "--action", "a")) == []
    assert revisions(told(path, "--grep", r"\bother = 1$")) == [4]
    assert revisions(told(path, "--grep", "✗ 1|41$", "--path", "/users")) == [7]
    assert revisions(told(path, "--path", "/users/bob", "--user", "ann")) == [3]


def test_since_and_until(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    points = {point.rev: point for point in log.points}
    for rev, point in points.items():
        for mark in (str(rev), cursor(rev, point.chain), moment(T0 + 7 * rev), moment(T0 + 7 * rev + 3)):
            assert revisions(told(path, "--since", mark)) == list(range(rev + 1, 9))
            assert revisions(told(path, "--until", mark)) == list(range(1, rev + 1))
            assert revisions(told(path, "--since", "3", "--until", mark)) == list(range(4, rev + 1))
    assert revisions(told(path, "--until", "99")) == list(range(1, 9))
    assert revisions(told(path, "--since", "1999-01-01T00:00:00Z")) == list(range(1, 9))


@pytest.mark.parametrize("flag", ["--since", "--until"])
def test_a_cursor_of_another_history_is_refused_before_anything_is_printed(
    log: Maker, tmp_path: Path, flag: str
) -> None:
    path = stored(tmp_path, log)
    for rev in (0, 1, 5, 8, 9):
        ran = command(tool, path, flag, f"{rev}-0123456789abcdef")
        assert (ran.status, ran.out) == (2, "")
        assert flag in ran.err


def test_a_revision_that_is_ahead_is_not_now(log: Maker, tmp_path: Path) -> None:
    ran = command(tool, stored(tmp_path, log), "--since", "9")
    assert (ran.status, ran.out) == (2, "")
    assert "at revision 8" in ran.err


def test_a_file_that_begins_later(tmp_path: Path) -> None:
    log = Maker("json")
    log.rev, log.state, log.chain = 7, {"a": 1}, b"somechai"
    log.snapshot()
    log.change({"a": 2})
    path = stored(tmp_path, log)
    assert revisions(told(path)) == [8]
    assert revisions(told(path, "--since", cursor(7, b"somechai"))) == [8]
    ran = command(tool, path, "--since", "3")
    assert (ran.status, revisions(ran)) == (0, [8])
    assert "begins at revision 7" in ran.err
    for flag in ("--since", "--until"):
        assert command(tool, path, flag, cursor(3, b"somechai")).status == 2


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--until", "-1"), ("--grep", "("), ("--path", "a"), ("--path", "/~2")],
)
def test_usage(log: Maker, tmp_path: Path, arguments: tuple[str, str]) -> None:
    ran = command(tool, stored(tmp_path, log), f"{arguments[0]}={arguments[1]}")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("kantad log: ")


def test_a_torn_tail_is_a_warning(log: Maker, tmp_path: Path) -> None:
    ran = command(tool, stored(tmp_path, log, bytes(log.data[:-5])))
    assert (ran.status, revisions(ran)) == (0, list(range(1, 8)))
    assert "torn tail" in ran.err


def test_a_last_record_without_its_newline_is_whole(tmp_path: Path) -> None:
    log = every_kind("json")
    ran = told(stored(tmp_path, log, bytes(log.data[:-1])))
    assert revisions(ran) == list(range(1, log.rev + 1))


def test_a_last_record_with_a_damaged_newline_is_whole(tmp_path: Path) -> None:
    log = every_kind("json")
    ran = command(tool, stored(tmp_path, log, flipped(log, len(log.data) - 1)))
    assert (ran.status, revisions(ran)) == (0, list(range(1, log.rev + 1)))
    assert "a torn tail of 1 bytes" in ran.err


def test_damage(log: Maker, tmp_path: Path) -> None:
    start = log.points[3].end
    path = stored(tmp_path, log, flipped(log, start + 40))
    ran = command(tool, path)
    assert (ran.status, revisions(ran)) == (65, [1, 2, 3])
    assert f"byte {start}" in ran.err
    assert "kantad check" in ran.err
    assert command(tool, path, "--until", "3").status == 0
    assert revisions(told(path, "--since", "7")) == [8]  # from the last snapshot on, it is whole
    assert command(tool, path, "--since", "3").status == 65


def test_no_kantadb(tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    assert command(tool, path).status == 2
    assert command(tool, tmp_path).status == 2
    path.write_bytes(b"something else altogether")
    assert command(tool, path).status == 65
    path.write_bytes(b"")
    assert told(path).out == ""


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_files_of_kanta_in_every_dialect(path: Path) -> None:
    meant = json.loads(path.with_suffix(".json").read_text())
    ran = command(tool, path)
    assert ran.status == 0
    assert revisions(ran) == list(range(1, meant["changes"] + 1))
    for member, value in meant["state"].items():
        last = command(tool, path, "--path", f"/{member}").out
        assert last
        assert not last.splitlines()[-1].endswith("✗"), value


@pytest.mark.parametrize("gone", [{"a": 1}, [["a"]], [{}]])
def test_a_line_that_makes_no_sense_is_damage(tmp_path: Path, gone: Any) -> None:
    made = Maker("json")
    made.foreign({"a": "$5"})
    line = foreign_payload("json", made.micros + 1, {"b": "$6", "$delete": gone})
    ran = command(tool, stored(tmp_path, made, bytes(made.data) + line + b"\n"))
    assert ran.status == 65
    assert "does not fit" in ran.err


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_path_in_a_file_of_kanta_is_shown_exactly_when_its_value_differs(path: Path) -> None:
    pointers = ("/items/o/y", "/items/plain", "/array/0", "/flag", "/items/users/bob/n", "/items/$key", "/items")
    values: dict[str, list[Any]] = {pointer: [MISSING] for pointer in pointers}
    with reading(str(path)) as (buffer, size, framing, codec):
        walk = Walk(buffer, size, framing, codec)
        for _ in walk.records():
            for pointer in pointers:
                if len(values[pointer]) <= walk.replayer.rev:
                    found = lookup(walk.replayer.state, parse(pointer))
                    values[pointer].append(found if found is MISSING else value_text(found))
        del walk
    for pointer, each in values.items():
        differs = [rev for rev in range(1, len(each)) if each[rev] != each[rev - 1]]
        assert revisions(command(tool, path, "--path", pointer)) == differs, pointer


def test_unsafe_characters_are_escaped(tmp_path: Path) -> None:
    log = Maker("json")
    log.change({"a\x1b[31m": "\x9b\u202e\x7f"}, u="x\x07")
    out = told(stored(tmp_path, log)).out
    assert out.endswith(' act by "x\\u0007"  "a\\u001b[31m" = "\\u009b\\u202e\\u007f"\n')


def test_colours_where_they_are_asked_for(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    plain, coloured = told(path).out, told(path, "--color", "always").out
    assert "\x1b[31m✗\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]+m", "", coloured) == plain


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_colours_and_lines_that_fit(tmp_path: Path, no_color: bool) -> None:
    log = Maker("json")
    log.change({"a": "x" * 500})
    path = stored(tmp_path, log)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1" if no_color else "", "COLUMNS": ""}
    mine, its = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kantad", "log", str(path)], stdout=its, env=environment, timeout=30, check=False
        )
        os.close(its)
        text = os.read(mine, 1 << 16).decode()
    finally:
        os.close(mine)
    assert done.returncode == 0
    assert ("\x1b[" in text) != no_color
    line = re.sub(r"\x1b\[[0-9;]+m", "", text).rstrip()
    assert len(line) == 80
    assert line.endswith("…")


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    log = Maker("json")
    for n in range(3000):
        log.change({"n": n})
    process = subprocess.Popen(
        [sys.executable, "-m", "kantad", "log", str(stored(tmp_path, log))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_an_output_that_is_not_utf_8(log: Maker, tmp_path: Path) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    assert tool.run(parser.parse_args([str(stored(tmp_path, log))]), out, io.StringIO()) == 0
    out.flush()
    assert b"\\u2717" in raw.getvalue()
