"""Turns: of many tasks that could all go on at once, so many in a round of the loop, first come first served.

For readers of the file: each takes a whole portion each time, and a thousand of them in one round would keep
everybody else from theirs for as long as that takes.
"""

import asyncio
from collections import deque


class Turns:
    """`most` tasks go on in a round. One event loop's."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn; it is then used until the next await. May be cancelled."""
        turn = self._loop.create_future()
        self._line.append(turn)
        if len(self._line) == 1:
            self._loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        given = 0
        while self._line and given < self.most:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                given += 1
        if self._line:
            self._loop.call_soon(self._give)
