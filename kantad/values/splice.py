"""Deleting and inserting at many positions of a long list, in one pass where their order allows it.

One `del` or `insert` moves everything behind its position: a few positions of a list of millions
are cheap, 100,000 of them are minutes. Deletions that go strictly down and insertions that go
strictly up, which is how every differ writes them, are done in one pass instead. For other orders
there is no such way; what they may move is bounded for requests by `check_moves`. Pure.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import gt, lt
from typing import Any, Final

from kantad.values.errors import Problem

ONE_PASS: Final = 1 << 20  # positions times elements, from which on one pass is the shorter way
MOST_MOVED: Final = 1 << 26  # elements that a request may move; about 0.1 s

Pairs = Sequence[Sequence[Any]]


def spliced(items: list[Any], deletions: Sequence[int], insertions: Pairs) -> list[Any]:
    """The list with positions deleted one after another, then values inserted; raises what `list` raises."""
    made = in_one_pass(items, deletions, insertions)
    if made is None:
        made = list(items)
        for position in deletions:
            del made[position]
        for position, value in insertions:
            made.insert(position, value)
    return made


def in_one_pass(items: list[Any], deletions: Sequence[int], insertions: Pairs) -> list[Any] | None:
    """What `spliced` gives, or None where position after position is as good or the only way."""
    if (len(deletions) + len(insertions)) * len(items) < ONE_PASS:
        return None
    starts = [pair[0] for pair in insertions]
    left = len(items) - len(deletions)
    if not _orderly(deletions, gt, len(items) - 1) or not _orderly(starts, lt, left + len(starts) - 1):
        return None
    if deletions:
        gone = set(deletions)
        items = [item for position, item in enumerate(items) if position not in gone]
    made: list[Any] = []
    taken = 0
    for position, value in insertions:
        until = taken + position - len(made)
        if until > left:
            return None
        made += items[taken:until]
        taken = until
        made.append(value)
    return made + items[taken:]


def _orderly(positions: Sequence[int], before: Callable[[int, int], bool], last: int) -> bool:
    """Whether these are positions from 0 to `last`, each strictly before the next."""
    fit = all(type(position) is int and 0 <= position <= last for position in positions)
    return fit and all(before(one, other) for one, other in pairwise(positions))


def check_moves(length: int, deletions: Sequence[int], insertions: Pairs) -> None:
    """Raise `Problem` `too_large` for checked positions in an order that would move too many elements."""
    if (len(deletions) + len(insertions)) * (length + len(insertions)) <= MOST_MOVED:
        return
    starts = [pair[0] for pair in insertions]
    if any(one <= other for one, other in pairwise(deletions)) or any(one >= other for one, other in pairwise(starts)):
        raise Problem(
            "too_large",
            "this many positions of a list this long must be deleted in descending and inserted in ascending order",
        )
