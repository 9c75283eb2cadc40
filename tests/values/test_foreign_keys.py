"""Integer keys of MessagePack: one path names an integer and its decimal string, so an object holds one of them."""

from copy import deepcopy
from typing import Any

import pytest

from kantad.values.content import check
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.translate import merge_patch


@pytest.mark.parametrize(
    "patch",
    [{1: "a", "1": "b"}, {"x": {1: "a", "1": "b"}}, {"x": {"$replace": {1: 1, "1": 2}}}, {"x": [{2: 1, "2": 2}]}],
)
def test_keys_that_are_one_path_are_refused(patch: Any) -> None:
    for old in ({}, {"x": {"y": 1}}, {"x": 1}):
        with pytest.raises(Problem, match="one path"):
            effect(old, patch, 8, True)
        with pytest.raises(Problem, match="one path"):
            merge_patch(old, patch, 8, True)
    with pytest.raises(Problem, match="one path"):
        check(patch, 8, True)


@pytest.mark.parametrize(
    ("old", "patch"), [({1: 0}, {"1": 5}), ({"1": 0}, {1: 5}), ({1: 0}, {1: 5}), ({"1": 0}, {"1": 5})]
)
def test_a_patch_names_a_foreign_key_by_either_form(old: Any, patch: Any) -> None:
    (key,) = old
    assert apply(deepcopy(old), effect(old, patch, 8, True)) == {key: 5}
    assert apply(deepcopy(old), merge_patch(old, patch, 8, True)) == {key: 5}
    (name,) = patch
    assert apply(deepcopy(old), merge_patch(old, {name: None}, 8, True)) == {}
