"""`kantad log --follow`: what is appended is printed, once, whatever happens to the file meanwhile."""

import argparse
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kantad.tools import log as tool
from tests.store.logs import FORMATS, Maker
from tests.tools.kit import Ran, stored
from tests.tools.test_log import revisions


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = Maker(request.param)
    for n in range(1, 4):
        made.change({"n": n})
    return made


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PATIENCE", 0.0)


def followed(path: Path, *steps: Callable[[], object], arguments: tuple[str, ...] = ()) -> Ran:
    """Follow a file; while it waits, a step is taken, and after the last one there is nobody to read."""
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    left = iter((*steps, None))

    def wait() -> bool:
        step = next(left)
        if step is not None:
            step()
        return step is not None

    status = tool.run(parser.parse_args([str(path), "--follow", *arguments]), out, err, wait=wait)
    assert next(left, None) is None
    return Ran(status, out.getvalue(), err.getvalue())


def append(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


def replace(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        other = path.with_suffix(".new")
        other.write_bytes(data)
        other.rename(path)

    return step


def more(log: Maker, *numbers: int) -> bytes:
    """The bytes of further changes."""
    start = len(log.data)
    for n in numbers:
        log.change({"n": n})
    return bytes(log.data[start:])


def compacted(log: Maker) -> Maker:
    """A database that begins where this one is."""
    made = Maker(log.format)
    if log.format == "msgpack":
        del made.data[4:]
    made.rev, made.chain, made.state, made.micros = log.rev, log.chain, dict(log.state), log.micros
    made.snapshot()
    return made


def test_what_is_appended_is_printed_once(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    parts = [more(log, 4), more(log, 5, 6), more(log, 7)]
    ran = followed(path, *(append(path, part) for part in parts), lambda: None)
    assert (ran.status, ran.err, revisions(ran)) == (0, "", list(range(1, 8)))
    assert ran.out.endswith("n = 6 → 7\n")


def test_a_record_is_not_there_until_it_is_whole(log: Maker, tmp_path: Path, patience: None) -> None:
    path = stored(tmp_path, log)
    part = more(log, 4)
    ran = followed(path, *(append(path, part[i : i + 1]) for i in range(len(part))))
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2, 3, 4])


def test_a_last_record_without_its_newline_is_printed_once(tmp_path: Path) -> None:
    log = Maker("json")
    log.change({"n": 1})
    path = stored(tmp_path, log, bytes(log.data[:-1]))
    ran = followed(path, lambda: None, append(path, b"\n"), append(path, more(log, 2)))
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2])


def test_a_torn_tail_that_is_cut_off_is_nothing(log: Maker, tmp_path: Path, patience: None) -> None:
    whole = len(log.data)
    part = more(log, 4)
    path = stored(tmp_path, log, bytes(log.data[:-5]))
    ran = followed(path, lambda: None, lambda: os.truncate(path, whole), append(path, part), append(path, more(log, 5)))
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2, 3, 4, 5])


def test_a_file_that_is_empty_at_first(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log, b"")
    ran = followed(path, lambda: None, append(path, bytes(log.data)), append(path, more(log, 4)))
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2, 3, 4])


def test_a_compacted_file_takes_its_place(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)

    def last_and_compacted() -> None:
        append(path, more(log, 4))()  # just before the swap
        new = compacted(log)
        new.change({"n": 5})
        replace(path, bytes(new.data))()
        later.append(new)

    later: list[Maker] = []
    ran = followed(path, last_and_compacted, lambda: append(path, more(later[0], 6))(), lambda: None)
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2, 3, 4, 5, 6])


def test_a_longer_copy_of_the_same_history_takes_its_place(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    more(log, 4)
    log.snapshot()
    ran = followed(path, replace(path, bytes(log.data)), append(path, more(log, 5)))
    assert (ran.status, ran.err, revisions(ran)) == (0, "", [1, 2, 3, 4, 5])


def test_a_file_that_is_gone_is_waited_for(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    part = more(log, 4)
    aside = tmp_path / "aside"
    ran = followed(path, lambda: path.rename(aside), append(aside, part), lambda: aside.rename(path))
    assert (ran.status, revisions(ran)) == (0, [1, 2, 3, 4])


@pytest.mark.parametrize("longer", [False, True])
def test_changes_that_are_taken_back_end_it(log: Maker, tmp_path: Path, longer: bool) -> None:
    path = stored(tmp_path, log)
    before = log.points[-2].end
    other = Maker(log.format)
    for n in range(1, 3):
        other.change({"n": n})
    rest = more(other, 30) + (more(other, 40, 50) if longer else b"")

    def cut_back() -> None:
        os.truncate(path, before)
        if longer:
            append(path, rest)()

    def refused() -> None:
        pytest.fail("it goes on")

    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    steps: Iterator[Callable[[], object]] = iter((cut_back, refused))
    status = tool.run(parser.parse_args([str(path), "-f"]), out, err, wait=lambda: [next(steps)()] != [])
    assert (status, revisions(Ran(status, out.getvalue(), ""))) == (2, [1, 2, 3])
    assert "revision 3" in err.getvalue()


@pytest.mark.parametrize("what", ["other", "shorter", "later"])
def test_another_history_ends_it(log: Maker, tmp_path: Path, what: str) -> None:
    path = stored(tmp_path, log)
    new = Maker(log.format)
    if what == "other":
        more(new, 7, 8, 9, 10)
    elif what == "later":
        more(log, 4, 5)
        new = compacted(log)
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    data = bytes(new.data)
    status = tool.run(parser.parse_args([str(path), "-f"]), out, err, wait=lambda: replace(path, data)() is None)
    assert status == 2
    assert "revision 3" in err.getvalue()


def test_damage_ends_it(log: Maker, tmp_path: Path, patience: None) -> None:
    path = stored(tmp_path, log)
    part = bytearray(more(log, 4, 5))
    part[30] ^= 1
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    steps = iter((append(path, bytes(part)), append(path, more(log, 6)), append(path, more(log, 7))))
    status = tool.run(parser.parse_args([str(path), "-f"]), out, err, wait=lambda: next(steps)() is None)
    assert (status, revisions(Ran(status, out.getvalue(), ""))) == (65, [1, 2, 3])
    assert "kantad check" in err.getvalue()


def test_it_ends_at_until(log: Maker, tmp_path: Path) -> None:
    path = stored(tmp_path, log)
    ran = followed(path, append(path, more(log, 4, 5)), arguments=("--until", "9"))
    assert revisions(ran) == [1, 2, 3, 4, 5]
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    part = more(log, 6, 7)
    out = io.StringIO()
    arguments = parser.parse_args([str(path), "-f", "--since", "4", "--until", "6", "--path", "/n"])
    assert tool.run(arguments, out, io.StringIO(), wait=lambda: append(path, part)() is None) == 0
    assert revisions(Ran(0, out.getvalue(), "")) == [5, 6]


def ignoring() -> None:
    """As a shell starts what it puts in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Command:
    """`kantad log --follow` as a process, its lines read as they come."""

    def __init__(self, path: Path, before: Callable[[], None] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kantad", "log", "--follow", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=before,
        )

    def line(self) -> bytes:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "nothing is printed"
        return self.process.stdout.readline()

    def end(self) -> tuple[int, bytes]:
        status = self.process.wait(20)
        assert self.process.stderr is not None
        return status, self.process.stderr.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Starts the command; what still runs afterwards is killed."""
    started: list[Command] = []

    def begin(path: Path, before: Callable[[], None] | None = None) -> Command:
        started.append(Command(path, before))
        return started[-1]

    try:
        yield begin
    finally:
        for each in started:
            each.close()


@pytest.mark.parametrize("before", [None, ignoring])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly_also_in_the_background_of_a_script(
    tmp_path: Path, start: Callable[..., Command], number: signal.Signals, before: Callable[[], None] | None
) -> None:
    log = Maker("json")
    log.change({"n": 1})
    command = start(stored(tmp_path, log), before)
    assert command.line().startswith(b"1 ")
    command.process.send_signal(number)
    assert command.end() == (0, b"")


def test_a_closed_pipe_ends_it_quietly(log: Maker, tmp_path: Path, start: Callable[..., Command]) -> None:
    path = stored(tmp_path, log)
    command = start(path)
    for _ in range(3):
        command.line()
    append(path, more(log, 4))()
    assert command.line().startswith(b"4 ")
    assert command.process.stdout is not None
    command.process.stdout.close()
    assert command.end() == (0, b"")
