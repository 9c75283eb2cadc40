"""Random proposals, failures and restarts against a plain dict.

The model keeps the JSON text of the state at every revision. What an edit should make of a state
is computed here on its own (copy, then change), in a few plain lines; after each step the engine's
pending and visible states, revision, chain and keys must agree with it.
"""

import asyncio
import copy
import random
import shutil
from dataclasses import replace
from typing import Any

import jsondiff
import pytest

from kantad.engine.engine import Engine, settling
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Condition, Outcome, Proposal
from kantad.values.content import MISSING, decode_json, encode_json
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.pointer import format, lookup, parse
from tests.engine.engine_kit import TIMEOUT, Database, seen

KEYS = ["a", "b", "c", "$d", "1", "deep~/key", ""]


def copied(value: Any) -> Any:
    """A copy of a value, or MISSING."""
    return value if value is MISSING else copy.deepcopy(value)


def own(asked: Proposal) -> Proposal:
    """The proposal with a body of its own."""
    return replace(asked, body=copied(asked.body))


class Refused(Exception):
    """The model says that an edit does not fit."""


def ancestors(root: Any, path: tuple[str, ...], make: bool) -> Any:
    """The container that holds the last key of a path, in place."""
    value = root
    for key in path[:-1]:
        if type(value) is dict:
            if key not in value:
                if not make:
                    raise Refused
                value[key] = {}
            value = value[key]
        elif type(value) is list and key.isdigit() and int(key) < len(value) and str(int(key)) == key:
            value = value[int(key)]
        else:
            raise Refused
    return value


def set_at(root: Any, path: tuple[str, ...], new: Any) -> Any:
    if not path:
        if type(new) is not dict:
            raise Refused
        return new
    holder = ancestors(root, path, True)
    key = path[-1]
    if type(holder) is dict:
        holder[key] = new
    elif type(holder) is list and key == "-":
        holder.append(new)
    elif type(holder) is list and key.isdigit() and str(int(key)) == key and int(key) < len(holder):
        holder[int(key)] = new
    else:
        raise Refused
    return root


def delete_at(root: Any, path: tuple[str, ...]) -> Any:
    if lookup(root, path) is MISSING:
        raise Refused
    holder = ancestors(root, path, False)
    del holder[int(path[-1]) if type(holder) is list else path[-1]]
    return root


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, word for word."""
    if type(patch) is not dict:
        return patch
    target = target if type(target) is dict else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge(target.get(name), value)
    return target


def expected(root: Any, asked: Proposal, child: Any) -> Any:
    """The root that an edit makes; raises Refused."""
    root, body, path = copy.deepcopy(root), copy.deepcopy(asked.body), asked.path
    old = lookup(root, path)
    if asked.edit == "put":
        return set_at(root, path, body)
    if asked.edit == "delete":
        return delete_at(root, path)
    if asked.edit == "post":
        past_the_end = path[-1:] == ("-",) and type(lookup(root, path[:-1])) is list
        if past_the_end or (old is not MISSING and type(old) not in (dict, list)):
            raise Refused
        return set_at(root, (*path, child[-1] if child else "?") if type(old) is not list else (*path, "-"), body)
    if asked.edit == "merge":
        return set_at(root, path, merge(old if old is not MISSING else None, body))
    if asked.edit == "json-patch":
        for operation in body:
            where = (*path, *parse(operation["path"]))
            if operation["op"] == "remove":
                root = delete_at(root, where)
            else:
                ancestors(root, where, False)
                root = set_at(root, where, operation["value"])
        return root
    if old is MISSING:
        return set_at(root, path, jsondiff.patch({}, body, marshal=True))
    return set_at(root, path, jsondiff.patch(old, body, marshal=True))


class Model:
    """The random session: what was asked, what must have come of it."""

    def __init__(self, database: Database, seed: int, policy: Any) -> None:
        self.database, self.random, self.policy = database, random.Random(seed), policy
        self.texts = [b"{}"]
        self.chains = [bytes(8)]
        self.keys: dict[str, tuple[Proposal, int]] = {}
        self.answers: list[tuple[bytes, asyncio.Future[Any]]] = []
        self.engine = self.start()

    def start(self) -> Engine:
        self.engine = self.database.open(ack=self.policy, flush_interval=0.003)
        return self.engine

    # -- what to ask

    def value(self, depth: int = 2) -> Any:
        pick = self.random.randrange(10 if depth else 7)
        scalars = [0, 1, True, 1.0, None, "$x", f"s{self.random.randrange(5)}"]
        if pick < 7:
            return scalars[pick]
        if pick == 7:
            return [self.value(0) for _ in range(self.random.randrange(4))]
        return {key: self.value(depth - 1) for key in self.random.sample(KEYS, self.random.randrange(4))}

    def path(self) -> tuple[str, ...]:
        """Mostly a path that exists, or one step beyond."""
        value, path = self.engine.root, ()
        while self.random.random() < 0.7 and type(value) in (dict, list) and value:
            if type(value) is dict:
                key = self.random.choice(list(value))
                value = value[key]
            else:
                key = str(self.random.randrange(len(value)))
                value = value[int(key)]
            path = (*path, key)
        if self.random.random() < 0.4:
            path = (*path, self.random.choice([*KEYS, "-", "9"]))
        return path

    def proposal(self) -> Proposal:
        edit = self.random.choice(["put", "put", "patch", "merge", "json-patch", "delete", "post"])
        path = self.path()
        if edit == "delete" and not path:
            edit = "put"  # the root can't be deleted; the edges say so
        old = copied(lookup(self.engine.root, path))
        body: Any = None
        if edit == "patch":
            new = self.value()
            start = old if old is not MISSING else {}
            body = jsondiff.diff(start, new, marshal=True) if type(new) is type(start) else {"zz": 1}
            body = decode_json(encode_json(body)) if type(body) is dict else {"zz": [1]}
        elif edit == "json-patch":
            new = {"op": "add", "path": "/" + self.random.choice(["a", "b", "-"]), "value": self.value(1)}
            body = [new, {"op": "remove", "path": "/a"}] if self.random.random() < 0.3 else [new]
        elif edit != "delete":
            body = self.value()
        asked = Proposal(path, edit, body, edit, ack=self.random.choice([None, "durable", "written", "applied"]))  # type: ignore[arg-type]
        if self.random.random() < 0.3:
            asked.key = f"key{len(self.texts)}-{self.random.random()}"
        if self.random.random() < 0.2:
            asked.m = self.random.randrange(10**15)
        if self.random.random() < 0.2:
            right = self.random.random() < 0.7
            asked.conditions = [
                Condition(path, equals=old) if right and old is not MISSING else Condition(path, exists=right)
            ]
        if self.random.random() < 0.1:
            asked.dry_run = True
        return asked

    # -- what must be

    def propose(self) -> None:
        asked = self.proposal()
        kept = own(asked)  # what is stored may be a part of the request's body
        root = decode_json(self.texts[-1])
        before = (self.engine.rev, self.engine.chain, encode_json(self.engine.root))
        held = all(condition.fails(lookup(root, condition.path)) is None for condition in asked.conditions)
        try:
            outcome = self.engine.transact(asked)
        except Problem as problem:
            assert (self.engine.rev, self.engine.chain, encode_json(self.engine.root)) == before
            if held:
                with pytest.raises((Refused, *JSONDIFF_ERRORS)):
                    expected(root, kept, None)
                assert problem.code in ("not_found", "patch_mismatch", "invalid_value", "invalid_patch")
            else:
                assert problem.code == "precondition_failed"
            return
        assert held
        self.check_outcome(kept, root, outcome)

    def check_outcome(self, asked: Proposal, root: Any, outcome: Outcome) -> None:
        made = expected(root, asked, outcome.child)
        changed = etag(made) != etag(root)
        assert outcome.changed == changed
        if not changed or asked.dry_run:
            assert (outcome.rev, outcome.chain) == (len(self.texts) - 1, self.chains[-1])
            return
        assert etag(self.engine.root) == etag(made)
        assert outcome.rev == len(self.texts)
        self.texts.append(encode_json(self.engine.root))
        self.chains.append(outcome.chain)
        if asked.key is not None:
            self.keys[asked.key] = (asked, outcome.rev)
        if (asked.ack or self.policy) != "applied":
            waiting, settle = settling()  # in the same step as the change, as every edge does
            if not self.engine.settle_when(asked.ack, outcome.rev, settle):
                waiting.set_result(None)
            self.answers.append((outcome.chain, waiting))

    def check(self) -> None:
        engine = self.engine
        rev = len(self.texts) - 1
        assert (engine.rev, engine.chain, encode_json(engine.root)) == (rev, self.chains[-1], self.texts[-1])
        visible = engine.visible
        assert engine.durable_rev <= visible.rev <= rev
        assert visible.chain == self.chains[visible.rev]
        shown = decode_json(self.texts[visible.rev])
        assert engine.read((), encode_json) == self.texts[visible.rev]
        path = self.path()
        assert encode_json(seen(engine, format(path))) if lookup(shown, path) is not MISSING else True
        found = seen(engine, format(path))
        assert found is MISSING if lookup(shown, path) is MISSING else etag(found) == etag(lookup(shown, path))
        assert {key: s.rev for key, s in engine.window.changes.items()} == {k: r for k, (_, r) in self.keys.items()}

    def replay(self) -> None:
        if self.keys:
            key = self.random.choice(list(self.keys))
            asked, rev = self.keys[key]
            outcome = self.engine.transact(own(asked))
            assert (outcome.rev, outcome.replayed) == (rev, True)

    async def settle(self) -> None:
        """Wait for every answer; what was refused must be gone, what was acknowledged must be there."""
        answers, self.answers = self.answers, []
        if answers:
            await asyncio.wait([future for _, future in answers], timeout=TIMEOUT)
        for chain, future in answers:
            error = future.exception()
            assert error is None or isinstance(error, Problem)
            assert (chain in self.chains) == (error is None or error.status != 507)

    async def fill_up(self) -> None:
        """Let the disk fill up under some writes; everything beyond the last whole batch is taken back."""
        self.database.disk.room = self.random.randrange(400)
        for _ in range(self.random.randrange(1, 8)):
            self.propose()
            if self.random.random() < 0.5:
                await asyncio.sleep(0.001)
                self.taken_back()
        await self.engine.committer.drain()
        self.taken_back()
        await self.settle()
        self.database.disk.room = None

    def taken_back(self) -> None:
        kept = self.engine.rev
        assert self.engine.durable_rev <= kept < len(self.texts)
        del self.texts[kept + 1 :], self.chains[kept + 1 :]
        self.keys = {key: entry for key, entry in self.keys.items() if entry[1] <= kept}

    async def crash(self) -> None:
        """What a copy of the file opens to is a revision that was, and none that was promised is missing."""
        durable = self.engine.durable_rev
        copied = self.database.path + ".copy"
        shutil.copyfile(self.database.path, copied)
        again = open_engine(copied, format=self.database.format)
        assert again.rev >= durable
        assert (again.chain, encode_json(again.root)) == (self.chains[again.rev], self.texts[again.rev])
        await again.stop()

    async def restart(self) -> None:
        await self.database.stop()
        await self.settle()
        self.start()
        assert self.engine.visible.rev == len(self.texts) - 1

    async def step(self) -> None:
        pick = self.random.randrange(60)
        if pick < 44:
            self.propose()
        elif pick < 50:
            await asyncio.sleep(0.001)
        elif pick < 53:
            self.replay()
        elif pick < 55:
            await self.fill_up()
        elif pick < 57:
            await asyncio.wait_for(self.engine.snapshot(), TIMEOUT)
        elif pick < 58:
            await self.restart()
        elif pick < 59:
            await self.crash()
        else:
            await self.settle()


JSONDIFF_ERRORS = (TypeError, KeyError, IndexError, AttributeError, ValueError, AssertionError)


async def session(database: Database, seed: int, policy: Any, steps: int) -> None:
    model = Model(database, seed, policy)
    for _ in range(steps):
        await model.step()
        model.check()
    await model.settle()


@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
@pytest.mark.parametrize("seed", range(4))
async def test_the_engine_is_a_dict_with_a_log(either: Database, seed: int, policy: Any) -> None:
    await session(either, seed, policy, 250)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["durable", "written", "applied"])
@pytest.mark.parametrize("seed", range(100, 140))
async def test_the_engine_is_a_dict_with_a_log_for_long(either: Database, seed: int, policy: Any) -> None:
    await session(either, seed, policy, 1500)
