"""What a draft hands out: copies made where they are reached, and a journal of what was looked at.

A `Tracked` is a shallow copy of a dict of the base, the value that nobody may change: made when it is
needed, where the dict is large (`copies`), as are those of large lists. A
child that is still the base's own is copied when it is first reached: a dict as another `Tracked`,
a Struct field by field, its mappings as `Tracked`, and all else (lists, sets, dataclasses) deeply,
and then it counts as read as a whole.

What reads a dict past its methods, as msgspec's encoders do, sees the right content and is not
noted. What hands out parts of one that way (`msgspec.convert` to a type with `Any`, `dict.values(d)`)
hands out the base's own, which must not be changed. Slots are not tracked: all that a Struct holds
beside mappings counts as read once the Struct is reached.
"""

from collections.abc import ItemsView, Iterator, ValuesView
from copy import copy, deepcopy
from typing import Any, Final, Self

import msgspec

from kantad.values.content import MISSING
from kantad.values.copies import LARGE_LIST, LazyDict, LazyList
from kantad.values.plain import SCALARS, fields_of, name_in
from kantad.values.pointer import Path

OWN: Final = SCALARS | {type(MISSING)}  # nothing to go down into


class Journal:
    """What was looked at: paths read with all below them, and containers that were only passed through."""

    def __init__(self) -> None:
        self.read: set[Path] = set()
        self.reached: set[Path] = set()


class Trace:
    """What is known of a `Tracked`: where it stands, the dict it is a copy of, what happened to it."""

    __slots__ = ("base", "cleared", "journal", "path", "touched", "whole")

    def __init__(self, base: dict[Any, Any], path: Path, journal: Journal) -> None:
        self.base, self.path, self.journal = base, path, journal
        self.touched: dict[Any, bool] = {}  # keys that were written (true), or whose child was copied
        self.whole = self.cleared = False

    def note(self, key: Any, reached: bool = False) -> None:
        """What the base has at this key was seen, or only that it has a container there."""
        name = None if self.whole or self.touched.get(key) else name_in(self.base, key)
        if name is not None:
            (self.journal.reached if reached else self.journal.read).add((*self.path, name))

    def note_whole(self) -> None:
        """The keys were seen, or everything."""
        if not self.whole:
            self.whole = True
            self.journal.read.add(self.path)


class Tracked(LazyDict):
    """A dict that knows what of it was read and written.

    It is a dict by inheritance, against the custom of the house: users check for one, and encoders do.
    A copy of it, by whatever way, is a plain dict.
    """

    __slots__ = ("trace",)

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace.base, trace.touched)
        self.trace = trace

    # -- one key

    def __getitem__(self, key: Any) -> Any:
        value = self.held(key)
        if value is MISSING:
            self.trace.note(key)
            raise KeyError(key)
        if type(value) in OWN:
            self.trace.note(key)
        elif key not in self.trace.touched:  # not: what the base has now, which may be a mirror's and have moved on
            self.trace.note(key, reached=True)
            value = drafted(value, (*self.trace.path, name_in(self.trace.base, key) or ""), self.trace.journal)
            if self.trace.whole and isinstance(value, Tracked):
                value.trace.whole = True  # it is noted with all below it
            self.trace.touched.setdefault(key, False)
            super().__setitem__(key, value)
        return value

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a dict; reads what is at the key."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        value = self.held(key)
        self.trace.note(key, reached=type(value) not in OWN)
        return value is not MISSING

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.trace.touched[key] = True

    def __delitem__(self, key: Any) -> None:
        self.trace.note(key)
        if self.held(key) is MISSING:
            raise KeyError(key)
        self.trace.touched[key] = True
        super().pop(key, None)

    def pop(self, key: Any, *default: Any) -> Any:
        """As of a dict; reads what is at the key, and writes that it is gone."""
        if default and key not in self:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As of a dict; reads what is at the key, and writes it where there was nothing."""
        if key not in self:
            self[key] = default
        return self[key]

    # -- all of it

    def see_all(self) -> None:
        """Note that everything was seen, and have it there."""
        self.trace.note_whole()
        self.fill()

    def __iter__(self) -> Iterator[Any]:
        self.see_all()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self.see_all()
        return super().__reversed__()

    def __len__(self) -> int:
        self.trace.note_whole()
        return self.count()

    def keys(self) -> Any:
        """As of a dict; reads the whole object."""
        self.see_all()
        return super().keys()

    def values(self) -> Any:
        """As of a dict; reads the whole object, each child copied when it is reached."""
        return ValuesView(self)

    def items(self) -> Any:
        """As of a dict; reads the whole object, each child copied when it is reached."""
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        self.see_all()
        if isinstance(other, Tracked):
            other.see_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        self.see_all()
        if isinstance(other, Tracked):
            other.see_all()
        return super().__ne__(other)

    def __repr__(self) -> str:
        self.see_all()
        return super().__repr__()

    def copy(self) -> dict[Any, Any]:
        """A plain dict; reads the whole object."""
        return {key: self[key] for key in self}

    def __reduce_ex__(self, protocol: Any) -> Any:  # of copy.copy, copy.deepcopy and pickle
        return dict, (), None, None, iter(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def update(self, *others: Any, **more: Any) -> None:
        """As of a dict; writes each of the keys."""
        for key, value in dict(*others, **more).items():
            self[key] = value

    def popitem(self) -> tuple[Any, Any]:
        """As of a dict; reads the whole object."""
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """As of a dict; writes each of the keys."""
        self.trace.cleared = True
        self.fill()
        self.trace.touched.update(dict.fromkeys(super().keys(), True))
        super().clear()


def drafted(value: Any, path: Path, journal: Journal) -> Any:
    """What is handed out in the place of a container of the base."""
    if isinstance(value, dict):
        return Tracked(Trace(value, path, journal))
    if not _holds_mapping(value):
        journal.read.add(path)
        return LazyList(value, cloned) if type(value) is list and len(value) > LARGE_LIST else cloned(value)
    made = copy(value)  # unlike deepcopy it calls no `__post_init__`
    for field in fields_of(value.__class__):
        item, below = getattr(value, field.name), (*path, field.encode_name)
        if type(item) in SCALARS:
            journal.read.add(below)
        else:
            msgspec.structs.force_setattr(made, field.name, drafted(item, below, journal))
    return made


def _holds_mapping(value: Any) -> bool:
    """Whether it is a Struct that is written as an object and has a mapping in it, or such a Struct."""
    if not isinstance(value, msgspec.Struct) or value.__struct_config__.array_like:
        return False
    items = [getattr(value, name) for name in value.__struct_fields__]
    return any(isinstance(item, dict) or _holds_mapping(item) for item in items)


def cloned(value: Any) -> Any:
    """A copy that shares nothing that can be changed."""
    if type(value) in SCALARS:
        return value
    if type(value) is dict:
        return {key: cloned(item) for key, item in value.items()}
    if type(value) is list:
        return [cloned(item) for item in value]
    if type(value) in (set, frozenset, tuple) and SCALARS.issuperset(map(type, value)):
        return copy(value)  # in a hundredth of the time
    if not isinstance(value, msgspec.Struct):
        return deepcopy(value)
    items = {name: getattr(value, name) for name in value.__struct_fields__}
    copies = {name: cloned(item) for name, item in items.items()}
    if value.__struct_config__.frozen and all(copies[name] is item for name, item in items.items()):
        return value  # nothing to change in it; and a default is known by its identity
    made = copy(value)
    for name, item in copies.items():
        msgspec.structs.force_setattr(made, name, item)
    return made
