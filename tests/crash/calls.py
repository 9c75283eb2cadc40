"""Which system calls of a command concern a folder, so that each of them in turn can be made to kill it or to fail.

strace counts the calls of a name in each thread. So a first run tells, for each call that names the folder or a
file in it, the how manyth of its name it was; in a later run that one is injected. Between two of these calls
nothing on the disk changes, so they stand for all others.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 60.0
LINE = re.compile(r"(\d+) +([a-z_0-9]+)\(")
OTHERS = re.compile(r"^\d+ +(execve\(|write\([12]<)")  # the command itself, and what it prints
WRITING = ("write", "pwrite64", "openat", "link", "linkat", "rename", "mkdir", "ftruncate", "fdatasync", "fsync")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}


class Call(NamedTuple):
    """A system call: its name, and the how manyth of that name it is in its thread, from 1."""

    name: str
    number: int


class Ended(NamedTuple):
    """How a command ended: its status (negative: the signal), what it said, and the calls that concerned the folder."""

    status: int
    err: str
    calls: list[Call]


def concerning(log: Path, folder: Path) -> list[Call]:
    """The calls in a log of strace that name a folder, or what is in it."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = LINE.match(line)
        if match is None:
            continue  # resumed, a signal, an exit
        key = match[1], match[2]
        counts[key] = counts.get(key, 0) + 1
        if str(folder) in line and not OTHERS.search(line):
            found.append(Call(match[2], counts[key]))
    return found


def tracing(log: Path, call: Call | None, what: str) -> list[str]:
    """The command that runs another, with this call injected, or with all calls on files told."""
    trace = "%file,%desc" if call is None else call.name
    inject = [] if call is None else ["-e", f"inject={call.name}:{what}:when={call.number}"]
    return ["strace", "-f", "-qq", "-y", "-s", "99", "-o", str(log), "-e", f"trace={trace}", *inject]


def ran(folder: Path, arguments: list[str], log: Path, call: Call | None = None, what: str = "signal=KILL") -> Ended:
    """Run kantad with these arguments, with one call injected if it is given."""
    run = [*tracing(log, call, what), sys.executable, "-m", "kantad", *arguments]
    done = subprocess.run(run, cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT, check=False)
    return Ended(done.returncode, done.stderr.decode(), concerning(log, folder))
