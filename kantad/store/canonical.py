"""Records of other programs in the form that feeds give: canonical patches, with the chain value added.

A record without `h` is kanta's: its patch may be in another dialect, and only the state that it was
made for tells what it means. So the log is replayed up to it. Slow, and needed only for the part of
a database that kanta wrote. Where the dialect is decided by a later snapshot only, the record is
given as dialect A.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from kantad.store.dialects import Sign, signs
from kantad.store.history import Unreadable
from kantad.store.replay import Replayer
from kantad.store.verify import Walk
from kantad.values.codec import Codec
from kantad.values.content import MISSING
from kantad.values.diff import SAME, difference
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.framing import Frame
from kantad.values.moment import micros_of
from kantad.values.patch import Unfit, apply, escape, unescape
from kantad.values.patch import gone as spelled
from kantad.values.record import Change


class Canonical:
    """A walk through the file from its start, giving each change on the way as kantad would have written it."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def payloads(self, rev: int) -> Iterator[tuple[int, bytes | None]]:
        """The changes up to a revision with theirs; None for the payload of one that is canonical as it stands.

        Raises `Unreadable`.
        """
        walk = self.walk
        while walk.replayer.rev < rev:
            frame = walk.framing.next(walk.buffer, walk.place, walk.end)
            if not isinstance(frame, Frame):
                raise Unreadable(f"byte {frame.start}")
            payload = None if frame.snapshot else _canonical(walk.replayer, walk.codec, frame)
            before = walk.replayer.rev
            if not walk.take(frame):
                raise Unreadable(f"byte {walk.place}: {walk.why}")
            if (
                walk.replayer.rev != before
            ):  # kanta's doubled record counts once: what it does the second time is nothing
                chain = walk.replayer.chain.hex().encode()
                yield walk.replayer.rev, None if payload is None else walk.codec.with_chain(payload, chain)


def _canonical(replayer: Replayer, codec: Codec, frame: Frame) -> bytes | None:
    """A foreign record's payload with its patch made canonical, but for the chain; None for one of ours."""
    if len(codec.hashed(frame.payload)) < len(frame.payload):
        return None
    record: Change = codec.decode(frame.payload, Change)
    _, diff = meant(replayer, record)
    payload, _ = codec.change(
        micros_of(record.ts),
        record.a,
        diff,
        replayer.chain,
        v=record.v,
        u=record.u,
        m=None if record.m is None else micros_of(record.m),
        id=record.id,
        q=record.q,
    )
    return payload


def meant(replayer: Replayer, record: Change) -> tuple[dict[Any, Any], Any]:
    """The state that a foreign record was made for, and its patch of that made canonical; raises `Unfit`.

    That is the replayed state, or its rival, where only that one fits, as the replay is about to find.
    """
    state = replayer.state
    shown = signs(record.diff, state)
    verbatim = not shown & Sign.A and (bool(shown & Sign.B) or replayer.certain)
    try:
        diff = verbatim_effect(state, record.diff) if verbatim else lenient_effect(state, record.diff)
    except Unfit:
        if replayer.rival is None and shown is not Sign.UNCLEAR:
            raise
        state = state if replayer.rival is None else replayer.rival
        diff = verbatim_effect(state, record.diff)
    return state, {} if diff is SAME else diff


def verbatim_effect(old: dict[Any, Any], patch: dict[Any, Any]) -> Any:
    """The canonical patch that a patch of kanta 0.9 (dialect B) amounts to over an object, or SAME; raises `Unfit`."""
    found: dict[Any, Any] = {}
    gone = patch.get("$delete", [])
    for key, sub in patch.items():
        if key == "$delete":
            continue
        name = unescape(key)
        before = old.get(name, MISSING)
        merged = type(sub) is dict and type(before) is dict
        narrowed = verbatim_effect(before, sub) if merged else difference(before, sub)
        if narrowed is not SAME:
            found[escape(name)] = narrowed
    names = [unescape(key) for key in (gone if type(gone) is list else [gone])]
    if any(type(name) is dict or type(name) is list for name in names):
        raise Unfit("$delete of what is no key")
    deleted = [spelled(name) for name in names if name in old]
    if deleted:
        found["$delete"] = deleted
    return found if found else SAME


def lenient_effect(old: dict[Any, Any], patch: dict[Any, Any]) -> Any:
    """The canonical patch that a patch of dialect A amounts to over an object, or SAME."""
    try:
        return effect(old, deepcopy(patch), 1 << 20, True)
    except Problem:  # what a request may not hold, and a replay reads as it was meant
        return difference(old, apply(deepcopy(old), deepcopy(patch)))
