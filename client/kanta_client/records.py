"""What reads, writes and feeds give back. Times are RFC 3339 text as the server sends it; `time` is a datetime."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

Kind = Literal["change", "snapshot", "reset"]


class Read(msgspec.Struct, frozen=True):
    """A value as read: with its etag (to write back conditionally), and the revision and cursor it was read at."""

    value: Any
    etag: str
    rev: int
    cursor: str


class Written(msgspec.Struct, frozen=True):
    """What a write came to: where nothing changed, `rev` and `cursor` are the present ones.

    `key` is the new child's of an `add` or `append`. `replayed` says that it had been done before, by an earlier
    attempt with the same idempotency key. `diff` is the effective patch of the root, where it was asked for.
    """

    rev: int
    cursor: str
    ts: str
    changed: bool
    replayed: bool = False
    key: str | None = None
    diff: Any = None

    @property
    def time(self) -> datetime:
        """When the change was made."""
        return moment(self.ts)


class Backup(msgspec.Struct, frozen=True):
    """A copy of the database file that was made: the revision and cursor that it is of, and its size."""

    rev: int
    cursor: str
    bytes: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change: who did what, when, and the patch that it was.

    `patch` is relative to the path that was asked for; applied to the value there as it was before, it gives the one
    after. `deleted` says that there is no value there any more; `patch` is None then. Where values were asked for,
    `value` is the one after the change, never to be changed by who receives it.
    `kind` is `snapshot` for the value that a feed begins with, and `reset` where the feed could not be gone on with,
    and goes on from this value; both have no patch and no action.
    """

    rev: int
    cursor: str
    ts: str = ""
    action: str = ""
    user: str | None = None
    m: str | None = None
    key: str | None = None
    schema: int = 0
    patch: Any = None
    deleted: bool = False
    value: Any = None
    kind: Kind = "change"
    path: str | None = None

    @property
    def time(self) -> datetime:
        """When the change was made."""
        return moment(self.ts)


def moment(ts: str) -> datetime:
    """The datetime of an RFC 3339 time; the epoch where there is none."""
    return msgspec.convert(ts, datetime) if ts else datetime(1970, 1, 1, tzinfo=UTC)
