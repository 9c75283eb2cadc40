"""Migrations of a real process that is killed at a system call: the file is the original or the result, never neither.

Needs strace and the right to trace; without them the tests are skipped and say so.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kantad.tools import check, dump
from tests.crash.process_kit import strace
from tests.crash.test_crash_strace import why_not
from tests.store.logs import Maker
from tests.tools.kit import command

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

TIMEOUT = 30.0

STEPS = """
import msgspec

class User(msgspec.Struct):
    name: str
    age: int = 0

class Data(msgspec.Struct):
    users: dict[str, User] = {}
    count: int = 0

def migrate_v1(d):
    d["users"] = d.pop("people")

def migrate_v2(d):
    d["count"] = len(d["users"])
"""

FORMATS = ["json", "msgpack"]

CALLS = [
    *("openat", "newfstatat", "fstat", "flock", "pread64", "read", "lseek", "mmap", "munmap", "close"),
    *("write", "pwrite64", "fdatasync", "ftruncate", "fsync"),
]


class Migration:
    """A file that two steps and a type bring on, and how often that may be tried."""

    def __init__(self, folder: Path, format: str) -> None:
        self.folder, self.path = folder, folder / "data.kantadb"
        (folder / "steps.py").write_text(STEPS)
        log = Maker(format)
        log.change({"people": {f"user{number}": {"name": "x" * 40} for number in range(200)}})
        log.change({"gone": 1})
        self.original = bytes(log.data)
        self.path.write_bytes(self.original)
        self.states = [self.state()]
        assert self.run() == 0
        self.states.append(self.state())

    def state(self) -> object:
        """What the file holds."""
        assert command(check, self.path).status in (0, 1)
        return json.loads(command(dump, self.path).out)

    def run(self, *before: str) -> int:
        """Migrate it; the exit status."""
        arguments = ["migrate", str(self.path), "--migrations", "steps", "--schema", "steps:Data"]
        return subprocess.run(
            [*before, sys.executable, "-m", "kantad", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        ).returncode

    def killed_at(self, call: str, number: int) -> bool:
        """Kill it at the n-th of these calls on the file, look, and let the next one finish; whether it was met."""
        for rest in self.folder.glob("data.kantadb*"):
            rest.unlink()
        self.path.write_bytes(self.original)
        status = self.run(*strace(f"{call}:signal=KILL:when={number}", path=str(self.path)))
        met = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert met or status == 0
        assert self.state() in (self.states if met else self.states[1:]), (call, number)
        assert self.run() == 0
        assert self.state() == self.states[1]
        return met


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("call", ["write", "pwrite64", "fdatasync"])
def test_killed_at_a_call_that_writes(tmp_path: Path, format: str, call: str) -> None:
    migration = Migration(tmp_path, format)
    met = [migration.killed_at(call, number) for number in (1, 2)]
    assert met[0]


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_killed_at_every_call_on_the_file(tmp_path: Path, format: str) -> None:
    migration = Migration(tmp_path, format)
    count = 0
    for call in CALLS:  # strace counts each of them by itself
        number = 1
        while migration.killed_at(call, number):
            number += 1
        count += number - 1
    assert count > 20
