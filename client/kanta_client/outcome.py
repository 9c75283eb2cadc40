"""What became of a write whose answer was lost, where the server may have forgotten its key.

The server remembers at least the last 10,000 keyed changes (section 3 of the contract). Sent again
within that many changes, a write is done once. Beyond them it must be looked for first: a change
records the key of its request, so the log tells.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from kanta_client.messages import Message, encode

REMEMBERED: Final = 9_000  # changes; the rest of the 10,000 is for those on the way
PAGE: Final = 1_000

Call = Callable[[bytes], Awaitable[Message]]  # sends the members of a request, raises `Refused`


def remembered(floor: int, now: int) -> bool:
    """Whether a key that was sent first at revision `floor` is surely known at `now`, if it was committed."""
    return now - floor <= REMEMBERED


async def look_up(key: str, floor: int, upto: int, call: Call) -> Message | None:
    """The change with this key after `floor` up to a revision, None where there is none; raises `Refused`."""
    since: int | str = floor
    while True:
        asked = {"op": "changes", "since": since, "until": upto, "limit": PAGE}
        page = await call(encode(asked)[1:])
        for record in page.changes:
            if record.id == key:
                return record
        if page.next is None:
            return None
        since = page.next


def committed(record: Message) -> Message:
    """The answer of a write that the log has."""
    return Message(rev=record.rev, cursor=record.cursor, ts=record.ts, changed=True, replayed=True)
