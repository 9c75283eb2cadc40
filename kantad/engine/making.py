"""Making a change: its record, its effect on the state, and how to undo that; for `engine` and `lane`.

What it is to do has been narrowed to its effect and checked. Nothing here awaits.
"""

from typing import TYPE_CHECKING, Any

from kantad.engine.interest import after
from kantad.engine.interest import before as values_before
from kantad.engine.pending import Applied, roll_back
from kantad.engine.place import ROOT, Place
from kantad.values.content import copied
from kantad.values.diff import SAME
from kantad.values.patch import Undo, apply, merge
from kantad.values.touch import touched
from kantad.values.validators import judge

if TYPE_CHECKING:
    from kantad.engine.engine import Engine


def ends_of(
    engine: "Engine",
    rev: int,
    micros: int,
    action: str,
    user: str | None,
    m: int | None = None,
    key: str | None = None,
    q: str | None = None,
    b: int = 0,
) -> tuple[bytes, bytes]:
    """What stands around the patch in the record of the change behind this revision (see `Codec.ends`)."""
    ends = engine.log.codec.ends(micros, action, engine.v, user, m, key, q, b)
    return ends if rev != engine.unsettled[0] else engine.log.codec.settling(*ends, engine.unsettled[1])


def make(
    engine: "Engine",
    ends: tuple[bytes, bytes],
    place: Place,
    target: dict[Any, Any] | None,
    sub: Any,
    rev: int,
    chain: bytes,
    before: tuple[int, int | None],
) -> Applied:
    """The change to this revision, applied; its record goes behind this chain value.

    `ends` is what stands around the patch in the record; `target` and `sub` as `proposal.written` gives them, at
    `place`. With the committer's lock, and to be put in line before it is released. Raises the `Problem` of a
    validator.
    """
    codec, undo, interest = engine.log.codec, engine.committer.open.undo, engine.interest
    path, opened, closed = place if target is not None else ROOT
    payload, chain = codec.finished((ends[0], opened, codec.encode(sub), closed, ends[1]), chain)
    change = Applied(rev, chain, payload, path, sub, undo, len(undo.entries), before)
    unclear = None
    if interest.paths:
        change.met = list(interest.met(change.diff))
        unclear = values_before(engine.root, change.diff, change.met)
    try:
        if target is not None:
            merge(target, sub, undo)
        else:
            apply(engine.root, sub, undo)
        if engine.validators:
            judge(engine.validators, engine.root, touched(change.diff))
    except BaseException:  # a validator's refusal, or a fault of ours: as if it had not been asked for
        roll_back([change])
        raise
    if unclear:
        change.narrowed = after(engine.root, unclear)
    return change


def try_out(engine: "Engine", diff: Any) -> None:
    """Ask the format and the validators about a canonical patch of the root (or SAME), and leave the state as it was.

    Raises `Problem`.
    """
    if diff is SAME:
        return
    engine.log.codec.change(engine.micros, "", diff, engine.chain)  # one's own may not be able to keep it
    if not engine.validators:
        return
    undo = Undo(engine.committer.orders)
    try:
        apply(engine.root, copied(diff), undo)
        judge(engine.validators, engine.root, touched(diff))
    finally:
        undo.roll_back()
