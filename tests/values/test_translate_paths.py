"""The paths that merge patches and JSON Patches touch, and what going to them may cost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.touch import meeting, rooted_at, tree_of, tree_of_merge
from kantad.values.translate import json_patch, operation_paths
from tests.values.documents import nonsense

ALLOWED = {400, 409, 412, 422}


@given(nonsense | st.lists(st.dictionaries(st.sampled_from(["op", "path", "from"]), nonsense | st.text(max_size=3))))
def test_any_json_names_paths_or_is_a_problem(patch: Any) -> None:
    for tree in (rooted_at(("p",), tree_of(patch)), rooted_at(("p",), tree_of_merge(patch))):
        assert meeting(tree, {"q": 1}) is None
    try:
        paths = operation_paths(patch, ("p",))
    except Problem as problem:
        assert problem.code == "invalid_path"
    else:
        assert all(isinstance(path, tuple) for path in paths)


@pytest.mark.parametrize(
    ("operations", "paths"),
    [
        ([{"op": "add", "path": "/a/b"}], [("a", "b")]),
        ([{"op": "add", "path": "/a/0"}], [("a",)]),
        ([{"op": "add", "path": "/a/-"}], [("a",)]),
        ([{"op": "move", "path": "/a", "from": "/b"}], [("a",), ("b",)]),
        ([{"op": "copy", "path": "/a", "from": "/b"}], [("a",)]),
        ([{"op": "test", "path": "/a"}, 5, {"op": "add"}], []),
        ("no", []),
    ],
)
def test_the_paths_of_operations(operations: Any, paths: list[tuple[str, ...]]) -> None:
    assert operation_paths(operations, ()) == paths


@pytest.mark.parametrize("wide", [{str(n): n for n in range(5000)}, list(range(5000))], ids=["object", "array"])
def test_moving_what_was_just_changed_again_and_again_is_refused(wide: Any) -> None:
    both = [{"op": "add", "path": "/a/0", "value": -1}, {"op": "move", "from": "/a", "path": "/a"}]
    assert json_patch({"a": wide}, both * 20, 64) is not SAME
    assert json_patch({"a": wide}, both[1:] * 500, 64) is SAME
    with pytest.raises(Problem) as caught:
        json_patch({"a": wide}, both * 500, 64)
    assert caught.value.code == "too_large"
