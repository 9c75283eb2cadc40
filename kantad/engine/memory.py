"""The interpreter's memory: no collector pauses over a large state, and freed memory given back.

The state has no cycles, so reference counting frees it; a full collection over a million objects
would stop the loop for 0.4 s. So: off while loading, what was loaded is frozen, high thresholds
afterwards. Encoding a snapshot or taking a large body leaves holes in the allocator that it keeps;
on glibc `malloc_trim` returns them (measured at 100,000 users: 1,190 bytes a user before, 970 after).
"""

import asyncio
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LARGE: Final = 1 << 20  # bytes written at once that are worth a trim afterwards
DELAY: Final = 0.5  # seconds of quiet before it


@contextmanager
def loading() -> Iterator[None]:
    """Load without the collector; freeze what was loaded."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1000)
        gc.enable()
        trim()


def trim() -> None:
    """Give free memory back to the operating system, where the C library can."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


class Trimmer:
    """Trims once after large pieces of work, when they are over."""

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None

    def note(self, size: int) -> None:
        """So many bytes were handled at once."""
        if size >= LARGE:
            self.cancel()
            self.timer = asyncio.get_running_loop().call_later(DELAY, trim)

    def cancel(self) -> None:
        """Do not trim after all."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
