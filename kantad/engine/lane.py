"""Many plain writes in one step: what `Engine.write` does, for all that a message holds.

They are changes of their own, but share what can be shared: the time, the beginning of the record
where action and user are the same, and the committer's lock, so they are synced together. Each is
checked against what those before it made, and may have an idempotency key. One scalar of an object,
which most of them are, is changed without ceremony; the general way does the same. Nothing here awaits.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from kantad.engine.making import ends_of, make
from kantad.engine.pending import Applied, Batch
from kantad.engine.place import Place
from kantad.engine.proposal import Outcome, identity_of_patch, one_member, written
from kantad.engine.requests import Seen, Window, check_key
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.patch import SET

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

CONTAINERS: Final = (dict, list)

Result = Applied | Problem | Outcome
Admit = Callable[[str, str | None], None]


class Write(Protocol):
    """A patch, the pointer to where it applies, an action and a user, and perhaps an idempotency key."""

    path: str
    diff: Any
    a: str
    u: str | None
    key: str | None


def write_all(engine: "Engine", writes: Sequence[Write], admit: Admit) -> tuple[Batch | None, list[Result]]:
    """Apply patches, each at its path, and put them in line for the disk.

    Returns for each the change, an `Outcome` where it alters nothing or repeats a request, or the `Problem` why it
    was refused; and the batch that all changes are in. `admit` raises the `Problem` of an action or user that is
    none. Only where the policy is not `applied`. Raises `Problem` where none is taken.
    """
    if engine.stopping or engine.readonly:
        raise engine.refusal()
    micros = max(engine.clock(), engine.micros)
    results: list[Result] = []
    changes: list[Applied] = []
    batch: Batch | None = None
    with engine.committer.lock:
        try:
            _write_each(engine, writes, admit, micros, results, changes)
        finally:  # also where something of ours fails: what is applied is in line
            if changes:
                engine.rev, engine.chain, engine.micros = changes[-1].rev, changes[-1].chain, micros
                batch = engine.committer.add_all(changes)
    return batch, results


def _write_each(
    engine: "Engine", writes: Sequence[Write], admit: Admit, micros: int, results: list[Result], changes: list[Applied]
) -> None:
    """One after the other, into `results` and `changes`; with the committer's lock."""
    codec, root, place_of, rev, chain = engine.log.codec, engine.root, engine.places.of, engine.rev, engine.chain
    encode, finished, window, schema = codec.encode, codec.finished, engine.window, engine.schema
    interest, judged = engine.interest, engine.validators != ()
    group, undo = engine.committer.first_rev_with_room(), engine.committer.open.undo
    action, user, first, q, before, behind = "", None, -1, "", (engine.micros, engine.m), (micros, engine.m)
    for write in writes:
        patch, key = write.diff, write.key
        try:
            if write.a != action or write.u != user or group != first:
                admit(write.a, write.u)
                action, user, first = write.a, write.u, group
                unkeyed = ends_of(engine, rev, micros, action, user, b=group)
            ends = opening, closing = unkeyed
            place = path, opened, closed = place_of(write.path)
            if key is not None:
                check_key(key, "key")
                q, seen = window.find(key, identity_of_patch(path, patch, action, user))
                if seen is not None:
                    results.append(Outcome(seen.rev, seen.chain, seen.micros, seen.changed, True))
                    continue
                ends = opening, closing = codec.keyed(opening, key, q), closing
            member = None if judged else one_member(root, path, patch, schema)
            if member is None or (interest.paths and type(member[2]) in CONTAINERS):  # who follows what was in there?
                change = _made(engine, ends, place, patch, rev + 1, chain, before)
                chain = chain if change is None else change.chain
            else:
                (target, name, old, value), change = member, None
                if old != value or type(old) is not type(value):
                    patch = patch if value is patch[name] else {name: value}
                    payload, chain = finished((opening, opened, encode(patch), closed, closing), chain)
                    met = interest.met_at(path, name) if interest.paths else None
                    change = Applied(rev + 1, chain, payload, path, patch, undo, len(undo.entries), before, met)
                    undo.entries.append((SET, target, name, old, None))
                    target[name] = value
        except Problem as problem:
            results.append(problem)
            continue
        if change is None:
            results.append(_unchanged(window, key, Seen(q, rev, chain, before[0], False)))
            continue
        rev += 1
        group, before = group or rev, behind
        changes.append(change)
        results.append(change)
        if key is not None:
            window.add(key, Seen(q, rev, chain, micros, True))


def _made(
    engine: "Engine",
    ends: tuple[bytes, bytes],
    place: Place,
    patch: Any,
    rev: int,
    chain: bytes,
    before: tuple[int, int | None],
) -> Applied | None:
    """The general way: the change that a patch amounts to, None if nothing changes; raises `Problem`."""
    target, sub = written(engine.root, place[0], patch, False, engine.max_depth, engine.foreign)
    if engine.schema is not None:
        target, sub = engine.schema.fitted_at(engine.root, place[0], target, sub)
    return None if sub is SAME else make(engine, ends, place, target, sub, rev, chain, before)


def _unchanged(window: Window, key: str | None, seen: Seen) -> Outcome:
    """The outcome of a write that changes nothing, remembered if it has a key."""
    if key is not None:
        window.add_unchanged(key, seen)
    return Outcome(seen.rev, seen.chain, seen.micros, False)
