"""Mirrors and subscriptions through cuts and kills, held against the log at every revision that they pass."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from kanta_client import Change, KantaClient, Mirror

from kantad.values.content import MISSING, copied
from kantad.values.patch import apply
from kantad.values.pointer import lookup, parse
from tests.client.storm import Run, Storm, meanwhile, storm


class User(msgspec.Struct):
    name: str
    n: int = 0
    tags: list[str] = []
    more: dict[str, int] = {}


class Everything(msgspec.Struct):
    users: dict[str, User] = {}
    counters: dict[str, int] = {}
    lists: dict[str, list[int]] = {}


PLACES: list[tuple[str, Any]] = [
    ("", None),
    ("", Everything),
    ("/users", None),
    ("/users", dict[str, User]),
    ("/users/u1", None),
    ("/users/u1", User),
    ("/users/u2/more", dict[str, int]),
    ("/counters", None),
    ("/counters/c1", int),
    ("/lists/a", None),
    ("/lists/a", list[int]),
    ("/nothing/there", None),
]


def shown(value: Any) -> str:
    """A value as text that is equal where the value is."""
    return "-" if value is MISSING else json.dumps(msgspec.to_builtins(value, str_keys=True), sort_keys=True)


class Witness:
    """What one mirror, or one subscription, has seen: revision, kind, and the value then."""

    def __init__(self, path: str, type: Any) -> None:
        self.path, self.type = path, type
        self.seen: list[tuple[int, str, str]] = []

    def saw(self, rev: int, kind: str, value: Any) -> None:
        self.seen.append((rev, kind, shown(value)))

    def watch(self, mirror: Mirror[Any]) -> None:
        """Note what it begins with, and every change."""
        self.saw(mirror.rev, "snapshot", mirror.value if mirror.exists else MISSING)

        def changed(change: Change) -> None:
            self.saw(change.rev, change.kind, mirror.value if mirror.exists else MISSING)

        mirror.on_change(changed)

    async def read(self, db: KantaClient, until: asyncio.Event) -> None:
        """Note what a subscription tells, until cancelled."""
        async with db.subscribe(self.path, value=True, type=self.type) as changes:
            async for change in changes:
                gone = change.deleted or (change.kind != "change" and change.value is None)
                self.saw(change.rev, change.kind, MISSING if gone else change.value)
                until.set()

    def check(self, model: list[dict[str, str]]) -> None:
        """Every value is that of its revision, and no revision with another value was left out."""
        of_path = [values[self.key] for values in model]
        assert self.seen, self.path
        assert [kind for _, kind, _ in self.seen[1:] if kind != "change"] == []
        for rev, _, text in self.seen:
            assert text == of_path[rev], (self.path, self.type, rev)
        revs = [rev for rev, _, _ in self.seen]
        first = revs[0]
        expected = [rev for rev in self.revs(model) if rev > first]
        assert revs == [first, *expected], (self.path, self.type)

    def revs(self, model: list[dict[str, str]]) -> list[int]:
        """The revisions that changed the value at the path."""
        raw = [values[f"{self.path} None"] for values in model]
        return [rev for rev in range(1, len(raw)) if raw[rev] != raw[rev - 1]]

    @property
    def key(self) -> str:
        return f"{self.path} {self.type}"


def modelled(changes: list[Change]) -> list[dict[str, str]]:
    """The value of each place at each revision, as its type shows it."""
    model: list[dict[str, str]] = []
    root: Any = {}
    for change in (None, *changes):
        if change is not None:
            assert change.rev == len(model)
            root = apply(root, copied(change.patch))
        values = {}
        for path, type in PLACES:
            value = lookup(root, parse(path))
            typed = value if value is MISSING or type is None else msgspec.convert(value, type, str_keys=True)
            values[f"{path} None"] = shown(value)
            values[f"{path} {type}"] = shown(typed)
        model.append(values)
    return model


async def change_something(db: KantaClient, dice: random.Random, number: int) -> None:
    name = f"u{dice.randrange(5)}"
    match dice.randrange(9):
        case 0 | 1:
            user = User(f"name {number}", number, ["a"] * dice.randrange(3), {"x": number})
            await db.set(f"/users/{name}", user)
        case 2:
            await db.patch("/users", {"$delete": [name]})
        case 3:
            await db.patch("/users", {name: {"name": "patched", "more": {f"m{dice.randrange(4)}": number}}})
        case 4 | 5:
            await db.update(f"/counters/c{dice.randrange(3)}", lambda value: (value or 0) + 1)
        case 6:
            await db.append("/lists/a", number)
        case 7:
            both = {"counters": {"c1": number}, "users": {"u1": {"name": "both", "n": number}}}
            await db.transact(both)
        case _:
            await db.set("/lists", {"a": [number] * dice.randrange(5)})


async def watchers(raging: Storm, urls: list[str], count: int, stack: AsyncExitStack) -> AsyncIterator[Witness]:
    """Mirrors, all entered; each fifth of the clients has a fifth of them."""
    dbs = [await stack.enter_async_context(raging.client(url)) for url in urls]
    for number in range(count):
        path, type = PLACES[number % len(PLACES)]
        mirror = dbs[number % len(dbs)].mirror(path, type=type)
        witness = Witness(path, type)
        await stack.enter_async_context(mirror)
        witness.watch(mirror)
        MIRRORS.append(mirror)
        yield witness


MIRRORS: list[Mirror[Any]] = []


async def equal(run: Run, mirrors: int, changes: int, every: float, cuts: float) -> None:
    MIRRORS.clear()
    dice = random.Random(7)
    async with storm(run, 11, every=every, cuts=cuts) as (raging, proxies), AsyncExitStack() as stack:
        urls = ["", *[proxy.url for proxy in proxies]]
        writing = [await stack.enter_async_context(raging.client(url)) for url in urls]
        await change_something(writing[0], dice, 0)
        witnesses = [witness async for witness in watchers(raging, urls, mirrors, stack)]
        readers = [Witness(path, type) for path, type in PLACES]
        begun = [asyncio.Event() for _ in readers]
        reading = [reader.read(writing[number % 5], begun[number]) for number, reader in enumerate(readers)]
        async with meanwhile(*reading):
            await asyncio.gather(*[each.wait() for each in begun])
            for number in range(0, changes, 10):
                jobs = [change_something(dice.choice(writing), dice, number + more) for more in range(10)]
                await asyncio.gather(*jobs)
            last = await writing[0].set("/end", True)
            await asyncio.gather(*[mirror.at_least(last, 60.0) for mirror in MIRRORS])
            log = [change async for change in writing[0].history()]
            model = modelled(log)
            ends = [_last(model, reader) for reader in readers]
            async with asyncio.timeout(60):
                while any(reader.seen[-1][0] < end for reader, end in zip(readers, ends, strict=True)):
                    await asyncio.sleep(0.02)
    assert len(model) == last.rev + 1 > changes // 2
    for witness in (*witnesses, *readers):
        witness.check(model)
    passed = sum(len(witness.seen) for witness in witnesses)
    print(f"{mirrors} mirrors, {last.rev} revisions, {passed} values compared, {raging.kills} kills, ", end="")
    print(f"{sum(proxy.cuts for proxy in proxies)} cuts")


def _last(model: list[dict[str, str]], reader: Witness) -> int:
    """The last revision that a reader has to hear of."""
    return max([rev for rev in reader.revs(model) if rev > reader.seen[0][0]], default=reader.seen[0][0])


async def test_mirrors_and_subscriptions_equal_the_log_at_every_revision(run: Run) -> None:
    await equal(run, mirrors=24, changes=200, every=1.0, cuts=0.3)


@pytest.mark.long
async def test_a_hundred_mirrors_equal_the_log_at_every_revision(run: Run) -> None:
    await equal(run, mirrors=100, changes=3_000, every=3.0, cuts=0.5)
