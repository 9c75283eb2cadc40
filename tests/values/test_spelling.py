"""Types written anew from what msgspec says of them."""

import dataclasses
import enum
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct
from msgspec.inspect import type_info

from kantad.values.spelling import type_of

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Plain(Struct):
    x: int


class Box(Struct, Generic[T]):
    x: T


@dataclasses.dataclass
class Data:
    x: int


class Typed(TypedDict):
    x: int


class Named(NamedTuple):
    x: int


TYPES = [
    Any,
    None,
    bool,
    int,
    float,
    str,
    bytes,
    bytearray,
    memoryview,
    datetime,
    date,
    time,
    timedelta,
    UUID,
    Decimal,
    Colour,
    Plain,
    Box[int],
    Box,
    Data,
    Typed,
    Named,
    Literal["a", 1, None],
    int | str | None,
    Optional[Plain],  # noqa: UP045
    list[int],
    set[int],
    frozenset[str],
    tuple[int, ...],
    tuple[int, str],
    tuple[()],
    dict[UUID, list[Plain]],
    dict[Annotated[str, Meta(min_length=1, max_length=3, pattern="a")], Annotated[float, Meta(gt=0, le=9.5)]],
    Annotated[list[Annotated[int, Meta(ge=1, lt=7, multiple_of=2)]], Meta(min_length=1, max_length=2)],
    Annotated[datetime, Meta(tz=True)],
    NewType("Id", int),
    Annotated[int, Meta(ge=3)] | None,
]


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_a_type_is_the_same_to_msgspec_when_it_is_spelt_anew(type: Any) -> None:
    info = type_info(type)
    assert type_info(type_of(info)) == info


def test_other_collections_and_notes_are_spelt_as_what_they_convert_to() -> None:
    assert type_of(type_info(Sequence[int])) == list[int]
    assert type_of(type_info(Annotated[int, Meta(title="a number")])) is int


def test_a_type_without_json_values_is_refused() -> None:
    for type in (msgspec.Raw, msgspec.msgpack.Ext):
        with pytest.raises(TypeError, match="is not among the types of JSON values"):
            type_of(type_info(type))
