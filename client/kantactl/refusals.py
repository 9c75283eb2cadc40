"""What went wrong, as an exit status and a line on stderr.

The statuses are listed for users in `arguments` and in docs/kantactl.md. `__main__` calls it.
"""

import sys
from typing import Any, Final

import msgspec
from kanta_client.errors import (
    Conflict,
    HistoryDiverged,
    HistoryGone,
    KantaError,
    NotFound,
    PreconditionFailed,
    Refused,
    Unauthorized,
    UnknownOutcome,
)

from kantactl.output import complain
from kantad.values.lines import safe

OK, ABSENT, USAGE, REFUSED, CONFLICT, UNREACHABLE, UNKNOWN, UNAUTHORIZED, PAST = range(9)
BUG, INTERRUPTED = 70, 130

_BY_KIND: Final[tuple[tuple[type[Refused], int], ...]] = (
    (NotFound, ABSENT),
    (Conflict, CONFLICT),
    (PreconditionFailed, CONFLICT),
    (Unauthorized, UNAUTHORIZED),
    (HistoryGone, PAST),
    (HistoryDiverged, PAST),
)


class UsageError(Exception):
    """The command line is wrong."""


def status_of(error: BaseException) -> int:
    """The exit status."""
    match error:
        case Refused(code="unknown_revision"):
            return PAST
        case Refused(code="read_only" | "invalid_value"):
            return REFUSED
        case Refused():
            found = [status for kind, status in _BY_KIND if isinstance(error, kind)]
            return found[0] if found else USAGE if error.status == 400 else REFUSED
        case UnknownOutcome():
            return UNKNOWN
        case KantaError():
            return UNREACHABLE
        case UsageError() | OSError():
            return USAGE
    return BUG


def told(error: Exception, as_json: bool) -> int:
    """Tell what is wrong; returns the exit status."""
    status = status_of(error)
    members = _members(error, status)
    if as_json:
        sys.stderr.write(safe(msgspec.json.encode(members).decode()) + "\n")
        return status
    path = members.get("path")
    where = f" ({path})" if path and path not in members["detail"] else ""
    complain(f"{members['code']}: {members['detail']}{where}")
    if isinstance(error, HistoryDiverged):
        complain("the database has another history than the one that was followed: a backup was restored, or it is new")
    if isinstance(error, UnknownOutcome):
        complain(f"the same command with --key {error.key} is done once, and tells")
    return status


def _members(error: Exception, status: int) -> dict[str, Any]:
    if isinstance(error, Refused):
        return {"code": error.code, "detail": error.detail, **error.problem}
    names = {UNKNOWN: "unknown_outcome", UNREACHABLE: "unreachable", USAGE: "usage"}
    members = {"code": names.get(status, "bug"), "detail": str(error) or type(error).__name__}
    return {**members, "key": error.key} if isinstance(error, UnknownOutcome) else members
