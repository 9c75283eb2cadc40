"""Integer keys of MessagePack: one path names an integer and its decimal string, so an object holds one of them."""

from copy import deepcopy
from typing import Any

import jsondiff
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.astext import as_text, keys_deleted
from kantad.values.content import check, decode_json, encode_json, same
from kantad.values.diff import SAME, difference
from kantad.values.effect import assignment, effect
from kantad.values.errors import Problem
from kantad.values.lines import edits
from kantad.values.narrow import DELETED, UNTOUCHED, narrowed
from kantad.values.patch import KeyOrders, Undo, apply, marshal
from kantad.values.touch import meets, touched, tree_of
from kantad.values.translate import json_patch, merge_patch


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


NAMES = st.sampled_from([0, 1, 5, -3, 1 << 40, 1 << 60, "a", "$b", "1x"])
SCALARS = st.sampled_from([0, 1, True, "x", "$y", 1.5, None])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)


def shown(value: Any) -> Any:
    """The value as JSON has it."""
    return decode_json(encode_json(value))


def ways(old: Any, new: Any) -> list[Any]:
    """The canonical patches that requests of a JSON client for a value come to."""
    wanted = shown(new)
    operations = [{"op": "add", "path": "", "value": wanted}]
    through = [{"op": "add", "path": f"/{key}", "value": value} for key, value in wanted.items()]
    gone = [{"op": "remove", "path": f"/{key}"} for key in shown(old) if key not in wanted]
    return [
        assignment(old, wanted, 20, True),
        effect(old, {"$replace": marshal(deepcopy(wanted))}, 20, True),
        effect({"x": old}, {"x": {"$replace": marshal(deepcopy(wanted))}}, 20, True),
        json_patch(old, operations, 20, True),
        json_patch(old, through + gone, 20, True),
    ]


@given(OBJECTS, OBJECTS)
def test_what_a_json_client_asks_for_is_what_it_sees_and_what_its_feed_makes(old: Any, new: Any) -> None:
    wanted = shown(new)
    for number, patch in enumerate(ways(old, new)):
        before, after = (old, wanted) if number != 2 else ({"x": old}, {"x": wanted})
        if patch is SAME:
            assert same(shown(before), after)
            continue
        made = apply(deepcopy(before), deepcopy(patch))
        assert same(shown(made), after), (number, patch)
        told = shown(as_text(patch))
        assert same(apply(shown(before), deepcopy(told)), after), (number, patch, told)
        unmarked = jsondiff.patch(deepcopy(before), deepcopy(patch), marshal=True)
        assert same(shown(unmarked), after), (number, patch)


@given(OBJECTS, OBJECTS)
def test_what_is_put_in_a_feed_undone_by_a_state_that_is_known(old: Any, new: Any) -> None:
    patch = difference(old, new)
    if patch is SAME:
        return
    ints = as_ints(patch)
    made = apply(deepcopy(old), deepcopy(ints))
    assert same(made, new)
    assert same(apply(shown(old), shown(as_text(keys_deleted(ints, made)))), shown(new))


def as_ints(patch: Any) -> Any:
    """A patch as other programs write it: what is deleted of an object is an integer, as a position is."""
    if type(patch) is not dict or "$replace" in patch:
        return patch
    return {
        key: [int(name) if type(name) is float else name for name in sub]
        if key == "$delete"
        else sub
        if key == "$insert"
        else as_ints(sub)
        for key, sub in patch.items()
    }


def test_a_deleted_integer_key_touches_its_own_path_only() -> None:
    patch = effect({"d": {5: 1, 6: {"a": 1}}}, {"d": {"$delete": ["5"]}}, 8, True)
    assert list(touched(patch)) == [("d", "5")]
    assert tree_of(patch) == {"d": {"5": None}}
    assert not meets(patch, ("d", "6", "a"))
    assert meets(patch, ("d", "5", "a"))
    assert narrowed(patch, ("d", "5")) is DELETED
    assert narrowed(patch, ("d", "6")) is UNTOUCHED
    assert [(edit.path, edit.old) for edit in edits({"d": {5: 1, 6: 2}}, patch)] == [(("d", 5), 1)]


@pytest.mark.parametrize("name", ["5", 5, 5.0])
def test_a_deletion_is_undone_with_the_key_that_was_there(name: Any) -> None:
    state, undo = {5: 1, "a": 2}, Undo(KeyOrders())
    if name == "5":
        state = {"5": 1, "a": 2}
    before = deepcopy(state)
    apply(state, {"$delete": [name]}, undo)
    assert state == {"a": 2}
    undo.roll_back()
    assert same(state, before)
    assert [type(key) for key in state] == [type(key) for key in before]
