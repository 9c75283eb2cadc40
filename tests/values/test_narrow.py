"""A change's part below a path: exact for every path, and unclear only where the patch cannot tell."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given

from kantad.values.content import MISSING, same
from kantad.values.diff import SAME, difference
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.narrow import DELETED, UNCLEAR, UNTOUCHED, Verdict, compared, narrowed
from kantad.values.patch import apply
from kantad.values.pointer import Path, lookup
from tests.values.documents import object_pairs, patched_objects


def paths_in(value: Any, path: Path = ()) -> list[Path]:
    """Every path of a value, and some beside it."""
    found = [path, (*path, "0"), (*path, "nowhere"), (*path, "2", "x")]
    items = enumerate(value) if type(value) is list else value.items() if type(value) is dict else ()
    for key, item in items:
        found += paths_in(item, (*path, str(key)))
    return found


def check_every_path(old: Any, new: Any, patch: Any) -> None:
    """Where the patch tells, it tells the truth; where it does not, the values decide."""
    for path in {*paths_in(old), *paths_in(new)}:
        before, after = lookup(old, path), lookup(new, path)
        found = narrowed(patch, path)
        if found is UNCLEAR:
            found = compared(before, after)
        if found is UNTOUCHED:
            assert after is before is MISSING or (MISSING not in (before, after) and same(before, after)), path
        elif found is DELETED:
            assert before is not MISSING, path
            assert after is MISSING, path
        else:
            spelt = json.loads(json.dumps(found))
            assert before is MISSING or not same(before, after), path
            got = apply({} if before is MISSING else {"k": deepcopy(before)}, {"k": spelt})["k"]
            assert same(got, after), path


@given(object_pairs)
def test_a_difference_is_narrowed_to_every_path(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(deepcopy(old), deepcopy(new))
    if patch is not SAME:
        check_every_path(old, new, patch)


@given(patched_objects)
def test_the_effect_of_a_request_is_narrowed_to_every_path(pair: tuple[Any, Any]) -> None:
    old, request = pair
    try:
        patch = effect(deepcopy(old), deepcopy(request), 100)
    except Problem:
        return  # it does not fit
    if patch is SAME or type(patch) is not dict:
        return
    new = apply(deepcopy(old), json.loads(json.dumps(patch)))
    if type(new) is dict:
        check_every_path(old, new, patch)


@pytest.mark.parametrize(
    ("patch", "path", "found"),
    [
        ({"a": 1}, (), {"a": 1}),
        ({"a": {"b": 1}}, ("a",), {"b": 1}),
        ({"a": {"b": 1}}, ("a", "b"), {"$replace": 1}),
        ({"a": {"b": [1]}}, ("a", "b"), {"$replace": [1]}),
        ({"a": {"b": 1}}, ("a", "c"), UNTOUCHED),
        ({"a": {"b": {"$replace": {}}}}, ("a", "b"), {"$replace": {}}),
        ({"a": {"$delete": ["b"]}}, ("a", "b"), DELETED),
        ({"a": {"$delete": ["b"]}}, ("a", "b", "c"), UNCLEAR),
        ({"a": {"$delete": ["b"]}}, ("a", "c"), UNTOUCHED),
        ({"a": {"$replace": {"b": 1}}}, ("a", "b"), UNCLEAR),
        ({"a": 1}, ("a", "b"), UNCLEAR),
        ({"$$a": 1}, ("$a",), {"$replace": 1}),
        ({"$delete": ["$$a"]}, ("$a",), DELETED),
        ({"l": {"$delete": [3]}}, ("l", "1"), UNTOUCHED),
        ({"l": {"$delete": [3], "1": {"x": 2}}}, ("l", "1", "x"), {"$replace": 2}),
        ({"l": {"$delete": [3]}}, ("l", "3"), UNCLEAR),
        ({"l": {"$delete": [3], "$insert": [[3, 9]]}}, ("l", "4"), UNTOUCHED),
        ({"l": {"$delete": [3], "$insert": [[3, 9]]}}, ("l", "3"), UNCLEAR),
        ({"l": {"$insert": [[0, 9]]}}, ("l", "x"), UNTOUCHED),
        ({"o": {5: {"x": 1}}}, ("o", "5"), {"x": 1}),
    ],
)
def test_examples(patch: Any, path: Path, found: Any) -> None:
    assert narrowed(patch, path) == found
    assert isinstance(found, Verdict) or type(found) is dict


def test_a_verdict_has_a_name() -> None:
    assert [repr(each) for each in (UNTOUCHED, DELETED, UNCLEAR)] == ["UNTOUCHED", "DELETED", "UNCLEAR"]


def test_numbers_of_two_kinds_differ() -> None:
    assert compared(1, True) == {"$replace": True}
    assert compared(1, 1.0) == {"$replace": 1.0}
    assert compared({"a": 1}, {"a": 1}) is UNTOUCHED
    assert compared(MISSING, MISSING) is UNTOUCHED
    assert compared(None, MISSING) is DELETED
    assert compared(MISSING, "$x") == {"$replace": "$$x"}
