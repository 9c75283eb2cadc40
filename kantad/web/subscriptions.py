"""The subscriptions of one WebSocket: each a reader of the feeds whose sink is the connection.

They share the connection fairly: who finds it full waits in line until it has room again.
"""

from itertools import count
from typing import TYPE_CHECKING

from kantad.engine.engine import Engine
from kantad.engine.reader import Reader
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.web.changes import Start
from kantad.web.tongue import Events, Id, Subscribe, problem_members

if TYPE_CHECKING:
    from kantad.web.session import Session


class Subscription:
    """One of them; a `Sink`."""

    __slots__ = ("events", "id", "reader", "subscriptions")

    def __init__(self, subscriptions: "Subscriptions", id: Id, events: Events) -> None:
        self.subscriptions, self.id, self.events = subscriptions, id, events
        self.reader: Reader | None = None

    def free(self) -> bool:
        """See `Sink`."""
        owner = self.subscriptions
        if not owner.session.connection.writing_paused:
            return True
        if self.reader is not None:
            owner.line[self.reader] = None
        return False

    def send(self, data: bytes) -> None:
        """See `Sink`."""
        self.subscriptions.session.connection.write(data)

    def ended(self, problem: Problem | None) -> None:
        """See `Sink`."""
        self.subscriptions.by_id.pop(self.id, None)
        if problem is not None:
            self.send(self.events.event("error", b"", problem_members(problem)))


class Subscriptions:
    """See the module."""

    __slots__ = ("by_id", "engine", "line", "session", "starting", "unwanted")

    def __init__(self, engine: Engine, session: "Session") -> None:
        self.engine, self.session = engine, session
        self.by_id: dict[Id, Subscription] = {}
        self.line: dict[Reader, None] = {}  # who waits for room, each once, however often it is asked
        self.starting: list[Id] = []  # requests whose place in the log is being looked for
        self.unwanted: set[Id] = set()  # those of them that were unsubscribed meanwhile

    def check_room(self) -> None:
        """Raise the `Problem` of one too many."""
        most = self.session.limits.max_subscriptions
        if len(self.by_id) + len(self.starting) >= most:
            raise Problem("too_many", f"a connection has at most {most} subscriptions (--max-subscriptions)")

    def start(self, asked: Subscribe, start: Start) -> None:
        """Answer a `subscribe`, and let its events follow."""
        session, engine = self.session, self.engine
        sub: Id = asked.id
        if sub in self.by_id:
            sub = next(number for number in count(1) if number not in self.by_id)
        subscription = Subscription(self, sub, session.tongue.events(sub))
        position = start.position(engine)
        reader = Reader(
            start.filter,
            subscription.events,
            subscription,
            position,
            until=start.until,
            left=asked.limit,
            whole=asked.value,
        )
        reader.mark = (start.cursor or "").encode()
        subscription.reader = reader
        self.by_id[sub] = subscription
        session.answer(asked.id, self._members(sub, position, start))  # events come behind it
        engine.feeds.add(reader)
        if sub == asked.id and sub in self.unwanted:
            self.stop(sub)

    def _members(self, sub: Id, position: int, start: Start) -> bytes:
        """The answer: where the feed begins, and what is there, if that was asked for."""
        shown = b"}"
        if start.whole:
            body = self.engine.encoded_now(start.filter.path)
            shown = b',"deleted":true}' if body is None else b',"value":%b}' % body
            shown = b',"reset":true' + shown if start.reset else shown
        cursor = self.engine.written.cursor if start.cursor is None else start.cursor
        return b'"sub":%b,"rev":%d,"cursor":"%b"%b' % (encode_json(sub), position, cursor.encode(), shown)

    def begun(self, id: Id) -> None:
        """A request no longer looks for its place."""
        self.starting.remove(id)
        self.unwanted.discard(id)

    def stop(self, sub: Id) -> None:
        """Follow no more, also where it has not begun yet; raises `Problem("not_found")`."""
        subscription = self.by_id.pop(sub, None)
        if subscription is None and sub in self.starting and sub not in self.unwanted:
            self.unwanted.add(sub)
            return
        if subscription is None or subscription.reader is None:
            raise Problem("not_found", "there is no such subscription")
        self.engine.feeds.remove(subscription.reader)

    def resumed(self) -> None:
        """The connection has room: serve who waited longest first."""
        line, self.line = self.line, {}
        for reader in line:
            self.engine.feeds.wake(reader)

    def end(self) -> None:
        """All of them."""
        for subscription in self.by_id.values():
            if subscription.reader is not None:
                self.engine.feeds.remove(subscription.reader)
        self.by_id.clear()
        self.line.clear()
