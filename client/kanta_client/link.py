"""What the channel asks of a connection; `http` has it by aiohttp, tests have others."""

from typing import Protocol


class Lost(Exception):
    """A connection failed or ended; `code` is the WebSocket's close code (RFC 6455 section 7.4), if there was one."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code


class Socket(Protocol):
    """A WebSocket that carries text messages."""

    async def send(self, message: bytes) -> None:
        """Send a message, waiting while the peer takes nothing; raises `Lost`."""

    async def receive(self) -> bytes:
        """The next message; raises `Lost`."""

    async def close(self) -> None:
        """Close it."""
