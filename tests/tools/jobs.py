"""What may be stopped in the middle: each offline command on a small file, with what it may leave behind.

`Job` knows how to begin, how to run (in this process, on any disk; or as a command line), and whether what is
there afterwards is the original or the result. It is the same for every way of stopping: a disk that dies or
fails at a call (`tests/tools/test_stopped.py`), a process killed at a system call (`tests/crash/test_killed_tools.py`).
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check, compact, convert, migrate, repair
from kantad.values.content import encode_json
from tests.own_formats import CBOR
from tests.store.logs import FORMATS, Maker, every_kind
from tests.tools.kit import Ran, command, flipped

ORIGINAL, RESULT = "original", "result"
UNCHANGED: Final = ("as it was", "Nothing was written", "nothing is kept", "there is no new file")
TOOLS: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "compact": (compact, ("--retain", "4r")),
    "compact --no-archive": (compact, ("--retain", "4r", "--no-archive")),
    "convert": (convert, ("new.kantadb",)),
    "migrate": (migrate, ("--migrations", "tests.tools.moved", "--schema", "tests.tools.moved:Data")),
    "repair": (repair, ()),
    "repair --adopt": (repair, ("--adopt",)),
}
JOBS: Final = [(tool, format) for tool in TOOLS for format in FORMATS]
OWN_JOBS: Final = [(tool, CBOR) for tool in TOOLS]


class Held(NamedTuple):
    """What a start finds in a file."""

    oldest: int
    rev: int
    chain: bytes
    v: int
    state: bytes


def held(path: Path, own: str | None = None) -> Held:
    """Open a file as a start does; it must be whole, but for what such a start cuts off. `own` is its own format."""
    log, found = open_log(str(path), own, RealDisk(), 0)
    log.close()
    assert command(check, path, *(() if own is None else ("--format", own))).status == 0
    return Held(found.oldest, found.rev, found.chain, found.v, encode_json(found.state))


class Job:
    """One command on one file in a folder, which is made anew by `begin`."""

    def __init__(self, folder: Path, tool: str, format: str) -> None:
        self.folder, self.tool = folder, tool
        self.path = folder / "data.kantadb"
        self.module, flags = TOOLS[tool]
        self.own = format if format not in FORMATS else None
        self.target = folder / flags[0] if self.module is convert else self.path
        self.flags = (str(self.target),) if self.module is convert else flags
        if self.own is not None:
            self.flags += ("--from" if self.module is convert else "--format", self.own)
        log = self._log(format)
        self.original = flipped(log, log.points[-2].end - 9) if self.module is repair else bytes(log.data)
        self.before = None
        if self.module is not repair:
            self.begin()
            self.before = held(self.path, self.own)
        self.begin()
        ran = self.run(RealDisk())
        assert ran.status == 0, ran
        self.result = self.target.read_bytes()
        self.beside = self._beside()
        self.after = self._held()
        assert self.after != self.before or self.module is convert

    def _held(self) -> Held:
        return held(self.target, None if self.module is convert else self.own)

    @staticmethod
    def _log(format: str) -> Maker:
        log = every_kind(format)
        for number in range(5):
            log.change({"n": number + 3}, id=f"key-{number}x", q="0badcafe")
        return log

    def begin(self) -> None:
        """The folder as it is before the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.path.write_bytes(self.original)

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        return [self.tool.partition(" ")[0], str(self.path), *self.flags]

    def run(self, disk: Any) -> Ran:
        """Run it in this process."""
        return command(self.module, self.path, *self.flags, disk=disk)

    def _beside(self) -> list[bytes]:
        """What the files beside the database hold, but for torn tails that were set aside."""
        files = [each for each in self.folder.iterdir() if each not in (self.path, self.target)]
        return sorted(each.read_bytes() for each in files if ".torn-" not in each.name and ".new-" not in each.name)

    def leftovers(self) -> list[str]:
        """The names of what was begun and not finished."""
        return [each.name for each in self.folder.iterdir() if ".new-" in each.name]

    def judge(self) -> str:
        """Whether the original or the result is there; fails where it is neither.

        Opening the file removes what was left over, so that afterwards nothing is there but what belongs there.
        """
        if self.module is convert:
            assert self.path.read_bytes() == self.original
            if not self.target.exists():
                return ORIGINAL
        elif self.path.read_bytes() == self.original and self.before is None:
            assert set(self._beside()) <= {self.original}  # a second name, or a copy
            return ORIGINAL
        found = self._held()
        assert not self.leftovers()
        if found == self.before:
            assert set(self._beside()) <= set(self.beside)  # an archive may be there already
            return ORIGINAL
        if self.module is migrate:  # the times of the records are those of the run
            assert found._replace(chain=b"") == self.after._replace(chain=b"")
        else:
            assert self.target.read_bytes() == self.result or self.module is not repair  # seeds are random
            assert found == self.after
        assert set(self._beside()) == set(self.beside), self.tool
        return RESULT

    def finish(self) -> None:
        """Run it again: the result is there then."""
        ran = self.run(RealDisk())
        there = self.module is convert and ran.status == 2 and "there already" in ran.err
        assert ran.status == 0 or there, ran
        assert self.judge() == RESULT
        assert len(self._beside()) <= len(self.beside) + 1

    def truthful(self, err: str, found: str) -> None:
        """What was said must be what is there, and no traceback."""
        assert "Traceback" not in err, err
        if any(words in err for words in UNCHANGED):
            assert found == ORIGINAL, err

    def end(self) -> None:
        """Remove the folder."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def only_the_original(job: Job) -> bool:
    """Whether the folder is as it was before the command."""
    return os.listdir(job.folder) == [job.path.name] and job.path.read_bytes() == job.original
