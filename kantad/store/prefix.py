"""The beginning of the log, for who copies it: what stands there does not change any more.

Read through a descriptor of its own of the same open file, so it is the right file whatever is
renamed or put in its place meanwhile, and by plain reads: nothing is mapped, no place is shared.
It shares the lock, too, so it is to be closed before the file is opened anew. Reading blocks: a thread's.
"""

import os


class Prefix:
    """The first `size` bytes of an open file. Raises OSError where there is no descriptor to be had."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = os.dup(fd), size

    def read(self, place: int, most: int) -> bytes:
        """The bytes from a place on, `most` of them or up to the end, never none; raises OSError and EOFError."""
        data = os.pread(self.fd, min(most, self.size - place), place)
        if not data:
            raise EOFError("the file ends there")
        return data

    def close(self) -> None:
        """Done with it. A read that still runs gives back what nobody wants."""
        os.close(self.fd)
