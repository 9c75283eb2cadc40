"""The patch from a base to its draft: over what was touched only, and between typed values.

Raw lists are compared by `kantad.values.diff`. What is typed may stand for several raw forms: a
program may have left out a field that has its default, or have written a set in another order. So
Structs are compared field by field, by the names they are written with, and never as a whole; a
field that may not be there is assigned, not edited; sets and tuples are assigned; and of a list of
such values the elements are edited where they stand, or taken out and put in. Pure.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from kantad.values.content import MISSING, same
from kantad.values.copies import LazyDict, LazyList, is_untouched
from kantad.values.diff import SAME, difference
from kantad.values.errors import Problem
from kantad.values.patch import escape, marshal
from kantad.values.plain import default_of, fields_of, is_left_out, name_in, plain
from kantad.values.pointer import Path
from kantad.values.tracked import Tracked


class Findings:
    """What a comparison tells beside the patch: the paths that it changes, those above included, and
    those that it relies on.

    It relies on a path where the user assigned a value and the patch gets it by leaving something of
    the base as it is, and where the user put what stands there into another place.
    """

    def __init__(self) -> None:
        self.changed: set[Path] = set()
        self.relied: set[Path] = set()


def delta(old: Any, new: Any, path: Path, found: Findings) -> Any:
    """The patch that makes `new` of `old` (may be MISSING), or SAME; it shares nothing with either."""
    if old is new or is_untouched(new, old):
        return SAME
    if is_draft(new, old):
        return _tracked(new, path, found)
    if isinstance(new, LazyDict | LazyList):
        new.fill()
    if isinstance(new, msgspec.Struct) and type(old) is type(new) and not new.__struct_config__.array_like:
        return _record(old, new, path, found)
    if isinstance(old, dict) and isinstance(new, dict):
        if isinstance(new, Tracked):
            found.relied.add(new.trace.path)
        keys = dict.fromkeys([*dict.keys(new), *dict.keys(old)], False)
        return _members(old, new, keys.items(), path, found)
    if isinstance(old, list) and isinstance(new, list):
        return _array(old, new, path, found)
    if isinstance(new, set | frozenset) and old == new and set(map(type, old)) == set(map(type, new)):
        return SAME  # told without writing both
    after = _written(new, found)
    if old is MISSING:
        return marshal(after)
    return SAME if same(plain(old), after) else _whole(after)


def is_draft(new: Any, old: Any) -> bool:
    """Whether this is the draft of that dict, so that it knows what became of it."""
    return isinstance(new, Tracked) and new.trace.base is old


def _written(new: Any, found: Findings) -> Any:
    """A value as JSON builtins, to be written as a whole."""
    met: list[Any] = []
    made = plain(new, met)
    found.relied.update(one.trace.path for one in met if isinstance(one, Tracked))
    return made


def _whole(after: Any) -> Any:
    return _replacing(marshal(after))


def _replacing(marshalled: Any) -> Any:
    return {"$replace": marshalled} if type(marshalled) is dict else marshalled


def _edits(patch: Any) -> bool:
    """Whether a patch leaves something of the old value, or counts on there being none."""
    return patch is SAME or (type(patch) is dict and "$replace" not in patch)


def _assigned(old: Any, new: Any, path: Path, found: Findings) -> Any:
    """The same as `delta`, where the user assigned the value as a whole."""
    patch = delta(old, new, path, found)
    if _edits(patch):
        found.relied.add(path)
    return patch


def _tracked(new: Tracked, path: Path, found: Findings) -> Any:
    trace = new.trace
    patch = _members(trace.base, new, trace.touched.items(), path, found)
    if trace.cleared and _edits(patch):
        found.relied.add(path)
    return patch


def _held(new: dict[Any, Any], key: Any) -> Any:
    return new.held(key) if isinstance(new, LazyDict) else dict.get(new, key, MISSING)


def _members(
    old: dict[Any, Any], new: dict[Any, Any], keys: Iterable[tuple[Any, bool]], path: Path, found: Findings
) -> Any:
    """The patch of an object, over these keys, each with whether it was assigned."""
    patch: dict[str, Any] = {}
    gone: list[str] = []
    for key, written in keys:
        before, after = old.get(key, MISSING), _held(new, key)
        name = name_in(old, key)
        if name is None:
            if after is not MISSING:
                raise Problem("invalid_value", "the key of an object is a string, or written as one").at(key)
            continue
        here = (*path, name)
        if after is MISSING:
            sub: Any = SAME
            if before is not MISSING:
                gone.append(name)
                found.changed.add(here)
            else:  # it came and went
                found.relied.add(here)
        else:
            sub = _member(before, after, here, written, found)
        if sub is not SAME:
            if escape(name) in patch or (key != name and _held(new, name) is not MISSING):
                raise Problem("invalid_value", "two keys of the dict are written alike").at(name)
            patch[escape(name)] = sub
            found.changed.add(here)
    if gone and len(gone) == len(old):
        return {"$replace": marshal(plain(new))}
    back = [name for name in gone if escape(name) in patch]  # as a key of another type: `d[5] = d.pop("5")`
    for name in back:
        patch[escape(name)] = _replacing(patch[escape(name)])
    if len(gone) > len(back):
        patch["$delete"] = [escape(name) for name in gone if name not in back]
    return patch if patch else SAME


def _member(before: Any, after: Any, path: Path, assigned: bool, found: Findings) -> Any:
    try:
        if before is MISSING:
            plain(path[-1])  # a key that is new is checked
        return _assigned(before, after, path, found) if assigned else delta(before, after, path, found)
    except Problem as problem:
        raise problem.at(path[-1]) from None


def _record(old: msgspec.Struct, new: msgspec.Struct, path: Path, found: Findings) -> Any:
    patch: dict[str, Any] = {}
    gone: list[str] = []
    for field in fields_of(type(new)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        here = (*path, field.encode_name)
        if before is after:
            continue
        swapped = isinstance(before, dict) and not is_draft(after, before)
        sub: Any = SAME if after is msgspec.UNSET else _member(_given(before), after, here, swapped, found)
        if sub is SAME and after is not msgspec.UNSET:
            continue
        found.changed.add(here)
        if is_left_out(new, field, after):
            gone.append(field.encode_name)
        else:
            patch[escape(field.encode_name)] = _whole(_written(after, found)) if _may_lack(field, before, sub) else sub
    if gone:
        patch["$delete"] = [escape(name) for name in gone]
    return patch if patch else SAME


def _given(value: Any) -> Any:
    return MISSING if value is msgspec.UNSET else value


def _may_lack(field: msgspec.structs.FieldInfo, before: Any, patch: Any) -> bool:
    """Whether an edit would miss what it edits: the field has its default, and may not be there in JSON.

    An object that is not there is as good as an empty one.
    """
    return before != {} and _edits(patch) and not field.required and bool(before == default_of(field))


def _array(old: list[Any], new: list[Any], path: Path, found: Findings) -> Any:
    before, after = plain(old), _written(new, found)
    if same(before, old):  # JSON's own, so there is one raw form
        return difference(before, after)
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and same(before[start], after[start]):
        start += 1
    if start == len(old) == len(new):
        return SAME
    if len(old) == len(new):
        subs = ((i, delta(old[i], new[i], (*path, str(i)), found)) for i in range(start, len(new)))
        return {str(i): sub for i, sub in subs if sub is not SAME}
    end = 0
    while end < shorter - start and same(before[-1 - end], after[-1 - end]):
        end += 1
    edit: dict[str, Any] = {}
    if len(old) - end > start:
        edit["$delete"] = [start] * (len(old) - end - start)
    if len(new) - end > start:
        edit["$insert"] = [[i, marshal(after[i])] for i in range(start, len(new) - end)]
    return edit
