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
        payloads = self._payloads
        for change in changes:
            payloads.append(change.payload)
            self.bytes += len(change.payload)
            if change.narrowed:
                self._narrowed[change.rev] = change.narrowed
                self.bytes += _size(change.narrowed)
        self.last += len(changes)
        while self.bytes > self.most:
            self._drop()
        if self._dropped > 1024 and self._dropped > len(payloads) // 2:
            del payloads[: self._dropped]
            self._dropped = 0

    def _drop(self) -> None:
        self.bytes -= len(self._payloads[self._dropped])
        self._payloads[self._dropped] = b""
        gone = self._narrowed.pop(self.first, None)
        if gone is not None:
            self.bytes -= _size(gone)
        self._dropped += 1
        self.first += 1

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
