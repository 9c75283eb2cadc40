"""How long opening takes: a log of a million small changes over ten thousand objects, no snapshot.

    python tests/bench/bench_open.py [RECORDS]

Prints the seconds of a recovery for both formats, garbage collection off as at a start.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kantad.store.disk import RealDisk, place
from kantad.store.log import reading
from kantad.store.recovery import recover
from kantad.values.codec import Codec, JsonCodec, MsgpackCodec
from kantad.values.framing import BinaryFrames, Framing, JsonLines
from kantad.values.record import CHAIN_START

SEED = b"\x01\x02\x03\x04"
USERS = 10_000


def content(framing: Framing, codec: Codec, records: int) -> Iterator[bytes]:
    """The bytes of the log, in parts of 10,000 records."""
    chain, offset, part = CHAIN_START, framing.header, []
    if framing.header:
        part = [SEED, framing.frame(codec.snapshot(10**15, {}, 0, chain), offset, True)]
        offset += len(part[1])
    for i in range(records):
        diff = {"users": {f"u{i % USERS:07d}": {"age": i}}}
        payload, chain = codec.change(10**15 + i, "patch", diff, chain)
        part.append(framing.frame(payload, offset))
        offset += len(part[-1])
        if len(part) >= 10_000:
            yield b"".join(part)
            part.clear()
    yield b"".join(part)


def main(records: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for framing, codec in ((JsonLines(), JsonCodec()), (BinaryFrames(SEED), MsgpackCodec())):
            path = str(Path(folder) / f"open.{codec.name}")
            place(RealDisk(), path, content(framing, codec, records), replace=False)
            gc.collect()
            gc.disable()
            with reading(path) as (buffer, size, found_framing, found_codec):
                start = time.perf_counter()
                found = recover(buffer, size, found_framing, found_codec)
                seconds = time.perf_counter() - start
            gc.enable()
            assert found.rev == records
            print(f"{codec.name}: {records} records, {size >> 20} MiB, {seconds:.2f} s")
            del found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
