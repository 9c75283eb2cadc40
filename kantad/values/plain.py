"""What users put into a value, as JSON builtins: copied, checked, and written as msgspec writes it.

Beyond JSON's own these are msgspec Structs, UUIDs, times, enums, sets, and whatever else msgspec
encodes. A set is written in the order of its elements' JSON, so that equal sets are written alike.
Reading a dict that tracks its reads (`kantad.values.tracked`) is not noted here. Pure.
"""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import FieldInfo

from kantad.values.content import check_scalar, encode_json
from kantad.values.copies import LazyDict
from kantad.values.errors import Problem
from kantad.values.keys import one_spelling

SCALARS: Final = frozenset(
    {str, int, float, bool, NoneType, bytes, UUID, datetime, date, time, timedelta, Decimal, msgspec.UnsetType}
)


def plain(value: Any, met: list[Any] | None = None) -> Any:
    """The JSON builtins of a value, all new; raises `Problem("invalid_value")` for what cannot be stored.

    Dicts of a class of their own are added to `met`. A cycle ends in RecursionError.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind in (int, float, bool, NoneType):
        check_scalar(value)
        return value
    if isinstance(value, dict):
        if met is not None and kind is not dict:
            met.append(value)
        if isinstance(value, LazyDict):
            value.fill()
        return _members(dict.items(value), met)
    if isinstance(value, list | tuple):
        return [_at(position, item, met) for position, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=encode_json)
    if isinstance(value, msgspec.Struct):
        return _record(value, met)
    try:
        return plain(msgspec.to_builtins(value, str_keys=True))  # once more, for what a dataclass holds
    except (TypeError, ValueError) as error:
        raise Problem("invalid_value", str(error)) from None


def name_of(key: Any) -> str | None:
    """The JSON key that a key of a dict is written as, or None."""
    if type(key) is str:
        return key
    try:
        return str(next(iter(msgspec.to_builtins({one_spelling(key): None}, str_keys=True))))
    except TypeError:
        return None


def name_in(held: dict[Any, Any], key: Any) -> str | None:
    """The same of a key that the dict may have: then it is spelled as the one there, whoever wrote that."""
    if type(key) is not str and key in held:
        probe = _Probe(key)
        dict.get(held, probe)
        return str(next(iter(msgspec.to_builtins({probe.found: None}, str_keys=True))))
    return name_of(key)


class _Probe:
    """Finds the key in a dict that is equal to this one."""

    def __init__(self, key: Any) -> None:
        self.key = self.found = key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        equal = bool(self.key == other)
        self.found = other if equal else self.found
        return equal


@cache
def fields_of(record: type) -> tuple[FieldInfo, ...]:
    """The fields of a Struct; msgspec finds them anew each time, which takes long."""
    return msgspec.structs.fields(record)


def default_of(field: FieldInfo) -> Any:
    """The value of a field that is not given; UNSET of one that has to be."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return msgspec.UNSET if field.required else field.default


def is_left_out(record: msgspec.Struct, field: FieldInfo, item: Any) -> bool:
    """Whether msgspec would not write a field of this value."""
    if item is msgspec.UNSET:
        return True
    if not record.__struct_config__.omit_defaults:
        return False
    return item is field.default or (field.default_factory in (dict, list, set) and _is_empty(item))


def _is_empty(item: Any) -> bool:
    if isinstance(item, LazyDict):
        return item.count() == 0
    if isinstance(item, dict):
        return dict.__len__(item) == 0
    return isinstance(item, list | set) and not item


def _record(value: msgspec.Struct, met: list[Any] | None) -> Any:
    config = value.__struct_config__
    found = [(field, getattr(value, field.name)) for field in fields_of(type(value))]
    if config.array_like:
        return plain([*([] if config.tag is None else [config.tag]), *(item for _, item in found)], met)
    tag = {} if config.tag is None else {config.tag_field: config.tag}
    items = ((field.encode_name, item) for field, item in found if not is_left_out(value, field, item))
    return tag | _members(items, met)


def _members(items: Iterable[tuple[Any, Any]], met: list[Any] | None) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, item in items:
        name = name_of(key)
        if name is None:
            raise Problem("invalid_value", "the key of an object is a string, or written as one").at(key)
        if name in made:
            raise Problem("invalid_value", "two keys of the dict are written alike").at(name)
        made[_text(name)] = _at(name, item, met)
    return made


def _at(key: object, item: Any, met: list[Any] | None) -> Any:
    try:
        return plain(item, met)
    except Problem as problem:
        raise problem.at(key) from None


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem("invalid_value", "text is valid Unicode: a string has no surrogates in it") from None
    return text
