"""Many positions of a long list: one pass gives what position after position gives, or is not taken."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values import splice
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.patch import KeyOrders, Undo, Unfit, apply
from kantad.values.splice import in_one_pass, spliced
from kantad.values.translate import json_patch


def one_by_one(items: list[Any], deletions: list[int], insertions: list[list[Any]]) -> list[Any]:
    made = list(items)
    for position in deletions:
        del made[position]
    for position, value in insertions:
        made.insert(position, value)
    return made


@st.composite
def orderly(draw: st.DrawFn) -> tuple[int, list[int], list[list[Any]]]:
    length = draw(st.integers(0, 40))
    deletions = sorted(draw(st.sets(st.integers(0, max(length - 1, 0)), max_size=length)), reverse=True)
    left, insertions, least = length - len(deletions), [], 0
    for name in range(draw(st.integers(0, 12))):
        if least > left + name:
            break
        position = draw(st.integers(least, left + name))
        insertions.append([position, f"new{name}"])
        least = position + 1
    return length, deletions, insertions


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "ONE_PASS", 0)


@given(orderly())
@pytest.mark.usefixtures("eager")
def test_one_pass_makes_what_one_position_after_another_makes(case: tuple[int, list[int], list[list[Any]]]) -> None:
    length, deletions, insertions = case
    items = list(range(length))
    assert in_one_pass(items, deletions, insertions) == one_by_one(items, deletions, insertions)
    assert items == list(range(length))


@given(st.integers(0, 8), st.lists(st.integers(-2, 9), max_size=5), st.lists(st.integers(-2, 12), max_size=5))
@pytest.mark.usefixtures("eager")
def test_any_positions_make_the_same_list_or_the_same_refusal(length: int, gone: list[int], put: list[int]) -> None:
    items, insertions = list(range(length)), [[position, "new"] for position in put]
    try:
        expected = one_by_one(items, gone, insertions)
    except IndexError:
        with pytest.raises(IndexError):
            spliced(items, gone, insertions)
        return
    assert spliced(items, gone, insertions) == expected


@given(orderly())
@pytest.mark.usefixtures("eager")
def test_a_list_edit_in_one_pass_is_undone_exactly(case: tuple[int, list[int], list[list[Any]]]) -> None:
    length, deletions, insertions = case
    items: list[Any] = list(range(length))
    root, undo = {"list": items}, Undo(KeyOrders())
    apply(root, {"list": {"$delete": deletions, "$insert": insertions}}, undo)
    assert root["list"] == one_by_one(list(range(length)), deletions, insertions)
    undo.roll_back()
    assert root == {"list": list(range(length))}
    assert root["list"] is items


@pytest.mark.usefixtures("eager")
def test_strings_that_begin_with_a_dollar_are_inserted_as_they_are() -> None:
    assert apply([1, 2], {"$insert": [[0, "$$a"], [2, {"$$b": "$$c"}]]}) == ["$a", 1, {"$b": "$c"}, 2]


@pytest.mark.usefixtures("eager")
def test_a_logged_list_edit_that_does_not_fit_is_unfit() -> None:
    with pytest.raises(Unfit):
        apply([1, 2], {"$delete": [5, 4]})


LONG = 400_000


def test_many_positions_of_a_long_list_are_edited_in_one_pass() -> None:
    half = list(range(LONG - 1, 0, -2))
    started = time.perf_counter()
    patch = effect(
        list(range(LONG)), {"$delete": half, "$insert": [[position * 2, "x"] for position in range(LONG // 2)]}, 64
    )
    root = list(range(LONG))
    assert apply(root, patch) == [item for even in range(0, LONG, 2) for item in ("x", even)]
    assert time.perf_counter() - started < 20  # position after position takes minutes


@pytest.mark.parametrize(
    "patch", [{"$delete": [0] * (LONG // 2)}, {"$insert": [[0, position] for position in range(LONG // 2)]}]
)
def test_an_order_that_would_move_too_much_is_refused(patch: Any) -> None:
    with pytest.raises(Problem, match="descending") as refused:
        effect(list(range(LONG)), patch, 64)
    assert refused.value.code == "too_large"


def test_operations_that_would_move_too_much_are_refused() -> None:
    with pytest.raises(Problem, match="move too many") as refused:
        json_patch(list(range(LONG)), [{"op": "add", "path": "/0", "value": 1}] * 10_000, 64)
    assert refused.value.code == "too_large"
