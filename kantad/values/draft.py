"""The draft of a transaction: a value to change as if it were plain, then the patch and what was read.

The base is a value as of some revision, raw or typed. A live mirror may share it, so it is never
changed here; it must stay as it is while the draft is in use. What is handed out is copied as it is
reached (`kantad.values.tracked`): a draft costs a shallow copy of each mapping that it goes through.
The patch is from the base to the draft (`kantad.values.delta`). Pure.

Paths are told as JSON spells their keys. So a typed key that is not written in its own spelling (a
UUID in capitals) is not found by the patch or the reads.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec.inspect import (
    AnyType,
    DictType,
    ListType,
    Metadata,
    NoneType,
    StructType,
    TypedDictType,
    UnionType,
    type_info,
)

from kantad.values.content import MISSING
from kantad.values.delta import Findings, delta
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.patch import marshal
from kantad.values.plain import plain
from kantad.values.pointer import Path
from kantad.values.touch import Tree, tree_of_paths
from kantad.values.tracked import Journal, drafted

MOST: Final = 200  # paths under one parent, beyond which the parent is told instead


class Draft:
    """A value to change. `base` may be MISSING; then it begins as what is empty of the type, by default a dict.

    Raises TypeError for a base that is neither an object nor an array, and for a type of which there
    is nothing empty. What is left empty makes no patch.
    """

    def __init__(self, base: Any, type: Any = None) -> None:
        self.missing = base is MISSING
        self.base = _empty(type_info(Any if type is None else type)) if self.missing else base
        if not isinstance(self.base, dict | list | msgspec.Struct):
            raise TypeError("a transaction's path names an object or an array")
        self.journal = Journal()
        self.handed: Any = MISSING

    @property
    def value(self) -> Any:
        """The draft itself: dicts, lists and Structs that may be changed as one likes."""
        if self.handed is MISSING:
            self.handed = drafted(self.base, (), self.journal)
        return self.handed

    def patch(self) -> Any:
        """The canonical patch from the base to the draft as it is now, or SAME.

        It shares nothing with the draft. Raises `Problem`, with the path, `invalid_value` or `too_deep`.
        """
        return self._compared(Findings())

    def reads(self) -> list[Path]:
        """The paths that the draft as it is now depends on: none above another, few under one parent.

        They are what was looked at, and where a value was assigned that the base has already, in whole
        or in part: what the patch does not say must not change. A container that was passed through
        counts where nothing below it was read or changed.
        """
        found = Findings()
        self._compared(found)
        paths = self.journal.read | found.relied
        told = paths | found.changed
        passed = {path[:length] for path in told | self.journal.reached for length in range(len(path))}
        paths |= self.journal.reached - passed - told
        return sorted(_flat(tree_of_paths(paths), ())) if paths else []

    def _compared(self, found: Findings) -> Any:
        if self.handed is MISSING:
            return SAME
        try:
            patch = delta(self.base, self.handed, (), found)
            return marshal(plain(self.handed)) if self.missing and patch is not SAME else patch
        except RecursionError:
            raise Problem("too_deep", "a value is nested too deeply, or holds itself") from None


def _flat(tree: Tree | None, path: Path) -> Iterator[Path]:
    if tree is None or len(tree) > MOST:
        yield path
        return
    for name, below in tree.items():
        yield from _flat(below, (*path, name))


def _empty(info: Any) -> Any:
    """What is empty of a type; raises TypeError."""
    if isinstance(info, Metadata):
        return _empty(info.type)
    if isinstance(info, UnionType):
        inner = [one for one in info.types if not isinstance(one, NoneType)]
        return _empty(inner[0] if len(inner) == 1 else None)
    if isinstance(info, DictType | AnyType | TypedDictType):
        return {}
    if isinstance(info, ListType):
        return []
    if isinstance(info, StructType):
        return info.cls()
    raise TypeError("a transaction's path names an object or an array")
