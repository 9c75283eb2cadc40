"""Running the offline commands in this process, on files made with tests.store.logs."""

import argparse
import io
from pathlib import Path
from typing import Any, NamedTuple

from tests.store.logs import Maker


class Ran(NamedTuple):
    """What a command returned and printed."""

    status: int
    out: str
    err: str


def command(tool: Any, *arguments: str | Path, **more: Any) -> Ran:
    """Run a command as the console script does."""
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    status = tool.run(parser.parse_args([str(argument) for argument in arguments]), out, err, **more)
    return Ran(status, out.getvalue(), err.getvalue())


def stored(folder: Path, log: Maker, data: bytes | None = None) -> Path:
    """The log as a file."""
    path = folder / "data.kantadb"
    path.write_bytes(bytes(log.data) if data is None else data)
    return path


def flipped(log: Maker, offset: int) -> bytes:
    """The log's bytes with one bit flipped."""
    data = bytearray(log.data)
    data[offset] ^= 1
    return bytes(data)


def broken(log: Maker, start: int) -> bytes:
    """The log's bytes with the record that begins at `start` beyond reading."""
    return flipped(log, start + 1)
