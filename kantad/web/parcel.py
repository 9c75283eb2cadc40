"""The requests of one WebSocket message, and the answers that leave together.

What waits for nothing is sent when all requests are handled, or when it comes to `MOST_ANSWERS`, so that
a short message cannot ask for more than memory holds; the answers of writes leave in one message when
the last of them is acknowledged. Messages of one plain write each that arrived together are handled as
one, too, and answered in a message each.
"""

from typing import TYPE_CHECKING, Any, Final

from kantad.engine.pending import Batch
from kantad.engine.proposal import Ack
from kantad.values.errors import Problem
from kantad.web.tongue import Requests, problem_members

if TYPE_CHECKING:
    from kantad.web.session import Session

MOST_ANSWERS: Final = 256 << 10  # bytes of answers that wait for the rest of their message


class Parcel:
    """The requests of one message: how far they are handled, and the answers that leave together.

    `singly`: they are plain writes, of a message each, and so are their answers.
    """

    __slots__ = ("left", "now", "parts", "place", "requests", "session", "singly", "size")

    def __init__(self, session: "Session", requests: Requests, singly: bool = False) -> None:
        self.session, self.requests, self.singly = session, requests, singly
        self.place = 0  # of the next to be handled
        self.now: list[Any] = []  # answers that wait for nothing
        self.size = 0  # bytes of answers since some were sent
        self.parts: list[Part] = []  # answers of plain writes
        self.left = 1  # what these wait for: their batches, and that all requests are handled

    def wait(self, batch: Batch, pieces: list[Any]) -> None:
        """Answer writes when their batch is durable."""
        part = Part(self, pieces)
        self.parts.append(part)
        self.left += 1
        batch.answers.append((part, b""))

    def wait_for(self, ack: Ack | None, rev: int, piece: Any) -> bool:
        """Answer another write when a revision is acknowledged; False where that is now."""
        last = self.parts[-1] if self.parts else None
        if last is not None and last.waits_for == (ack, rev):
            last.pieces.append(piece)
            return True
        part = Part(self, [piece])
        part.waits_for = (ack, rev)
        if not self.session.engine.settle_when(ack, rev, part.settle):
            self.now.append(piece)
            return False
        self.parts.append(part)
        self.left += 1
        return True

    @property
    def full(self) -> bool:
        """Whether there are answers enough for now."""
        return self.size > MOST_ANSWERS

    def relieve(self) -> None:
        """Send the answers that wait for nothing."""
        now, self.now, self.size = self.now, [], 0
        if now:
            self.session.send(now, self.singly)

    def finished(self) -> None:
        """All of them are handled."""
        self.requests = []
        self.relieve()
        self.one_less()

    def one_less(self) -> None:
        """One thing less to wait for."""
        self.left -= 1
        if not self.left and self.parts:
            parts, self.parts = self.parts, []  # which know their parcel: nothing is left for the collector
            pieces = parts[0].pieces if len(parts) == 1 else [piece for part in parts for piece in part.pieces]
            self.session.send(pieces, self.singly)


class Part:
    """Writes of one message that are settled together: the plain ones of one batch, or another one; an `Answering`."""

    __slots__ = ("parcel", "pieces", "waits_for")

    def __init__(self, parcel: Parcel, pieces: list[Any]) -> None:
        self.parcel, self.pieces = parcel, pieces
        self.waits_for: tuple[Ack | None, int] | None = None  # the acknowledgement of a revision, not a batch

    def settled(self, data: bytes) -> None:
        """See `Answering`."""
        self.parcel.one_less()
        self.parcel.session.told(len(self.pieces))

    def refused(self, problem: Problem, data: bytes) -> None:
        """See `Answering`."""
        tongue, members = self.parcel.session.tongue, problem_members(problem)
        self.pieces = [tongue.answer(tongue.id_of(piece), members) for piece in self.pieces]
        self.settled(b"")

    def settle(self, error: Exception | None) -> None:
        """See `Settle`."""
        if error is None:
            self.settled(b"")
        else:
            unknown = Problem("unavailable", "whether the change was stored is not known")
            self.refused(error if isinstance(error, Problem) else unknown, b"")
