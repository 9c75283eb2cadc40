"""What a change did, told from its undo entries, is what the state before it tells."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kantad.values.content import MISSING, same
from kantad.values.diff import SAME, difference
from kantad.values.lines import UNKNOWN, Edit, edits
from kantad.values.patch import KeyOrders, Undo, apply
from kantad.values.traces import traced

keys = st.sampled_from(["a", "b", "$", "$$x", "0", "1"])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "$x", "$$y", "text"])),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=4)


def found(old: dict[str, Any], patch: Any) -> tuple[list[Edit], list[Edit]]:
    """The edits that the state before tells, and those that the undo entries tell."""
    wanted = list(edits(old, deepcopy(patch)))
    undo = Undo(KeyOrders())
    apply(deepcopy(old), deepcopy(patch), undo)
    return wanted, traced(patch, undo.entries)


def agree(one: list[Edit], other: list[Edit]) -> bool:
    def key(edit: Edit) -> str:
        return str(list(map(str, edit.path)))

    pairs = zip(sorted(one, key=key), sorted(other, key=key), strict=True)
    return len(one) == len(other) and all(
        list(map(str, a.path)) == list(map(str, b.path)) and alike(a.old, b.old) and alike(a.new, b.new)
        for a, b in pairs
    )


def alike(one: Any, other: Any) -> bool:
    return one is other if MISSING in (one, other) else same(one, other)


@given(objects, objects)
@example({"a": {"a": {"a": 1}}}, {"a": {"a": {"a": 2}}})
@example({"l": list(range(60))}, {"l": [*range(5), *range(20, 60), *range(9)]})
@example({"l": [1, [2, 3], {"x": 1}, 4]}, {"l": [[2, 9], {"x": 2}, 7, 4]})
def test_the_edits_are_those_that_the_state_tells(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = difference(old, new)
    if patch is SAME:
        return
    one, other = found(old, patch)
    if not _is_doubtful(patch):
        assert agree(one, other), (one, other)
    assert {str(edit.path[:1]) for edit in one} == {str(edit.path[:1]) for edit in other}


def _is_doubtful(patch: Any) -> bool:
    """Whether a key stands in an object under the same key: then an addition may be told a level further up."""
    if type(patch) is not dict:
        return False
    return any((type(sub) is dict and key in sub) or _is_doubtful(sub) for key, sub in patch.items())


def test_an_addition_under_a_key_of_the_same_name_is_an_addition() -> None:
    one, other = found({"a": {}}, {"a": {"a": 1}})
    assert [edit.old for edit in one] == [edit.old for edit in other] == [MISSING]


@pytest.mark.parametrize(
    ("old", "patch"),
    [
        ({"a": 1}, {"$replace": {"b": 2}}),
        ({"l": [1, 2, 3]}, {"l": {"$delete": [2, 0], "$insert": [[0, 9], [0, 8]], "1": 7}}),
        ({"l": [[1, 2, 3]]}, {"l": {"0": {"$delete": [1]}}}),
        ({"l": [1, {"a": 1}]}, {"l": {"0": {"$replace": {"x": 1}}, "1": {"a": 2, "b": {}}}}),
        ({}, {"a": {}, "b": {"c": {"$replace": {}}}}),
        ({"a": 1, "b": {"c": 2}}, {"$delete": ["a", "b"]}),
        ({"a": {"a": 1}, "b": 2}, {"a": {"a": {"$replace": {}}, "b": 1}, "$delete": "b"}),
    ],
)
def test_each_form_of_a_patch_is_told(old: dict[str, Any], patch: Any) -> None:
    one, other = found(old, patch)
    assert agree(one, other), (one, other)


def test_without_entries_the_old_values_are_not_known() -> None:
    assert list(traced({"a": 1, "$delete": ["b"]}, [])) == [
        Edit(("a",), UNKNOWN, 1),
        Edit(("b",), UNKNOWN, MISSING),
    ]
    assert list(traced({"$replace": {}}, [])) == [Edit((), UNKNOWN, {})]
