"""Values on their way out."""

import datetime
import enum
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kanta_client.errors import Invalid
from kanta_client.messages import Get
from kanta_client.outgoing import assignment, builtins, encoded

from kantad.values.content import MISSING
from kantad.values.patch import apply

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers
values = st.recursive(scalars | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)


@given(values)
def test_json_goes_through_as_it_is_and_shares_nothing(value: Any) -> None:
    made = builtins(value)
    assert made == value
    if isinstance(value, dict | list):
        assert made is not value


@given(values)
def test_an_assignment_puts_the_value_in_the_place_of_anything(value: Any) -> None:
    for before in (MISSING, 1, {"a": 1}, [1]):
        assert apply(before, assignment(value)) == value


class Person(msgspec.Struct):
    name: str
    since: datetime.date


class Colour(enum.Enum):
    RED = "red"


def test_typed_values_become_what_msgspec_writes() -> None:
    id = uuid.UUID(int=1)
    value = {id: Person("A", datetime.date(2026, 1, 2)), "c": [Colour.RED, (1, {"t": (2,)})], 5: b"x"}
    listed = ["red", [1, {"t": [2]}]]
    assert builtins(value) == {str(id): {"name": "A", "since": "2026-01-02"}, "c": listed, "5": "eA=="}


def deep() -> Any:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    return value


NAN = float("nan")
BAD = [NAN, float("inf"), 2**64, -(2**63) - 1, {"a": NAN}, object(), {"a": object()}, [2**70], (2**70,)]


@pytest.mark.parametrize("value", BAD)
def test_what_the_server_could_not_keep_is_refused_here(value: Any) -> None:
    with pytest.raises(Invalid, match="invalid_value"):
        builtins(value)


def test_what_is_too_deep_is_refused_here() -> None:
    with pytest.raises(Invalid, match="too_deep"):
        builtins(deep())


def test_a_request_whose_text_is_not_unicode_is_refused() -> None:
    assert encoded(Get(1, "/a")) == b'{"op":"get","id":1,"path":"/a"}'
    with pytest.raises(Invalid, match="Unicode"):
        encoded(Get(1, "/a", at="\ud800"))
    for value in ("\ud800", ["\ud800"], {"\udfff": 1}):
        with pytest.raises(Invalid, match="Unicode"):
            encoded(builtins(value))
