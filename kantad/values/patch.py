"""The patch interpreter: applies a change's effective patch to the state, in place.

The language is jsondiff's compact syntax, marshalled (dialects A and C of the format): an object
merges, `{"$replace": v}` replaces, anything else assigns; on an array `$delete` removes positions
one after another, `$insert` puts values in, then index keys edit. A leading `$` of a key or a
string is doubled. kanta 0.9 (dialect B) writes values verbatim: `merge_verbatim`.

`merge` trusts the patch to be one that fits (requests are first narrowed by `effect`); what does
not fit raises `Unfit` and leaves the target half-changed, to be undone or thrown away. The same
function applies live writes, replays logs and follows feeds, so what is in memory is what a
restart will read, key order included.

A patch is used up: where nothing is escaped, the values it assigns become part of the state as they
are. So whoever makes a patch of something that lives on (a request, another part of the state)
copies it first.

An undo list holds one entry an elementary edit, newest last. Putting a deleted key back where it
stood needs the order of the keys around it; see `KeyOrders`.
"""

from collections.abc import Container
from typing import Any, Final

from kantad.values.content import MISSING, encode_json
from kantad.values.pointer import index
from kantad.values.splice import in_one_pass

EXACT: Final = 1 << 53  # integers below it are floats, too
SMALL: Final = 32  # up to this many keys the order is simply copied at a deletion


class Unfit(Exception):
    """A logged patch does not fit the state that it was logged for."""


# By id: an object, an order of its keys, how far it holds, and how few keys the object had meanwhile.
Orders = dict[int, tuple[dict[Any, Any], list[Any], int, int]]


class KeyOrders:
    """The key orders of wide objects that had keys deleted, so that undoing a deletion is exact.

    Copying the order of a million keys at each deletion would make it cost what the object holds
    (measured: 40 ms). Instead the order is copied once, keys added later are appended to the copy,
    and a key's place is its last occurrence in it; a copy twice as long as its object is renewed.
    So a deletion costs O(1) amortised. Only the most recent objects are kept: the others pay the
    copy again.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self.kept: dict[int, tuple[dict[Any, Any], list[Any]]] = {}

    def before_delete(self, target: dict[Any, Any]) -> list[Any]:
        """The order of the keys, to be taken before one of them is deleted."""
        if len(target) <= SMALL:
            return list(target)
        found = self.kept.pop(id(target), None)
        order = found[1] if found is not None else None
        if order is None or len(order) > 2 * len(target) + SMALL:
            order = list(target)
            if len(self.kept) >= self.most:
                self.kept.pop(next(iter(self.kept)))
        self.kept[id(target)] = (target, order)
        return order

    def keep(self, orders: Orders) -> bool:
        """Whether the same deletions, done again, would need nothing of the objects' present order."""
        return all(
            least > SMALL and id(x) in self.kept and self.kept[id(x)][1] is keys
            for x, keys, _, least in orders.values()
        )

    def forget(self, target: dict[Any, Any]) -> None:
        """Drop what is known of an object that is filled anew."""
        self.kept.pop(id(target), None)

    def added(self, target: dict[Any, Any], key: Any) -> None:
        """Note that a key was added to an object (at its end)."""
        found = self.kept.get(id(target))
        if found is not None:
            found[1].append(key)

    def taken_back(self, target: dict[Any, Any], key: Any) -> None:
        """Note that the key that was added last is gone again."""
        found = self.kept.get(id(target))
        if found is not None:
            if found[1][-1] == key:
                found[1].pop()
            else:
                self.forget(target)

    def restored(self, target: dict[Any, Any], order: list[Any]) -> None:
        """Note that a deletion was undone by this order: one that was made after it lacks the key."""
        found = self.kept.get(id(target))
        if found is not None and found[1] is not order:
            self.forget(target)


# What an undo entry did: (what, container, key, old value, order).
SET, ADDED, DELETED, INSERTED, REMOVED, SPLICED, REPLACED = range(7)


class Undo:
    """What one transaction, or several, did to the state, to be taken back newest first."""

    __slots__ = ("entries", "orders")

    def __init__(self, orders: KeyOrders) -> None:
        self.entries: list[tuple[int, Any, Any, Any, Any]] = []
        self.orders = orders

    def assigned(self, target: dict[Any, Any], key: Any, old: Any) -> None:
        """Note that a member of an object is given another value than this one, MISSING if it is new."""
        if old is not MISSING:
            self.entries.append((SET, target, key, old, None))
            return
        self.entries.append((ADDED, target, key, None, None))
        if self.orders.kept:
            self.orders.added(target, key)

    def roll_back(self) -> None:
        """Restore every container that was touched, exactly, key order included."""
        reorder(self.take_back({}))

    def take_back(self, orders: Orders, mark: int = 0) -> Orders:
        """Take back what is from `mark` on, and note in `orders` which objects' keys have yet to be put in order."""
        entries = self.entries[mark:] if mark else self.entries
        for what, target, key, old, order in reversed(entries):
            if what == SET:
                target[key] = old
            elif what == ADDED:
                del target[key]
                self.orders.taken_back(target, key)
            elif what == DELETED:
                least = min(len(target), orders[id(target)][3]) if id(target) in orders else len(target)
                target[key] = old
                orders[id(target)] = (target, *order, least)  # that of the oldest deletion is the one to restore
                self.orders.restored(target, order[0])
            elif what == INSERTED:
                del target[key]
            elif what == REMOVED:
                target.insert(key, old)
            elif what == SPLICED:
                target[:] = old
            else:
                self.orders.forget(target)
                orders.pop(id(target), None)
                target.clear()
                target.update(old)
        del self.entries[mark:]
        return orders


def reorder(orders: Orders, but: Container[int] = ()) -> None:
    """Put keys back in order by the last place of each in the order's prefix; of the objects with these ids, not."""
    for target, keys, length, _ in orders.values():
        if id(target) in but:
            continue
        places = {key: place for place, key in enumerate(keys[:length])}
        items = sorted(target.items(), key=lambda item: places.get(item[0], length))
        target.clear()
        target.update(items)


def escape(text: Any) -> Any:
    """A key or string as a patch spells it: one more `$` before a leading `$`."""
    return "$" + text if type(text) is str and text[:1] == "$" else text


def gone(key: Any) -> Any:
    """A key as the `$delete` of an object spells it: an integer one as a float, for integers there are positions.

    (To Python `5.0` is the key `5`, so jsondiff and kanta delete the same one.)
    """
    return float(key) if type(key) is int and abs(key) < EXACT else escape(key)


def is_position(name: Any) -> bool:
    """Whether this is what the `$delete` of an array names: no integer key is, the largest ones have no exact float."""
    return type(name) is int and 0 <= name < EXACT


def named(name: Any) -> Any:
    """The key that the `$delete` of an object names."""
    return int(name) if type(name) is float else unescape(name)


def marshal(value: Any) -> Any:
    """A value as a patch spells it, keys and strings escaped; the value itself where nothing needs it."""
    kind = type(value)
    if kind is dict or kind is list:
        return _marshalled(value) if _has(value, b'"$') else value
    return escape(value)


def _has(value: Any, beginning: bytes) -> bool:
    """Whether a key or string in a container begins like this; raises `Unfit` for what no JSON can show."""
    try:
        return beginning in encode_json(value)
    except TypeError as error:  # kanta's MessagePack files may hold null as a key, or extensions
        raise Unfit(f"it holds what has no form in JSON: {error}") from None


def _marshalled(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {escape(key): _marshalled(item) for key, item in value.items()}
    if kind is list:
        return [_marshalled(item) for item in value]
    return escape(value)


def unescape(text: Any) -> Any:
    """The key or string that a patch spells; a single leading `$` stands for itself."""
    return text[1:] if type(text) is str and text[:2] == "$$" else text


def unmarshal(value: Any) -> Any:
    """The value that a patch spells; where nothing is escaped it is the patch's own part, not a copy."""
    kind = type(value)
    if kind is dict or kind is list:
        return _unmarshalled(value) if _has(value, b'"$$') else value
    return unescape(value)


def _unmarshalled(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {unescape(key): _unmarshalled(item) for key, item in value.items()}
    if kind is list:
        return [_unmarshalled(item) for item in value]
    return unescape(value)


def build(patch: Any) -> Any:
    """The value that a patch makes where there was nothing: object commands act on an empty object."""
    if type(patch) is not dict:
        return unmarshal(patch)
    return _built(patch) if _has(patch, b'"$') else patch


def _built(patch: Any) -> Any:
    if type(patch) is not dict:
        return unmarshal(patch)
    if "$replace" in patch:
        return unmarshal(patch["$replace"])
    if "$insert" in patch:
        raise Unfit("$insert where there is no array")
    return {unescape(key): _built(sub) for key, sub in patch.items() if key != "$delete"}


def merge(target: dict[Any, Any], patch: dict[Any, Any], undo: Undo | None = None) -> None:
    """Apply a patch (dialects A and C) to an object, in place; raises `Unfit`."""
    for key, sub in patch.items():
        if type(key) is str and key[:1] == "$":
            if key == "$delete":
                _delete(target, sub, undo)
                continue
            if key[:2] != "$$":
                raise Unfit(f"{key} on an object")
            key = key[1:]
        kind = type(sub)
        if kind is dict:
            old = target.get(key, MISSING)
            if "$replace" not in sub:
                if type(old) is dict:
                    merge(old, sub, undo)
                    continue
                if not sub and old is not MISSING:
                    continue
                if type(old) is list:
                    splice(old, sub, undo)
                    continue
            new = build(sub)
        else:
            old = None if undo is None else target.get(key, MISSING)
            new = sub if kind is int or (kind is not list and kind is not str) else unmarshal(sub)
        if undo is not None:
            undo.assigned(target, key, old)
        target[key] = new


def _delete(target: dict[Any, Any], keys: Any, undo: Undo | None) -> None:
    for key in keys if type(keys) is list else [keys]:
        key = named(key)
        if type(key) is dict or type(key) is list:
            raise Unfit("$delete of what is no key")
        if key in target:
            if undo is not None:
                order = undo.orders.before_delete(target)
                undo.entries.append((DELETED, target, key, target[key], (order, len(order))))
            del target[key]


def splice(target: list[Any], patch: dict[Any, Any], undo: Undo | None = None) -> None:
    """Apply a list edit, in place: deletions one after another, then insertions, then edits by index."""
    if "$delete" in patch or "$insert" in patch:
        try:
            _shift(target, patch.get("$delete", ()), patch.get("$insert", ()), undo)
        except (IndexError, KeyError, TypeError, ValueError):
            raise Unfit("a list edit that does not fit") from None
    for key, sub in patch.items():
        if key == "$delete" or key == "$insert":
            continue
        position = index(key, len(target))
        if position < 0:
            raise Unfit(f"no element {key!r} in an array of {len(target)}")
        _edit(target, position, sub, undo)


def _shift(target: list[Any], deletions: Any, insertions: Any, undo: Undo | None) -> None:
    entries = undo.entries if undo is not None else []
    values = [(position, unmarshal(value)) for position, value in insertions]
    made = in_one_pass(target, deletions, values)
    if made is not None:
        entries.append((SPLICED, target, None, list(target), None))
        target[:] = made
        return
    for position in deletions:
        entries.append((REMOVED, target, position, target.pop(position), None))
    for position, value in values:
        target.insert(position, value)
        entries.append((INSERTED, target, position, None, None))


def _edit(target: list[Any], position: int, sub: Any, undo: Undo | None) -> None:
    """Apply a patch to one element of an array."""
    old = target[position]
    if type(sub) is dict and "$replace" not in sub:
        if type(old) is dict:
            return merge(old, sub, undo)
        if not sub:
            return None
        if type(old) is list:
            return splice(old, sub, undo)
    if undo is not None:
        undo.entries.append((SET, target, position, old, None))
    target[position] = build(sub)
    return None


def apply(value: Any, patch: Any, undo: Undo | None = None) -> Any:
    """The value that a patch (dialects A and C) makes of this one; containers are changed in place.

    With `undo`, an object that is the root keeps its identity: it is emptied and filled.
    """
    if type(patch) is not dict:
        return unmarshal(patch)
    if "$replace" not in patch:
        if type(value) is dict:
            merge(value, patch, undo)
            return value
        if not patch and value is not MISSING:
            return value
        if type(value) is list:
            splice(value, patch, undo)
            return value
        return build(patch)
    new = unmarshal(patch["$replace"])
    if type(value) is dict and type(new) is dict:
        if undo is not None:
            undo.entries.append((REPLACED, value, None, dict(value), None))
            undo.orders.forget(value)
        value.clear()
        value.update(new)
        return value
    return new


def merge_verbatim(target: dict[Any, Any], patch: dict[Any, Any], undo: Undo | None = None) -> None:
    """Apply a patch of kanta 0.9 (dialect B) to an object: values and the keys in them are verbatim.

    `$` is doubled only in keys of objects that are merged and in `$delete`; lists are assigned
    whole; an object over anything but an object is that object. Raises `Unfit`.
    """
    for key, sub in patch.items():
        if key == "$delete":
            _delete(target, sub, undo)
            continue
        key = unescape(key)
        old = target.get(key, MISSING)
        if type(sub) is dict and type(old) is dict:
            merge_verbatim(old, sub, undo)
            continue
        if undo is not None:
            undo.assigned(target, key, old)
        target[key] = sub
