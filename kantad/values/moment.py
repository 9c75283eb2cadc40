"""Moments: microseconds since the epoch, their RFC 3339 text, and the datetimes of MessagePack. Pure."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kantad.values.errors import Problem


def now_micros() -> int:
    """The time in microseconds since the epoch."""
    return time.time_ns() // 1000


def parse_time(text: str, name: str) -> datetime:
    """An RFC 3339 time; raises `Problem("invalid_parameter")`. Without an offset it is refused."""
    try:
        time = msgspec.convert(text, datetime)
        if time.tzinfo is None:
            raise ValueError
        return time.astimezone(UTC)
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise Problem("invalid_parameter", f"{name} is an RFC 3339 time with an offset", parameter=name) from None


class TimeText:
    """RFC 3339 UTC text of microseconds since the epoch; the text of a second is made once."""

    def __init__(self) -> None:
        self.micros = self.second = -(1 << 63)  # no moment
        self.template = self.text = ""

    def __call__(self, micros: int) -> str:
        """The text of one moment; that of the last one is kept."""
        if micros == self.micros:
            return self.text
        rest = micros - self.second
        if not 0 <= rest < 1_000_000 or not self.template:
            rest = micros % 1_000_000
            self.second = micros - rest
            whole = datetime.fromtimestamp(self.second // 1_000_000, UTC)
            self.template = f"{whole.year:04}{whole:-%m-%dT%H:%M:%S}.%06dZ"  # %Y does not pad
        self.micros = micros
        self.text = self.template % rest
        return self.text


time_text = TimeText()


def micros_of(ts: Any) -> int:
    """Microseconds since the epoch of a record's `ts` or `m`, in either format; 0 where it is no time."""
    if type(ts) is str:
        try:
            ts = msgspec.convert(ts, datetime)
        except msgspec.ValidationError:
            return 0
    if not isinstance(ts, datetime):
        return 0
    if ts.tzinfo is None:
        ts = ts.replace(tzinfo=UTC)
    delta: timedelta = ts - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def datetime_of(micros: int) -> datetime:
    """The datetime, UTC, of microseconds since the epoch."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
