"""What the end of a transaction makes of conditions that failed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kanta_client.errors import HistoryGone, KantaError, PreconditionFailed, Unreachable
from kanta_client.records import Change
from kanta_client.transaction import conflict


class Listing:
    """A session that lists changes: one for each path, or an error."""

    def __init__(self, error: KantaError | None) -> None:
        self.error = error
        self.asked: list[str] = []

    async def changes(self, filters: Any, *rest: Any, **asked: Any) -> AsyncIterator[Change]:
        self.asked.append(filters.path)
        if self.error is not None:
            raise self.error
        yield Change(rev=len(self.asked), cursor="c")


@pytest.mark.parametrize(
    ("error", "asked", "listed"),
    [(None, 3, 3), (HistoryGone({"code": "history_gone"}), 3, 0), (Unreachable("no answer in time"), 1, 0)],
)
async def test_a_conflict_is_told_with_its_changes_and_not_held_up_where_nobody_lists_them(
    error: KantaError | None, asked: int, listed: int
) -> None:
    session: Any = Listing(error)
    failed = PreconditionFailed({"failed": [{"path": f"/{n}"} for n in range(3)]})
    found = await conflict(session, failed, "1-c")
    assert (len(session.asked), len(found.changes), found.code) == (asked, listed, "conflict")
