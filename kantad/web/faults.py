"""The log of what must not happen: exceptions that are bugs, with their traceback, at most ten a minute."""

import logging
import time
from typing import Final

logger = logging.getLogger("kantad.http")

MOST: Final = 10
WINDOW: Final = 60.0  # seconds


class Faults:
    """When the last ones were logged."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def log(self, doing: str) -> None:
        """Log the exception that is being handled, and what was being done."""
        now = time.monotonic()
        self._times = [when for when in self._times if when > now - WINDOW]
        if len(self._times) < MOST:
            self._times.append(now)
            logger.exception("a fault while %s", doing)
