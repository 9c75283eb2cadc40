"""What users put in is written as JSON builtins, as msgspec writes it, or refused with its place."""

import dataclasses
import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Struct, UnsetType, field

from kantad.values.errors import Problem
from kantad.values.plain import default_of, fields_of, is_left_out, name_of, plain
from kantad.values.tracked import Journal, drafted


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Data:
    n: Any


class Full(Struct, tag="full", rename="camel"):
    my_n: int = 1
    m: dict[UUID, int] = {}
    u: int | UnsetType = UNSET


class Sparse(Struct, omit_defaults=True, tag=3, tag_field="kind"):
    n: int = 1
    m: dict[str, int] = {}
    items: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    other: list[int] = field(default_factory=lambda: [1])


class Row(Struct, array_like=True, tag=True, omit_defaults=True):
    n: int = 1
    m: dict[str, int] = {}


class BareRow(Struct, array_like=True):
    n: int = 1


class Texts(list[str]):
    pass


EXAMPLES: list[Any] = [
    1,
    1.5,
    None,
    True,
    "x",
    [1, [2]],
    (1, (2,)),
    {"a": {"b": 1}},
    UUID(int=1),
    datetime(2024, 1, 1, tzinfo=UTC),
    date(2024, 1, 1),
    Decimal("1.50"),
    b"ab",
    bytearray(b"ab"),
    Colour.RED,
    Data([UUID(int=1)]),
    {UUID(int=1): 1, 5: 2, 1.5: 3, Colour.RED: 4, date(2024, 1, 1): 5},
    {7},
    frozenset({7}),
    Full(),
    Full(2, {UUID(int=1): 1}, 3),
    Sparse(),
    Sparse(n=2, m={"a": 1}, items=[1], names={"x"}, other=[]),
    Row(),
    Row(2, {"a": 1}),
    BareRow(),
    Texts(["a"]),
]


@pytest.mark.parametrize("value", EXAMPLES, ids=repr)
def test_a_value_is_written_as_msgspec_writes_it(value: Any) -> None:
    assert repr(plain(value)) == repr(msgspec.json.decode(msgspec.json.encode(value)))


def test_equal_sets_are_written_alike() -> None:
    assert plain({"b", "a", "c"}) == ["a", "b", "c"]
    assert plain(Sparse(m=drafted({}, (), Journal()))) == {"kind": 3, "other": [1]}
    assert is_left_out(Sparse(), fields_of(Sparse)[3], set())
    assert not is_left_out(Sparse(), fields_of(Sparse)[3], None)


def test_a_default_is_told() -> None:
    assert [default_of(found) for found in fields_of(Full)] == [1, {}, UNSET]

    class Needs(Struct):
        n: int

    assert default_of(fields_of(Needs)[0]) is UNSET


def test_dicts_of_another_class_are_told() -> None:
    one, other = drafted({}, (), Journal()), drafted({"b": 1}, (), Journal())
    met: list[Any] = []
    assert plain({"a": [one, Full(1, other)], "c": {}}, met)["a"][0] == {}
    assert met[0] is one
    assert met[1] is other
    assert len(met) == 2


def test_keys_are_named_as_they_are_written() -> None:
    assert name_of("a") == "a"
    assert name_of(UUID(int=1)) == str(UUID(int=1))
    assert name_of((1, 2)) is name_of(None) is name_of(True) is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, float("nan")]}, "/a/1"),
        ({"a": {"b": float("inf")}}, "/a/b"),
        ({"a": 2**64}, "/a"),
        ([-(2**63) - 1], "/0"),
        ({"a": "\ud800"}, "/a"),
        ({"\ud800": 1}, ""),
        ({"a": {None: 1}}, "/a/None"),
        ({"a": {5: 1, "5": 2}}, "/a/5"),
        ({"a": 1j}, "/a"),
        ({"a": UNSET}, "/a"),
        ({"a": Data([float("nan")])}, "/a/n/0"),
        ({"a": Full(1, {UUID(int=1): 2**70})}, f"/a/m/{UUID(int=1)}"),
    ],
    ids=repr,
)
def test_what_cannot_be_stored_is_refused_with_its_place(value: Any, path: str) -> None:
    with pytest.raises(Problem) as caught:
        plain(value)
    assert (caught.value.code, caught.value.body().get("path", "")) == ("invalid_value", path)
