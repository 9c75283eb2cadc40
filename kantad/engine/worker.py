"""Another process of ours at work on the file: a Python of its own, of low priority, and a socket to it.

What would hold the interpreter's lock for long, decoding or encoding a whole state, is done there. It is
told and asked in messages (see `store.question`), and ends with the socket, so never outlives this process
by long. Started by `retracer` and `compacting`.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kantad.store.question import LENGTH

READ_AHEAD: Final = 1 << 20  # bytes


class Worker:
    """A running process and the socket to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
        self.process, self.channel = process, channel
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None

    @classmethod
    def start(cls, command: Sequence[str], own: bool = False) -> "Worker":
        """Start it; raises OSError. It shares our memory until its `exec` (vfork), so our size does not matter.

        With `own` it finds the modules that this process finds: the user's code is to be imported.
        """
        ours, theirs = socket.socketpair()
        null = subprocess.DEVNULL
        try:
            with theirs:
                process = subprocess.Popen(
                    list(command),
                    stdin=theirs.fileno(),
                    stdout=null,
                    stderr=null,
                    env=_environment(own),
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            raise
        return cls(process, ours)

    async def ask(self, message: bytes) -> bytes:
        """Send a message; what comes back as one. Raises OSError and EOFError."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(sock=self.channel, limit=READ_AHEAD)
        self.writer.write(message)
        await self.writer.drain()
        return await self.read(int.from_bytes(await self.read(LENGTH), "little"))

    async def read(self, size: int) -> bytes:
        """What comes further; raises OSError and EOFError."""
        return await self.reader.readexactly(size)

    async def end(self, patience: float = 0.0) -> None:
        """Kill it, and wait until it is gone; with patience, it has so many seconds to put its things in order."""
        if patience:
            self.process.terminate()
        else:
            self.process.kill()
        if self.writer is None:
            self.channel.close()
        else:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()
        try:
            await asyncio.to_thread(self.process.wait, patience or None)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)


def _environment(own: bool) -> dict[str, str]:
    """Ours, with the folder that holds this kantad in front: not another one's, nor what the current folder holds."""
    here, given = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    more = [path for path in sys.path if path] if own else [given] if given else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *more])}
