"""Many plain writes in one step: what `Engine.write` does, for all that a message holds.

They are changes of their own, but share what can be shared: the time, the beginning of the record
where action and user are the same, and the committer's lock, so they are synced together. Each is
checked against what those before it made. Nothing here awaits.
"""

from typing import TYPE_CHECKING, Any

from kantad.engine.pending import Applied, Batch
from kantad.engine.place import Place
from kantad.engine.proposal import Outcome, written
from kantad.values.diff import SAME
from kantad.values.errors import Problem

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

Result = Applied | Problem | Outcome
Write = tuple[Place, Any, str, str | None]  # where, the patch, action and user


def write_all(engine: "Engine", writes: list[Write]) -> tuple[Batch | None, list[Result]]:
    """Apply patches, each at its place, and put them in line for the disk.

    Returns for each the change, an `Outcome` where it alters nothing, or the `Problem` why it was refused;
    and the batch that all changes are in. Only where the policy is not `applied`. Raises `Problem` where none is taken.
    """
    if engine.stopping:
        raise Problem("shutting_down", "the server is shutting down", retry_after=1)
    committer, root, max_depth, foreign = engine.committer, engine.root, engine.max_depth, engine.foreign
    micros = max(engine.clock(), engine.micros)
    results: list[Result] = []
    changes: list[Applied] = []
    before, about, ends = (engine.micros, engine.m), None, (b"", b"")
    with committer.lock:
        group = committer.first_rev_with_room()
        rev, chain = engine.rev, engine.chain
        try:
            for place, patch, action, user in writes:
                try:
                    target, sub = written(root, place.path, patch, False, max_depth, foreign)
                except Problem as problem:
                    results.append(problem)
                    continue
                if sub is SAME:
                    results.append(Outcome(rev, chain, before[0], False))
                    continue
                if about != (action, user, group):
                    about = (action, user, group)
                    ends = engine.log.codec.ends(micros, action, engine.v, user, b=group)
                rev += 1
                change = engine.make(ends, place, target, sub, rev, chain, before)
                group, chain = group or rev, change.chain
                changes.append(change)
                results.append(change)
                before = (micros, engine.m)
        finally:  # also where something of ours fails: what is applied is in line
            batch: Batch | None = None
            if changes:
                engine.rev, engine.chain, engine.micros = changes[-1].rev, changes[-1].chain, micros
                batch = committer.add_all(changes)
    return batch, results
