"""What a requested patch really changes: strict about the request, pure about the state.

A request's patch is checked against the value it is meant for and narrowed to its effect: the
canonical patch (dialect C) that names only what differs afterwards, or SAME. Nothing is mutated,
so a refused patch needs no undoing, a dry run is this and nothing else, and what is logged is
what is applied. Raises `Problem`: `invalid_patch` for what is no patch at all, `patch_mismatch`
for one that does not fit here, `too_deep` and `invalid_value` for what cannot be stored; each
names the path below the value.

`room` is the number of container levels left at this place; `foreign` allows MessagePack's values.
"""

from typing import Any

from kantad.values.content import MISSING, check, check_key, check_scalar, copied
from kantad.values.diff import SAME, Effort, difference, shorter_of
from kantad.values.errors import Problem
from kantad.values.patch import escape, marshal, named, unescape
from kantad.values.patch import gone as spelled
from kantad.values.pointer import Path, format, index, key_in, respelled
from kantad.values.splice import check_moves, spliced

SAFE = 1 << 53
COMMANDS = ("$delete", "$insert", "$replace")


def effect(old: Any, patch: Any, room: int, foreign: bool = False, effort: Effort | None = None) -> Any:
    """The canonical patch that this patch amounts to over `old` (may be MISSING), or SAME."""
    kind = type(patch)
    if kind is int and -SAFE < patch < SAFE:  # the commonest write, short-cut
        return SAME if type(old) is int and old == patch else patch
    if kind is not dict or "$replace" in patch:
        value = literal(patch, room, foreign) if kind is not dict else _replacement(patch, room, foreign)
        return difference(old, respelled(value, old) if foreign else value, effort)
    if type(old) is dict:
        return _on_object(old, patch, room, foreign, effort or Effort())
    if not patch and old is not MISSING:
        return SAME
    if type(old) is list:
        return _on_array(old, patch, room, foreign, effort or Effort())
    return difference(old, _built(patch, room, foreign), effort)


def literal(value: Any, room: int, foreign: bool = False) -> Any:
    """The value that a patch spells, checked: no commands in it, storable, not too deep."""
    kind = type(value)
    if kind is str:
        return unescape(value)
    if kind is dict:
        _check_room(room)
        made = {}
        for key, item in value.items():
            try:
                name = _own_key(key, value, foreign)
                made[name] = literal(item, room - 1, foreign)
            except Problem as problem:
                raise problem.at(key) from None
        return made
    if kind is list:
        _check_room(room)
        items = []
        for position, item in enumerate(value):
            try:
                items.append(literal(item, room - 1, foreign))
            except Problem as problem:
                raise problem.at(position) from None
        return items
    check_scalar(value, foreign)
    return value


def _check_room(room: int) -> None:
    if room <= 0:
        raise Problem("too_deep", "the value is nested too deeply (--max-depth)")


def _own_key(key: Any, patch: dict[Any, Any], foreign: bool) -> Any:
    """The user's key that a patch spells; a command is refused here."""
    if type(key) is not str:
        check_key(key, patch, foreign)
        return key
    if key[:1] != "$":
        return key
    if key[:2] == "$$":
        return key[1:]
    if key in COMMANDS:
        raise Problem(
            "invalid_patch", f"{key} has no meaning here; a key that begins with $ is written with one more $"
        )
    raise Problem("invalid_patch", f"unknown command {key}; a key that begins with $ is written with one more $")


def _replacement(patch: dict[Any, Any], room: int, foreign: bool) -> Any:
    if len(patch) > 1:
        raise Problem("invalid_patch", "$replace stands alone")
    return literal(patch["$replace"], room, foreign)


def _built(patch: Any, room: int, foreign: bool) -> Any:
    """The value that a patch makes where there is nothing (or a scalar): commands act on an empty object."""
    if type(patch) is not dict:
        return literal(patch, room, foreign)
    if "$replace" in patch:
        return _replacement(patch, room, foreign)
    _check_room(room)
    made = {}
    for key, sub in patch.items():
        try:
            if key == "$delete":
                _object_deletions(sub)
            elif key == "$insert":
                raise Problem("patch_mismatch", "$insert where there is no array")
            else:
                name = _own_key(key, patch, foreign)
                made[name] = _built(sub, room - 1, foreign)
        except Problem as problem:
            raise problem.at(key) from None
    return made


def _object_deletions(names: Any) -> dict[Any, None]:
    """The keys that a `$delete` names, in its order."""
    if type(names) is not list:
        raise Problem("invalid_patch", "$delete is an array of keys or positions")
    for name in names:
        if type(name) is int and name >= 0:
            raise Problem("patch_mismatch", "$delete of a position where there is no array")
        if type(name) is not str:
            raise Problem("invalid_patch", "$delete is an array of keys or positions")
    return dict.fromkeys(unescape(name) for name in names)


def _on_object(old: dict[Any, Any], patch: dict[Any, Any], room: int, foreign: bool, effort: Effort) -> Any:
    if room <= 0:
        _check_room(room)
    gone = _object_deletions(patch["$delete"]) if "$delete" in patch else {}
    if gone and foreign:
        gone = dict.fromkeys(key_in(old, name) for name in gone)
    found: dict[Any, Any] = {}
    for key, sub in patch.items():
        name = key
        try:
            if type(key) is not str or key[:1] == "$":
                if key == "$delete":
                    continue
                if key == "$insert":
                    raise Problem("patch_mismatch", "$insert on an object")
                name = _own_key(key, patch, foreign)
            if foreign:
                name = key_in(old, name)
            if gone and name in gone:  # deleted, then made anew: deletions come first
                value = _built(sub, room - 1, foreign)
                before = old.get(name, MISSING)
                narrowed = difference(before, respelled(value, before) if foreign else value, effort)
                del gone[name]
            else:
                narrowed = effect(old.get(name, MISSING), sub, room - 1, foreign, effort)
        except Problem as problem:
            raise problem.at(key) from None
        if narrowed is not SAME:
            found[name if type(name) is str and name[:1] != "$" else escape(name)] = narrowed
    if gone:
        deleted = [spelled(name) for name in gone if name in old]
        if deleted:
            found["$delete"] = deleted
    return found if found else SAME


def _positions(patch: dict[Any, Any], length: int) -> tuple[list[int], list[list[Any]], int]:
    """The checked deletions and insertions of a list edit, and the length after them."""
    deletions, insertions = patch.get("$delete", []), patch.get("$insert", [])
    if type(deletions) is not list or type(insertions) is not list:
        raise Problem("invalid_patch", "$delete and $insert of a list edit are arrays")
    for position in deletions:
        if type(position) is str:
            raise Problem("patch_mismatch", "$delete of a key on an array")
        _check_position(position)
        if position >= length:
            raise Problem("patch_mismatch", f"$delete of position {position} in an array of {length}")
        length -= 1
    for pair in insertions:
        if type(pair) is not list or len(pair) != 2:
            raise Problem("invalid_patch", "$insert is an array of [position, value] pairs")
        _check_position(pair[0])
        if pair[0] > length:
            raise Problem("patch_mismatch", f"$insert at position {pair[0]} of an array of {length}")
        length += 1
    check_moves(length, deletions, insertions)
    return deletions, insertions, length


def _check_position(position: Any) -> None:
    if type(position) is not int or position < 0:
        raise Problem("invalid_patch", "a position is an integer from 0 up")


def _on_array(old: list[Any], patch: dict[Any, Any], room: int, foreign: bool, effort: Effort) -> Any:
    _check_room(room)
    deletions, insertions, length = _positions(patch, len(old))
    values = [[position, literal(value, room - 1, foreign)] for position, value in insertions]
    shifted = spliced(old, deletions, values) if len(patch) > 1 else old
    edits: dict[Any, Any] = {}
    for key, sub in patch.items():
        if key == "$delete" or key == "$insert":
            continue
        try:
            position = _element(key, length)
            if type(key) is int and str(key) in patch:
                raise Problem("invalid_patch", f"element {key} is named twice")
            narrowed = effect(shifted[position], sub, room - 1, foreign, effort)
        except Problem as problem:
            raise problem.at(key) from None
        if narrowed is not SAME:
            edits[str(position)] = narrowed
    if not deletions and not values and not edits:
        return SAME
    if bool(deletions) + bool(values) + bool(edits) > 1:
        return copied(difference(old, _edited(shifted, edits), effort))  # else the state could hold an element twice
    edit = edits  # of one kind only, so there is nothing to narrow
    if deletions:
        edit = {"$delete": deletions}
    elif values:
        edit = {"$insert": [[position, marshal(value)] for position, value in values]}
    return _shorter(old, edit, effort)


def _element(key: Any, length: int) -> int:
    if type(key) is str and key[:1] == "$":
        raise Problem("patch_mismatch" if key[:2] == "$$" else "invalid_patch", f"{key} on an array")
    position = index(key, length)
    if position < 0:
        raise Problem("patch_mismatch", f"no element {key!r} in an array of {length}")
    return position


def _shorter(old: list[Any], edit: dict[Any, Any], effort: Effort) -> Any:
    """The canonical list edit, or what the differ makes of the list where the whole list is shorter.

    A list of more than 64 elements is edited: looking at all of it would make an edit cost what
    the list holds.
    """
    if len(old) > 64 or effort.tired:
        return edit
    new = changed(old, edit)
    return edit if shorter_of(edit, new, effort) is edit else copied(difference(old, new, effort))


def _edited(items: list[Any], edits: dict[Any, Any]) -> list[Any]:
    """The list with these canonical edits done, the old elements left as they are."""
    for key, sub in edits.items():
        position = int(key)
        items[position] = changed(items[position], sub)
    return items


def changed(old: Any, patch: Any) -> Any:
    """The value that a canonical patch makes of `old`, sharing what stays the same; `old` is not touched."""
    if type(patch) is not dict or "$replace" in patch or type(old) not in (dict, list):
        return _built(patch, 1 << 20, True)
    if type(old) is list:
        values = [(position, _built(value, 1 << 20, True)) for position, value in patch.get("$insert", ())]
        items = spliced(old, patch.get("$delete", ()), values)
        return _edited(items, {k: v for k, v in patch.items() if k not in ("$delete", "$insert")})
    made = dict(old)
    for key, sub in patch.items():
        if key != "$delete":
            name = unescape(key)
            made[name] = changed(made.get(name, MISSING), sub)
    for key in patch.get("$delete", ()):
        made.pop(named(key), None)
    return made


def locate(root: Any, path: Path) -> tuple[list[tuple[Any, Any]], Any]:
    """The steps to a path as (container, key) pairs, and the value there or MISSING.

    An array takes an index that exists, or `-` (past its end) as the last one. Raises
    `Problem("patch_mismatch")` where the path runs through a scalar or beyond an array.
    """
    steps: list[tuple[Any, Any]] = []
    node = root
    for depth, segment in enumerate(path):
        if type(node) is dict:
            name: Any = segment
            child = node.get(segment, MISSING)
            if child is MISSING:
                name = key_in(node, segment)
                child = node.get(name, MISSING)
            steps.append((node, name))
            node = child
        elif type(node) is list:
            position = index(segment, len(node))
            if position < 0 and segment != "-":
                raise Problem(
                    "patch_mismatch",
                    f"no element {segment!r} in an array of {len(node)}",
                    path=format(path[: depth + 1]),
                )
            steps.append((node, "-" if position < 0 else position))
            node = MISSING if position < 0 else node[position]
        elif node is MISSING:
            steps.append((MISSING, segment))
        else:
            raise Problem("patch_mismatch", "the path runs through a scalar", path=format(path[: depth + 1]))
    return steps, node


def rooted(steps: list[tuple[Any, Any]], sub: Any) -> Any:
    """The patch of the root that this patch at the end of the steps amounts to."""
    effort = Effort()
    for container, key in reversed(steps):
        if type(container) is list:
            sub = _shorter(container, {"$insert": [[len(container), sub]]} if key == "-" else {str(key): sub}, effort)
        else:
            sub = {escape(key): sub}
    return sub


def removal(steps: list[tuple[Any, Any]]) -> Any:
    """The patch of the root that removes what is at the end of the steps."""
    container, key = steps[-1]
    if type(container) is list:
        return rooted(steps[:-1], _shorter(container, {"$delete": [key]}, Effort()))
    if len(container) == 1:
        return rooted(steps[:-1], {"$replace": {}})
    return rooted(steps[:-1], {"$delete": [spelled(key)]})


def assignment(old: Any, value: Any, room: int, foreign: bool = False) -> Any:
    """The canonical patch that puts this plain value in the place of `old`, or SAME."""
    check(value, room, foreign)
    return difference(old, respelled(copied(value), old) if foreign else copied(value))
