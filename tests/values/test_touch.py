"""What a patch touches, against the paths whose values really differ."""

import time
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kantad.values.content import MISSING, same
from kantad.values.diff import SAME
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.pointer import overlap
from kantad.values.touch import (
    MOST_DEPTH,
    MOST_PATHS,
    Touches,
    Watch,
    meeting,
    meets,
    rooted_at,
    touched,
    tree_of,
    tree_of_paths,
)
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


@given(patched, patched)
def test_two_patches_meet_where_a_path_of_one_overlaps_a_path_of_the_other(
    one: tuple[Any, Any], other: tuple[Any, Any]
) -> None:
    mine, theirs = one[1], other[1]
    paths = [path for path in touched(theirs) if any(overlap(path, own) for own in touched(mine))]
    found = meeting(tree_of(mine), theirs)
    assert found in paths if paths else found is None
    assert (meeting(tree_of_paths(touched(mine)), theirs) is None) == (not paths)


@given(patched, patched)
def test_below_different_paths_nothing_meets(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    tree = rooted_at(("left",), tree_of(one[1]))
    assert meeting(tree, {"right": other[1]}) is None
    assert (meeting(tree, {"left": other[1]}) is None) == (meeting(tree_of(one[1]), other[1]) is None)


def test_nothing_meets_no_path_at_all() -> None:
    assert meeting(tree_of_paths([]), {"$replace": {}}) is None
    assert meeting(tree_of_paths([("a",)]), {}) == ()


@pytest.mark.parametrize("wide", [{}, {"x": 1, "y": 2, "z": 3}])
def test_foreign_and_dollar_keys_meet_from_either_side(wide: dict[Any, Any]) -> None:
    patch = {**wide, -5: 1, 7: 2, "$$delete": 3, "$delete": ["gone"]}
    for segment in ("-5", "7", "$delete", "gone"):
        assert meeting({segment: None}, patch) == (segment,)
    assert meeting({"delete": None, "$$delete": None, "5": None, "$replace": None}, patch) is None


def test_wide_patches_meet_at_the_cost_of_what_they_share() -> None:
    mine = tree_of({"users": {f"u{number}": {"n": 1} for number in range(200_000)}})
    started = time.perf_counter()
    for number in range(20_000):
        assert meeting(mine, {"users": {f"v{number}": {"n": 1}}}) is None
    assert time.perf_counter() - started < 10  # against every path of mine it is hours


@given(patched_objects, patched_objects)
def test_a_watch_finds_each_path_once_at_the_first_patch_that_meets_it(
    case: tuple[Any, Any], case2: tuple[Any, Any]
) -> None:
    try:
        one, other = effect(*case, 64), effect(*case2, 64)
    except Problem:
        assume(False)
    assume(one is not SAME and other is not SAME)
    paths = [(), ("no such key",), *touched(one), *(path[:-1] for path in touched(other)), *touched(other)]
    paths += [(*path, "below") for path in touched(one)]
    watch = Watch()
    for number, path in enumerate(paths):
        watch.add(path, number)
    first = [number for number, path in enumerate(paths) if meets(one, path)]
    second = [number for number, path in enumerate(paths) if meets(other, path) and number not in first]
    assert sorted(watch.take(one)) == first
    assert sorted(watch.take(other)) == second
    assert watch.take(other) == []


@pytest.mark.parametrize(
    "patch", [{"$delete": [0]}, {"$delete": "a"}, {"$delete": ["a"]}, {}, 5, {"a": {"$insert": []}}]
)
def test_what_takes_a_path_away_is_found_by_what_is_below_it(patch: Any) -> None:
    watch = Watch()
    watch.add(("a", "b", "c"), 1)
    watch.add(("b",), 2)
    assert 1 in watch.take(patch)


def test_many_watched_paths_cost_what_a_patch_shares_with_them() -> None:
    watch = Watch()
    for number in range(10_000):
        watch.add(("users", f"u{number}"), number)
    started = time.perf_counter()
    for number in range(20_000):
        assert watch.take({"users": {f"v{number}": 1}}) == []
    assert time.perf_counter() - started < 10  # against every path it is minutes


@given(st.lists(patched_objects, min_size=1, max_size=8))
def test_of_changes_that_are_noted_together_those_are_found_that_meet_a_path(cases: list[tuple[Any, Any]]) -> None:
    patches = [patch for case in cases if (patch := _effect(case)) is not SAME]
    touches = Touches(enumerate(patches, 1))
    paths = {(), ("no such key",), *(path[:end] for patch in patches for path in touched(patch) for end in range(9))}
    small = {rev for rev, patch in enumerate(patches, 1) if len(list(touched(patch))) <= MOST_PATHS}
    for path in paths:
        met = [rev for rev, patch in enumerate(patches, 1) if meets(patch, path)]
        found = touches.between(path, 1, len(patches))
        assert set(met) <= set(found)
        assert found == sorted(set(found))
        if len(path) <= MOST_DEPTH:
            assert [rev for rev in found if rev in small] == [rev for rev in met if rev in small]
        assert touches.between(path, 2, 3) == [rev for rev in found if 2 <= rev <= 3]


def _effect(case: tuple[Any, Any]) -> Any:
    try:
        return effect(*case, 64)
    except Problem:
        return SAME


def test_what_is_noted_of_a_change_is_bounded() -> None:
    wide = {"users": {f"u{number}": number for number in range(100_000)}}
    deep: Any = 1
    for number in range(50):
        deep = {f"k{number}": deep}
    touches = Touches([(5, wide), (6, deep), (7, {"a": 1})])
    assert touches.top.revs == [5]
    assert list(touches.top.below) == ["k49", "a"]
    assert touches.between(("a",), 5, 7) == [5, 7]
    assert touches.between(tuple(f"k{number}" for number in range(49, 29, -1)), 5, 7) == [5, 6]
    assert touches.between(tuple(f"k{number}" for number in range(49, 41, -1)), 5, 7) == [5, 6]
    assert touches.between(("k49", "x"), 5, 7) == [5]
