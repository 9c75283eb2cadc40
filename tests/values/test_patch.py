"""The interpreter: spelling, applying, undoing exactly, kanta's verbatim dialect."""

import json
import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kanta.diff import diff as kanta_diff

from kantad.values.content import MISSING, same
from kantad.values.diff import SAME, difference
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.patch import (
    KeyOrders,
    Undo,
    Unfit,
    apply,
    build,
    escape,
    marshal,
    merge,
    merge_verbatim,
    splice,
    unescape,
    unmarshal,
)
from tests.values.documents import anything, documents, object_pairs, patches, spelt, values


@given(anything)
def test_a_value_is_spelt_and_read_back(value: Any) -> None:
    assert same(marshal(value), spelt(value))
    assert same(unmarshal(marshal(value)), value)
    assert same(unmarshal(json.loads(json.dumps(marshal(value)))), value)


@pytest.mark.parametrize(
    ("text", "spelling"), [("a", "a"), ("", ""), ("$", "$$"), ("$a", "$$a"), ("$$", "$$$"), ("a$", "a$"), (5, 5)]
)
def test_one_more_dollar_before_a_dollar(text: Any, spelling: Any) -> None:
    assert escape(text) == spelling
    assert unescape(spelling) == text


@pytest.mark.parametrize("text", ["$", "$5", "$replace", 5, None])
def test_a_single_dollar_stands_for_itself(text: Any) -> None:
    assert unescape(text) == unmarshal(text) == text
    assert unmarshal([text, "$$x"]) == [text, "$x"]


@given(documents, st.data())
def test_undoing_restores_exactly(root: dict[str, Any], data: st.DataObject) -> None:
    orders = KeyOrders()
    state = deepcopy(root)
    done: list[tuple[str, Undo]] = []
    for _ in range(data.draw(st.integers(1, 5))):
        try:
            narrowed = effect(state, data.draw(patches(state)), 64)
        except Problem:
            continue
        if type(narrowed) is not dict or type(narrowed.get("$replace", narrowed)) is not dict:
            continue
        undo = Undo(orders)
        done.append((json.dumps(state), undo))
        assert apply(state, narrowed, undo) is state
    for text, undo in reversed(done):
        undo.roll_back()
        assert json.dumps(state) == text
        assert undo.entries == []


@pytest.mark.parametrize("seed", range(30))
def test_undoing_restores_wide_objects_exactly(seed: int) -> None:
    dice = random.Random(seed)
    orders = KeyOrders(most=dice.choice([1, 2, 8]))
    state: dict[str, Any] = {name: {f"k{n}": n for n in range(dice.choice([3, 40, 90]))} for name in "abc"}
    for _ in range(12):  # transactions that stay, between those that are taken back
        done: list[tuple[str, Undo]] = []
        for _ in range(dice.randint(1, 8)):
            patch: dict[str, Any] = {}
            for name in dice.sample("abc", dice.randint(1, 3)):
                target = state[name]
                known = list(target)
                patch[name] = {f"k{dice.randint(0, 120)}": dice.random() for _ in range(dice.randint(0, 30))}
                gone = [
                    key for key in dice.sample(known, min(len(known), dice.randint(0, 12))) if key not in patch[name]
                ]
                patch[name]["$delete"] = gone
                if dice.random() < 0.05:
                    patch[name] = {"$replace": {f"k{n}": n for n in range(50)}}
            if dice.random() < 0.05:
                patch = {"$replace": {name: {f"k{n}": n for n in range(40)} for name in "cab"}}
            undo = Undo(orders)
            done.append((json.dumps(state), undo))
            apply(state, patch, undo)
        for text, undo in reversed(done[dice.randint(0, len(done)) :]):
            undo.roll_back()
            assert json.dumps(state) == text


def test_the_order_of_keys_that_came_again_many_times_is_restored() -> None:
    orders = KeyOrders()
    state = {f"k{n}": n for n in range(40)}
    for n in range(300):
        undo = Undo(orders)
        text = json.dumps(state)
        merge(state, {"$delete": [f"k{n % 40}"]}, undo)
        merge(state, {f"k{n % 40}": n}, undo)
        if n % 3:
            undo.roll_back()
            assert json.dumps(state) == text
    assert len(orders.kept[id(state)][1]) <= 2 * len(state) + 40


def test_the_order_is_restored_after_a_renewal_within_what_is_taken_back() -> None:
    orders = KeyOrders(most=1)
    state = {"a": {f"k{n}": n for n in range(40)}, "b": {f"k{n}": n for n in range(40)}}
    text = json.dumps(state)
    undo = Undo(orders)
    for patch in ({"a": {"$delete": ["k0"]}}, {"b": {"$delete": ["k1"]}}, {"a": {"$delete": ["k2"], "new": 1}}):
        apply(state, patch, undo)
    undo.roll_back()
    assert json.dumps(state) == text
    undo = Undo(orders)
    apply(state, {"a": {"$delete": ["k7"]}}, undo)
    apply(state, {"a": {"$delete": ["k0"]}}, undo)
    undo.roll_back()
    assert json.dumps(state) == text


@given(object_pairs)
def test_undo_takes_back_a_difference(pair: tuple[Any, Any]) -> None:
    old, new = deepcopy(pair)
    patch = difference(old, new)
    assume(patch is not SAME)
    undo = Undo(KeyOrders())
    assert same(apply(old, deepcopy(patch), undo), new)
    undo.roll_back()
    assert json.dumps(old) == json.dumps(pair[0])


@pytest.mark.parametrize(
    ("target", "patch"),
    [
        ({}, {"$insert": [[0, 1]]}),
        ({}, {"$unknown": 1}),
        ({}, {"$delete": [["a"]]}),
        ({}, {"$delete": {"a": 1}}),
        ({}, {"a": {"$insert": [[0, 1]]}}),
        ({"a": 1}, {"a": {"$insert": [[0, 1]]}}),
        ({"a": [1]}, {"a": {"1": 2}}),
        ({"a": [1]}, {"a": {"x": 2}}),
        ({"a": [1]}, {"a": {"$delete": [1]}}),
        ({"a": [1]}, {"a": {"$delete": ["x"]}}),
        ({"a": [1]}, {"a": {"$delete": 1}}),
        ({"a": [1]}, {"a": {"$insert": [1]}}),
        ({"a": [1]}, {"a": {"$insert": [["0", 1]]}}),
        ({"a": [1]}, {"a": {"$insert": [[0, 1, 2]]}}),
        ({"a": [[1]]}, {"a": {"0": {"1": 2}}}),
    ],
)
def test_a_logged_patch_that_does_not_fit_is_unfit(target: Any, patch: Any) -> None:
    with pytest.raises(Unfit):
        merge(target, patch)


@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        ({"a": 1}, {}, {"a": 1}),
        (5, {}, 5),
        ([1], {}, [1]),
        (MISSING, {}, {}),
        (5, {"a": {"$replace": {"$$b": 1}}}, {"a": {"$b": 1}}),
        (5, {"a": {"$delete": ["x"], "b": 1}}, {"a": {"b": 1}}),
        (5, {"$replace": [1]}, [1]),
        ([5], {"0": {}}, [5]),
        ([{"a": 1}], {"0": {"b": 2}}, [{"a": 1, "b": 2}]),
        ([[1]], {"0": {"$delete": [0]}}, [[]]),
        ([[1]], {"0": {"$replace": {"a": 1}}}, [{"a": 1}]),
        ([1, 2], {0: 5}, [5, 2]),
        ({"a": 1}, {"a": {}}, {"a": 1}),
        ({}, {"a": {}}, {"a": {}}),
        ({"a": [1]}, {"a": {}}, {"a": [1]}),
        ({"a": [1]}, {"a": {"$replace": {}}}, {"a": {}}),
        ({"a": 1}, {"$delete": "a"}, {}),
        ({"$a": 1}, {"$delete": ["$$a", "absent"]}, {}),
        ({1: 1}, {1: 2}, {1: 2}),
        ({"a": 1, "b": 1}, {"$replace": {"c": 1}}, {"c": 1}),
        ({"a": 1}, "$$x", "$x"),
    ],
)
def test_a_patch_is_applied(value: Any, patch: Any, result: Any) -> None:
    assert same(apply(deepcopy(value), patch), result)


def test_a_list_edit_deletes_then_inserts_then_edits() -> None:
    undo = Undo(KeyOrders())
    target = [0, 1, {"a": 1}, [3]]
    splice(target, {"0": {}, "2": {"b": 2}, "3": {"0": 4}, "$insert": [[1, "$$x"]], "$delete": [0]}, undo)
    assert target == [1, "$x", {"a": 1, "b": 2}, [4]]
    undo.roll_back()
    assert target == [0, 1, {"a": 1}, [3]]


def test_what_is_built_of_nothing_is_the_patch_itself_where_nothing_is_escaped() -> None:
    patch = {"a": {"b": [1]}}
    assert build(patch) is patch
    assert build([1]) == [1]


@given(object_pairs)
def test_kantas_own_patches_are_read_verbatim(pair: tuple[Any, Any]) -> None:
    old, new = deepcopy(pair)
    assume("{}" not in json.dumps(new))  # kanta itself cannot put an empty object over anything
    patch = kanta_diff(deepcopy(old), deepcopy(new))
    if patch is not None:
        merge_verbatim(old, json.loads(json.dumps(patch)))
    assert old == new


@given(object_pairs)
def test_undo_takes_back_a_verbatim_patch(pair: tuple[Any, Any]) -> None:
    old, new = deepcopy(pair)
    patch = kanta_diff(deepcopy(old), deepcopy(new))
    undo = Undo(KeyOrders())
    merge_verbatim(old, json.loads(json.dumps(patch or {})), undo)
    undo.roll_back()
    assert json.dumps(old) == json.dumps(pair[0])


@pytest.mark.parametrize("value", [{None: 1}, [{"a": [{True: 1}]}]])
def test_what_has_no_form_in_json_is_unfit(value: Any) -> None:
    for spell in (marshal, unmarshal):
        with pytest.raises(Unfit, match="no form in JSON"):
            spell(value)


@given(values)
def test_an_object_over_anything_else_is_verbatim_in_kantas_dialect(value: Any) -> None:
    assume(not isinstance(value, dict))
    state = {"a": value}
    merge_verbatim(state, {"a": {"$b": "$$c"}, "$$d": "$$e"})
    assert state == {"a": {"$b": "$$c"}, "$d": "$$e"}


def test_many_deletions_of_a_wide_object_are_undone_at_the_cost_of_one() -> None:
    state = {f"k{n}": n for n in range(20_000)}
    text = json.dumps(state)

    class Counted(dict[Any, Any]):
        clears = 0

        def clear(self) -> None:
            self.clears += 1
            super().clear()

    counted = Counted(state)
    undo = Undo(KeyOrders())
    merge(counted, {"$delete": [f"k{n}" for n in range(0, 20_000, 4)]}, undo)
    undo.roll_back()
    assert json.dumps(counted) == text
    assert counted.clears == 1
