"""The latest changes in memory, as the log holds them: what readers that keep up are served from.

Bounded in bytes. A payload carries all there is to know of a change: its cursor is its revision and
its last field. Nothing here awaits.
"""

from collections.abc import Iterator
from typing import Final

from kantad.engine.pending import Applied
from kantad.values.narrow import Verdict
from kantad.values.pointer import Path

RING_BYTES: Final = 4 << 20

Narrowed = dict[Path, bytes | Verdict]  # what feeds of these paths are sent of a change: see `interest`


class Ring:
    """The payloads of the revisions from `first` to `last`, without a gap."""

    def __init__(self, rev: int, most: int = RING_BYTES) -> None:
        self.first, self.last, self.most = rev + 1, rev, most
        self.bytes = 0
        self._payloads: list[bytes] = []
        self._dropped = 0  # how many of the list's first are no longer held
        self._narrowed: dict[int, Narrowed] = {}

    def extend(self, changes: list[Applied]) -> None:
        """Take in the next changes, and drop the oldest beyond the bound."""
        new = [change.payload for change in changes]
        self._payloads += new
        self.bytes += sum(map(len, new))
        for change in changes:
            if change.narrowed:
                self._narrowed[change.rev] = change.narrowed
                self.bytes += _size(change.narrowed)
        self.last += len(changes)
        if self.bytes > self.most:
            self._drop()

    def _drop(self) -> None:
        """Drop the oldest, as many as are too many."""
        payloads, place, left = self._payloads, self._dropped, self.bytes
        while left > self.most:
            left -= len(payloads[place])
            payloads[place] = b""
            if self._narrowed:
                left -= _size(self._narrowed.pop(self.first + place - self._dropped, {}))
            place += 1
        self.bytes = left
        self.first += place - self._dropped
        self._dropped = place
        if place > 1024 and place > len(payloads) // 2:
            del payloads[:place]
            self._dropped = 0

    def payload(self, rev: int) -> bytes:
        """The record of a revision that is held."""
        return self._payloads[self._dropped + rev - self.first]

    def narrowed(self, rev: int) -> Narrowed:
        """What was prepared of a change for feeds of single paths."""
        return self._narrowed.get(rev, {})

    def since(self, rev: int) -> Iterator[tuple[int, bytes]]:
        """The held changes behind a revision."""
        for number in range(max(rev + 1, self.first), self.last + 1):
            yield number, self.payload(number)


def _size(narrowed: Narrowed) -> int:
    return sum(len(part) for part in narrowed.values() if type(part) is bytes)
