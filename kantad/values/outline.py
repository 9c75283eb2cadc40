"""The outline of a patch: where it makes something, without what it makes.

The record of a keyed change may be cut off by a compaction; what a repeated request is told of the child
that it added is kept in this form. Pure; `engine.requests` reads it as it reads a patch.
"""

from typing import Any, Final

LONGEST: Final = 1024  # elements of an array, beyond which the outline says nothing
DEEPEST: Final = 256


def outline(patch: Any) -> Any:
    """What leads to the last member that a patch sets: keys, positions, lengths, `None` for every value."""
    return _outline(patch, DEEPEST)


def _outline(patch: Any, deepest: int) -> Any:
    if not deepest:
        return None
    if type(patch) is list:
        return [_outline(each, deepest - 1) for each in patch] if len(patch) <= LONGEST else None
    if type(patch) is not dict or not patch:
        return None
    if "$insert" in patch:
        return {"$insert": [[position, None] for position, _ in patch["$insert"][-1:]]}
    key = next(reversed(patch))
    return {key: _outline(patch[key], deepest - 1)}
