"""What became of a write whose answer was lost, where the server may have forgotten its key.

The server remembers at least the last 10,000 keyed changes (section 3 of the contract). Sent again
within that many changes, a write is done once. Beyond them it must be looked for first: a change
records the key of its request, so the log tells.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final

from kanta_client.errors import HistoryDiverged, HistoryGone, Refused, UnknownOutcome
from kanta_client.messages import Message, encode

if TYPE_CHECKING:
    from kanta_client.book import Asked

logger = logging.getLogger("kanta_client")

REMEMBERED: Final = 9_000  # changes; the rest of the 10,000 is for those on the way
PAGE: Final = 1_000

Call = Callable[[bytes], Awaitable[Message]]  # sends the members of a request, raises `Refused`


def remembered(floor: int, now: int) -> bool:
    """Whether a key that was sent first at revision `floor` is surely known at `now`, if it was committed."""
    return now - floor <= REMEMBERED


async def look_up(keys: Collection[str], floor: int, upto: int, call: Call) -> dict[str, Message]:
    """Those of the keys that have a change after `floor` up to a revision, with their changes; raises `Refused`."""
    since: int | str = floor
    found: dict[str, Message] = {}
    while True:
        asked = {"op": "changes", "since": since, "until": upto, "limit": PAGE}
        page = await call(encode(asked)[1:])
        found.update((record.id, record) for record in page.changes if isinstance(record.id, str) and record.id in keys)
        if page.next is None or len(found) == len(keys):
            return found
        since = page.next


def committed(record: Message) -> Message:
    """The answer of a write that the log has."""
    return Message(rev=record.rev, cursor=record.cursor, ts=record.ts, changed=True, replayed=True)


async def search(doubtful: "list[Asked]", now: int, call: Call) -> None:
    """Learn from the log up to a revision what became of writes: answer those that were done.

    The others may be sent again: their floor is that revision. Where the log does not tell, the outcome is unknown.
    """
    floor, keys = min(asked.floor for asked in doubtful), {str(asked.key) for asked in doubtful}
    try:
        found = await look_up(keys, floor, now, call)
    except HistoryDiverged as diverged:  # not the history that they were sent to
        logger.warning("writes whose outcome was not known are sent again: %s", diverged)
        found = {}
    except Refused as refused:
        held = refused.problem.get("oldest", now) if isinstance(refused, HistoryGone) else now
        for asked in doubtful:
            if asked.floor < max(held, floor + 1) and not asked.future.done():
                asked.future.set_exception(UnknownOutcome(f"the log does not tell: {refused}", str(asked.key)))
        return
    for asked in doubtful:
        record = found.get(str(asked.key))
        if record is None:
            asked.floor = now
        elif not asked.future.done():
            asked.future.set_result(committed(record))
