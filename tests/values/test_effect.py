"""What a patch amounts to: pure, canonical, effective, the same live as replayed."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import jsondiff
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kantad.values.content import MISSING, copied, same
from kantad.values.diff import SAME
from kantad.values.effect import assignment, changed, effect, locate, removal, rooted
from kantad.values.errors import Problem
from kantad.values.patch import apply
from tests.values.documents import anything, documents, nonsense, object_pairs, pairs, patched, patched_objects, values

ROOM = 64
ALLOWED = {400, 409, 412, 422}


def round_trip(value: Any) -> Any:
    return json.loads(json.dumps(value))


def applied(value: Any, patch: Any) -> Any:
    return deepcopy(value) if patch is SAME else apply(deepcopy(value), deepcopy(patch))


def deletions_first(patch: Any) -> Any:
    """The patch as the contract reads it, whatever the order of its keys: deletions come first."""
    if isinstance(patch, dict):
        first = {"$delete": patch["$delete"]} if "$delete" in patch else {}
        return first | {key: deletions_first(sub) for key, sub in patch.items() if key != "$delete"}
    return patch


def scramble(value: Any) -> None:
    """Change every container in place."""
    if isinstance(value, dict):
        for item in value.values():
            scramble(item)
        value["scrambled"] = 1
    elif isinstance(value, list):
        for item in value:
            scramble(item)
        value.append("scrambled")


def containers(value: Any) -> list[int]:
    found = []
    if isinstance(value, dict | list):
        found.append(id(value))
        for item in value.values() if isinstance(value, dict) else value:
            found += containers(item)
    return found


def tried(old: Any, patch: Any) -> Any:
    try:
        return effect(old, patch, ROOM)
    except Problem as problem:
        assert problem.status in ALLOWED
        assume(False)


@given(pairs)
def test_a_patch_of_jsondiff_makes_what_jsondiff_makes(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = round_trip(jsondiff.diff(deepcopy(old), deepcopy(new), marshal=True))
    try:
        expected = jsondiff.patch(deepcopy(old), deepcopy(patch), marshal=True)
    except Exception:
        assume(False)
    assume(expected == new)
    assert same(apply(deepcopy(old), deepcopy(patch)), expected)
    narrowed = effect(deepcopy(old), deepcopy(patch), ROOM)
    assert same(applied(old, narrowed), expected)


@given(patched)
def test_effect_changes_neither_the_value_nor_the_request(case: tuple[Any, Any]) -> None:
    old, patch = deepcopy(case)
    tried(old, patch)
    assert json.dumps(old) == json.dumps(case[0])
    assert json.dumps(patch) == json.dumps(case[1])


@given(patched)
def test_the_effect_is_same_exactly_when_nothing_changes(case: tuple[Any, Any]) -> None:
    old, patch = case
    narrowed = tried(old, patch)
    after = apply(deepcopy(old), deepcopy(deletions_first(patch)))
    assert (narrowed is SAME) == same(after, old)
    assert same(applied(old, narrowed), after)


@given(patched)
def test_the_effect_of_an_effect_is_itself(case: tuple[Any, Any]) -> None:
    old, patch = case
    narrowed = tried(old, patch)
    assume(narrowed is not SAME)
    assert same(effect(old, deepcopy(narrowed), ROOM), narrowed)


@given(patched)
def test_the_effect_of_the_effect_on_its_own_result_is_nothing_or_a_list_edit(case: tuple[Any, Any]) -> None:
    old, patch = case
    narrowed = tried(old, patch)
    assume(narrowed is not SAME)
    assert same(changed(old, narrowed), applied(old, narrowed))


@given(patched)
def test_the_state_shares_nothing_with_the_request(case: tuple[Any, Any]) -> None:
    old, patch = case
    narrowed = tried(old, patch)
    assume(narrowed is not SAME)
    scramble(apply(deepcopy(old), narrowed))
    assert json.dumps(patch) == json.dumps(case[1])


@given(patched)
def test_no_container_stands_twice_in_the_state(case: tuple[Any, Any]) -> None:
    old, patch = deepcopy(case)
    narrowed = tried(old, patch)
    assume(narrowed is not SAME)
    found = containers(apply(old, narrowed))
    assert len(found) == len(set(found))


def test_an_element_that_is_inserted_again_is_not_shared() -> None:
    long = "long" * 20
    state = {"l": [long, {"a": 1}, 2, long]}
    narrowed = effect(state, {"l": {"$delete": [2], "$insert": [[1, {"a": 1}]]}}, ROOM)
    apply(state, narrowed)
    apply(state, {"l": {"1": {"a": 2}}})
    assert state == {"l": [long, {"a": 2}, {"a": 1}, long]}


def test_a_list_edit_that_is_longer_than_the_list_becomes_the_canonical_patch() -> None:
    narrowed = effect([{"a": 1, "b": 2}], {"$insert": [[1, 1], [1, 2], [1, 3], [1, 4]]}, ROOM)
    assert same(effect([{"a": 1, "b": 2}], deepcopy(narrowed), ROOM), narrowed)


@given(patched_objects)
def test_the_live_state_is_the_replayed_one_to_the_order_of_keys(case: tuple[Any, Any]) -> None:
    root, patch = deepcopy(case)
    narrowed = tried(root, patch)
    assume(narrowed is not SAME)
    replayed = apply(deepcopy(root), round_trip(narrowed))
    assert json.dumps(apply(root, narrowed)) == json.dumps(replayed)


@given(object_pairs)
def test_an_assignment_live_is_as_replayed(pair: tuple[Any, Any]) -> None:
    root, new = deepcopy(pair)
    narrowed = assignment(root, new, ROOM)
    assume(narrowed is not SAME)
    replayed = apply(deepcopy(root), round_trip(narrowed))
    assert json.dumps(apply(root, narrowed)) == json.dumps(replayed)
    scramble(root)
    assert json.dumps(new) == json.dumps(pair[1])
    assert same(replayed, new)


@given(anything, nonsense)
def test_any_json_is_a_patch_or_a_problem(old: Any, patch: Any) -> None:
    for foreign in (False, True):
        try:
            narrowed = effect(old, patch, ROOM, foreign)
        except Problem as problem:
            assert problem.status in ALLOWED
            continue
        applied(old, narrowed)


@given(nonsense)
def test_any_json_builds_a_value_or_a_problem(patch: Any) -> None:
    try:
        narrowed = effect(MISSING, patch, ROOM)
    except Problem as problem:
        assert problem.status in ALLOWED
        return
    assert same(apply({}, {"k": deepcopy(narrowed)})["k"], apply({}, {"k": deepcopy(deletions_first(patch))})["k"])


@given(documents, st.data())
def test_a_patch_at_a_path_is_the_same_patch_of_the_root(root: dict[str, Any], data: st.DataObject) -> None:
    path: tuple[str, ...] = ()
    node: Any = root
    while isinstance(node, dict | list) and node and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
        path, node = (*path, str(key)), node[key]
    steps, old = locate(root, path)
    assert same(old, node)
    new = data.draw(values)
    sub = assignment(old, new, ROOM)
    assume(sub is not SAME and path)
    expected = deepcopy(root)
    holder: Any = expected
    for key in path[:-1]:
        holder = holder[key] if isinstance(holder, dict) else holder[int(key)]
    holder[path[-1] if isinstance(holder, dict) else int(path[-1])] = new
    assert same(applied(root, rooted(steps, sub)), expected)
    del holder[path[-1] if isinstance(holder, dict) else int(path[-1])]
    assert same(applied(root, removal(steps)), expected)


@given(documents)
def test_appending_is_an_insertion_at_the_end(root: dict[str, Any]) -> None:
    root = {**copied(root), "list": [1, 2]}
    steps, old = locate(root, ("list", "-"))
    assert old is MISSING
    assert applied(root, rooted(steps, 3))["list"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("old", "patch", "code", "path"),
    [
        ({}, {"$unknown": 1}, "invalid_patch", "/$unknown"),
        ([{"x": 1}], {"0": {"a": 1}, 0: {"b": 2}}, "invalid_patch", "/0"),
        ({"a": {}}, {"a": {"$add": 1}}, "invalid_patch", "/a/$add"),
        ({"a": 1}, {"a": {"b": {"$add": 1}}}, "invalid_patch", "/a/b/$add"),
        ({}, {"a": [{"$delete": ["x"]}]}, "invalid_patch", "/a/0/$delete"),
        ({}, {"a": {"$replace": {"$insert": []}}}, "invalid_patch", "/a/$insert"),
        ({}, {"a": {"$replace": 1, "b": 2}}, "invalid_patch", "/a"),
        ({"a": 1}, {"a": {"b": {"$replace": 1, "b": 2}}}, "invalid_patch", "/a/b"),
        ({"a": [1]}, {"a": {"$add": 1}}, "invalid_patch", "/a/$add"),
        ({"a": [1]}, {"a": {"$$add": 1}}, "patch_mismatch", "/a/$$add"),
        ({"a": [1]}, {"a": {"$delete": [1]}}, "patch_mismatch", "/a"),
        ({"a": [1, 2]}, {"a": {"$delete": [1, 1]}}, "patch_mismatch", "/a"),
        ({"a": [1]}, {"a": {"$delete": [-1]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$delete": [0.0]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$delete": [False]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$delete": [None]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$delete": 0}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$delete": ["0"]}}, "patch_mismatch", "/a"),
        ({"a": [1]}, {"a": {"$insert": [[2, 0]]}}, "patch_mismatch", "/a"),
        ({"a": [1]}, {"a": {"$insert": [["0", 0]]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$insert": [[-1, 0]]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$insert": [[0]]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$insert": [0]}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"$insert": {}}}, "invalid_patch", "/a"),
        ({"a": [1]}, {"a": {"1": 0}}, "patch_mismatch", "/a/1"),
        ({"a": [1]}, {"a": {"-1": 0}}, "patch_mismatch", "/a/-1"),
        ({"a": [1]}, {"a": {"00": 0}}, "patch_mismatch", "/a/00"),
        ({"a": [1]}, {"a": {"-": 0}}, "patch_mismatch", "/a/-"),
        ({"a": [1]}, {"a": {"b": 0}}, "patch_mismatch", "/a/b"),
        ({"a": [[1]]}, {"a": {"0": {"5": 0}}}, "patch_mismatch", "/a/0/5"),
        ({"a": {}}, {"a": {"$insert": [[0, 1]]}}, "patch_mismatch", "/a/$insert"),
        ({"a": 1}, {"a": {"$insert": [[0, 1]]}}, "patch_mismatch", "/a/$insert"),
        ({}, {"a": {"$insert": [[0, 1]]}}, "patch_mismatch", "/a/$insert"),
        ({"a": {}}, {"a": {"$delete": [0]}}, "patch_mismatch", "/a"),
        ({}, {"a": {"$delete": [0]}}, "patch_mismatch", "/a/$delete"),
        ({"a": {}}, {"a": {"$delete": "x"}}, "invalid_patch", "/a"),
        ({"a": {}}, {"a": {"$delete": [-1]}}, "invalid_patch", "/a"),
        ({"a": {}}, {"a": {"$delete": [True]}}, "invalid_patch", "/a"),
        ({}, {"a": 2**64}, "invalid_value", "/a"),
        ({}, {"a": [0, -(2**63) - 1]}, "invalid_value", "/a/1"),
        ({"a": [1]}, {"a": {"0": float("nan")}}, "invalid_value", "/a/0"),
        ({"a": {}}, {"a": {"b": {"c": {}}}}, "too_deep", "/a/b/c"),
        ({"a": {"b": {}}}, {"a": {"b": {"c": []}}}, "too_deep", "/a/b/c"),
        ({"a": {"b": []}}, {"a": {"b": {"$insert": [[0, []]]}}}, "too_deep", "/a/b"),
        ({}, {"a": {"$replace": [[[]]]}}, "too_deep", "/a/0/0"),
        ({}, {"a": b"x"}, "validation_failed", "/a"),
        ({}, {"a": datetime(2026, 1, 1, tzinfo=UTC)}, "validation_failed", "/a"),
        ({}, {"a": {5: 1}}, "validation_failed", "/a/5"),
        ({"a": {}}, {"a": {5: 1}}, "validation_failed", "/a/5"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_its_path(old: Any, patch: Any, code: str, path: str) -> None:
    with pytest.raises(Problem) as caught:
        effect(old, patch, 3)
    assert (caught.value.code, caught.value.body().get("path", "")) == (code, path)


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({}, {"a": "$5"}, {"a": "$5"}),
        ({}, {"a": "$$5"}, {"a": "$5"}),
        ({}, {"a": ["$5", "$$5"]}, {"a": ["$5", "$5"]}),
        ({}, {"$$a": 1}, {"$a": 1}),
        ({}, {"a": {}}, {"a": {}}),
        ({"a": 1}, {"a": {}}, None),
        ({"a": [1]}, {"a": {}}, None),
        ({"a": {"b": 1}}, {"a": {}}, None),
        ({"a": None}, {"a": {}}, None),
        ({"a": 1}, {"a": {"$replace": {}}}, {"a": {}}),
        ({}, {"a": {"$delete": ["x"]}}, {"a": {}}),
        ({"a": 1}, {"a": {"$delete": ["x"]}}, {"a": {}}),
        ({"a": 1}, {"a": {"b": {"$delete": ["x"], "c": 1}}}, {"a": {"b": {"c": 1}}}),
        ({}, {"a": {"b": {"$replace": 1}}}, {"a": {"b": 1}}),
        ({"a": {}}, {"a": {"$delete": ["x"]}}, None),
        ({"a": 1, "b": 2}, {"$delete": ["a", "a", "x"]}, {"b": 2}),
        ({"a": {"x": 1}}, {"a": {"$delete": ["x"], "x": {"y": 1}}}, {"a": {"x": {"y": 1}}}),
        ({"a": {"x": 1}}, {"a": {"x": 1, "$delete": ["x"]}}, None),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": 1}, {"a": 1.0}, {"a": 1.0}),
        ({"a": True}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}, None),
        ({"a": 2**64 - 1}, {"a": 2**64 - 1}, None),
        ({"a": [1, 2]}, {"a": {"$delete": [0], "$insert": [[0, 1]]}}, None),
        ({"a": [1, 2]}, {"a": {"0": 1, "1": {}}}, None),
        ({"a": [1, 2]}, {"a": {"0": 5, "$insert": [[1, "$$x"]], "$delete": [0]}}, {"a": [5, "$x"]}),
        ({"a": [1, 2]}, {"a": {"$insert": [], "$delete": []}}, None),
    ],
)
def test_a_request_that_fits_makes_its_value(old: Any, patch: Any, new: Any) -> None:
    narrowed = effect(old, patch, 3)
    if new is None:
        assert narrowed is SAME
    else:
        assert same(applied(old, narrowed), new)


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({1: 1}, {"1": 2}, {1: 2}),
        ({1: 1}, {1: 2}, {1: 2}),
        ({1: 1, "a": 1}, {"$delete": ["1"]}, {"a": 1}),
        ({1: 1}, {"$delete": ["1"], "1": 3}, {1: 3}),
        ({}, {"a": {2: [b"x"]}}, {"a": {2: [b"x"]}}),
        ({"a": [{1: 1, "b": "x" * 40}]}, {"a": {0: {1: b"x"}}}, {"a": [{1: b"x", "b": "x" * 40}]}),
        ({"a": [{1: 1}, {2: 2}, {3: 3}]}, {"a": [{1: 1}, {3: b"x"}]}, {"a": [{1: 1}, {3: b"x"}]}),
    ],
)
def test_foreign_keys_and_values_are_patched(old: Any, patch: Any, new: Any) -> None:
    narrowed = effect(old, patch, 8, foreign=True)
    assert same(applied(old, narrowed), new)
    assert same(changed(old, narrowed), new)


def test_a_long_array_is_edited_even_where_the_whole_would_be_shorter() -> None:
    old = [0] * 65
    assert effect(old, {"$delete": [0] * 65}, 8) == {"$delete": [0] * 65}
    assert effect(old[1:], {"$delete": [0] * 64}, 8) == []


@pytest.mark.parametrize(
    ("root", "path", "detail"),
    [
        ({"a": 1}, ("a", "b"), "/a/b"),
        ({"a": None}, ("a", "b", "c"), "/a/b"),
        ({"a": [1]}, ("a", "1"), "/a/1"),
        ({"a": [1]}, ("a", "x", "y"), "/a/x"),
    ],
)
def test_a_path_through_a_scalar_or_beyond_an_array_is_refused(root: Any, path: Any, detail: str) -> None:
    with pytest.raises(Problem) as caught:
        locate(root, path)
    assert (caught.value.code, caught.value.body()["path"]) == ("patch_mismatch", detail)


@pytest.mark.parametrize(
    ("root", "path", "new"),
    [
        ({}, ("a", "b"), {"a": {"b": 5}}),
        ({"a": [1]}, ("a", "-"), {"a": [1, 5]}),
        ({"a": [1]}, ("a", "-", "b"), {"a": [1, {"b": 5}]}),
        ({"a": {1: 0}}, ("a", "1"), {"a": {1: 5}}),
        ({"$a": {}}, ("$a", "$b"), {"$a": {"$b": 5}}),
    ],
)
def test_a_value_is_put_at_a_path(root: Any, path: Any, new: Any) -> None:
    steps, old = locate(root, path)
    assert same(applied(root, rooted(steps, assignment(old, 5, 8))), new)


def test_the_last_key_is_removed() -> None:
    root = {"a": {"b": 1}}
    assert removal(locate(root, ("a", "b"))[0]) == {"a": {"$replace": {}}}
