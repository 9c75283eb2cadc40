"""The process that makes the snapshot beside a file: `python -m kantad.tools.snapshot`, started by the engine.

It reads the log from the last snapshot on, as a start does, beginning with the one that it will replace, and writes
the next one under another name; to put it in its place is the server's, who has the lock. See `ordered`.
"""

import contextlib
import errno
import os
import socket
import sys
from typing import Final

from kantad.store.beside import Picture, frame_of, recover_from, refuse_to_replace, spot, write
from kantad.store.disk import Disk, RealDisk
from kantad.store.history import keyed, packed
from kantad.store.imported import CodeError
from kantad.store.log import FULL, NotOurs, format_of, mapped
from kantad.store.question import message
from kantad.store.task import Depict, Depicted, decode_depict
from kantad.tools.ordered import is_alone, messages, run
from kantad.values.errors import Damaged, Problem

ROOM: Final = 32 << 20  # bytes that are left to the log on the disk


class Unwanted(Exception):
    """Who ordered it is gone."""


def made(order: Depict, channel: socket.socket, disk: Disk) -> Depicted:
    """Make what was ordered, and say where it is; raises what goes wrong."""
    refuse_to_replace(order.file)
    fd = os.open(order.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        model = os.fstat(fd)
        if (model.st_dev, model.st_ino) != order.identity or model.st_size < order.end:
            raise OSError(errno.ESTALE, "it is another file now", order.file)
        with mapped(fd, order.end) as buffer:
            framing, codec = format_of(buffer, order.format)
            found = recover_from(order.file, buffer, order.end, framing, codec)
            window = packed(keyed(buffer, order.end, framing, codec, found))
            place = spot(buffer, order.last, framing, codec, order.chain, found.read_as)
    finally:
        os.close(fd)
    if (found.rev, found.chain, found.last) != (order.rev, order.chain, order.last) or found.torn or found.newline:
        raise OSError(errno.EINVAL, f"it came to revision {found.rev} instead of {order.rev}", order.file)
    shown = Picture(found.state, found.rev, found.chain, found.micros, found.v, found.m, place, window)
    parts = frame_of(shown, framing, codec)
    size = sum(map(len, parts))
    free = os.statvfs(os.path.dirname(order.file) or ".")
    if free.f_bavail * free.f_frsize < size + ROOM:
        raise OSError(errno.ENOSPC, f"it takes {size} bytes, and {ROOM} are left to the log", order.file)

    def pace() -> None:
        if is_alone(channel):
            raise Unwanted

    return Depicted(temporary=write(disk, order.file, parts, model, pace), bytes=size)


def reported(order: Depict, channel: socket.socket, disk: Disk) -> Depicted:
    """What came of an order; a bug is told to who ordered it, who logs it."""
    try:
        return made(order, channel, disk)
    except Unwanted:
        raise
    except (Damaged, NotOurs, CodeError) as error:
        return Depicted("damaged", str(error))
    except Problem as problem:  # a format of one's own
        return Depicted("failed", problem.detail)
    except OSError as error:
        return Depicted("full" if error.errno in FULL else "failed", error.strerror or str(error))
    except Exception as error:
        return Depicted("failed", f"{type(error).__name__}: {error}")


def serve(channel: socket.socket) -> None:
    """Make what is ordered, until the other end closes: it has put the file in its place, or does not want it."""
    disk, done = RealDisk(), Depicted()
    with channel.makefile("rb") as stream:
        try:
            for order in map(decode_depict, messages(stream)):
                done = reported(order, channel, disk)
                channel.sendall(message(done))
        except Unwanted:
            return
        finally:
            if done.temporary:
                with contextlib.suppress(FileNotFoundError):
                    disk.unlink(done.temporary)


if __name__ == "__main__":
    sys.exit(run(serve))
