"""How much history is kept: `30d`, `12h`, `100000r` or `none`. Pure.

Who compacts a log asks for one of these; what it comes to in a certain log is `store.compaction`'s to say.
"""

import re
from typing import Final, NamedTuple

UNITS: Final = {"h": 3600 * 1_000_000, "d": 24 * 3600 * 1_000_000}  # microseconds
MEANT: Final = "30d (days), 12h (hours), 100000r (revisions) or none"

_TEXT: Final = re.compile(r"(0|[1-9][0-9]{0,8})([hdr])")


class Retention(NamedTuple):
    """Changes to keep: the newest `revisions`, or, where that is None, those of the last `micros` microseconds."""

    text: str
    revisions: int | None
    micros: int = 0


def retention(text: object) -> Retention:
    """The retention that a text means; raises ValueError, which says what would be one."""
    if text == "none":
        return Retention("none", 0)
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(MEANT)
    number, unit = int(found[1]), found[2]
    if unit == "r":
        return Retention(found[0], number)
    return Retention(found[0], None, number * UNITS[unit])
