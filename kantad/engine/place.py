"""A path as a write needs it: its keys, and what stands around a patch at it in a record.

What writes are told apart by is their last key; what stands above it is the same for many, and is
remembered. (To remember whole pointers costs more memory traffic than making the rest anew:
measured with 10,000 objects, 0.4 us a write more.)
"""

from typing import Final

from kantad.values.codec import Codec
from kantad.values.patch import escape
from kantad.values.pointer import Path, parse
from kantad.values.recent import Recent

MOST: Final = 4096  # of what stands above, or twice as many
LONGEST: Final = 256  # characters of it

# A path, and what stands before and behind the encoded patch of its value in that of the root; objects all the way.
Place = tuple[Path, bytes, bytes]

ROOT: Final[Place] = ((), b"", b"")


class Places:
    """The places of a database, whose records are encoded so."""

    def __init__(self, codec: Codec) -> None:
        self.encode, self.start, self.colon, self.end = codec.encode, codec.start, codec.colon, codec.end
        self.known: Recent[str, Place] = Recent(MOST)  # by pointer: the path, and what stands around a last member

    def at(self, path: Path) -> Place:
        """The place of a path."""
        steps = [self.start + self.encode(escape(segment)) + self.colon for segment in path]
        return path, b"".join(steps), self.end * len(path)

    def of(self, pointer: str) -> Place:
        """The place that a JSON Pointer names; raises `Problem("invalid_path")`."""
        above, slash, key = pointer.rpartition("/")
        found = self.known.young.get(above) or self.known.older(above)
        if found is None or not slash or "~" in key:
            path = parse(pointer)
            if path and len(above) <= LONGEST:
                _, before, after = self.at(path[:-1])
                self.known.keep(above, (path[:-1], before + self.start, after + self.end))
            return self.at(path)
        path, before, after = found
        return (*path, key), before + self.encode(escape(key) if "$" in key else key) + self.colon, after
