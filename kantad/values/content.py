"""What a stored value is: sameness of content, comparison of numbers, bounds.

Content is type and value: `1`, `1.0` and `true` are three contents, and so are `0.0` and `-0.0`
(their JSON text differs). The order of an object's keys is kept but is not content.
Pure; called by the differ, the interpreter, the preconditions and the edges.
"""

from collections.abc import Container
from datetime import datetime
from math import isfinite
from typing import Any, Final

import msgspec

from kantad.values.errors import Problem


class Missing:
    """The type of MISSING: no value at a path (JSON null is a value)."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"  # there is one, copied or not


MISSING: Final = Missing()

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

_ONLY_MSGPACK: Final = "can be stored in a file in MessagePack only, and this one is in JSON"
_FOREIGN: Final[dict[type, str]] = {bytes: "a byte string", datetime: "a timestamp"}

encode_json = msgspec.json.Encoder().encode
encode_msgpack = msgspec.msgpack.Encoder().encode
decode_json = msgspec.json.Decoder().decode
_SORTED: Final = msgspec.msgpack.Encoder(order="sorted").encode


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same content."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        if len(one) != len(other):
            return False
        return all(key in other and same(value, other[key]) for key, value in one.items())
    if kind is list:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is float:
        if one != one:  # kanta's MessagePack files may hold NaN
            return bool(other != other)
        return bool(one == other) and (one != 0 or str(one) == str(other))
    return bool(one == other)


def same_bytes(one: Any, other: Any) -> bool:
    """Whether two large values are certainly the same content: sorted by the library, in a tenth of a walk's time."""
    try:
        return bool(_SORTED(one) == _SORTED(other))
    except Exception:  # keys of several types, or what no encoder takes
        return False


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal as conditions compare them: numbers by value, a boolean equals no number."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return len(one) == len(other) and all(k in other and equal(v, other[k]) for k, v in one.items())
    if type(one) is list:
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def copied(value: Any) -> Any:
    """A copy that shares no container with the value."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def check(value: Any, room: int, foreign: bool = False) -> None:
    """Refuse what cannot be stored: raises `Problem` `invalid_value` or `too_deep` with the path below `value`.

    `room` is how many levels of containers may be nested here. With `foreign`, the timestamps,
    byte strings and integer keys of MessagePack are values too; else they are `validation_failed`.
    """
    kind = type(value)
    if kind is dict or kind is list:
        if room <= 0:
            raise Problem("too_deep", "the value is nested too deeply (--max-depth)")
        for key, item in value.items() if kind is dict else enumerate(value):
            if kind is dict and type(key) is not str:
                check_key(key, value, foreign)
            try:
                check(item, room - 1, foreign)
            except Problem as problem:
                raise problem.at(key) from None
    elif kind is not str:
        check_scalar(value, foreign)


def check_scalar(value: Any, foreign: bool = False) -> None:
    """Refuse a value that is neither a container nor storable."""
    kind = type(value)
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise Problem("invalid_value", "an integer is from -2^63 to 2^64-1")
    elif kind is float:
        if not isfinite(value):
            raise Problem("invalid_value", "a number is finite")
    elif kind not in (str, bool, type(None)):
        if kind is msgspec.msgpack.Ext:
            raise Problem("invalid_value", "a MessagePack extension is not a value")
        if not foreign:
            raise Problem("validation_failed", f"{_FOREIGN.get(kind, 'this')} {_ONLY_MSGPACK}")


def check_key(key: Any, among: Container[Any], foreign: bool = False) -> None:
    """Refuse an object key that is not a string (with `foreign`: nor an integer that is not among them as a string)."""
    if type(key) is str:
        return
    if type(key) is not int:
        raise Problem("invalid_value", "the key of an object is a string")
    if not foreign:
        raise Problem("validation_failed", f"a key that is an integer {_ONLY_MSGPACK}")
    if str(key) in among:
        raise Problem("invalid_value", f'an object cannot have both the keys {key} and "{key}", which are one path')
