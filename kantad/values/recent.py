"""A bounded memory of what was computed lately, for results that never go stale. Pure."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was kept or asked for lately: between `most` and twice as many entries.

    Two generations instead of an order of use: when `young` is full it becomes the old one, and
    what is asked for again moves back. So a working set that just does not fit loses little.
    Look into `young` first, where time counts; `older` is for what is not there.
    """

    __slots__ = ("most", "old", "young")

    def __init__(self, most: int) -> None:
        self.most = most
        self.young: dict[K, V] = {}
        self.old: dict[K, V] = {}

    def older(self, key: K) -> V | None:
        """What is kept for a key that is not in `young`, if anything."""
        value = self.old.get(key)
        if value is not None:
            self.keep(key, value)
        return value

    def keep(self, key: K, value: V) -> None:
        """Keep a value."""
        if len(self.young) >= self.most:
            self.old, self.young = self.young, {}
        self.young[key] = value
