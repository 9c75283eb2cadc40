"""The requests of a connection that have no answer yet: to be sent, sent, or to be sent again after a while.

A request is in one of three places. The *outbox* holds what is to be sent, oldest first; *pending*
what was sent, in the order of sending; *resting* what the server asked to have sent again later.
Whoever gave up on a request has cancelled its future: it is dropped wherever it is come across.
Pure: the clock is given, nothing waits here.
"""

from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Final

from kanta_client.backoff import Backoff
from kanta_client.errors import TRY_AGAIN, KantaError, UnknownOutcome, Unreachable, refusal, settled
from kanta_client.messages import Message
from kanta_client.outcome import remembered

IN_FLIGHT: Final = 1000  # requests without an answer; the server reads no further at 1,024
LENGTH: Final = 256 << 10  # bytes of requests joined to one message; one alone may be longer


class Asked:
    """A request: its bytes, and what is known of it. `key` is the idempotency key of a write."""

    __slots__ = ("body", "deadline", "doubted", "due", "floor", "future", "id", "key", "refused", "take", "unknown")

    def __init__(self, id: int, body: bytes, key: str | None, future: "Future[Message]", deadline: float) -> None:
        self.id, self.body, self.key, self.future, self.deadline = id, body, key, future, deadline
        self.floor = 0  # a revision that was known when it was sent first: no attempt was committed before
        self.doubted = False  # whether an attempt before the present one may have been done
        self.unknown = False  # whether any attempt may have been done
        self.due = 0.0  # when its rest is over
        self.refused: Backoff | None = None
        self.take: Callable[[Message], None] | None = None  # the connection's own: told at once, not by the future


class Book:
    """See the module."""

    def __init__(self) -> None:
        self.outbox: deque[Asked] = deque()
        self.pending: dict[int, Asked] = {}
        self.resting: list[Asked] = []
        self.length = LENGTH
        self.suspects: list[Asked] = []  # one of them is too large for the server: one a message, one at a time

    def batch(self, rev: int) -> list[Asked]:
        """What goes into the next message, now pending; `rev` is the newest revision heard of.

        It ends before a write whose key the server may have forgotten: see `doubtful`.
        """
        batch: list[Asked] = []
        outbox, pending = self.outbox, self.pending
        if self.suspects:
            self.suspects = [asked for asked in self.suspects if not asked.future.done()]
        room = IN_FLIGHT - len(pending) if not self.suspects else 0 if pending else 1
        size = 0
        while outbox and len(batch) < room:
            asked = outbox[0]
            size += len(asked.body)
            if (size > self.length and batch) or forgotten(asked, rev):
                break
            outbox.popleft()
            if not asked.future.done():
                batch.append(asked)
                self.send(asked, rev)
        return batch

    def send(self, asked: Asked, rev: int) -> None:
        """A request is being sent."""
        if not asked.doubted:
            asked.floor = rev
        asked.unknown = asked.key is not None
        self.pending[asked.id] = asked

    def doubtful(self, rev: int) -> list[Asked]:
        """The writes that may not be sent again before it is known whether they were done; none if others go first."""
        if not self.outbox or not forgotten(self.outbox[0], rev):
            return []
        return [asked for asked in self.outbox if forgotten(asked, rev)]

    def answered(self, message: Message, now: float) -> None:
        """An answer: to what is pending, unless it says that it should be tried again."""
        asked = self.pending.pop(message.id, None)  # type: ignore[arg-type]  # another type is no key of it
        if asked is None:
            return
        if asked.take is not None:
            asked.take(message)
            if not asked.future.done():
                asked.future.set_result(message)
        elif asked.future.done():
            return
        elif message.error is None:
            asked.future.set_result(message)
        elif message.error.get("code") not in TRY_AGAIN:
            asked.future.set_exception(settled(message.error, asked.key, asked.doubted))
        else:  # which may come before the key is looked at: it says nothing of earlier attempts
            asked.doubted = asked.unknown = asked.doubted or message.error.get("outcome") == "unknown"
            asked.refused = asked.refused or Backoff(0.1)
            asked.due = now + asked.refused.next()
            self.resting.append(asked)

    def lost(self) -> None:
        """The connection is lost: what was pending goes to the front of the outbox, in its order."""
        again = [asked for asked in self.pending.values() if asked.take is None and not asked.future.done()]
        for asked in again:
            asked.doubted = asked.unknown
        for asked in (*self.pending.values(), *self.outbox):
            if asked.take is not None:
                asked.future.cancel()
        self.pending.clear()
        later = [asked for asked in self.outbox if asked.take is None]
        self.outbox.clear()
        self.outbox.extend(again + later)

    def too_large(self) -> None:
        """The server closed a connection because of a message's length: find out which request it is, and refuse it."""
        sent = [asked for asked in self.pending.values() if asked.take is None]
        if len(sent) == 1:
            [asked] = sent
            self.length = LENGTH  # so it was not the joining
            if asked.future.done():
                return
            detail = f"a request of {len(asked.body)} bytes is longer than the server takes (its --max-body)"
            asked.future.set_exception(refusal({"code": "too_large", "status": 413, "detail": detail}))
        else:
            self.suspects = [asked for asked in sent if not asked.future.done()]
            self.length = max(self.length // 2, 1024)

    def tick(self, now: float, trouble: str) -> bool:
        """Fail what is past its deadline; whether anything's rest is over and it has gone back to the outbox."""
        for asked in (*self.outbox, *self.pending.values(), *self.resting):
            if asked.deadline <= now and not asked.future.done():
                asked.future.set_exception(too_late(asked, trouble))
        if any(asked.future.done() for asked in self.outbox):  # else they are kept for as long as there is no server
            self.outbox = deque(asked for asked in self.outbox if not asked.future.done())
        due = [asked for asked in self.resting if asked.due <= now]
        if due:
            self.resting = [asked for asked in self.resting if asked.due > now]
            self.outbox.extendleft(asked for asked in reversed(due) if not asked.future.done())
        return bool(due)

    def fail(self, error: Callable[[Asked], KantaError]) -> None:
        """Fail everything."""
        everything = [*self.outbox, *self.pending.values(), *self.resting]
        self.outbox.clear()
        self.pending.clear()
        self.resting.clear()
        for asked in everything:
            if asked.take is None and not asked.future.done():  # nobody waits for those of the connection's own
                asked.future.set_exception(error(asked))


def forgotten(asked: Asked, rev: int) -> bool:
    """Whether it may have been done so long ago that the server does not know its key any more."""
    return asked.doubted and not asked.future.done() and not remembered(asked.floor, rev)


def too_late(asked: Asked, trouble: str) -> KantaError:
    """The error of a request that is given up without an answer."""
    if asked.unknown and asked.key is not None:
        return UnknownOutcome(f"there is no answer, it may be done or not: {trouble}", asked.key)
    return Unreachable(f"there is no answer, nothing was done: {trouble}")
