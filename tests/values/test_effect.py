"""What a patch amounts to: pure, canonical, effective, the same live as replayed."""

import json
from copy import deepcopy
from typing import Any

import jsondiff
from hypothesis import assume, given
from hypothesis import strategies as st

from kantad.values.content import MISSING, copied, same
from kantad.values.diff import SAME, difference
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
    old = [{"n": n, "text": "a"} for n in range(6)]
    patch = {"$delete": [0, 0, 0, 0, 0, 0] + [], "$insert": []}
    assert effect(old, patch, ROOM) == []
    old = [{"long": "x" * 40, "n": 1}, {"long": "y" * 40, "n": 2}]
    patch = {str(i): {"long": "z" * 3, "more": "m" * 3} for i in range(2)}
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
