"""The differ: its patches make the new value, for us, for jsondiff and for kanta."""

import json
from copy import deepcopy
from typing import Any

import jsondiff
import pytest
from hypothesis import assume, given
from kanta.diff import patch as kanta_patch

from kantad.values import diff
from kantad.values.content import MISSING, encode_json, same
from kantad.values.diff import JSONDIFF_LEAST, JSONDIFF_TOTAL, SAME, difference
from kantad.values.effect import effect, locate, rooted
from kantad.values.patch import apply
from kantad.values.translate import json_patch, merge_patch
from tests.values.documents import anything, has_command_key, object_pairs, pairs


def round_trip(value: Any) -> Any:
    return json.loads(json.dumps(value))


@given(pairs)
def test_the_difference_makes_the_new_value_of_the_old(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(deepcopy(old), deepcopy(new))
    assert (patch is SAME) == same(old, new)
    if patch is not SAME:
        assert same(apply(deepcopy(old), round_trip(patch)), new)
        assert same(apply(deepcopy(old), deepcopy(patch)), new)


@given(pairs)
def test_jsondiff_reads_the_difference_as_we_do(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(deepcopy(old), deepcopy(new))
    assume(patch is not SAME)
    assert same(jsondiff.patch(deepcopy(old), round_trip(patch), marshal=True), new)


@given(object_pairs)
def test_kanta_reads_the_difference_as_we_do(pair: tuple[Any, Any]) -> None:
    old, new = pair
    assume(not has_command_key(old) and not has_command_key(new))
    patch = difference(deepcopy(old), deepcopy(new))
    assume(patch is not SAME)
    assert same(kanta_patch(deepcopy(old), round_trip(patch)), new)


@given(anything)
def test_the_difference_from_nothing_is_the_value_spelt_as_a_patch(value: Any) -> None:
    patch = difference(MISSING, deepcopy(value))
    assert patch is not SAME
    assert same(apply({}, {"k": deepcopy(patch)})["k"], value)


@given(pairs)
def test_the_differ_leaves_both_values_alone(pair: tuple[Any, Any]) -> None:
    old, new = deepcopy(pair)
    difference(old, new)
    assert same(old, pair[0])
    assert same(new, pair[1])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"$delete": ["b"]}),
        ({"a": 1}, {"b": 2}, {"$replace": {"b": 2}}),
        ({"a": 1}, {}, {"$replace": {}}),
        ({}, {"a": {}}, {"a": {}}),
        ({"a": 1}, {"a": {}}, {"a": {"$replace": {}}}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"$replace": {"b": 1}}}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"$a": 1, "x": 1}, {"$a": "$5", "x": 1}, {"$$a": "$$5"}),
        ({"$delete": 1, "x": 1}, {"x": 1}, {"$delete": ["$$delete"]}),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": 1}, {"a": 1.0}, {"a": 1.0}),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": list(range(40))}, {"a": list(range(39))}, {"a": {"$delete": [39]}}),
        ({"a": list(range(40))}, {"a": [*range(40), 40]}, {"a": {"$insert": [[40, 40]]}}),
        (["long" * 9, {"x": 1}], ["long" * 9, {"x": 2}], {"1": {"x": 2}}),
        (["long" * 9, {"x": 1, "y": "long" * 9}], ["long" * 9, {"x": True, "y": "long" * 9}], {"1": {"x": True}}),
    ],
)
def test_the_difference_is_canonical(old: Any, new: Any, patch: Any) -> None:
    assert same(difference(old, new), patch)


def test_a_long_list_of_changes_is_compared_without_jsondiff() -> None:
    old = [{"n": n} for n in range(500)]
    new = [{"n": n + 1} for n in range(500)]
    assert same(apply(deepcopy(old), deepcopy(difference(old, new))), new)
    new = [{"n": n, "more": "long" * 50} for n in range(3)]
    assert same(apply(deepcopy(old), deepcopy(difference(old, new))), new)


def test_few_but_large_elements_are_compared_without_jsondiff() -> None:
    old = ["x" * 9000, "y" * 9000]
    new = ["y" * 9000, "z" * 9000]
    assert same(apply(deepcopy(old), deepcopy(difference(old, new))), new)


def nested(depth: int, leaf: Any) -> Any:
    """An array in an array, and so on, with the leaf in the innermost and something beside it at each level."""
    for level in range(depth):
        leaf = [level, leaf, "beside"]
    return leaf


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: ["a", x], lambda x: ["a", x, "b"], lambda x: [{"k": x}]])
def test_arrays_nested_as_deep_as_may_be_are_compared_at_once(wrap: Any) -> None:
    old, new = 1, 2
    for _ in range(120):
        old, new = wrap(old), wrap(new)
    assert same(apply(deepcopy(old), deepcopy(difference(old, new))), new)


def test_nested_arrays_that_moved_are_compared_at_once() -> None:
    old, new = nested(60, 1), nested(60, 2)
    for _ in range(40):
        old, new = ["a", old, old], [new, "a", old]
        old, new = [old[1], "b"], ["b", new[0], new[2]]
    assert same(apply(deepcopy(old), deepcopy(difference(old, new))), new)


def test_jsondiff_is_asked_a_bounded_number_of_times_in_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compare = jsondiff.diff
    monkeypatch.setattr(jsondiff, "diff", lambda *args, **more: asked.append(1) or compare(*args, **more))
    old = {str(i): [[j, 1] for j in range(30)] for i in range(1500)}
    new = {str(i): [[j + 100, 1] for j in range(30)] for i in range(1500)}
    operations = [{"op": "add", "path": f"/{key}", "value": value} for key, value in new.items()]
    for compared in (
        lambda: difference(old, new),
        lambda: effect(old, deepcopy(new), 9),
        lambda: merge_patch(old, deepcopy(new), 9),
        lambda: json_patch(old, operations, 9),
    ):
        asked.clear()
        assert same(apply(deepcopy(old), deepcopy(compared())), new)
        assert 0 < len(asked) <= JSONDIFF_TOTAL // JSONDIFF_LEAST


def test_a_row_that_came_between_others_is_inserted() -> None:
    old = [[name, {"of": [name]}] for name in ("ada", "brian", "claude", "dennis")]
    new = [*old[:2], ["$new", {"of": ["$$"]}], *old[2:]]
    assert difference(old, new) == {"$insert": [[2, ["$$new", {"of": ["$$$"]}]]]}
    new[4] = ["dennis", {"of": ["changed"]}]
    assert difference(old, new) == {
        "$insert": [[2, ["$$new", {"of": ["$$$"]}]]],
        "4": {"1": {"of": ["changed"]}},
    }


def test_the_same_content_is_named_so() -> None:
    assert repr(SAME) == "SAME"
    assert difference([1, {"a": 1}], [1, {"a": 1}]) is SAME


def wrapped(value: Any, depth: int) -> Any:
    """A value in so many arrays."""
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("where", ["differ", "patch", "path"])
def test_arrays_in_arrays_are_not_weighed_at_each_level_without_end(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    weighed = 0

    def encode(value: Any) -> bytes:
        nonlocal weighed
        text = encode_json(value)
        weighed += len(text)
        return text

    monkeypatch.setattr(diff, "encode_json", encode)
    old, new = wrapped("a" * (1 << 20), 100), wrapped("b" * (1 << 20), 100)
    if where == "differ":
        patch = difference(old, new)
    elif where == "patch":
        deep: Any = "b" * (1 << 20)
        for _ in range(100):
            deep = {"0": deep}
        patch = effect(old, deep, 128)
    else:
        steps, _ = locate({"l": old}, ("l", *["0"] * 100))
        patch = rooted(steps, "b" * (1 << 20))["l"]
    assert apply(deepcopy(old), patch) == new
    assert weighed < 6 * diff.WEIGHED  # at the levels down to where it ends, each edit of which is measured
    assert difference(old, deepcopy(old)) is SAME
