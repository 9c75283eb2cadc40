"""The smallest reasonable patch from one value to another, in the canonical form (dialect C).

Objects are walked key by key; an object replaces anything else by `$replace`. Arrays: the equal
ends are trimmed, what lies between is compared by jsondiff while that is cheap, and of the list
edit and the whole list the shorter is taken. Type-strict: `1`, `1.0` and `true` differ, which
jsondiff does not see, so of its edits only the deletions and insertions are used. Pure.
"""

from typing import Any, Final

import jsondiff

from kantad.values.content import MISSING, encode_json, same
from kantad.values.patch import escape, marshal, unmarshal


class Same:
    """The type of SAME: two values with the same content."""

    def __repr__(self) -> str:
        return "SAME"

    def __reduce__(self) -> str:
        return "SAME"  # there is one, copied or not


SAME: Final = Same()

# jsondiff compares each element with each; this bounds (elements x elements x bytes of an element).
# Measured: 2,000 takes it about 1 ms.
JSONDIFF_COST: Final = 20_000


def difference(old: Any, new: Any) -> Any:
    """The canonical patch that makes `new` of `old` (may be MISSING), or SAME; parts of `new` go into it uncopied."""
    kind = type(new)
    if kind is dict:
        if type(old) is dict:
            return _object(old, new)
        return marshal(new) if old is MISSING else {"$replace": marshal(new)}
    if kind is list and type(old) is list:
        return _array(old, new)
    if old is not MISSING and same(old, new):
        return SAME
    return marshal(new)


def _object(old: dict[Any, Any], new: dict[Any, Any]) -> Any:
    patch: dict[Any, Any] = {}
    kept = 0
    for key, value in new.items():
        before = old.get(key, MISSING)
        if before is not MISSING:
            kept += 1
        sub = difference(before, value)
        if sub is not SAME:
            patch[escape(key)] = sub
    if kept == 0 and old:
        return {"$replace": marshal(new)}
    if kept < len(old):
        patch["$delete"] = [escape(key) for key in old if key not in new]
    return patch if patch else SAME


def _array(old: list[Any], new: list[Any]) -> Any:
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and same(old[start], new[start]):
        start += 1
    if start == len(old) == len(new):
        return SAME
    end = 0
    while end < shorter - start and same(old[-1 - end], new[-1 - end]):
        end += 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    edits: list[dict[str, Any] | None] = [_exchange(before, after, start)]
    if before and after:
        edits.append(_by_jsondiff(before, after, start))
        if len(before) == len(after):
            edits.append(_pairwise(before, after, start))
    smallest = min((edit for edit in edits if edit is not None), key=_size)
    return shorter_of(smallest, new)


def shorter_of(edit: dict[str, Any], new: list[Any]) -> Any:
    """The list edit, or the whole new list where that is shorter. Costs O(size of the edit)."""
    size = _size(edit)
    if 2 * len(new) + 1 >= size:  # not even a list of digits would be shorter
        return edit
    whole = marshal(new)
    return whole if _size(whole) < size else edit


def _size(patch: Any) -> int:
    return len(encode_json(patch))


def _exchange(before: list[Any], after: list[Any], start: int) -> dict[str, Any]:
    """Delete the old elements, insert the new ones."""
    edit: dict[str, Any] = {}
    if before:
        edit["$delete"] = [start] * len(before)
    if after:
        edit["$insert"] = [[start + i, marshal(value)] for i, value in enumerate(after)]
    return edit


def _pairwise(before: list[Any], after: list[Any], start: int) -> dict[str, Any]:
    """Edit each element that differs by its index."""
    subs = ((i, difference(before[i], after[i])) for i in range(len(before)))
    return {str(start + i): sub for i, sub in subs if sub is not SAME}


def _by_jsondiff(before: list[Any], after: list[Any], start: int) -> dict[str, Any] | None:
    """jsondiff's list edit, moved to its place; None where it would be slow or is no edit.

    Only what jsondiff deletes and inserts is taken over: the elements left are compared here.
    """
    if len(before) * len(after) > JSONDIFF_COST:
        return None
    if (_size(before) * len(after) + _size(after) * len(before)) > JSONDIFF_COST:
        return None
    edit = jsondiff.diff(before, after, marshal=True)
    if type(edit) is not dict:
        return None
    deletions, insertions = edit.get("$delete", ()), edit.get("$insert", ())
    middle = list(before)
    for position in deletions:
        del middle[position]
    for position, value in insertions:
        middle.insert(position, unmarshal(value))
    if len(middle) != len(after):
        return None
    moved: dict[str, Any] = {}
    if deletions:
        moved["$delete"] = [position + start for position in deletions]
    if insertions:
        moved["$insert"] = [[position + start, value] for position, value in insertions]
    return moved | _pairwise(middle, after, start)
