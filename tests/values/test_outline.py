"""The outline of a patch leads to what a post made, as the patch does."""

from typing import Any

import pytest

from kantad.engine.requests import added_child, child_in_outline
from kantad.values.outline import DEEPEST, LONGEST, outline

POSTS: list[tuple[tuple[str, ...], Any]] = [
    (("users",), {"users": {"0198-x": {"name": "Alice", "tags": [1, 2]}}}),
    ((), {"0198-x": 5}),
    (("a", "b"), {"a": {"b": {"0198-x": None}}}),
    (("list",), {"list": {"$insert": [[3, {"x": 1}]]}}),
    (("list",), {"list": [1, 2, {"x": [1]}]}),
    (("list", "0"), {"list": [{"old": 1, "0198-x": 1}]}),
    (("a",), {"$replace": {"a": {"0198-x": {"deep": 1}}}}),
]


@pytest.mark.parametrize(("path", "patch"), POSTS)
def test_the_child_is_found_in_the_outline(path: tuple[str, ...], patch: Any) -> None:
    assert child_in_outline(outline(patch), path) == added_child(patch, path)


def test_an_outline_holds_no_values() -> None:
    assert outline({"a": {"b": ["secret", {"c": "secret"}]}}) == {"a": {"b": [None, {"c": None}]}}
    assert outline({"a": {"$insert": [[0, 1], [4, "secret"]]}}) == {"a": {"$insert": [[4, None]]}}


def test_what_is_long_or_deep_is_left_out() -> None:
    assert outline({"a": [0] * (LONGEST + 1)}) == {"a": None}
    deep: Any = 1
    for _ in range(2 * DEEPEST):
        deep = {"x": deep}
    assert str(outline(deep)).count("x") == DEEPEST


@pytest.mark.parametrize("shape", [None, {}, {"b": None}, {"a": [None]}, 5])
def test_an_outline_that_does_not_tell_gives_no_child(shape: Any) -> None:
    assert child_in_outline(shape, ("a", "b")) is None
