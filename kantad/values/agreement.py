"""Whether a live value still is what was stored: of all that a draft reached, or as a whole.

A live value is made of the stored one and follows it; who changes it by hand makes it differ. A draft
knows what was reached: there the value that it was made of is compared with the stored one, and each
mapping on the way, and each large list or set beside it, by its size, so a comparison costs what the
transaction touched. Pure.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import msgspec

from kantad.values.content import MISSING, same, same_bytes
from kantad.values.copies import LARGE_LIST, LazyList, is_untouched
from kantad.values.delta import is_draft
from kantad.values.diff import SAME, difference
from kantad.values.errors import Problem
from kantad.values.kinds import FREE, Kind
from kantad.values.normal import NormalForm
from kantad.values.plain import fields_of, is_left_out, name_in, name_of
from kantad.values.pointer import Path, lookup
from kantad.values.tracked import Tracked


class Agreement:
    """What is stored of live values, typed or (without a form) plain."""

    def __init__(self, kind: Kind = FREE, form: NormalForm | None = None) -> None:
        self.kind, self.form = kind, form

    def strays(self, live: Any, raw: Any) -> Any:
        """The patch from what is stored to what is live, SAME where they agree; None where it cannot be told.

        Costs what the state holds.
        """
        try:
            stored = self._stored(self.kind, live)
            return SAME if same_bytes(raw, stored) else difference(raw, stored)
        except Exception:  # what was put there by hand may be anything
            return None

    def stray(self, live: Any, draft: Any, raw: Any) -> Path | None:
        """A path that the draft reached where the live value is not what is stored, if there is one."""
        return next(self._strays(self.kind, live, draft, raw, ()), None)

    def _stored(self, kind: Kind, value: Any) -> Any:
        return value if self.form is None else self.form.stored(kind, value)

    def _agrees(self, kind: Kind, value: Any, raw: Any) -> bool:
        if value is MISSING or raw is MISSING:
            return value is raw
        try:
            return same(self._stored(kind, value), raw)
        except Exception:
            return False

    def _strays(self, kind: Kind, live: Any, draft: Any, raw: Any, path: Path) -> Iterator[Path]:
        if is_draft(draft, live):
            yield from self._mapping(kind, live, draft, raw, path)
        elif _is_parted(draft) and type(live) is type(draft):
            yield from self._record(kind, live, draft, raw, path)
        elif _is_passed(live, draft) and type(raw) is list and len(live) == len(raw):
            return
        elif not self._agrees(kind, live, raw):
            yield path

    def _mapping(self, kind: Kind, live: dict[Any, Any], draft: Tracked, raw: Any, path: Path) -> Iterator[Path]:
        if type(raw) is not dict or len(live) != len(raw):
            yield path
            return
        kind = kind.of(raw)
        for key in draft.trace.touched:
            name = name_in(live, key)
            if name is not None:
                old, new, found = live.get(key, MISSING), dict.get(draft, key, MISSING), lookup(raw, (name,))
                if old is MISSING and found is not MISSING and any(name_of(other) == name for other in live):
                    problem = Problem("invalid_value", "the dict has this key as one of another type")
                    raise reduce(Problem.at, reversed((*path, name)), problem)
                yield from self._strays(_below(kind, name), old, new, found, (*path, name))

    def _record(self, kind: Kind, live: Any, draft: Any, raw: Any, path: Path) -> Iterator[Path]:
        if type(raw) is not dict:
            yield path
            return
        kind = kind.of(raw)
        for field in fields_of(live.__class__):
            name, old, new = field.encode_name, getattr(live, field.name), getattr(draft, field.name)
            found = raw.get(name, MISSING)
            if found is MISSING and is_left_out(live, field, old):
                continue
            yield from self._strays(_below(kind, name), old, new, found, (*path, name))


def _below(kind: Kind, name: str) -> Kind:
    if kind.free:
        return FREE
    return kind.below(name) or FREE


def _is_passed(live: Any, draft: Any) -> bool:
    """Whether it is a large array that the transaction did not look at (a list), or did not change (a set, a tuple)."""
    if isinstance(draft, LazyList):
        return is_untouched(draft, live)
    return type(live) in (set, frozenset, tuple) and len(live) > LARGE_LIST and bool(draft == live)


def _is_parted(draft: Any) -> bool:
    """Whether it is a Struct with drafts of mappings in it."""
    if not isinstance(draft, msgspec.Struct) or draft.__struct_config__.array_like:
        return False
    items = [getattr(draft, name) for name in draft.__struct_fields__]
    return any(isinstance(item, Tracked) or _is_parted(item) for item in items)
