"""Contents: sameness, equality, etags, bounds."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given

from kantad.values.content import MISSING, check, check_scalar, copied, encode_json, equal, same
from kantad.values.errors import Problem
from kantad.values.etag import etag
from tests.values.documents import anything, nonsense, pairs

DISTINCT: list[Any] = [
    None, True, False, 0, 1, 2, 0.0, -0.0, 1.0, "", "1", "a", [], [1], [1.0], [True], [[]], [1, 2], [2, 1],
    {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"b": 1}, {"a": 1, "b": 2}, 2**63, float(2**63), 2**64 - 1,
]  # fmt: skip


@pytest.mark.parametrize("one", range(len(DISTINCT)))
def test_values_of_different_content_are_told_apart(one: int) -> None:
    for other, value in enumerate(DISTINCT):
        assert same(DISTINCT[one], deepcopy(value)) is (one == other)
        assert (etag(DISTINCT[one]) == etag(value)) is (one == other)


@given(pairs)
def test_content_is_the_same_when_the_sorted_json_is(pair: tuple[Any, Any]) -> None:
    one, other = pair
    texts = [json.dumps(value, sort_keys=True) for value in pair]
    assert same(one, other) is (texts[0] == texts[1])
    assert (etag(one) == etag(other)) is same(one, other)


def test_not_a_number_is_one_content() -> None:
    assert same(float("nan"), -float("nan"))
    assert same([float("nan")], [float("nan")])
    assert not same(float("nan"), 1.0)
    assert not same(1.0, float("nan"))


def test_the_order_of_keys_is_not_content() -> None:
    assert same({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert etag({"a": 1, "b": [2]}) == etag({"b": [2], "a": 1})


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (2**63, float(2**63), True),
        (2**53 + 1, float(2**53), False),
        (1, True, False),
        (0.0, False, False),
        (True, True, True),
        (True, False, False),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ("a", "a", True),
        ("a", "b", False),
        ([1, [2]], [1.0, [2.0]], True),
        ([1], [1, 2], False),
        ([1], [True], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {}, False),
        ({"a": {"b": [1]}}, {"a": {"b": [True]}}, False),
        ([], {}, False),
    ],
)
def test_conditions_compare_numbers_by_value(one: Any, other: Any, answer: bool) -> None:
    assert equal(one, other) is equal(other, one) is answer


@given(anything)
def test_a_copy_is_the_same_and_shares_no_container(value: Any) -> None:
    copy = copied(value)
    assert same(copy, value)
    text = json.dumps(value)
    stack = [copy]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            stack += part.values()
            part.clear()
        elif isinstance(part, list):
            stack += part
            part.clear()
    assert json.dumps(value) == text


def test_an_etag_does_not_change_between_versions() -> None:
    assert etag({"b": [1, 2.5, "ü"], "a": None}) == etag(json.loads('{"a": null, "b": [1, 2.5, "\\u00fc"]}'))
    assert len(etag({})) == 32


def test_foreign_values_have_the_etag_of_what_they_show_as() -> None:
    assert etag({1: b"\x00", "a": 2}) == etag({"a": 2, "1": "AA=="})
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert etag([time]) == etag(["2026-01-02T03:04:05Z"])


def test_nothing_is_falsy_and_has_a_name() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"


EXT = msgspec.msgpack.Ext(1, b"")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "code", "path"),
    [
        (2**64, "invalid_value", None),
        (-(2**63) - 1, "invalid_value", None),
        ({"a": [0, 2**64]}, "invalid_value", "/a/1"),
        ([float("nan")], "invalid_value", "/0"),
        ([float("inf")], "invalid_value", "/0"),
        ({"a": float("-inf")}, "invalid_value", "/a"),
        ({"a": EXT}, "invalid_value", "/a"),
        ({"a": NOW}, "validation_failed", "/a"),
        ({"a": [b"x"]}, "validation_failed", "/a/0"),
        ({"a": {1: 2}}, "validation_failed", "/a"),
        ({"a": {None: 2}}, "invalid_value", "/a"),
        ({"a": {"b": {"c": {}}}}, "too_deep", "/a/b/c"),
        ([[[[]]]], "too_deep", "/0/0/0"),
    ],
)
def test_what_cannot_be_stored_is_refused(value: Any, code: str, path: str | None) -> None:
    with pytest.raises(Problem) as caught:
        check(value, 3)
    assert (caught.value.code, caught.value.body().get("path")) == (code, path)


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0.5, True, None, "\U0001f600", [[[1]]], {"a": {"b": {}}}])
def test_what_can_be_stored_is_let_through(value: Any) -> None:
    check(value, 3)


def test_foreign_values_are_let_through_where_the_file_has_them() -> None:
    check({1: [NOW, b"x"], "a": {-5: None}}, 3, foreign=True)
    check_scalar(NOW, foreign=True)
    for value in ({None: 1}, {b"x": 1}, {(): 1}, {"a": EXT}, {"a": {1.5: 1}}):
        with pytest.raises(Problem) as caught:
            check(value, 3, foreign=True)
        assert caught.value.code == "invalid_value"


@given(nonsense)
def test_check_refuses_exactly_what_json_cannot_hold(value: Any) -> None:
    try:
        check(value, 64)
    except Problem as problem:
        assert problem.status in (400, 422)
    else:
        assert same(msgspec.json.decode(encode_json(value)), value)
