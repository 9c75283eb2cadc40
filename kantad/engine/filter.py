"""Which changes a reader asked for. Pure."""

import re
from fnmatch import translate
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from kantad.values.codec import Codec
from kantad.values.moment import micros_of
from kantad.values.pointer import Path


class Labels(msgspec.Struct):
    """What a filter looks at besides the patch."""

    ts: Any
    a: str = ""
    u: str | None = None


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


class Filter(NamedTuple):
    """Changes of what is at a path, by action (a glob: `*`, `?`, `[…]`), user, and time in microseconds (inclusive)."""

    path: Path = ()
    action: str | None = None
    user: str | None = None
    start: int | None = None
    stop: int | None = None

    @property
    def all(self) -> bool:
        """Whether every change passes, whatever its labels."""
        return self.action is None and self.user is None and self.start is None and self.stop is None

    def passes(self, codec: Codec, payload: bytes) -> bool:
        """Whether a record's labels are those asked for."""
        if self.all:
            return True
        labels: Labels = codec.decode(payload, Labels)
        if self.action is not None and not _glob(self.action).match(labels.a):
            return False
        if self.user is not None and labels.u != self.user:
            return False
        if self.start is None and self.stop is None:
            return True
        micros = micros_of(labels.ts)
        return (self.start is None or micros >= self.start) and (self.stop is None or micros <= self.stop)
