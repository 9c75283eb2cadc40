"""How long to wait before the next attempt: capped, exponential, with full jitter. Pure, but for the dice.

Full jitter (a time from nothing up to the bound) spreads who was cut off at the same moment better than a fixed
part does: M. Brooker, "Exponential Backoff And Jitter", 2015.
"""

import random


class Backoff:
    """The waits between attempts, in seconds; `reset` after a success."""

    def __init__(self, first: float = 0.05, most: float = 2.0, dice: random.Random | None = None) -> None:
        self.first, self.most = first, most
        self.dice = dice or random.Random()
        self.attempts = 0

    def next(self) -> float:
        """How long to wait now; at least a tenth of the bound, so that nothing spins."""
        bound: float = min(self.most, self.first * 2 ** min(self.attempts, 30))
        self.attempts += 1
        return bound * (0.1 + 0.9 * self.dice.random())

    def reset(self) -> None:
        """Begin again with the first."""
        self.attempts = 0
