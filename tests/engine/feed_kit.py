"""Readers without a network, random histories, and what a feed promises, checked.

`Collector` is a sink that can be stopped; `History` writes at random and keeps the text of the state
at every revision; `check` holds what a reader got against it.
"""

import asyncio
import random
from collections.abc import Hashable
from typing import Any

from kantad.engine.engine import Engine
from kantad.engine.filter import Filter
from kantad.engine.proposal import Proposal
from kantad.engine.reader import Reader
from kantad.values.content import MISSING, copied, decode_json, encode_json, same
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.pointer import Path, lookup
from tests.engine.engine_kit import TIMEOUT, eventually

KEYS = ("a", "b", "$c", "0", "")


class Lines:
    """An `Encoding`: an event a line."""

    key: Hashable = "lines"

    def changes(self, tails: list[bytes]) -> bytes:
        return b"".join(b'{"event":"change",%b\n' % tail for tail in tails)

    def event(self, kind: str, cursor: bytes, members: bytes) -> bytes:
        return b'{"event":"%b",%b\n' % (kind.encode(), members)


class Collector:
    """A sink: keeps what it is sent; takes `room` more sends while that is not None."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.room: int | None = None
        self.over = False
        self.problem: Problem | None = None
        self.news = asyncio.Event()

    def free(self) -> bool:
        return self.room is None or self.room > 0

    def send(self, data: bytes) -> None:
        assert not self.over
        self.sizes.append(len(data))
        if self.room is not None:
            self.room -= 1
        for line in data.splitlines():
            event = decode_json(line)
            {"heartbeat": self.heartbeats, "end": self.ends}.get(event["event"], self.events).append(event)
        self.news.set()

    def ended(self, problem: Problem | None) -> None:
        assert not self.over
        self.over, self.problem = True, problem
        self.news.set()


class Follower:
    """A reader of an engine from a revision on, and what it got."""

    def __init__(self, engine: Engine, rev: int, filter: Filter = Filter(), **options: Any) -> None:  # noqa: B008
        self.engine, self.start, self.filter = engine, rev, filter
        self.sink = Collector()
        self.reader = Reader(filter, Lines(), self.sink, rev, **options)
        engine.feeds.add(self.reader)

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.sink.events

    @property
    def position(self) -> int:
        return self.engine.feeds.position(self.reader)

    def stall(self, room: int = 0) -> None:
        """Take only so many more sends."""
        self.sink.room = room

    def go_on(self) -> None:
        """Take everything again."""
        self.sink.room = None
        self.engine.feeds.wake(self.reader)

    async def caught_up(self) -> None:
        """Wait until it has dealt with everything that is written."""
        await eventually(lambda: self.sink.over or self.position >= self.engine.written.rev)

    async def over(self) -> None:
        """Wait for its end."""
        await eventually(lambda: self.sink.over)


def check(events: list[dict[str, Any]], texts: list[bytes], path: Path, start: int, until: int) -> None:
    """Applied in order to the value at `start`, the events give the value at each revision; none is for nothing."""
    value = copied(lookup(decode_json(texts[start]), path))
    at = {event["rev"]: event for event in events}
    assert [event["rev"] for event in events] == sorted(at), "in order, each once"
    for rev in range(start + 1, until + 1):
        expected = lookup(decode_json(texts[rev]), path)
        event = at.pop(rev, None)
        if event is None:
            assert path, f"the change {rev} is missing"
        elif event.get("deleted"):
            assert value is not MISSING, f"nothing was deleted by {rev}"
            value = MISSING
            assert "diff" not in event
        else:
            before = copied(value)
            value = apply(value, copied(event["diff"]))
            assert before is MISSING or not same(before, value), f"nothing differs after {rev}"
        assert (value is MISSING) is (expected is MISSING), rev
        assert value is MISSING or same(value, expected), (rev, value, expected)
    assert not at


class History:
    """Random writes to an engine, hard on paths: objects and arrays that come, go, move and are replaced."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.chance = engine, random.Random(seed)
        self.texts = [encode_json(engine.root)]
        self.chains = [engine.chain]

    def value(self, depth: int = 2) -> Any:
        pick = self.chance.random()
        if depth and pick < 0.3:
            return [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        if depth and pick < 0.7:
            return {key: self.value(depth - 1) for key in self.chance.sample(KEYS, self.chance.randrange(4))}
        return self.chance.choice((0, 1, 1.0, True, None, "$x", "y"))

    def path(self) -> Path:
        """A path that exists, or one step beyond."""
        value, path = self.engine.root, ()
        while self.chance.random() < 0.7 and type(value) in (dict, list) and value:
            key = self.chance.choice(list(value) if type(value) is dict else [str(n) for n in range(len(value))])
            value, path = value[key if type(value) is dict else int(key)], (*path, key)
        if self.chance.random() < 0.4:
            path = (*path, self.chance.choice([*KEYS, "-"]))
        return path

    def proposal(self) -> Proposal:
        path, kind = self.path(), self.chance.randrange(8)
        old = lookup(self.engine.root, path)
        if kind == 0 and path:
            return Proposal(path, "delete", action="delete", user="u1")
        if kind <= 2 and type(old) is list:
            gone = sorted(self.chance.sample(range(len(old)), self.chance.randrange(len(old) + 1)), reverse=True)
            body = {"$delete": gone, "$insert": [[self.chance.randrange(len(old) - len(gone) + 1), self.value(1)]]}
            return Proposal(path, "patch", body, action="splice")
        if kind <= 3 and path:
            source = "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in self.path()[:1])
            moves = [{"op": "move", "from": source, "path": "/a/0"}, {"op": "copy", "from": source, "path": "/b"}]
            return Proposal((), "json-patch", [self.chance.choice(moves)], action="move", user="u2")
        if kind == 4:
            return Proposal(path, "patch", {"$replace": self.value()}, action="replace")
        if kind == 5:
            return Proposal(path, "merge", self.value(), action="merge")
        return Proposal(path, "put", self.value() if path else {"a": self.value()}, action="put", user="u1")

    def change(self) -> bool:
        """One more change, if the next proposal makes one."""
        try:
            outcome = self.engine.transact(self.proposal())
        except Problem:
            return False
        if not outcome.changed:
            return False
        self.texts.append(encode_json(self.engine.root))
        self.chains.append(outcome.chain)
        assert outcome.rev == len(self.texts) - 1
        return True

    async def run(self, revisions: int) -> None:
        """So many changes more, some of them written together."""
        until = len(self.texts) + revisions
        while len(self.texts) < until:
            if self.change() and self.chance.random() < 0.3:
                await self.settled()
        await self.settled()

    async def settled(self) -> None:
        """Wait until all of it is durable."""
        await asyncio.wait_for(self.engine.settled("durable", self.engine.rev), TIMEOUT)

    def some_path(self) -> Path:
        """A path that is something at some revision, or nearly."""
        value = decode_json(self.chance.choice(self.texts))
        path: Path = ()
        for _ in range(self.chance.randrange(1, 4)):
            keys: list[str] = list(KEYS)
            if type(value) is dict and value:
                keys = list(value)
            elif type(value) is list:
                keys = [str(n) for n in range(len(value) + 1)]
            path = (*path, self.chance.choice(keys))
            value = lookup(value, path[-1:]) if type(value) in (dict, list) else None
        return path
