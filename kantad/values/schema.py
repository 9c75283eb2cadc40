"""Whether an edit fits the msgspec type that the state has, and what is stored then.

The state stays plain values in their normal form (`normal`). `Schema.fitted` takes a canonical patch and
gives the one that leaves the state in that form, or refuses it. The patch, the type and the old value are
walked together; what is assigned is converted at the smallest kind that holds it, so a write costs what it
touches. A member that is deleted goes back to its default. Pure; raises `Problem`.
"""

from typing import Any

import msgspec

from kantad.values.blame import refusal
from kantad.values.content import MISSING, copied, same, same_bytes
from kantad.values.diff import SAME, difference
from kantad.values.effect import changed
from kantad.values.errors import Problem
from kantad.values.kinds import FREE, Kind, Member, Unsupported, compiled
from kantad.values.normal import NormalForm, refuse_merged, unknown_member
from kantad.values.patch import build, escape, named, unescape, unmarshal
from kantad.values.pointer import Path
from kantad.values.splice import spliced
from kantad.values.validators import Validator


class Schema:
    """The type of a state's root, and the validators of the state."""

    def __init__(self, root: type[Any], validators: tuple[Validator, ...] = ()) -> None:
        """Raises `Unsupported`."""
        self.type, self.validators = root, validators
        self.kind, noticed = compiled(root)
        self.form, self.odd_keys, self.several_keys = NormalForm(noticed), noticed.odd_keys, noticed.several

    @property
    def name(self) -> str:
        """`module:Type`."""
        return f"{self.type.__module__}:{self.type.__qualname__}"

    def bind(self, native: bool) -> None:
        """Say what the file is: with `native`, in MessagePack. Raises `Unsupported`."""
        if native and self.odd_keys:
            raise Unsupported("keys that are floats or byte strings can be stored in a file in JSON only")
        self.form.native = native

    def json_schema(self) -> dict[str, Any]:
        """The type as JSON Schema (2020-12)."""
        made = msgspec.json.schema(self.type)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}

    # -- a state of another time

    def normalised(self, state: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """A whole state of another time made normal, without the members that the type does not have; and the patch.

        The patch is canonical, SAME where nothing differs.
        """
        made = self.form.converted(self.kind, state)
        if same_bytes(state, made):
            return made, SAME
        if self.several_keys:
            refuse_merged(self.kind, state, made)
        self.form.check(made)
        return made, difference(state, made)

    # -- patches

    def fitted(self, old: Any, patch: Any) -> Any:
        """The canonical patch of the root that leaves it normal (or SAME), for one (or SAME); raises `Problem`."""
        return SAME if patch is SAME else self._fit(self.kind, old, patch)

    def fitted_at(
        self, root: dict[str, Any], path: Path, target: dict[Any, Any] | None, patch: Any
    ) -> tuple[dict[Any, Any] | None, Any]:
        """The same where `target` stands at a path of objects: it and its patch, or None and that of the root."""
        if target is None:
            return None, self.fitted(root, patch)
        kind = self.kind_at(root, path)
        if kind is None:
            for segment in reversed(path):
                patch = {escape(segment): patch}
            return None, self._fit(self.kind, root, patch)
        if len(patch) == 1 and _is_scalar(patch):
            [(key, value)] = patch.items()
            made = self._kept(kind, target, key, value) if key in target else MISSING
            if made is not MISSING:
                return target, patch if made is value else SAME if same(target[key], made) else {key: made}
        try:
            made = self._fit(kind, target, patch)
        except Problem as problem:
            problem.keys[:0] = path
            raise
        if made is SAME or (type(made) is dict and "$replace" not in made):
            return target, made
        for segment in reversed(path):
            made = {escape(segment): made}
        return None, made

    def kind_at(self, root: dict[str, Any], path: Path) -> Kind | None:
        """The kind of what is at a path of objects; None where something above it is converted as a whole."""
        kind, value = self.kind, root
        for segment in path:
            if kind.free:
                return FREE
            kind = kind.of(value)
            if kind.whole:
                return None
            below = kind.below(segment)
            if below is None:
                return None
            kind, value = below, value[segment]
        return kind

    def kept(self, root: dict[str, Any], path: Path, target: dict[Any, Any], key: Any, value: Any) -> Any:
        """What is stored of a scalar in place of a member that is there, of an object at a path of objects.

        MISSING where that is not told at once; then `fitted_at` says what, or why it is refused.
        """
        kind = self.kind_at(root, path)
        return MISSING if kind is None else self._kept(kind, target, key, value)

    def _kept(self, kind: Kind, target: dict[Any, Any], key: Any, value: Any) -> Any:
        kind = kind.of(target)
        if kind.whole:
            return MISSING
        below = FREE if kind.free else kind.below(key)
        return MISSING if below is None else self.form.kept(below, value)

    def _fit(self, kind: Kind, old: Any, patch: Any) -> Any:
        if kind.free:
            return patch
        if type(patch) is not dict:
            if type(patch) is not list and (type(patch) is not str or patch[:1] != "$"):
                made = self.form.kept(kind, patch)
                if made is not MISSING:
                    return patch if made is patch else SAME if same(old, made) else made
        elif "$replace" not in patch and type(old) in (dict, list):
            inner = kind.of(old)
            if not kind.whole and not inner.whole and not _names(patch, kind.tag):
                if inner.members is not None:
                    return self._fit_members(inner.members, old, patch)
                return (
                    self._fit_elements(inner, old, patch) if inner.key is None else self._fit_items(inner, old, patch)
                )
        return self._fit_whole(kind, old, patch)

    def _fit_whole(self, kind: Kind, old: Any, patch: Any) -> Any:
        """Convert all that stands here afterwards."""
        new = changed(old, patch)
        made = self.form.normal(kind, new)
        return patch if made is new else difference(old, made)

    def _fit_members(self, members: dict[str, Member], old: dict[str, Any], patch: dict[str, Any]) -> Any:
        found: dict[str, Any] = {}
        for key, sub in patch.items():
            if key == "$delete":
                continue
            name = unescape(key)
            member = members.get(name)
            if member is None:
                raise unknown_member(name)
            try:  # one frame of the interpreter less a level than with a function
                made = self._fit(member.kind, old.get(name, MISSING), sub)
            except Problem as problem:
                raise problem.at(name) from None
            if made is not SAME:
                found[key] = made
        gone = self._restore(found, members, old, patch)
        if gone:
            found["$delete"] = gone
        return found or SAME

    def _restore(
        self, found: dict[str, Any], members: dict[str, Member], old: dict[str, Any], patch: dict[str, Any]
    ) -> list[Any]:
        """Put the defaults of deleted members into the patch; returns those that are deleted."""
        gone = []
        for name in map(named, patch.get("$delete", ())):
            member = members.get(name)
            if member is None or member.optional:
                gone.append(escape(name))
                continue
            if member.required:
                raise refusal(f"Object missing required field `{name}`").at(name)
            sub = difference(old.get(name, MISSING), self.form.default(member))
            if sub is not SAME:
                found[escape(name)] = sub
        return gone

    def _fit_items(self, kind: Kind, old: dict[Any, Any], patch: dict[Any, Any]) -> Any:
        assert kind.item is not None
        found: dict[Any, Any] = {}
        again = set()  # what is deleted in one spelling and set in another: it is set
        for key, sub in patch.items():
            if key == "$delete":
                found[key] = sub
                continue
            name = unescape(key)
            if name not in old:
                name = self.form.own_key(kind, name)
                key = escape(name)
                if name in old:
                    again.add(name)
                    sub = difference(old[name], build(sub))
            if sub is SAME:
                continue
            try:
                made = self._fit(kind.item, old.get(name, MISSING), sub)
            except Problem as problem:
                raise problem.at(name) from None
            if made is not SAME:
                found[key] = made
        if again and "$delete" in found:
            found["$delete"] = [name for name in found["$delete"] if named(name) not in again]
            if not found["$delete"]:
                del found["$delete"]
        return found or SAME

    def _fit_elements(self, kind: Kind, old: list[Any], patch: dict[str, Any]) -> Any:
        """A list edit. Where what is inserted is stored in another form, the edit is made anew of the two lists."""
        assert kind.item is not None
        if "$insert" not in patch and "$delete" not in patch:
            return self._fit_positions(kind.item, old, patch) or SAME
        deletions, insertions = patch.get("$delete", ()), patch.get("$insert", ())
        values = [(position, unmarshal(value)) for position, value in insertions]
        normal = []
        for position, value in values:
            try:
                normal.append((position, self.form.normal(kind.item, value)))
            except Problem as problem:
                raise problem.at(position) from None
        edits = {key: sub for key, sub in patch.items() if key not in ("$delete", "$insert")}
        between = spliced(old, list(deletions), [list(pair) for pair in normal])
        fitted = self._fit_positions(kind.item, between, edits)
        if not same([value for _, value in values], [value for _, value in normal]):
            return copied(difference(old, changed(between, fitted) if fitted else between))
        found = {key: patch[key] for key in ("$delete", "$insert") if key in patch} | fitted
        return found or SAME

    def _fit_positions(self, kind: Kind, old: list[Any], edits: dict[str, Any]) -> dict[str, Any]:
        """The edits by index of a list whose elements are of this kind."""
        fitted: dict[str, Any] = {}
        for key, sub in edits.items():
            try:
                made = self._fit(kind, old[int(key)], sub)
            except Problem as problem:
                raise problem.at(key) from None
            if made is not SAME:
                fitted[key] = made
        return fitted


def _is_scalar(patch: dict[Any, Any]) -> bool:
    """Whether a patch of one member, spelled without an escape, assigns a scalar."""
    [(key, value)] = patch.items()
    kind = type(value)
    return kind is not dict and kind is not list and (kind is not str or value[:1] != "$") and str(key)[:1] != "$"


def _names(patch: dict[str, Any], tag: str | None) -> bool:
    """Whether a patch of an object edits its tag."""
    return tag is not None and (tag in patch or tag in patch.get("$delete", ()))
