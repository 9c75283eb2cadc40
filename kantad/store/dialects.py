"""Which of the dialects a record without `h` was written in.

kanta 0.1 to 0.8 wrote jsondiff's syntax (A), kanta 0.9 its own (B): assigned values verbatim,
lists whole, bare objects over anything. Most records read the same either way. What shows only in
one of them is a sign of it; a `$$` inside an assigned value is neither, and left to the caller.
Pure; called by the replay of records that other programs wrote.
"""

from enum import Flag, auto
from typing import Any

from kantad.values.content import MISSING
from kantad.values.patch import unescape
from kantad.values.pointer import index


class Sign(Flag):
    """What a record shows of its dialect; UNCLEAR: the dialects read it differently and nothing tells which."""

    NONE = 0
    A = auto()
    B = auto()
    UNCLEAR = auto()


def signs(patch: Any, target: Any) -> Sign:
    """The signs in a patch of this object."""
    found = Sign.NONE
    for key, sub in patch.items():
        if key in ("$replace", "$insert"):
            found |= Sign.A
        elif key != "$delete":
            found |= _sub(sub, target.get(unescape(key), MISSING))
    return found


def _sub(sub: Any, old: Any) -> Sign:
    if type(sub) is not dict:
        return _verbatim(sub)
    if "$replace" in sub:
        return Sign.A
    if type(old) is dict:
        return signs(sub, old)
    if type(old) is list:
        return Sign.A if sub and _is_list_edit(sub, old) else Sign.B
    if old is MISSING:
        return _verbatim(sub)
    return Sign.B  # an object over a scalar: jsondiff writes $replace


def _is_list_edit(patch: dict[Any, Any], old: list[Any]) -> bool:
    """Whether a patch of this list edits it; one that only names elements it does not have is an object."""
    moves = "$delete" in patch or "$insert" in patch
    length = 1 << 62 if moves else len(old)
    return all(key in ("$delete", "$insert") or index(key, length) >= 0 for key in patch)


def _verbatim(value: Any) -> Sign:
    """The signs in a value that is assigned as a whole."""
    if type(value) is dict:
        found = Sign.NONE
        for key, item in value.items():
            found |= (Sign.A if key == "$replace" else _text(key)) | _verbatim(item)
        return found
    if type(value) is list:
        found = Sign.NONE
        for item in value:
            found |= _verbatim(item)
        return found
    return _text(value)


def _text(text: Any) -> Sign:
    if type(text) is not str or text[:1] != "$":
        return Sign.NONE
    return Sign.UNCLEAR if text[:2] == "$$" else Sign.B
