"""The smallest reasonable patch from one value to another, in the canonical form (dialect C).

Objects are walked key by key; an object replaces anything else by `$replace`. Arrays: the equal
ends are trimmed, what lies between is compared by jsondiff while that is cheap, and of the list
edit and the whole list the shorter is taken. Type-strict: `1`, `1.0` and `true` differ, which
jsondiff does not see, so of its edits only the deletions and insertions are used. Pure.
"""

from typing import Any, Final

import jsondiff

from kantad.values.content import MISSING, encode_json, encode_msgpack, same
from kantad.values.patch import escape, gone, marshal


class Same:
    """The type of SAME: two values with the same content."""

    def __repr__(self) -> str:
        return "SAME"

    def __reduce__(self) -> str:
        return "SAME"  # there is one, copied or not


SAME: Final = Same()

# jsondiff compares each item of each element with each; this bounds (items x items), and (elements x
# bytes of all). Measured: 2,000 takes it about 1 ms.
JSONDIFF_COST: Final = 20_000
JSONDIFF_TOTAL: Final = 200_000  # of all lists of one comparison
JSONDIFF_LEAST: Final = 200  # what a call costs however short the lists are
# Lists within lists are encoded at each level, to see what is shorter; beyond so many bytes it is no longer looked at.
WEIGHED: Final = 8 << 20
WEIGHED_LEAST: Final = 500  # what it costs to look at a list, in bytes encoded meanwhile


class Effort:
    """What one comparison may still cost: jsondiff, and bytes that are encoded to see which edit is shorter."""

    __slots__ = ("left", "unweighed")

    def __init__(self) -> None:
        self.left = JSONDIFF_TOTAL
        self.unweighed = WEIGHED

    def size(self, patch: Any) -> int:
        """The bytes of a patch, or of elements; counted."""
        size = len(encode_json(patch))
        self.unweighed -= size + WEIGHED_LEAST
        return size

    @property
    def tired(self) -> bool:
        """Whether nothing more is to be weighed."""
        return self.unweighed < 0

    def spend(self, cost: int) -> bool:
        """Whether a list may cost this; it is counted then."""
        cost = max(cost, JSONDIFF_LEAST)
        if cost > min(self.left, JSONDIFF_COST):
            return False
        self.left -= cost
        return True


def difference(old: Any, new: Any, effort: Effort | None = None) -> Any:
    """The canonical patch that makes `new` of `old` (may be MISSING), or SAME; parts of `new` go into it uncopied."""
    kind = type(new)
    if kind is dict:
        if type(old) is dict:
            return _object(old, new, effort or Effort())
        return marshal(new) if old is MISSING else {"$replace": marshal(new)}
    if kind is list and type(old) is list:
        return _array(old, new, effort or Effort())
    if old is not MISSING and same(old, new):
        return SAME
    return marshal(new)


def _object(old: dict[Any, Any], new: dict[Any, Any], effort: Effort) -> Any:
    patch: dict[Any, Any] = {}
    kept = 0
    for key, value in new.items():
        before = old.get(key, MISSING)
        if before is not MISSING:
            kept += 1
        sub = difference(before, value, effort)
        if sub is not SAME:
            patch[escape(key)] = sub
    if kept == 0 and old:
        return {"$replace": marshal(new)}
    if kept < len(old):
        patch["$delete"] = [gone(key) for key in old if key not in new]
    return patch if patch else SAME


def _array(old: list[Any], new: list[Any], effort: Effort) -> Any:
    if effort.tired:
        return SAME if same(old, new) else marshal(new)
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
        edits.append(_by_jsondiff(before, after, start, effort))
        if len(before) == len(after):
            edits.append(_pairwise(before, after, start, effort))
    smallest = min((edit for edit in edits if edit is not None), key=effort.size)
    return shorter_of(smallest, new, effort)


def shorter_of(edit: dict[str, Any], new: list[Any], effort: Effort) -> Any:
    """The list edit, or the whole new list where that is shorter. Costs O(size of the edit)."""
    size = effort.size(edit)
    if 2 * len(new) + 1 >= size:  # not even a list of digits would be shorter
        return edit
    whole = marshal(new)
    return whole if effort.size(whole) < size else edit


def _exchange(before: list[Any], after: list[Any], start: int) -> dict[str, Any]:
    """Delete the old elements, insert the new ones."""
    edit: dict[str, Any] = {}
    if before:
        edit["$delete"] = [start] * len(before)
    if after:
        edit["$insert"] = [[start + i, marshal(value)] for i, value in enumerate(after)]
    return edit


def _pairwise(before: list[Any], after: list[Any], start: int, effort: Effort) -> dict[str, Any]:
    """Edit each element that differs by its index."""
    subs = ((i, difference(before[i], after[i], effort)) for i in range(len(before)))
    return {str(start + i): sub for i, sub in subs if sub is not SAME}


def _by_jsondiff(before: list[Any], after: list[Any], start: int, effort: Effort) -> dict[str, Any] | None:
    """jsondiff's list edit, moved to its place; None where it would be slow, or moves nothing.

    Only what jsondiff deletes and inserts is taken over: the elements left are compared here.
    """
    if len(before) * len(after) > JSONDIFF_COST:
        return None
    sizes = effort.size(before) * len(after) + effort.size(after) * len(before)
    if not effort.spend(max(_items(before) * _items(after), sizes)):
        return None
    edit = jsondiff.diff([_outline(item) for item in before], [_outline(item) for item in after], marshal=True)
    if type(edit) is not dict:
        return None
    deletions, insertions = edit.get("$delete", ()), edit.get("$insert", ())
    middle = list(before)
    for position in deletions:
        del middle[position]
    for position, _ in insertions:  # each where it stands in the end, in rising order
        middle.insert(position, after[position])
    if len(middle) != len(after) or not (deletions or insertions):
        return None
    moved: dict[str, Any] = {}
    if deletions:
        moved["$delete"] = [position + start for position in deletions]
    if insertions:
        moved["$insert"] = [[position + start, marshal(after[position])] for position, _ in insertions]
    return moved | _pairwise(middle, after, start, effort)


def _items(elements: list[Any]) -> int:
    """How many items jsondiff compares of these elements."""
    return sum(1 + len(item) if type(item) is list or type(item) is dict else 1 for item in elements)


def _outline(item: Any) -> Any:
    """An element as jsondiff is shown it."""
    if type(item) is dict:
        return {key: encode_msgpack(value) for key, value in item.items()}
    return [encode_msgpack(value) for value in item] if type(item) is list else encode_msgpack(item)
