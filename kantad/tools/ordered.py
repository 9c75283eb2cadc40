"""What the processes have in common that a server starts for work on its file: `retrace`, `rewrite` and `snapshot`.

One reads the database without a lock, no further than it is told. It takes orders on its standard input, a socket,
and ends with it. Nobody calls it by hand.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from kantad.store.question import LENGTH

NICE: Final = 10  # Linux derives the priority of its reads and writes from it, too


def run(serve: Callable[[socket.socket], None]) -> int:
    """Serve standard input; returns the exit status."""
    gc.disable()  # a state has no cycles
    with contextlib.suppress(OSError):  # a sandbox may not allow it
        os.nice(NICE)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed
    try:
        serve(socket.socket(fileno=sys.stdin.fileno()))
    except OSError:
        return 1
    return 0


def messages(stream: BinaryIO) -> Iterator[bytes]:
    """What is sent, one message after another, until the other end closes."""
    while len(head := stream.read(LENGTH)) == LENGTH:
        yield stream.read(int.from_bytes(head, "little"))


def is_alone(channel: socket.socket) -> bool:
    """Whether the other end has closed, while it has nothing to ask; then nobody wants the work done any more."""
    readable, _, _ = select.select([channel], [], [], 0)
    return bool(readable) and channel.recv(1, socket.MSG_PEEK) == b""
