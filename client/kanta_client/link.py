"""What the channel asks of those it works with: connections (`http` has them by aiohttp), and feeds."""

from typing import Protocol

from kanta_client.errors import KantaError
from kanta_client.messages import Message


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

    def arrived(self) -> int:
        """How much has come from the peer, in any unit: it tells a long message on its way from silence."""

    async def close(self) -> None:
        """Close it, whatever the peer does about it."""


class Follower(Protocol):
    """A feed, as the channel sees it."""

    behind: bool  # whether there are changes that it has not heard of, as far as is known

    def request(self, id: int) -> bytes:
        """The request that subscribes it, from where it stands."""

    def begun(self, answer: Message) -> None:
        """It is subscribed."""

    def heard(self, event: Message, size: int) -> None:
        """An event of it, of about so many bytes."""

    def failed(self, error: KantaError) -> None:
        """It ends, and is not followed any more."""
