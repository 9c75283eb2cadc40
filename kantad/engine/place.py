"""A path as a write needs it: its keys, and what stands around a patch at it in a record.

The pointers that were asked for lately are remembered, because the same are asked for again.
"""

from typing import Final, NamedTuple

from kantad.values.codec import Codec
from kantad.values.pointer import Path, parse
from kantad.values.recent import Recent

MOST: Final = 16_384  # pointers that are remembered, or twice as many
LONGEST: Final = 256  # characters of one


class Place(NamedTuple):
    """A path, and what stands before and behind the encoded patch of its value in that of the root."""

    path: Path
    before: bytes
    after: bytes


ROOT: Final = Place((), b"", b"")


class Places:
    """The places of a database, whose records are encoded so."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.known: Recent[str, Place] = Recent(MOST)

    def at(self, path: Path) -> Place:
        """The place of a path."""
        return Place(path, *self.codec.around(path))

    def of(self, pointer: str) -> Place:
        """The place that a JSON Pointer names; raises `Problem("invalid_path")`."""
        place = self.known.young.get(pointer) or self.known.older(pointer)
        if place is None:
            place = self.at(parse(pointer))
            if len(pointer) <= LONGEST:
                self.known.keep(pointer, place)
        return place
