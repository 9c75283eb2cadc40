"""Typed live values: how a value of any type that msgspec converts follows the patches of its raw form.

A mirror holds a raw tree of JSON builtins and a typed value of it. When a canonical patch was
applied to the tree (`kantad.values.patch.apply`), `follow` converts what the patch touches and
nothing else. It goes down through mappings, and through Structs that hold one somewhere below;
these keep their identity and change in place. Everything else (a Struct of plain fields, a list, a
set, a union of Structs, a dataclass) is converted anew and put in its place, so that who holds the
old object keeps a consistent old one. A frozen Struct, or one with a `__post_init__`, is made anew
and shares the mappings of the old one. Nothing of the typed value is shared with the raw tree. Pure.
"""

import json
import re
from collections.abc import Callable, Iterator
from types import GenericAlias
from typing import Any, Final, Protocol, get_origin

import msgspec
from msgspec import ValidationError
from msgspec.inspect import AnyType, CustomType, DictType, Metadata, StructType, Type, UnionType, type_info

from kantad.values.content import MISSING, copied
from kantad.values.patch import named, unescape
from kantad.values.spelling import type_of

ANEW: Final = {"$replace": None}  # as a patch: nothing of the old value is kept


class Shape(Protocol):
    """How values of one type are made of raw ones."""

    def convert(self, raw: Any) -> Any:
        """The typed value of a raw one; raises `msgspec.ValidationError`."""

    def follow(self, typed: Any, raw: Any, patch: Any) -> Any:
        """The typed value after a patch that made `raw`; raises `msgspec.ValidationError`.

        `typed` is changed in place and mostly what is returned. After an error it may be half
        changed and is of no more use. Costs what the patch touches.
        """


def shape_of(type: Any) -> Shape:
    """The shape of a type; raises TypeError for one that msgspec does not know."""
    return _shape(type_info(type), {})


class Whole:
    """Values that are converted as a whole."""

    def __init__(self, type: Any, shares: bool) -> None:
        self.type, self.shares = type, shares

    def convert(self, raw: Any) -> Any:
        """See `Shape`; where the type has an `Any` in it, msgspec would hand out parts of the raw tree."""
        return msgspec.convert(copied(raw) if self.shares else raw, self.type, str_keys=True)

    def follow(self, typed: Any, raw: Any, patch: Any) -> Any:
        """See `Shape`."""
        return self.convert(raw)


class Mapping:
    """Values that may be a dict: `dict[K, V]`, one or None, `Any`."""

    value: Shape

    def __init__(self, whole: Whole, key: Callable[[str], Any], least: int, most: float) -> None:
        self.convert = whole.convert
        self.key, self.least, self.most = key, least, most

    def follow(self, typed: Any, raw: Any, patch: Any) -> Any:
        """See `Shape`."""
        if type(typed) is not dict or type(raw) is not dict or type(patch) is not dict:
            return self.convert(raw)
        if "$replace" not in patch:
            self._merge(typed, raw, patch)
            # Fewer keys than in JSON: two of them are one (`1.0` and `1` of a float), the last one counts.
            if len(typed) == len(raw) and self.least <= len(raw) <= self.most:
                return typed
        fresh = self.convert(raw)
        typed.clear()
        typed.update(fresh)
        return typed

    def _merge(self, typed: dict[Any, Any], raw: dict[str, Any], patch: dict[str, Any]) -> None:
        for name, sub in patch.items():
            if name != "$delete":
                name = unescape(name)
                key = self.key(name)
                try:
                    typed[key] = self.value.follow(typed.get(key, MISSING), raw[name], sub)
                except ValidationError as error:
                    raise _above(error, f"[{json.dumps(name)}]") from None
        for name in patch.get("$delete", ()):
            typed.pop(self.key(named(name)), None)


class Field:
    """One field of a Struct: where its value comes from."""

    def __init__(self, info: Any, shape: Shape) -> None:
        self.info, self.shape = info, shape

    def follow(self, typed: Any, raw: dict[str, Any], sub: Any) -> Any:
        """The field's value after a patch of its raw one; `raw` is the Struct's."""
        name = self.info.encode_name
        if name not in raw:
            return self._absent()
        old = getattr(typed, self.info.name)
        if not self.info.required:
            if old is self.info.default:  # one object that all Structs of the class share
                old = MISSING
            elif _spelt_out(raw[name], sub):  # `old` may be a default that no patch knew of
                sub = ANEW
        try:
            return self.shape.follow(old, raw[name], sub)
        except ValidationError as error:
            raise _above(error, f".{name}") from None

    def _absent(self) -> Any:
        if self.info.required:
            raise ValidationError(f"Object missing required field `{self.info.encode_name}`")
        factory = self.info.default_factory
        return self.info.default if factory is msgspec.NODEFAULT else factory()


class Record:
    """Values that may be a Struct with a mapping below it."""

    fields: dict[str, Field]

    def __init__(self, whole: Whole, info: StructType) -> None:
        self.convert = whole.convert
        self.cls = get_origin(info.cls) or info.cls
        self.tag_field, self.strict = info.tag_field, info.forbid_unknown_fields
        self.checks = hasattr(self.cls, "__post_init__")
        self.anew = self.checks or self.cls.__struct_config__.frozen

    def follow(self, typed: Any, raw: Any, patch: Any) -> Any:
        """See `Shape`."""
        if type(typed) is not self.cls or type(raw) is not dict or type(patch) is not dict:
            return self.convert(raw)
        subs = self._subs(raw, patch)
        if self.tag_field in subs:
            return self.convert(raw)
        if self.strict and any(name in raw and name not in self.fields for name in subs):
            return self.convert(raw)  # raises
        fields = ((self.fields[name], sub) for name, sub in subs.items() if name in self.fields)
        changes = {field.info.name: field.follow(typed, raw, sub) for field, sub in fields}
        if self.anew:
            return _replaced(typed, changes) if changes else typed
        for name, value in changes.items():
            setattr(typed, name, value)
        return typed

    def _subs(self, raw: dict[str, Any], patch: dict[str, Any]) -> dict[Any, Any]:
        """What became of each field that the patch touches.

        Before a `__post_init__` the plain fields are as they were converted: it may have changed them.
        """
        if "$replace" in patch:
            return dict.fromkeys((*self.fields, *raw), ANEW)
        subs = {unescape(name): sub for name, sub in patch.items() if name != "$delete"}
        subs.update((named(name), ANEW) for name in patch.get("$delete", ()))
        if self.checks and not subs.keys().isdisjoint(self.fields):
            plain = (name for name, field in self.fields.items() if isinstance(field.shape, Whole))
            subs.update((name, ANEW) for name in plain)
        return subs


def _replaced(typed: Any, changes: dict[str, Any]) -> Any:
    try:
        return msgspec.structs.replace(typed, **changes)
    except (ValueError, TypeError) as error:  # of a `__post_init__`; msgspec takes them for refusals, too
        raise ValidationError(str(error)) from error


def _spelt_out(raw: Any, patch: Any) -> bool:
    """Whether all of this value is in the patch, so that it may have made it of nothing. Costs what the patch does."""
    if type(patch) is not dict or "$replace" in patch:
        return True
    if type(raw) is not dict or len(raw) > len(patch) or "$delete" in patch:
        return False
    return all(_spelt_out(raw[unescape(name)], sub) for name, sub in patch.items())


_PLACE: Final = re.compile(r"(.* - at (?:`key` in )?`\$)(.*`)", re.DOTALL)


def _above(error: ValidationError, step: str) -> ValidationError:
    """The same error, told from one level further up, as msgspec tells it but with the keys."""
    text = str(error)
    found = _PLACE.fullmatch(text)
    return ValidationError(f"{found[1]}{step}{found[2]}" if found else f"{text} - at `${step}`")


# -- from what msgspec says of a type to its shape


def _shape(info: Type, known: dict[int, Shape]) -> Shape:
    if id(info) in known:
        return known[id(info)]
    whole = Whole(type_of(info), any(isinstance(part, AnyType | CustomType) for part in _parts(info, set())))
    inner = _object(info)
    if isinstance(inner, StructType):
        record = known[id(info)] = Record(whole, inner)
        found = {field.name: field for field in msgspec.structs.fields(record.cls)}
        record.fields = {
            field.encode_name: Field(found[field.name], _shape(field.type, known)) for field in inner.fields
        }
        return record
    if isinstance(inner, DictType):
        mapping = known[id(info)] = Mapping(
            whole, _key_of(inner), inner.min_length or 0, inner.max_length or float("inf")
        )
        mapping.value = _shape(inner.value_type, known)
        return mapping
    if isinstance(inner, AnyType):
        mapping = Mapping(whole, str, 0, float("inf"))
        mapping.value = mapping
        return mapping
    return whole


def _object(info: Type) -> Type | None:
    """What a JSON object is taken for where a value of this type is changed in place, if it is."""
    if isinstance(info, Metadata):
        return _object(info.type)
    if isinstance(info, UnionType):
        found = [inner for inner in map(_object, info.types) if inner is not None]
        return found[0] if len(found) == 1 else None
    if isinstance(info, DictType | AnyType):
        return info
    if isinstance(info, StructType) and not info.array_like:
        return info if _holds_mapping(info, set()) else None
    return None


def _holds_mapping(info: Type, seen: set[int]) -> bool:
    """Whether there is a mapping in it that is reached without going through a list or the like."""
    if isinstance(info, Metadata):
        return _holds_mapping(info.type, seen)
    if isinstance(info, UnionType):
        return any(_holds_mapping(inner, seen) for inner in info.types)
    if isinstance(info, StructType) and not info.array_like and id(info) not in seen:
        seen.add(id(info))
        return any(_holds_mapping(field.type, seen) for field in info.fields)
    return isinstance(info, DictType)


def _parts(info: Any, seen: set[int]) -> Iterator[Type]:
    """This type and all types in it."""
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    inner = [getattr(info, name) for name in ("type", "item_type", "key_type", "value_type") if hasattr(info, name)]
    inner += [*getattr(info, "types", ()), *getattr(info, "item_types", ())]
    inner += [field.type for field in getattr(info, "fields", ())]
    for part in inner:
        yield from _parts(part, seen)


def _key_of(info: DictType) -> Callable[[str], Any]:
    """How a key is converted: as msgspec converts it, which it does for keys of dicts only."""
    kind = type_of(info.key_type)
    if kind is str or kind is Any:
        return str
    keys: Any = GenericAlias(dict, (kind, Any))
    return lambda name: next(iter(msgspec.convert({name: None}, keys, str_keys=True)))
