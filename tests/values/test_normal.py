"""States of another time: keys that are equal as values of their type."""

from datetime import datetime
from typing import Any

import msgspec
import pytest

from kantad.values.errors import Problem
from kantad.values.schema import Schema


class Inner(msgspec.Struct):
    at: dict[datetime, int] = {}


class Row(msgspec.Struct, array_like=True):
    name: str
    inner: Inner = msgspec.field(default_factory=Inner)
    more: int = 0


class Outer(msgspec.Struct):
    by_name: dict[str, Inner] = {}
    rows: list[Row] = []
    one: Inner | None = None
    by_number: dict[float, list[dict[datetime, int]]] = {}


TWO = {"2026-06-01T00:00:00Z": 1, "2026-06-01T02:00:00+02:00": 1}


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"by_name": {"x": {"at": TWO}}}, ["by_name", "x", "at"]),
        ({"rows": [["a"], ["b", {"at": TWO}]]}, ["rows", "1", "1", "at"]),
        ({"one": {"at": TWO}}, ["one", "at"]),
        ({"by_number": {"1": [{}, TWO]}}, ["by_number", "1.0", "1"]),
        ({"by_number": {"1": [], "1.0": []}}, ["by_number"]),
    ],
)
def test_a_state_in_which_two_keys_would_become_one_is_refused_with_its_path(state: Any, where: list[str]) -> None:
    with pytest.raises(Problem, match="two of its keys are equal") as refused:
        Schema(Outer).normalised(state)
    assert refused.value.keys == where


def test_a_state_with_keys_in_another_spelling_is_brought_to_the_one_that_is_stored() -> None:
    state = {"gone": 1, "rows": [["a"], ["b", {"at": {"2026-06-01T02:00:00+02:00": 5}}]], "by_number": {"-0.0": []}}
    made, _ = Schema(Outer).normalised(state)
    assert made["rows"] == [["a", {"at": {}}, 0], ["b", {"at": {"2026-06-01T00:00:00Z": 5}}, 0]]
    assert made["by_number"] == {"0.0": []}
