"""RFC 7396 merge patches and RFC 6902 JSON Patches as the same effective patches. Pure.

A merge patch is walked against the value it is meant for. A JSON Patch is a sequence: its
operations run on a draft that copies nothing but the arrays it changes (an object's draft holds
only the keys that were touched), and the draft is then compared with the value.
"""

from typing import Any, Final

from kantad.values.content import MISSING, check, check_key, check_scalar, copied, equal
from kantad.values.diff import SAME, Effort, difference
from kantad.values.errors import Problem
from kantad.values.patch import escape
from kantad.values.patch import gone as spelled
from kantad.values.pointer import Path, format, index, key_in, parse, respelled
from kantad.values.splice import MOST_MOVED


def merge_patch(old: Any, patch: Any, room: int, foreign: bool = False, effort: Effort | None = None) -> Any:
    """The canonical patch that an RFC 7396 merge patch amounts to over `old` (may be MISSING), or SAME."""
    effort = effort or Effort()
    if type(patch) is not dict:
        check(patch, room, foreign)
        return difference(old, respelled(copied(patch), old) if foreign else copied(patch), effort)
    if type(old) is not dict:
        made = _without_nulls(patch)
        check(made, room, foreign)
        return difference(old, made)
    if room <= 0:
        raise Problem("too_deep", "the value is nested too deeply (--max-depth)")
    found: dict[Any, Any] = {}
    gone = []
    for key, value in patch.items():
        check_key(key, patch, foreign)
        if foreign:
            key = key_in(old, key)
        if value is None:
            if key in old:
                gone.append(spelled(key))
            continue
        try:
            sub = merge_patch(old.get(key, MISSING), value, room - 1, foreign, effort)
        except Problem as problem:
            raise problem.at(key) from None
        if sub is not SAME:
            found[escape(key)] = sub
    if gone:
        found["$delete"] = gone
    return found if found else SAME


def _without_nulls(patch: Any) -> Any:
    if type(patch) is not dict:
        return copied(patch)
    made = {}
    for key, value in patch.items():  # one frame of the interpreter a level, as everywhere here
        if value is not None:
            made[key] = _without_nulls(value)
    return made


MOST_COPIED: Final = 16 << 20  # bytes of JSON, roughly, that the copies of one JSON Patch come to
SETTLING: Final = 64  # a member that a move takes out of a draft costs about as much as so many that `insert` shifts


class Draft:
    """An object as the operations so far leave it: the base and the keys that were touched."""

    __slots__ = ("base", "touched")

    def __init__(self, base: dict[Any, Any]) -> None:
        self.base = base
        self.touched: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """The value of a key, or MISSING."""
        found = self.touched.get(key, self)
        return self.base.get(key, MISSING) if found is self else found

    def name(self, segment: str) -> Any:
        """The key that a segment names."""
        return segment if segment in self.touched else key_in(self.base, segment)

    def settled(self) -> dict[Any, Any]:
        """The whole object, as plain values."""
        made = {key: value for key, value in self.base.items() if key not in self.touched}
        for key, value in self.touched.items():
            if value is not MISSING:
                made[key] = _settled(value)
        return made

    def check(self, room: int, foreign: bool) -> None:
        """Refuse what cannot be stored among the values that were put in."""
        for key, value in self.touched.items():
            try:
                if type(value) is Draft:
                    value.check(room - 1, foreign)
                elif value is not MISSING:
                    check(_settled(value), room - 1, foreign)
            except Problem as problem:
                raise problem.at(key) from None

    def difference(self, effort: Effort, foreign: bool) -> Any:
        """The canonical patch from the base to the draft, or SAME."""
        found: dict[Any, Any] = {}
        gone = []
        for key, value in self.touched.items():
            old = self.base.get(key, MISSING)
            if value is MISSING:
                if old is not MISSING:
                    gone.append(spelled(key))
                continue
            if type(value) is Draft and value.base is old:
                sub = value.difference(effort, foreign)
            else:
                sub = copied(difference(old, respelled(_settled(value), old) if foreign else _settled(value), effort))
            if sub is not SAME:
                found[escape(key)] = sub
        if gone:
            found["$delete"] = gone
        return found if found else SAME


class Holder(Draft):
    """What stands above the value, and how much the operations may still copy (bytes) and move (elements)."""

    __slots__ = ("copies", "moves")

    def __init__(self, base: dict[Any, Any]) -> None:
        super().__init__(base)
        self.copies, self.moves = MOST_COPIED, MOST_MOVED

    def count_copy(self, value: Any) -> None:
        """Count a value that is copied; raises `Problem`."""
        self.copies = _left(value, self.copies)
        if self.copies < 0:
            raise Problem("too_large", f"the copies of a JSON Patch are at most {MOST_COPIED} bytes together")

    def count_moves(self, elements: int) -> None:
        """Count elements that make room or close up; raises `Problem`."""
        self.moves -= elements
        if self.moves < 0:
            raise Problem("too_large", "the operations move too many elements of long arrays: send the array")


class Array:
    """An array as the operations so far leave it."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = list(items)


def _drafted(value: Any) -> int:
    """How many members and elements `_settled` goes through."""
    if type(value) is Draft:
        return len(value.base) + sum(map(_drafted, value.touched.values()), len(value.touched))
    if type(value) is Array:
        return sum(map(_drafted, value.items), len(value.items))
    return 0


def _settled(value: Any) -> Any:
    if type(value) is Draft:
        return value.settled()
    if type(value) is Array:
        return [_settled(item) for item in value.items]
    return value


def json_patch(old: Any, operations: Any, room: int, foreign: bool = False) -> Any:
    """The canonical patch that an RFC 6902 JSON Patch amounts to over `old` (may be MISSING), or SAME.

    Raises `Problem`: `invalid_patch` for what is no JSON Patch, `patch_mismatch` for an operation
    whose target is not there, `precondition_failed` for a `test` that does not hold.
    """
    if type(operations) is not list:
        raise Problem("invalid_patch", "a JSON Patch is an array of operations")
    holder = Holder({} if old is MISSING else {"": old})
    for number, operation in enumerate(operations):
        try:
            _run(holder, operation, room, foreign)
        except Problem as problem:
            problem.more["operation"] = number
            raise
    if "" not in holder.touched:
        return SAME
    new = holder.touched[""]
    if new is MISSING:
        raise Problem("patch_mismatch", "a JSON Patch cannot remove the value it is applied to")
    if type(new) is Draft and new.base is old:
        new.check(room, foreign)
        return new.difference(Effort(), foreign)
    made = _settled(new)
    check(made, room, foreign)
    return copied(difference(old, respelled(made, old) if foreign else made))


def operation_paths(operations: Any, path: Path) -> list[Path]:
    """The paths that a JSON Patch rooted at `path` touches (those it only tests or copies from excluded)."""
    found = []
    for operation in operations if type(operations) is list else ():
        if type(operation) is not dict:
            continue  # not checked yet, and refused when it is
        for name in ("path", "from") if operation.get("op") == "move" else ("path",):
            if operation.get("op") != "test" and type(operation.get(name)) is str:
                found.append(path + parse(operation[name]))
    # An operation on an array element moves the others: the array as a whole is touched.
    return [p[:-1] if p and (p[-1] == "-" or p[-1].isdigit()) else p for p in found]


def _member(operation: dict[str, Any], name: str) -> Path:
    pointer = operation.get(name)
    if type(pointer) is not str:
        raise Problem("invalid_patch", f"an operation has a {name!r}, a JSON Pointer")
    return ("", *parse(pointer))


def _run(holder: Holder, operation: Any, room: int, foreign: bool) -> None:
    if type(operation) is not dict or type(operation.get("op")) is not str:
        raise Problem("invalid_patch", "an operation is an object with an 'op'")
    path = _member(operation, "path")
    match operation["op"]:
        case "add":
            _add(holder, path, _value(operation, room, foreign))
        case "remove":
            _remove(holder, path)
        case "replace":
            _replace(holder, path, _value(operation, room, foreign))
        case "move":
            source = _member(operation, "from")
            if path[: len(source)] == source and path != source:
                raise Problem("invalid_patch", "a value cannot be moved into itself")
            moved = _remove(holder, source)
            holder.count_moves(SETTLING * _drafted(moved))
            _add(holder, path, _settled(moved))
        case "copy":
            value = _settled(_get(holder, _member(operation, "from")))
            holder.count_copy(value)
            _add(holder, path, value)
        case "test":
            value = _value(operation, 1 << 20, True)
            current = _settled(_get(holder, path))
            if not equal(current, value):
                raise Problem("precondition_failed", "a test does not hold", path=format(path[1:]))
        case unknown:
            raise Problem("invalid_patch", f"there is no operation {unknown[:64]!r}")


def _left(value: Any, left: int) -> int:
    """What a copied value leaves of an allowance; below 0, and looked at no further, where that is not enough."""
    if type(value) is dict:
        for key, item in value.items():
            left = _left(item, left - len(str(key)) - 4)
            if left < 0:
                break
    elif type(value) is list:
        for item in value:
            left = _left(item, left - 1)
            if left < 0:
                break
    else:
        left -= len(value) + 2 if type(value) is str or type(value) is bytes else 8
    return left


def _value(operation: dict[str, Any], room: int, foreign: bool) -> Any:
    if "value" not in operation:
        raise Problem("invalid_patch", "this operation has a 'value'")
    value = operation["value"]
    check(value, room, foreign) if type(value) in (dict, list) else check_scalar(value, foreign)
    return value


def _gone(path: Path) -> Problem:
    return Problem("patch_mismatch", "there is nothing at this path", path=format(path[1:]))


def _child(node: Any, segment: str) -> Any:
    """The value of one key or element, or MISSING."""
    if isinstance(node, Draft):
        return node.get(node.name(segment))
    if type(node) is dict:
        return node.get(key_in(node, segment), MISSING)
    items = node.items if type(node) is Array else node
    if type(items) is not list:
        return MISSING
    position = index(segment, len(items))
    return items[position] if position >= 0 else MISSING


def _get(holder: Holder, path: Path) -> Any:
    node: Any = holder
    for segment in path:
        node = _child(node, segment)
        if node is MISSING:
            raise _gone(path)
    return node


def _parent(holder: Holder, path: Path) -> Draft | Array:
    """The container of a path, as a draft that may be changed."""
    node: Draft | Array = holder
    for segment in path[:-1]:
        child = _child(node, segment)
        if child is MISSING:
            raise _gone(path)
        if type(child) is dict:
            child = Draft(child)
        elif type(child) is list:
            child = Array(child)
        elif type(child) is not Draft and type(child) is not Array:
            raise Problem("patch_mismatch", "the path runs through a scalar", path=format(path[1:]))
        if isinstance(node, Draft):
            node.touched[node.name(segment)] = child
        else:
            node.items[index(segment, len(node.items))] = child
        node = child
    return node


def _add(holder: Holder, path: Path, value: Any) -> None:
    parent = _parent(holder, path)
    if isinstance(parent, Draft):
        parent.touched[parent.name(path[-1])] = value
        return
    position = len(parent.items) if path[-1] == "-" else index(path[-1], len(parent.items) + 1)
    if position < 0:
        raise _gone(path)
    holder.count_moves(len(parent.items) - position)
    parent.items.insert(position, value)


def _remove(holder: Holder, path: Path) -> Any:
    old = _get(holder, path)
    parent = _parent(holder, path)
    if isinstance(parent, Draft):
        parent.touched[parent.name(path[-1])] = MISSING
    else:
        position = index(path[-1], len(parent.items))
        holder.count_moves(len(parent.items) - position)
        del parent.items[position]
    return old


def _replace(holder: Holder, path: Path, value: Any) -> None:
    _get(holder, path)
    parent = _parent(holder, path)
    if isinstance(parent, Draft):
        parent.touched[parent.name(path[-1])] = value
    else:
        parent.items[index(path[-1], len(parent.items))] = value
