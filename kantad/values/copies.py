"""Copies of large containers that are made when they are needed: most of what a draft passes through is not.

A `LazyDict` answers for single keys from the dict that it is a copy of, and takes all of it in only for
what needs all. A `LazyList` is a deep copy from the first look at it on. Until then what reads them past
their methods, as msgspec's encoders do, meets an `Unread` and refuses it with a TypeError: it must not
take a part for the whole. Small containers are copied at once.
"""

from collections.abc import Callable
from typing import Any, Final

from kantad.values.content import MISSING

LARGE_DICT: Final = 1000  # keys, from which on a copy is lazy: below, it costs a few microseconds
LARGE_LIST: Final = 16  # elements, which are copied deeply


class Unread:
    """What stands in a copy that is not made yet."""

    __slots__ = ()


UNREAD: Final = Unread()


class LazyDict(dict[Any, Any]):
    """A dict that begins as a copy of another. `changed` are the keys that its own content counts for.

    The order of keys is that of the other; new ones follow.
    """

    __slots__ = ("changed", "lazy", "source")

    def __init__(self, source: dict[Any, Any], changed: dict[Any, bool]) -> None:
        self.source, self.changed = source, changed
        self.lazy = dict.__len__(source) > LARGE_DICT
        if self.lazy:
            super().__init__({UNREAD: None})
        else:
            super().__init__(source)

    def held(self, key: Any) -> Any:
        """What is at a key, or MISSING."""
        found = dict.get(self, key, MISSING)
        if found is MISSING and self.lazy and key not in self.changed:
            found = self.source.get(key, MISSING)
        return found

    def count(self) -> int:
        """How many keys it has."""
        if not self.lazy:
            return dict.__len__(self)
        return len(self.source) + sum(dict.__contains__(self, key) - (key in self.source) for key in self.changed)

    def fill(self) -> None:
        """Take in all that is not there yet."""
        if not self.lazy:
            return
        self.lazy = False
        own = {key: dict.get(self, key, MISSING) for key in self.changed}
        dict.clear(self)
        dict.update(self, self.source)
        for key, value in own.items():
            if value is not MISSING:
                dict.__setitem__(self, key, value)
            else:
                dict.pop(self, key, None)


class LazyList(list[Any]):
    """A list that is a deep copy of another from the first look at it on; see the module for what may not look."""

    __slots__ = ("clone", "source")

    def __init__(self, source: list[Any], clone: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__((UNREAD,))
        self.source: list[Any] | None = source
        self.clone = clone

    def fill(self) -> None:
        """Make the copy."""
        if self.source is not None:
            source, self.source = self.source, None
            list.__setitem__(self, slice(None), self.clone(source))

    def __radd__(self, other: list[Any]) -> list[Any]:
        return [*other, *self]

    def __reduce_ex__(self, protocol: Any) -> Any:  # of copy.copy, copy.deepcopy and pickle
        return list, (), None, iter(self)


def _filling(name: str) -> Callable[..., Any]:
    method = getattr(list, name)

    def filled(self: LazyList, *arguments: Any, **named: Any) -> Any:
        self.fill()
        return method(self, *arguments, **named)

    filled.__name__ = name
    return filled


_METHODS: Final = (
    *("__getitem__", "__setitem__", "__delitem__", "__len__", "__iter__", "__reversed__", "__contains__"),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__add__", "__iadd__", "__mul__", "__rmul__"),
    *("__imul__", "__repr__", "append", "extend", "insert", "pop", "remove", "clear", "index", "count", "sort"),
    *("reverse", "copy"),
)
for _name in _METHODS:
    setattr(LazyList, _name, _filling(_name))


def is_untouched(copy: Any, source: Any) -> bool:
    """Whether this is a copy of that list which nobody looked at."""
    return type(copy) is LazyList and copy.source is source
