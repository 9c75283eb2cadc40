"""Makes the golden files beside it: a log of each format, and the snapshot beside it of a revision before its last.

    PYTHONPATH=. python tests/golden/beside/make.py
"""

import os
from pathlib import Path

from kantad.store.beside import Picture, frame_of, put, write
from kantad.store.disk import RealDisk
from kantad.store.history import keyed, packed
from kantad.store.recovery import recover
from tests.store.logs import FORMATS, every_kind

BEHIND = 2  # changes


def main() -> None:
    """Write them."""
    for format in FORMATS:
        log, disk = every_kind(format), RealDisk()
        path = Path(__file__).with_name(f"log.{format}.kantadb")
        path.write_bytes(log.data)
        end = next(point.end for point in log.points if point.rev == log.rev - BEHIND)
        found = recover(bytes(log.data[:end]), end, log.framing, log.codec)
        window = packed(keyed(bytes(log.data[:end]), end, log.framing, log.codec, found))
        picture = Picture(found.state, found.rev, found.chain, found.micros, found.v, found.m, At(found.last), window)
        put(disk, write(disk, str(path), frame_of(picture, log.framing, log.codec), os.stat(path)), str(path))


if __name__ == "__main__":
    main()
