"""One reader of a feed: a position in the log, what it asked for, and where it is sent. No I/O of its own.

A reader is a cursor, not a queue: nothing is kept for it. What it has not been sent is in the ring
or in the file, and it is sent on when its sink has room again.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, Protocol

from kantad.engine.filter import Filter
from kantad.values.errors import Problem

if TYPE_CHECKING:
    from kantad.engine.interest import Node
    from kantad.engine.portions import Making


NEAR: Final = 64  # changes that are looked at, each, rather than read from the file


class Sink(Protocol):
    """Where a reader's events go: a connection."""

    def free(self) -> bool:
        """Whether it takes more now; where it does not, `Feeds.wake` is called when it does again."""

    def send(self, data: bytes) -> None:
        """Send bytes that an `Encoding` made. Never blocks."""

    def ended(self, problem: Problem | None) -> None:
        """There will be no more events, and why (None: all that was asked for was sent)."""


class Encoding(Protocol):
    """How events look on the wire. Readers with the same key are sent the same bytes."""

    @property
    def key(self) -> Hashable:
        """What the bytes depend on besides the events."""

    def changes(self, tails: list[bytes]) -> bytes:
        """The bytes of these changes; see `values.event` for what a tail is."""

    def event(self, kind: str, cursor: bytes, members: bytes) -> bytes:
        """The bytes of another event: its position, and its members as JSON text without the opening brace."""


class Reader:
    """See the module. `position` is the last revision that was dealt with."""

    __slots__ = (
        "asked",
        "behind",
        "encoding",
        "filter",
        "finished",
        "left",
        "making",
        "mark",
        "node",
        "position",
        "sent_at",
        "served",
        "sink",
        "stuck",
        "until",
        "whole",
    )

    def __init__(
        self,
        filter: Filter,
        encoding: Encoding,
        sink: Sink,
        position: int,
        *,
        until: int | None = None,
        left: int | None = None,
        whole: bool = False,
    ) -> None:
        self.filter, self.encoding, self.sink, self.position = filter, encoding, sink, position
        self.until, self.left = until, left  # the last revision, and how many changes, that were asked for
        self.whole = whole  # it takes a whole value where the history is gone
        self.node: Node | None = None  # of its path, while it is served; None at the root
        self.mark = b""  # the cursor of the last position in the file
        self.sent_at = 0.0  # on the loop's clock
        self.finished = False
        # what `convoy` notes of it
        self.behind = self.stuck = False  # it is brought on; over one change in memory
        self.asked = False  # it waits to be served
        self.served = 0  # the turn in which it was sent something
        self.making: Making | None = None  # what it waits for

    def in_memory(self, first: int) -> bool:
        """Whether it is served from the ring, which begins with this revision.

        One that follows a path is so where it is known which changes met the path, or nearly: to look for them in all
        the ring would hold up the others, while a block of the file is gone through once for all who follow paths.
        """
        return self.position + 1 >= first and (self.node is None or self.position + NEAR >= self.node.since)

    @property
    def done(self) -> bool:
        """Whether all that was asked for was dealt with."""
        return (self.until is not None and self.position >= self.until) or self.left == 0
