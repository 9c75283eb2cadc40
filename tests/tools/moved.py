"""A type and migrations, for the tests of what is stopped in the middle."""

from typing import Any

import msgspec


class Data(msgspec.Struct):
    """What the steps make, and a default that normalising adds."""

    values: dict[str, Any] = {}
    count: int = 0
    note: str = "new"


def migrate_v1(d: dict[str, Any]) -> None:
    """Everything is a value."""
    values = dict(d)
    d.clear()
    d["values"] = values


def migrate_v2(d: dict[str, Any]) -> None:
    """Values are counted."""
    d["count"] = len(d["values"])
