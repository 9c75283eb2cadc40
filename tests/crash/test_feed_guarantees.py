"""What etcd promises of a watch, held of every kind of feed while the server is killed again and again.

Readers of all kinds and paths are cut off at random, read slowly at random, and resume from what
they were told last. Afterwards the file is the judge: each reader's events must be its changes.
One validator each: ordered, unique, reliable, atomic, resumable, bookmarkable.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from kantad.values.content import MISSING, copied, encode_json, same
from kantad.values.patch import apply
from kantad.values.pointer import Path as Pointer
from kantad.values.pointer import format, lookup
from tests.crash.process_kit import LOST, Process, changes
from tests.engine.feed_kit import check
from tests.serving import Wire
from tests.web.stream_kit import NDJSON, SSE, Feed
from tests.web.ws_kit import Closed, Peer

CUT: Final = (*LOST, EOFError, Closed, TimeoutError)  # how a connection ends
PATHS: Final[list[Pointer]] = [
    (),
    ("pairs",),
    ("pairs", "p1"),
    ("list", "0"),
    ("list",),
    ("boxes", "b0", "x"),
    ("never",),
]


class Bed:
    """The server that is killed and started again, and the writers that go on."""

    def __init__(self, path: str, seed: int, *flags: str) -> None:
        self.path, self.flags, self.chance = path, flags, random.Random(seed)
        self.process: Process | None = None
        self.up = asyncio.Event()
        self.over = False
        self.acknowledged = 0
        self.news = asyncio.Event()

    async def start(self) -> None:
        self.process = await Process(self.path, *self.flags).start()
        self.up.set()

    async def kill(self) -> None:
        assert self.process is not None
        self.up.clear()
        await self.process.kill()

    async def written(self, more: int) -> None:
        """Wait for so many acknowledged changes more."""
        until = self.acknowledged + more
        while self.acknowledged < until:
            self.news.clear()
            await self.news.wait()

    def transaction(self, number: int) -> Any:
        """A change of several places at once; both of a pair are always equal."""
        chance = self.chance
        box = f"b{chance.randrange(3)}"
        return chance.choice(
            [
                {"pairs": {f"p{chance.randrange(3)}": {"left": number, "right": number}}},
                {"boxes": {box: {"x": number}}},
                {"boxes": {"$delete": [box]}},
                {"boxes": {"$replace": {box: {"x": number % 7, "y": []}}}},
                {"list": [number, number + 1, {"n": number}][: chance.randrange(4)]},
                {"list": {"$insert": [[0, number]]}},
                {"list": {"$delete": [0]}},
            ]
        )

    async def write(self) -> None:
        """Write until it is over, one request after another."""
        number = 0
        while not self.over:
            await self.up.wait()
            assert self.process is not None
            with contextlib.suppress(*CUT):
                client = await self.process.client()
                while not self.over:
                    number += 1
                    answer = await client.ask("PATCH", "/v1/data", self.transaction(number))
                    assert answer.status in (200, 409), answer  # a list edit may not fit
                    self.acknowledged += answer.status == 200
                    self.news.set()
                    await asyncio.sleep(0.002)


class Watcher:
    """One reader: a kind of feed and a path, and all that it was told, whatever cut it off."""

    def __init__(self, bed: Bed, kind: str, path: Pointer, whole: bool, seed: int) -> None:
        self.bed, self.kind, self.path, self.whole = bed, kind, path, whole
        self.chance = random.Random(seed)
        self.value: Any = MISSING
        self.start: int | None = None if whole else 0
        self.events: list[dict[str, Any]] = []
        self.bookmarks: list[tuple[int, int, str]] = []  # a revision, how many events came before it, its cursor
        self.position: tuple[int, str] | None = None
        self.resumed = 0
        self.ended = False

    async def watch(self, last: "asyncio.Future[int]") -> None:
        """Read until all is written, then up to the last revision."""
        while not last.done():
            await self.bed.up.wait()
            session = asyncio.ensure_future(self._session(None))
            await asyncio.wait({session, last}, return_when=asyncio.FIRST_COMPLETED)
            session.cancel()
            with contextlib.suppress(asyncio.CancelledError, *CUT):
                await session
            self.resumed += 1
        while not self.ended and (self.position is None or self.position[0] < last.result()):
            await self._session(last.result())

    async def _session(self, until: int | None) -> None:
        assert self.bed.process is not None
        wire = await Wire.to(self.bed.process.port)
        left = self.chance.randrange(1, 200)
        try:
            async for event in self._events(wire, until):
                self._take(event)
                left -= 1
                if self.ended or (left == 0 and until is None):
                    return
                if self.chance.random() < 0.02:
                    await asyncio.sleep(self.chance.random() * 0.05)  # a reader that dawdles
        finally:
            await wire.close()

    async def _events(self, wire: Wire, until: int | None) -> AsyncIterator[dict[str, Any]]:
        """The events of one connection, resumed from the last position."""
        since = None if self.position is None else self.position[1]
        asked: dict[str, Any] = {"path": format(self.path), "value": self.whole}
        if since or not self.whole:
            asked["since"] = since or 0
        if until is not None:
            asked["until"] = until
        if self.kind in (SSE, NDJSON):
            query = urlencode({**asked, "value": str(self.whole).lower()})
            headers = (f"Last-Event-ID: {since}",) if since and self.kind == SSE else ()
            feed = await Feed.on(wire, query, self.kind, *headers)
            while True:
                kind, _, members = await feed.event()
                yield {"event": kind, **members}
        peer = await Peer.on(wire, msgpack=self.kind == "msgpack")
        answer = await peer.ask("subscribe", **asked)
        assert "error" not in answer, answer
        fresh = "value" in answer or "deleted" in answer
        yield {**answer, "event": "snapshot" if fresh else "heartbeat"}
        while True:
            yield await peer.any_event()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "error":
            assert event["code"] == "shutting_down", event
            return
        assert kind in ("snapshot", "heartbeat", "change", "end"), event
        self.ended = kind == "end"
        self.position = (event["rev"], event["cursor"])
        if kind == "snapshot":
            assert self.start is None, "a whole value in the middle"
            self.start, self.value = event["rev"], event.get("value", MISSING)
        elif kind in ("heartbeat", "end"):
            self.bookmarks.append((event["rev"], len(self.events), event["cursor"]))
        else:
            self.events.append(event)


# -- the validators


def ordered(watcher: Watcher) -> None:
    revs = [event["rev"] for event in watcher.events]
    assert revs == sorted(revs)


def unique(watcher: Watcher) -> None:
    revs = [event["rev"] for event in watcher.events]
    assert len(revs) == len(set(revs))


def reliable(watcher: Watcher, texts: list[bytes], chains: list[str], states: list[Any]) -> None:
    """Every change of the path, exactly, and nothing that is not in the file."""
    assert watcher.start is not None
    if watcher.whole:
        expected = lookup(states[watcher.start], watcher.path)
        assert (expected is MISSING) is (watcher.value is MISSING)
        assert expected is MISSING or same(expected, watcher.value)
    check(watcher.events, texts, watcher.path, watcher.start, len(texts) - 1)
    assert all(event["cursor"] == f"{event['rev']}-{chains[event['rev']]}" for event in watcher.events)


def atomic(watcher: Watcher) -> None:
    """What is changed together is seen together: never half a pair."""
    if watcher.path not in ((), ("pairs",)) or watcher.whole:
        return
    value: Any = {}
    for event in watcher.events:
        value = {} if event.get("deleted") else apply(value, copied(event["diff"]))
        pairs = value.get("pairs", {}) if watcher.path == () else value
        assert all(pair["left"] == pair["right"] for pair in pairs.values())


def bookmarkable(watcher: Watcher, chains: list[str]) -> None:
    """What a position says is behind the reader does not come any more, and what is not said comes."""
    for rev, count, cursor in watcher.bookmarks:
        assert cursor == f"{rev}-{chains[rev]}"
        assert all(event["rev"] <= rev for event in watcher.events[:count])
        assert all(event["rev"] > rev for event in watcher.events[count:])


async def guaranteed(path: str, readers: int, kills: int, changes_between: int, *flags: str) -> None:
    bed = Bed(path, kills, *flags)
    await bed.start()
    assert bed.process is not None
    assert (await bed.process.ask("PUT", "/v1/data", {"list": [], "boxes": {}, "pairs": {}})).status == 200
    kinds = [SSE, NDJSON, "json", "msgpack"]
    watchers = [
        Watcher(bed, kinds[n % 4], PATHS[n // 2 % len(PATHS)], whole=n % 3 == 0, seed=n) for n in range(readers)
    ]
    last: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watcher.watch(last))
        writers = [group.create_task(bed.write()) for _ in range(3)]
        for number in range(kills):
            await bed.written(changes_between)
            if number % 3 == 1:
                await bed.process.ask("POST", "/v1/snapshot")
            await bed.kill()
            await bed.start()
        await bed.written(changes_between)
        bed.over = True
        await asyncio.gather(*writers)
        answer = await bed.process.ask("PATCH", "/v1/data", {"list": ["last"], "boxes": {"b0": {"x": "last"}}})
        last.set_result(answer.body["rev"])
    assert await bed.process.stop() == 0
    judge(path, watchers)


def judge(path: str, watchers: list[Watcher]) -> None:
    states: list[Any] = [{}]
    chains = ["0" * 16]
    for record in changes(path).values():
        states.append(apply(copied(states[-1]), copied(record.diff)))
        assert record.h is not None
        chains.append(record.h)
    texts = [encode_json(state) for state in states]
    for watcher in watchers:
        ordered(watcher)
        unique(watcher)
        reliable(watcher, texts, chains, states)
        atomic(watcher)
        bookmarkable(watcher, chains)
    assert sum(watcher.resumed for watcher in watchers) > 3 * len(watchers), "resumable: nobody had to resume"
    print(len(states) - 1, "changes,", sum(len(watcher.events) for watcher in watchers), "events")


@pytest.mark.parametrize("kind", ["json", "msgpack"])
async def test_twelve_readers_miss_nothing_over_three_kills(tmp_path: Path, kind: str) -> None:
    await guaranteed(str(tmp_path / "data.kantadb"), 14, 3, 150, "--format", kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["json", "msgpack"])
async def test_a_hundred_readers_miss_nothing_over_twenty_five_kills(tmp_path: Path, kind: str) -> None:
    await guaranteed(str(tmp_path / "data.kantadb"), 100, 25, 400, "--format", kind)
