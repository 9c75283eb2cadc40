"""What a patch touches, against the paths whose values really differ."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import assume, given

from kantad.values.content import MISSING, same
from kantad.values.diff import SAME
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.pointer import overlap
from kantad.values.touch import meets, touched
from tests.values.documents import nonsense, patched, patched_objects

Path = tuple[str, ...]


def children(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {str(n): item for n, item in enumerate(value)} if isinstance(value, list) else {}


def differing(old: Any, new: Any, path: Path = ()) -> list[Path]:
    """The paths that have another value afterwards."""
    if old is not MISSING and new is not MISSING and same(old, new):
        return []
    found = [path]
    if type(old) is type(new):
        before, after = children(old), children(new)
        for key in {**before, **after}:
            found += differing(before.get(key, MISSING), after.get(key, MISSING), (*path, key))
    return found


@given(patched)
def test_every_difference_is_touched_and_nothing_else(case: tuple[Any, Any]) -> None:
    old, patch = case
    try:
        narrowed = effect(old, patch, 64)
    except Problem:
        assume(False)
    assume(narrowed is not SAME)
    different = differing(old, apply(deepcopy(old), deepcopy(narrowed)))
    mine = list(touched(narrowed))
    assert different
    for path in different:
        assert any(overlap(path, other) for other in mine)
        assert meets(narrowed, path)
    for path in mine:
        assert any(overlap(path, other) for other in different)


@given(patched_objects)
def test_a_path_that_nothing_touches_is_not_met(case: tuple[Any, Any]) -> None:
    patch = case[1]
    assume(patch and list(touched(patch)))
    assert not meets(patch, ("no such key", "x"))
    assert meets(patch, ())


@given(nonsense)
def test_any_json_touches_paths(patch: Any) -> None:
    for path in touched(patch, ("p",)):
        assert path[0] == "p"


@pytest.mark.parametrize(
    ("patch", "paths"),
    [
        (5, [()]),
        ({}, [()]),
        ({"a": 1, "b": {"c": 2, "d": {}}}, [("a",), ("b", "c"), ("b", "d")]),
        ({"$$a": "$$b"}, [("$a",)]),
        ({"a": {"$delete": ["$$x", "y"]}}, [("a", "$x"), ("a", "y")]),
        ({"a": {"$delete": [0]}}, [("a",)]),
        ({"a": {"$insert": [[0, 1]], "0": 1}}, [("a",)]),
        ({"a": {"$replace": {"b": 1}}}, [("a",)]),
        ({"a": {"3": {"b": 1}}}, [("a", "3", "b")]),
        ({"a": {3: {7: 1}}}, [("a", "3", "7")]),
        ({"$delete": "a"}, [("a",)]),
    ],
)
def test_the_touched_paths(patch: Any, paths: list[Path]) -> None:
    assert list(touched(patch)) == paths
