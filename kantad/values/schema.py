"""Whether an edit fits the msgspec type that the state has, and what is stored then.

The state stays plain: what msgspec makes of the typed value, in a JSON file as JSON has it, in a
MessagePack file with times, byte strings and integer keys as they are. That form is the *normal* one:
defaults filled in, UUIDs and times in one spelling, sets in order. `Schema.fitted` takes a canonical
patch and gives the one that leaves the state normal, or refuses it. The patch, the type and the old
value are walked together; what is assigned is converted at the smallest kind that holds it, so a
write costs what it touches. Members that the type does not have are refused, at every depth: msgspec
would drop them. So is a key that is not spelled in its normal form: it would be stored elsewhere than
where it was put. A member that is deleted goes back to its default. Pure; raises `Problem`.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, ValidationError, convert, to_builtins

from kantad.values.blame import blame, dict_of, fits, refusal
from kantad.values.content import MISSING, check, copied, encode_json, same
from kantad.values.diff import SAME, difference
from kantad.values.effect import changed
from kantad.values.errors import Problem
from kantad.values.kinds import FREE, Kind, Member, Unsupported, compiled
from kantad.values.patch import escape, unescape, unmarshal
from kantad.values.pointer import Path
from kantad.values.splice import spliced
from kantad.values.validators import Validator

DEEPEST: Final = 256  # levels of a value that defaults were filled into; a request's own are bounded before


class Schema:
    """The type of a state's root, and the validators of the state."""

    def __init__(self, root: type[Any], validators: tuple[Validator, ...] = ()) -> None:
        """Raises `Unsupported`."""
        self.type, self.validators = root, validators
        self.kind, noticed = compiled(root)
        self.odd_keys, self.tuples, self.unsettled = noticed.odd_keys, noticed.tuples, noticed.unsettled
        self.native = False  # whether times, byte strings and integer keys are stored as they are

    @property
    def name(self) -> str:
        """`module:Type`."""
        return f"{self.type.__module__}:{self.type.__qualname__}"

    def bind(self, native: bool) -> None:
        """Say what the file is: with `native`, in MessagePack. Raises `Unsupported`."""
        if native and self.odd_keys:
            raise Unsupported("keys that are floats or byte strings can be stored in a file in JSON only")
        self.native = native

    def json_schema(self) -> dict[str, Any]:
        """The type as JSON Schema (2020-12)."""
        made = msgspec.json.schema(self.type)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}

    # -- whole values

    def normal(self, kind: Kind, value: Any) -> Any:
        """What is stored of a value of this kind; it shares nothing with it. Raises `Problem`."""
        made = self._converted(kind, value)
        self._look_for_strays(kind, value)
        return made

    def normalised(self, state: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """A whole state of another time made normal, without the members that the type does not have; and the patch.

        The patch is canonical, SAME where nothing differs.
        """
        made = self._converted(self.kind, state)
        text = _text(state)  # sorted by the library: a walk over a large state takes ten times as long
        return made, SAME if text is not None and text == _text(made) else difference(state, made)

    def _converted(self, kind: Kind, value: Any) -> Any:
        try:
            made = self.stored(kind, convert(value, kind.annotation, str_keys=True))
        except ValidationError as error:
            raise blame(kind, value, error) from None
        except Exception as error:  # a `__post_init__` may raise what it likes
            raise refusal(f"{type(error).__name__}: {error}") from None
        if not same(value, made):
            check(made, DEEPEST, self.native)
        return made

    def stored(self, kind: Kind, typed: Any) -> Any:
        """The normal form of a typed value of this kind."""
        if self.native:
            made = plain(to_builtins(typed, builtin_types=(bytes, datetime)))
        else:
            made = to_builtins(typed, str_keys=True)
            made = plain(made) if self.tuples else made
        if self.unsettled:
            self._settle(kind, made)
        return made

    def _settle(self, kind: Kind, made: Any) -> None:
        """Put sets in order, in place: theirs may differ at the next start. Fill in what msgspec leaves out."""
        kind = kind.of(made)
        if type(made) is dict:
            for key, member in kind.members.items() if kind.members is not None else ():
                if key not in made and not member.optional and not member.required:
                    made[key] = self._default(member)
            for key, item in made.items():
                self._settle_below(kind, key, item)
        elif type(made) is list:
            for position, item in enumerate(made):
                self._settle_below(kind, position, item)
            if kind.sorted:
                made.sort(key=encode_json)

    def _settle_below(self, kind: Kind, key: Any, item: Any) -> None:
        below = kind.below(key) if type(item) in (dict, list) else None
        if below is not None:
            self._settle(below, item)

    def _look_for_strays(self, kind: Kind, value: Any) -> None:
        """Refuse members that the type does not have, and keys in another spelling."""
        kind = kind.of(value)
        if type(value) is dict and (kind.members is not None or kind.key is not None):
            for key, item in value.items():
                self._look_into(kind, self._own_key(kind, key) if kind.key is not None else key, key, item)
        elif type(value) is list and (kind.item is not None or kind.positions):
            for position, item in enumerate(value):
                self._look_into(kind, position, position, item)

    def _look_into(self, kind: Kind, name: Any, key: Any, item: Any) -> None:
        below = kind.below(name)
        if below is None and kind.members is not None:
            raise unknown_member(key)
        try:
            if below is not None and type(item) in (dict, list):
                self._look_for_strays(below, item)
        except Problem as problem:
            raise problem.at(key) from None

    def _own_key(self, kind: Kind, key: Any) -> Any:
        """The key as it is stored; raises `Problem` for one that is none, and for one in another spelling."""
        assert kind.key is not None
        if type(key) in kind.key.plain and type(key) is str:
            return key
        one = {key: None}
        keys = dict_of(kind)
        if not fits(keys, one):
            raise self._converted_problem(keys, one)
        [name] = self.stored(keys, convert(one, keys.annotation, str_keys=True))
        if str(name) != str(key):
            raise refusal(f"this key is spelled {str(name)!r}").at(key)
        return name

    def _converted_problem(self, kind: Kind, value: Any) -> Problem:
        try:
            convert(value, kind.annotation, str_keys=True)
        except ValidationError as error:
            problem = refusal(str(error).partition(" - at `key`")[0])
            return problem.at(next(iter(value)))
        raise AssertionError("it fits")

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
            if key in target and self._takes(kind, target, key, value):
                return target, patch
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
            if kind.choices is not None:
                kind = kind.of(value)
            if kind.whole:
                return None
            below = kind.below(segment)
            if below is None:
                return None
            kind, value = below, value[segment]
        return kind

    def takes(self, root: dict[str, Any], path: Path, target: dict[Any, Any], key: Any, value: Any) -> bool:
        """Whether a scalar in place of a member that is there, of an object at a path of objects, is stored as it is.

        Where not, `fitted_at` says what is stored, or why it is refused.
        """
        kind = self.kind_at(root, path)
        return kind is not None and self._takes(kind, target, key, value)

    def _takes(self, kind: Kind, target: dict[Any, Any], key: Any, value: Any) -> bool:
        if kind.choices is not None:
            kind = kind.of(target)
        if kind.whole:
            return False
        below = FREE if kind.free else kind.below(key)
        return below is not None and self._is_kept(below, value)

    def _is_kept(self, kind: Kind, value: Any) -> bool:
        """Whether a scalar is certainly stored as it is."""
        if type(value) in kind.plain or kind.free:
            return True
        if kind.decode is None or (self.native and (kind.differs or type(value) in (bytes, datetime))):
            return False
        text = encode_json(value)
        try:
            return encode_json(kind.decode(text)) == text
        except ValidationError:
            return False

    def _fit(self, kind: Kind, old: Any, patch: Any) -> Any:
        if kind.free:
            return patch
        if type(patch) is not dict:
            if type(patch) is not list and (type(patch) is not str or patch[:1] != "$") and self._is_kept(kind, patch):
                return patch
        elif "$replace" not in patch and type(old) in (dict, list):
            inner = kind.of(old)
            if inner.free:
                return patch
            if not kind.whole and not inner.whole and not _names(patch, kind.tag):
                if type(old) is list and inner.item is not None and inner.key is None:
                    return self._fit_elements(inner, old, patch)
                if type(old) is dict and inner.members is not None:
                    return self._fit_members(inner.members, old, patch)
                if type(old) is dict and inner.key is not None:
                    return self._fit_items(inner, old, patch)
        return self._fit_whole(kind, old, patch)

    def _fit_whole(self, kind: Kind, old: Any, patch: Any) -> Any:
        """Convert all that stands here afterwards."""
        new = changed(old, patch)
        made = self.normal(kind, new)
        return patch if same(new, made) else difference(old, made)

    def _fit_members(self, members: dict[str, Member], old: dict[str, Any], patch: dict[str, Any]) -> Any:
        found: dict[str, Any] = {}
        for key, sub in patch.items():
            if key == "$delete":
                continue
            name = unescape(key)
            member = members.get(name)
            if member is None:
                raise unknown_member(name)
            self._put(found, key, name, member.kind, old, sub)
        gone = []
        for name in map(unescape, patch.get("$delete", ())):
            member = members.get(name)
            if member is None or member.optional:
                gone.append(escape(name))
                continue
            if member.required:
                raise refusal(f"Object missing required field `{name}`").at(name)
            default = self._default(member)
            sub = difference(old.get(name, MISSING), default)
            if sub is not SAME:
                found[escape(name)] = sub
        if gone:
            found["$delete"] = gone
        return found or SAME

    def _default(self, member: Member) -> Any:
        typed = member.default if member.default is not NODEFAULT else member.factory()
        made = self.stored(member.kind, typed)
        check(made, DEEPEST, self.native)
        return made

    def _fit_items(self, kind: Kind, old: dict[Any, Any], patch: dict[Any, Any]) -> Any:
        assert kind.item is not None
        found: dict[Any, Any] = {}
        for key, sub in patch.items():
            if key == "$delete":
                found[key] = sub
                continue
            name = unescape(key)
            if name not in old:
                name = self._own_key(kind, name)
                key = escape(name)
            self._put(found, key, name, kind.item, old, sub)
        return found or SAME

    def _put(self, found: dict[Any, Any], key: Any, name: Any, kind: Kind, old: dict[Any, Any], sub: Any) -> None:
        """Fit the patch of one member, into the patch of the object."""
        try:
            made = self._fit(kind, old.get(name, MISSING), sub)
        except Problem as problem:
            raise problem.at(name) from None
        if made is not SAME:
            found[key] = made

    def _fit_elements(self, kind: Kind, old: list[Any], patch: dict[str, Any]) -> Any:
        """A list edit. Where what is inserted is stored in another form, the edit is made anew of the two lists."""
        assert kind.item is not None
        deletions, insertions = patch.get("$delete", ()), patch.get("$insert", ())
        values = [(position, unmarshal(value)) for position, value in insertions]
        normal = []
        for position, value in values:
            try:
                normal.append((position, self.normal(kind.item, value)))
            except Problem as problem:
                raise problem.at(position) from None
        edits = {key: sub for key, sub in patch.items() if key not in ("$delete", "$insert")}
        between = spliced(old, list(deletions), [list(pair) for pair in normal]) if insertions or deletions else old
        fitted: dict[str, Any] = {}
        for key, sub in edits.items():
            self._put_element(fitted, key, kind.item, between, sub)
        if not same([value for _, value in values], [value for _, value in normal]):
            return copied(difference(old, changed(between, fitted) if fitted else between))
        found = {key: patch[key] for key in ("$delete", "$insert") if key in patch} | fitted
        return found or SAME

    def _put_element(self, found: dict[str, Any], key: str, kind: Kind, items: list[Any], sub: Any) -> None:
        try:
            made = self._fit(kind, items[int(key)], sub)
        except Problem as problem:
            raise problem.at(key) from None
        if made is not SAME:
            found[key] = made


def _text(state: Any) -> bytes | None:
    """A state's content as bytes; None where it has a form in MessagePack only."""
    try:
        return msgspec.msgpack.encode(state, order="sorted")
    except TypeError:  # keys of several types, or what no encoder takes
        return None


def _is_scalar(patch: dict[Any, Any]) -> bool:
    """Whether a patch of one member, spelled without an escape, assigns a scalar."""
    [(key, value)] = patch.items()
    kind = type(value)
    return kind is not dict and kind is not list and (kind is not str or value[:1] != "$") and str(key)[:1] != "$"


def _names(patch: dict[str, Any], tag: str | None) -> bool:
    """Whether a patch of an object edits its tag."""
    return tag is not None and (tag in patch or tag in patch.get("$delete", ()))


def unknown_member(name: Any) -> Problem:
    """The refusal of a member that the type does not have; its path begins at the object."""
    return refusal(f"Object contains unknown field `{name}`").at(name)


def plain(value: Any) -> Any:
    """A value as a file holds it: lists for tuples, times in UTC (or as text), keys text or integers."""
    kind = type(value)
    if kind is dict:
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is datetime:
        return value.isoformat() if value.tzinfo is None else value.astimezone(UTC)
    return value


def _plain_key(key: Any) -> Any:
    return key if type(key) is str or type(key) is int else next(iter(to_builtins({key: None}, str_keys=True)))
