"""The part of a change below a path: what a feed of that path is sent. Pure; works on canonical patches.

Most patches tell by themselves what they do below a path. Where the value at the path was replaced,
removed or moved together with something above it, they do not: whether there was a value, and
whether it differs, only the state before the change tells. That is UNCLEAR, and `compared` decides
it from the values before and after.

A canonical patch (dialect C) is effective, so what it names has changed.
"""

from typing import Any, Final

from kantad.values.content import MISSING, same
from kantad.values.patch import escape, is_position, marshal, named
from kantad.values.pointer import Path, index


class Verdict:
    """What a change does below a path, where that is no patch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


UNTOUCHED: Final = Verdict("UNTOUCHED")  # the value is the same content as before
DELETED: Final = Verdict("DELETED")  # there was a value and is none any more
UNCLEAR: Final = Verdict("UNCLEAR")  # the patch alone does not tell

FAR: Final = 1 << 62  # longer than any array


def narrowed(patch: Any, path: Path) -> Any:
    """The patch of the value at `path` that a canonical patch of the root amounts to, or a `Verdict`.

    An assignment becomes `{"$replace": value}`.
    """
    for depth, segment in enumerate(path):
        if type(patch) is not dict or "$replace" in patch:
            return UNCLEAR
        verdict = _removed(patch, segment)
        if verdict is not None:
            return verdict if verdict is not DELETED or depth == len(path) - 1 else UNCLEAR
        key = _key_in(patch, segment)
        if key is None:
            return UNTOUCHED
        patch = patch[key]
    return patch if type(patch) is dict else {"$replace": patch}


def _key_in(patch: dict[Any, Any], segment: str) -> Any:
    """The patch's key for a segment (in MessagePack it may be an integer), None where it has none."""
    key = escape(segment)
    if key in patch:
        return key
    number = index(segment, FAR)
    return number if number >= 0 and number in patch else None


def _removed(patch: dict[Any, Any], segment: str) -> Verdict | None:
    """What deletions and insertions of this level mean for the value that the segment names, if anything."""
    gone, added = patch.get("$delete", ()), patch.get("$insert", ())
    if not gone and not added:
        return None
    if any(not is_position(name) and str(named(name)) == segment for name in gone):
        return DELETED
    position = index(segment, FAR)
    if position < 0:
        return None  # a key; positions are another level's business
    origin = position
    for place, _ in reversed(added):
        if origin == place:
            return UNCLEAR
        origin -= origin > place
    for place in reversed(gone):
        if is_position(place):
            origin += origin >= place
    return None if origin == position else UNCLEAR


def compared(old: Any, new: Any) -> Any:
    """What a change that made `new` of `old` (each may be MISSING) is as a patch or a `Verdict`."""
    if new is MISSING:
        return UNTOUCHED if old is MISSING else DELETED
    if old is not MISSING and same(old, new):
        return UNTOUCHED
    return {"$replace": marshal(new)}
