"""Many plain writes in one step: what `Engine.write` does, for all that a message holds.

They are changes of their own, but share what can be shared: the time, the beginning of the record,
and the committer's lock, so they are synced together. Each is checked against what those before it
made. Nothing here awaits.
"""

from typing import TYPE_CHECKING, Any

from kantad.engine.interest import after
from kantad.engine.pending import Applied, Batch
from kantad.engine.proposal import Outcome, written
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.patch import Undo, apply, merge
from kantad.values.pointer import Path

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

Result = Applied | Problem | Outcome


def write_all(engine: "Engine", writes: list[tuple[Path, Any]], action: str) -> tuple[Batch | None, list[Result]]:
    """Apply patches, each at its path, and put them in line for the disk.

    Returns for each the change, an `Outcome` where it alters nothing, or the `Problem` why it was refused;
    and the batch that all changes are in. Only where the policy is not `applied`. Raises `Problem` where none is taken.
    """
    if engine.stopping:
        raise Problem("shutting_down", "the server is shutting down", retry_after=1)
    committer, root = engine.committer, engine.root
    micros = max(engine.clock(), engine.micros)
    results: list[Result] = []
    changes: list[Applied] = []
    before = (engine.micros, engine.m)
    encode = engine.log.codec.series(micros, action, engine.v)
    with committer.lock:
        group = committer.first_rev_with_room()
        rev, chain = engine.rev, engine.chain
        try:
            for path, patch in writes:
                try:
                    diff, target, sub = written(root, path, patch, False, engine.max_depth, engine.foreign)
                except Problem as problem:
                    results.append(problem)
                    continue
                if diff is SAME:
                    results.append(Outcome(rev, chain, before[0], False))
                    continue
                payload, chain = encode(diff, chain, group)
                rev += 1
                group = group or rev
                undo = Undo(engine.orders)
                unclear = engine.interest.before(root, diff) if engine.interest.paths else None
                if target is root:
                    apply(root, sub, undo)
                else:
                    merge(target, sub, undo)
                change = Applied(rev, chain, payload, diff, undo, before)
                if unclear:
                    change.narrowed = after(root, unclear)
                changes.append(change)
                results.append(change)
                before = (micros, engine.m)
        finally:  # also where something of ours fails: what is applied is in line
            if changes:
                engine.rev, engine.chain, engine.micros = rev, changes[-1].chain, micros
                batch: Batch | None = committer.add_all(changes)
            else:
                batch = None
    return batch, results
