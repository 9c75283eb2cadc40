"""The log on a disk that fails: nothing acknowledged is lost, no phantom, reopening always works."""

import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kantad.store.disk import Disk, RealDisk
from kantad.store.log import Broken, Locked, Log, NoRoom, NotOurs, open_log
from kantad.store.recovery import Recovered
from kantad.values.content import same
from kantad.values.patch import apply
from tests.store.disks import CachingDisk, Death, FaultyDisk, FillingDisk
from tests.store.logs import ALL, T0, every_kind

ANY = ("open", "write", "pwrite", "sync", "truncate", "link", "rename", "unlink", "sync_folder")


class Writer:
    """What the engine does to a log, and a model of what was asked and what was acknowledged."""

    def __init__(self, path: Path, format: str) -> None:
        self.path, self.format = path, format
        self.states: list[dict[str, Any]] = [{}]  # by revision, as asked
        self.acknowledged = 0
        self.log: Log | None = None

    def open(self, disk: Disk) -> Recovered:
        self.log, found = open_log(str(self.path), self.format, disk, T0)
        self.rev, self.chain = found.rev, found.chain
        self.check(found)
        return found

    def check(self, found: Recovered) -> None:
        assert self.acknowledged <= found.rev < len(self.states)
        assert same(found.state, self.states[found.rev])
        del self.states[found.rev + 1 :]
        self.acknowledged = found.rev

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def batch(self, count: int, size: int = 10) -> None:
        assert self.log is not None
        records, chain, first = [], self.chain, self.rev + 1
        for i in range(count):
            diff = {f"k{(self.rev + i) % 5}": [self.rev + i, "x" * size]}
            payload, chain = self.log.codec.change(T0 + self.rev + i, "w", diff, chain, b=first if i else 0)
            records.append((payload, False))
            self.states.append(apply(dict(self.states[-1]), diff))
        try:
            self._write(records)
        except NoRoom:
            del self.states[self.rev + 1 :]
            raise
        self.rev, self.chain = self.rev + count, chain
        self.acknowledged = self.rev

    def snapshot(self) -> None:
        assert self.log is not None
        self._write([(self.log.codec.snapshot(T0 + self.rev, self.states[-1], self.rev, self.chain), True)])

    def _write(self, records: list[tuple[bytes, bool]]) -> None:
        assert self.log is not None
        self.log.check_path()
        self.log.append(self.log.framed(records))
        self.log.sync()
        self.log.check_path()

    def scenario(self, disk: Disk) -> None:
        self.open(disk)
        self.batch(1)
        self.batch(3, 300)
        self.snapshot()
        self.batch(2)
        self.close()
        self.open(disk)
        self.batch(2, 700)
        self.close()


@pytest.fixture(params=ALL)
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Writer:
    return Writer(tmp_path / "data.kantadb", request.param)


def calls_of(writer: Writer, calls: tuple[str, ...]) -> int:
    """How many of these calls the scenario makes."""
    disk = FaultyDisk(calls=calls)
    Writer(writer.path.with_name("count.kantadb"), writer.format).scenario(disk)
    return disk.count


def at_every_call(
    writer: Writer, calls: tuple[str, ...], make: Callable[[int], FaultyDisk], *expected: type[BaseException]
) -> None:
    """Run the scenario with a fault at each call in turn; then it reopens and works, three times."""
    for at in range(calls_of(writer, calls)):
        each = Writer(writer.path.with_name(f"{at}.kantadb"), writer.format)
        disk = make(at)
        try:
            each.scenario(disk)
        except expected:
            pass
        finally:
            each.close()
        for _ in range(2):
            each.open(RealDisk())
            each.batch(2)
            each.close()
        left = [name for name in os.listdir(each.path.parent) if name.startswith(f"{at}.") and ".new-" in name]
        assert not left


def test_scenario_without_a_fault(writer: Writer) -> None:
    writer.scenario(RealDisk())
    assert writer.open(RealDisk()).rev == 8
    writer.close()
    assert stat.S_IMODE(os.stat(writer.path).st_mode) == 0o600


@pytest.mark.parametrize("fault", ["death", "late death"])
def test_death_at_every_call(writer: Writer, fault: str) -> None:
    at_every_call(writer, ANY, lambda at: FaultyDisk(fault, at, ANY), Death)


def test_short_writes_are_finished(writer: Writer) -> None:
    at_every_call(writer, ("write", "pwrite"), lambda at: FaultyDisk("short", at, ("write", "pwrite")))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_error_at_every_call(writer: Writer, error: int) -> None:
    at_every_call(writer, ANY, lambda at: FaultyDisk(error, at, ANY), NoRoom, Broken, OSError)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_cut_back_and_taken_up_again(writer: Writer, error: int) -> None:
    writer.open(RealDisk())
    writer.batch(2)
    writer.close()
    disk = FillingDisk(error, 1, ("write",))
    writer.open(disk)
    writer.batch(1)
    size = writer.path.stat().st_size
    for _ in range(3):
        with pytest.raises(NoRoom):
            writer.batch(3, 100)
        assert writer.path.stat().st_size == size
    with pytest.raises(NoRoom):
        writer.snapshot()
    disk.room = True
    writer.batch(3, 100)
    writer.close()
    assert writer.open(RealDisk()).rev == 6
    writer.close()


def test_a_failed_sync_is_broken_and_never_retried(writer: Writer) -> None:
    writer.open(RealDisk())
    writer.batch(1)
    writer.close()
    disk = FaultyDisk(errno.EIO, 1, ("sync",))
    writer.open(disk)
    with pytest.raises(Broken, match="fdatasync"):
        writer.batch(1)
    assert disk.count == 2
    writer.close()
    again = FaultyDisk(calls=("pwrite", "sync"))
    writer.open(again)
    assert again.log == ["pwrite", "sync"]  # what the cache shows is written again before it is relied on
    writer.close()


def test_write_error_that_is_not_want_of_room_is_broken(writer: Writer) -> None:
    writer.open(RealDisk())
    writer.close()
    writer.open(FaultyDisk(errno.EIO, 0, ("write",)))
    with pytest.raises(Broken, match="writing"):
        writer.batch(1)
    writer.close()


def power_cuts(writer: Writer, chance: random.Random, rounds: int, states: int) -> None:
    for _ in range(rounds):
        disk = CachingDisk(str(writer.path))
        writer.open(disk)
        for _ in range(chance.randrange(3)):
            writer.batch(chance.randrange(1, 5), chance.choice((5, 400, 1500)))
        if chance.random() < 0.3:
            writer.snapshot()
        acknowledged = writer.acknowledged
        log = writer.log
        assert log is not None
        records, chain, first = [], writer.chain, writer.rev + 1
        for i in range(chance.randrange(1, 12)):
            diff = {f"p{i}": "y" * chance.choice((1, 90, 1200))}
            payload, chain = log.codec.change(T0 + writer.rev + i, "p", diff, chain, b=first if i else 0)
            records.append((payload, False))
            writer.states.append(apply(dict(writer.states[-1]), diff))
        log.append(log.framed(records))
        writer.close()
        asked = list(writer.states)
        cuts = list(disk.crash_states(chance, states))
        for cut in cuts:
            writer.path.write_bytes(cut)
            writer.states, writer.acknowledged = list(asked), acknowledged
            writer.open(RealDisk())
            writer.close()


def test_any_subset_of_unsynced_sectors(writer: Writer) -> None:
    power_cuts(writer, random.Random(3), rounds=12, states=25)


@pytest.mark.long
def test_any_subset_of_unsynced_sectors_for_long(writer: Writer) -> None:
    for seed in range(5):
        path = writer.path.with_name(f"{seed}.kantadb")
        power_cuts(Writer(path, writer.format), random.Random(seed), rounds=40, states=60)


class TestTornTails:
    """A torn tail is cut off and kept aside, byte for byte."""

    @pytest.mark.parametrize("format", ALL)
    def test_every_truncation(self, tmp_path: Path, format: str) -> None:
        log = every_kind(format)
        step = 3
        for size in range(log.points[0].end + 1, len(log.data), step):
            folder = tmp_path / str(size)
            folder.mkdir()
            path = folder / "data.kantadb"
            path.write_bytes(log.data[:size])
            opened, found = open_log(str(path), format, RealDisk(), T0)
            opened.close()
            point = log.prefix(size + 1) if found.newline else log.prefix(size)
            assert found.rev == point.rev
            assert path.read_bytes() == log.data[: point.end]
            aside = list(folder.glob("data.kantadb.torn-*"))
            torn = bytes(log.data[point.end : size])
            assert [file.read_bytes() for file in aside] == ([torn] if torn else [])
            assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in aside)
            assert len(found.warnings) == len(aside)
            again, second = open_log(str(path), format, RealDisk(), T0)
            again.close()
            assert same(second.state, found.state)
            assert (second.rev, second.chain, second.warnings) == (found.rev, found.chain, [])

    def test_the_warning_says_where_and_how_much(self, tmp_path: Path) -> None:
        log = every_kind("json")
        path = tmp_path / "data.kantadb"
        path.write_bytes(bytes(log.data) + b"\0" * 77)
        opened, found = open_log(str(path), None, RealDisk(), T0)
        opened.close()
        assert "77 bytes" in found.warnings[0]
        assert "unless the file was altered" in found.warnings[0]
        assert str(len(log.data)) in found.warnings[0]

    def test_zeros_from_the_start_are_torn(self, tmp_path: Path) -> None:
        path = tmp_path / "data.kantadb"
        path.write_bytes(bytes(4096))
        opened, found = open_log(str(path), None, RealDisk(), T0)
        opened.close()
        assert (found.rev, path.stat().st_size) == (0, 0)
        assert next(tmp_path.glob("*.torn-*")).read_bytes() == bytes(4096)


class TestTheFile:
    """Which files are taken, and that they stay ours."""

    def test_creation_leaves_nothing_else(self, writer: Writer) -> None:
        writer.open(RealDisk())
        writer.close()
        assert os.listdir(writer.path.parent) == ["data.kantadb"]

    def test_leftovers_of_the_dead_are_removed_and_of_the_living_kept(self, writer: Writer) -> None:
        dead = 4_000_000_000
        folder = writer.path.parent
        names = [f"data.kantadb.new-{dead}", f"data.kantadb.torn-x.new-{dead}", f"data.kantadb.new-{os.getppid()}"]
        others = [f"other.kantadb.new-{dead}", "data.kantadb.new-", "data.kantadb.new-12x"]
        for name in [*names, *others]:
            (folder / name).write_bytes(b"x")
        writer.open(RealDisk())
        writer.close()
        assert sorted(os.listdir(folder)) == sorted(["data.kantadb", names[2], *others])

    def test_an_empty_file_is_an_empty_database(self, writer: Writer) -> None:
        writer.path.write_bytes(b"")
        assert writer.open(RealDisk()).rev == 0
        writer.batch(1)
        writer.close()
        log, found = open_log(str(writer.path), writer.format, RealDisk(), T0)
        log.close()
        assert (log.codec.name, found.rev) == (writer.format, 1)

    @pytest.mark.parametrize("link", ["symlink", "hard link", "relative", "same"])
    def test_a_second_opener_is_locked_out_and_changes_nothing(
        self, writer: Writer, link: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer.open(RealDisk())
        writer.batch(2)
        before = writer.path.read_bytes()
        other = str(writer.path)
        if link == "symlink":
            other += ".sym"
            os.symlink("data.kantadb", other)
        elif link == "hard link":
            other += ".hard"
            os.link(writer.path, other)
        elif link == "relative":
            monkeypatch.chdir(writer.path.parent)
            other = "./../" + writer.path.parent.name + "/data.kantadb"
        names = sorted(os.listdir(writer.path.parent))
        with pytest.raises(Locked):
            open_log(other, None, RealDisk(), T0)
        assert writer.path.read_bytes() == before
        assert sorted(os.listdir(writer.path.parent)) == names
        writer.close()

    def test_a_symlink_is_followed_also_to_a_new_file(self, tmp_path: Path) -> None:
        os.symlink("real.kantadb", tmp_path / "link")
        log, _ = open_log(str(tmp_path / "link"), None, RealDisk(), T0)
        log.close()
        assert (tmp_path / "real.kantadb").is_file()

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in (str(tmp_path), str(tmp_path / "fifo"), "/dev/null"):
            with pytest.raises(NotOurs, match="regular"):
                open_log(path, None, RealDisk(), T0)

    @pytest.mark.parametrize(
        "content", [b"hello\n", b"#!/bin/sh\n", b"[1]", b"\x89PNG\r\n\x1a\n", b"SNAPSHOP {}", b"\0\0\1"]
    )
    def test_what_is_no_kantadb_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "file"
        path.write_bytes(content)
        for flag in (None, "json", "msgpack"):
            with pytest.raises(NotOurs):
                open_log(str(path), flag, RealDisk(), T0)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["file"]

    def test_a_flag_that_contradicts_the_file_is_refused(self, writer: Writer) -> None:
        writer.open(RealDisk())
        writer.batch(1)
        writer.close()
        other = "json" if writer.format == "msgpack" else "msgpack"
        with pytest.raises(NotOurs, match="contradicts"):
            open_log(str(writer.path), other, RealDisk(), T0)

    @pytest.mark.parametrize("what", ["replaced", "renamed", "deleted", "truncated", "appended"])
    def test_a_file_that_is_no_longer_ours_is_noticed(self, writer: Writer, what: str) -> None:
        writer.open(RealDisk())
        writer.batch(2)
        path = writer.path
        if what == "replaced":
            path.with_name("x").write_bytes(path.read_bytes())
            os.replace(path.with_name("x"), path)
        elif what == "renamed":
            path.rename(path.with_name("y"))
        elif what == "deleted":
            path.unlink()
        elif what == "truncated":
            os.truncate(path, path.stat().st_size - 5)
        else:
            with path.open("ab") as file:
                file.write(b"\n")
        with pytest.raises(Broken):
            writer.batch(1)
        writer.close()

    def test_the_other_end_of_a_race_to_create_opens_it(self, writer: Writer) -> None:
        other = Writer(writer.path.with_name("other"), writer.format)
        other.open(RealDisk())
        other.close()

        class Racing(RealDisk):
            def link(self, source: str, target: str) -> None:
                if other.path.exists():
                    other.path.rename(target)
                super().link(source, target)

        assert writer.open(Racing()).rev == 0
        writer.close()
