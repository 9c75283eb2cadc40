"""Hiding changes: the state is exactly the one before, and afterwards exactly the one with them."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice, repeat
from typing import Any

import pytest

from kantad.engine.pending import Applied, hidden, roll_back
from kantad.values.patch import KeyOrders, Undo, apply
from kantad.values.pointer import Path, lookup


def done(state: dict[str, Any], undo: Undo, patch: Any) -> Applied:
    """A change that was applied, in the batch that has this undo list."""
    mark, kept = len(undo.entries), deepcopy(patch)
    apply(state, patch, undo)
    return Applied(1, b"", b"", (), kept, undo, mark, (0, None))


def batches(dice: random.Random, orders: KeyOrders) -> Iterator[Undo]:
    """The undo lists of one change after another: of its batch, which has few of them or many."""
    while True:
        undo = Undo(orders)
        yield from repeat(undo, dice.choice([1, 1, 2, 5]))


def a_patch(dice: random.Random, state: dict[str, Any]) -> dict[str, Any]:
    """A random patch that fits."""
    name = dice.choice("abc")
    known = list(state[name])
    patch: dict[str, Any] = {f"k{dice.randint(0, 150)}": dice.random() for _ in range(dice.randint(0, 8))}
    gone = [key for key in dice.sample(known, min(len(known), dice.randint(0, 8))) if key not in patch]
    if gone:
        patch["$delete"] = gone
    return {name: {"$replace": {f"k{n}": n for n in range(60)}} if dice.random() < 0.03 else patch}


@pytest.mark.parametrize("most", [1, 2, 8])
@pytest.mark.parametrize("size", [20, 36, 80])
def test_what_is_below_a_path_shows_as_it_was_and_undoing_is_still_exact(most: int, size: int) -> None:
    dice = random.Random(most * 100 + size)
    for _ in range(150):
        orders = KeyOrders(most)
        state: dict[str, Any] = {name: {f"k{n}": {"v": n} for n in range(size)} for name in "abc"}
        for _ in range(dice.randint(0, 5)):
            done(state, Undo(orders), a_patch(dice, state))
        before = [deepcopy(state)]
        changes: list[Applied] = []
        for undo in islice(batches(dice, orders), dice.randint(1, 12)):
            changes.append(done(state, undo, a_patch(dice, state)))
            before.append(deepcopy(state))
        after = json.dumps(state)
        for _ in range(4):
            paths: list[Path] = [(), ("a",), ("b", f"k{dice.randint(0, 80)}"), ("c", "k1", "v"), ("c", "none", "x")]
            path, first = dice.choice(paths), dice.randrange(len(before))
            with hidden(state, changes[first:], path):
                shown, wanted = lookup(state, path), lookup(before[first], path)
                assert repr(shown) == repr(wanted)
            assert json.dumps(state) == after
        roll_back(changes)
        assert json.dumps(state) == json.dumps(before[0])


def test_a_look_below_a_wide_object_does_not_put_its_keys_in_order() -> None:
    state: dict[str, Any] = {"o": {f"k{n}": n for n in range(1000)}}
    keys = list(state["o"])
    orders = KeyOrders()
    changes = [done(state, Undo(orders), {"o": {"$delete": [f"k{n}"]}}) for n in range(100)]
    with hidden(state, changes, ("o", "k5")):
        assert state["o"]["k5"] == 5
        assert list(state["o"])[-1] == "k0"
    with hidden(state, changes, ("o",)):
        assert list(state["o"]) == keys
