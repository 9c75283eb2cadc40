"""How keys of typed dicts are spelled: equal keys in one way.

Equal times, numbers and the like have several spellings (`2026-06-10T12:00:00Z` is `2026-06-10T14:00:00+02:00`,
`Decimal("1")` is `Decimal("1.0")`, `0.0` is `-0.0`). Two of them would be two members of an object and one key of the
dict, so that decoding would lose one of the two. `one_spelling` gives the one that is stored. Pure; called by `normal`,
and by `plain` for what programs put into dicts.
"""

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

SEVERAL: Final = (datetime, time, Decimal, float)  # the types whose equal values msgspec writes in several ways
MOST_ZEROS: Final = 30  # behind a Decimal before it is written with an exponent


def one_spelling(key: Any) -> Any:
    """The key, or an equal one, such that equal keys are written alike: times in UTC, numbers without zeros behind."""
    kind = type(key)
    if kind is datetime and key.tzinfo is not None:
        try:
            return key.astimezone(UTC)
        except OverflowError:  # UTC has no year for it
            return key
    if kind is time and key.tzinfo is not None:
        return _time(key)
    if kind is Decimal and key.is_finite():
        return _decimal(key)
    return key + 0.0 if kind is float else key  # of -0.0 that is 0.0


def _time(key: time) -> time:
    """In UTC; where that is another day (they are not equal, then), in the smallest zone of whole hours where not."""
    day, hour = timedelta(days=1), timedelta(hours=1)
    clock = datetime.combine(datetime.min, key.replace(tzinfo=None)) - datetime.min
    there = clock - (key.utcoffset() or timedelta())
    hours = max(0, -(there // hour)) - max(0, (there - day) // hour + 1)
    return (datetime.min + (there + hours * hour)).time().replace(tzinfo=timezone(hours * hour) if hours else UTC)


def _decimal(key: Decimal) -> Decimal:
    _, digits, exponent = key.as_tuple()
    kept = "".join(map(str, digits)).rstrip("0")
    if not kept.strip("0"):
        return Decimal(0)
    power = int(exponent) + len(digits) - len(kept)
    if 0 < power <= MOST_ZEROS:
        kept, power = kept + "0" * power, 0
    return Decimal((key.is_signed(), tuple(map(int, kept)), power))
