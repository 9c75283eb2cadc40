"""Compaction killed at system calls with a snapshot beside the file: it is used for the original only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk
from kantad.store.log import open_log
from kantad.tools import check
from kantad.values.content import encode_json
from tests.crash.injected import NEEDS_STRACE
from tests.crash.process_kit import strace
from tests.own_formats import CBOR, flags_for, format_flag
from tests.store.logs import FORMATS, Maker, every_kind
from tests.store.test_beside import after, put_beside
from tests.tools.kit import command

pytestmark = NEEDS_STRACE

CALLS = ["write", "fdatasync", "link", "rename", "openat", "unlink", "fsync", "flock", "fchmod", "pwrite64", "close"]
FEW = [("fdatasync", 2), ("rename", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("link", 1), ("unlink", 1)]


def log_of(format: str) -> Maker:
    log = every_kind(format)
    for number in range(20):
        log.change({"n": number}, id=f"key-{number}x", q="0badcafe")
    return log


def killed(arguments: list[str], call: str, number: int) -> bool:
    """Run a command that is killed at the n-th of these calls; whether that was met."""
    run = [*strace(f"{call}:signal=KILL:when={number}"), sys.executable, "-m", "kantad", *arguments]
    return subprocess.run(run, capture_output=True, timeout=60, check=False).returncode != 0


def compact_killed(folder: Path, log: Maker, call: str, number: int) -> bool:
    """Whether the call was met; the file is the original or the result in either case."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "data.kantadb"
    path.write_bytes(bytes(log.data))
    put_beside(path, bytes(log.data[: after(log, log.rev - 2)]))
    flags = flags_for(path)
    met = killed(["compact", str(path), "--retain", "5r", *flags], call, number)
    opened, found = open_log(str(path), format_flag(path), RealDisk(), 0)
    opened.close()
    assert (found.rev, found.chain) == (log.rev, log.chain)
    assert encode_json(found.state) == encode_json(log.state)
    assert found.oldest in (0, log.rev - 5)
    assert found.beside == (found.oldest == 0)
    assert os.path.exists(f"{path}.snapshot") == found.beside
    assert command(check, path, *flags).status == 0
    archives = [each for each in folder.iterdir() if "@" in each.name]
    assert len(archives) == 1 if found.oldest else len(archives) < 2
    assert all(command(check, each, *flags).status == 0 for each in archives)
    assert all("@" in each.name or each == path or found.beside for each in folder.iterdir())
    return met


@pytest.mark.parametrize(("call", "number"), FEW)
def test_a_compaction_killed_at_a_call(tmp_path: Path, call: str, number: int) -> None:
    compact_killed(tmp_path / "here", log_of("json"), call, number)


@pytest.mark.long
@pytest.mark.parametrize("format", [*FORMATS, CBOR])
@pytest.mark.parametrize("call", CALLS)
def test_a_compaction_killed_at_every_call(tmp_path: Path, call: str, format: str) -> None:
    log = log_of(format)
    first = 1 if call not in ("openat", "close") else 300  # before that, the interpreter starts
    met = [compact_killed(tmp_path / "here", log, call, number) for number in range(first, first + 40)]
    assert call in ("openat", "close", "pwrite64", "fchmod", "flock", "rename") or met[0]
