"""A feed on this side: a position in the log that is brought on by events, over reconnects, in order and once each.

The position is the cursor of the last event. What is subscribed again goes on behind it, so a feed may
be given up at any moment and taken up again: that is what happens when the connection is lost, and also
when whoever reads the feed does not keep up. Who wants the events is a `Taker`.
"""

from typing import Any, Final, Literal, Protocol

import msgspec

from kanta_client.channel import Channel
from kanta_client.errors import KantaError
from kanta_client.messages import Message, encode

Kind = Literal["change", "snapshot", "reset"]


KINDS: Final[dict[str | None, Kind]] = {"change": "change", "snapshot": "snapshot", "reset": "reset"}


class Filters(msgspec.Struct, frozen=True, omit_defaults=True, rename={"start": "from", "stop": "to"}):
    """What a feed or a listing is of (section 5 of the contract)."""

    path: str = ""
    action: str | None = None
    user: str | None = None
    start: str | None = None
    stop: str | None = None


class Taker(Protocol):
    """Who a feed is for."""

    def take(self, kind: Kind, message: Message, size: int) -> None:
        """An event: a change, or a whole value that comes first or in place of all changes before it."""

    def moved(self) -> None:
        """The position is another one."""

    def failed(self, error: KantaError) -> None:
        """The feed ends."""


class Feed:
    """See the module. With `whole` it begins with the whole value, if it has no position to begin behind."""

    def __init__(
        self, channel: Channel, filters: Filters, taker: Taker, *, since: int | str | None = None, whole: bool = False
    ) -> None:
        self.channel, self.filters, self.taker = channel, filters, taker
        self.since, self.whole = since, whole
        self.rev = -1  # of the position; -1 until there is one
        self.cursor = ""
        self.behind = True
        self.followed = False
        self._goal = 0

    def follow(self) -> None:
        """Begin, or go on; raises `Closed`."""
        if not self.followed:
            self.channel.start()
            self.followed = True  # before it may fail at once
            self.channel.follow(self)

    def leave(self) -> None:
        """Stop for now, or for good."""
        if self.followed:
            self.followed = False
            self.channel.unfollow(self)

    # -- what the channel asks of a follower

    def request(self, id: int) -> bytes:
        """See `Follower`."""
        self.behind = True
        return encode({"id": id, "op": "subscribe", **self._members(), "value": self.whole})

    def _members(self) -> dict[str, Any]:
        since = {} if self.since is None else {"since": self.since}
        return {**msgspec.to_builtins(self.filters), **since}

    def begun(self, answer: Message) -> None:
        """See `Follower`."""
        if answer.value is not msgspec.UNSET or answer.deleted:
            self.heard(answer, 0, "reset" if answer.reset else "snapshot")
        elif self.rev < 0:
            self._at(answer)
        if answer.rev >= self.channel.rev:
            self._caught_up()
        else:
            self._ask_for_goal({})

    def heard(self, event: Message, size: int, kind: Kind | None = None) -> None:
        """See `Follower`."""
        kind = kind or KINDS.get(event.event)
        if kind == "change" and event.rev <= self.rev:
            return  # it was taken already
        if kind is not None or (event.event == "heartbeat" and event.rev > self.rev):
            self._at(event)
        if kind is not None:
            self.taker.take(kind, event, size)
        if self.behind and self.rev >= self._goal > 0:
            self._caught_up()

    def failed(self, error: KantaError) -> None:
        """See `Follower`."""
        self.followed = False
        self.taker.failed(error)

    def _at(self, message: Message) -> None:
        self.rev, self.cursor = message.rev, message.cursor
        self.since = message.cursor
        self.taker.moved()

    # -- whether it has caught up

    def _ask_for_goal(self, until: dict[str, Any]) -> None:
        """Ask which change is the last one that is yet to come: with filters, no event may ever tell."""
        self._goal = 0
        members = {**self._members(), **until, "order": "desc", "limit": 1}
        self.channel.tell({"op": "changes", **members}, self._told)

    def _told(self, answer: Message) -> None:
        if not answer.changes and answer.next is not None:  # the server has not searched all of it
            if self.behind and self.followed:
                self._ask_for_goal({"until": answer.next})
            return
        self._goal = answer.changes[0].rev if answer.changes else 0
        if self.rev >= self._goal:
            self._caught_up()

    def _caught_up(self) -> None:
        self.behind = False
        self.channel.settle()
