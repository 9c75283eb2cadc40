"""A type written anew from what `msgspec.inspect` says of it.

msgspec tells of the types of a Struct's fields and of a mapping's values only in its own terms,
with forward references, generics and aliases resolved, which is what makes them worth having. To
convert such a part alone the type itself is needed: `type_of` makes one that converts alike. Pure.
"""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from operator import or_
from types import GenericAlias
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import Meta, inspect

SIMPLE: Final[dict[type, Any]] = {
    inspect.AnyType: Any,
    inspect.NoneType: None,
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.MemoryViewType: memoryview,
    inspect.DateTimeType: datetime,
    inspect.TimeType: time,
    inspect.DateType: date,
    inspect.TimeDeltaType: timedelta,
    inspect.UUIDType: UUID,
    inspect.DecimalType: Decimal,
}
ELEMENTS: Final[dict[type, Any]] = {inspect.ListType: list, inspect.SetType: set, inspect.FrozenSetType: frozenset}
BOUNDS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


def type_of(info: Any) -> Any:
    """The type that this description is of; raises TypeError for one that JSON has no values of."""
    if isinstance(info, inspect.Metadata):
        return type_of(info.type)
    made: Any = info.cls if hasattr(info, "cls") else _made(info)
    bounds = bounds_of(info)
    return Annotated[made, Meta(**bounds)] if bounds else made


def bounds_of(info: Any) -> dict[str, Any]:
    """What `msgspec.Meta` says of the values of a described type, by its argument."""
    return {name: getattr(info, name) for name in BOUNDS if getattr(info, name, None) is not None}


def _made(info: Any) -> Any:
    if type(info) in ELEMENTS:
        return ELEMENTS[type(info)][type_of(info.item_type)]
    match info:
        case inspect.VarTupleType():
            return GenericAlias(tuple, (type_of(info.item_type), ...))
        case inspect.TupleType():
            return GenericAlias(tuple, tuple(map(type_of, info.item_types)))
        case inspect.DictType():
            return GenericAlias(dict, (type_of(info.key_type), type_of(info.value_type)))
        case inspect.UnionType():
            return reduce(or_, map(type_of, info.types))
        case inspect.LiteralType():
            return Literal[info.values]
        case inspect.Type() if type(info) in SIMPLE:
            return SIMPLE[type(info)]
    raise TypeError(f"{type(info).__name__} is not among the types of JSON values")
