"""What can go wrong, as the caller has to tell it apart: refused, and why; never sent; or not known.

The outcome of a write is one of three: it returned (committed), it raised `Refused` or `Unreachable`
(nothing was done), or it raised `UnknownOutcome`. None of them stands for another.
"""

from collections.abc import Iterable
from typing import Any

from kanta_client.records import Change


class KantaError(Exception):
    """The base of everything that this package raises of its own."""


class Refused(KantaError):
    """The server refused, or would have: nothing was done. A path that is no JSON Pointer is not sent.

    `code` is stable, `detail` is for people, `problem` has all members of the answer (RFC 9457).
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.status = int(problem.get("status", 0))
        self.detail = str(problem.get("detail", self.code))
        path = str(problem.get("path", ""))
        where = f" ({path})" if path and path not in self.detail else ""
        super().__init__(f"{self.code}: {self.detail}{where}")


class NotFound(Refused):
    """There is no value at the path."""


class Conflict(Refused):
    """What a write is based on has changed since: `changes` are those in the way, oldest first, 100 at most.

    Those that the server lists have no patch, but the `path` at which they touched what this write touches.
    """

    def __init__(self, problem: dict[str, Any], changes: tuple[Change, ...] | None = None) -> None:
        super().__init__(problem)
        self.changes = _listed(problem.get("conflicts", ())) if changes is None else changes


def _listed(conflicts: Iterable[dict[str, Any]]) -> tuple[Change, ...]:
    found = (
        Change(rev=each["rev"], cursor="", action=each.get("a", ""), user=each.get("u"), path=each.get("path"))
        for each in conflicts
    )
    return tuple(sorted(found, key=lambda change: change.rev))


class PatchMismatch(Refused):
    """The patch does not fit the value that is there."""


class PreconditionFailed(Refused):
    """A condition does not hold; `problem` tells which, and the present values."""


class HistoryGone(Refused):
    """The log no longer holds the revision that was asked for; `problem["oldest"]` is the oldest it has."""


class HistoryDiverged(Refused):
    """The cursor is not of the server's history: it was restored from a backup, or it is another database."""


class Unauthorized(Refused):
    """The server wants a token, another token, or other rights."""


class Invalid(Refused):
    """The request cannot be right whatever the database holds: a path, a value, a patch, a parameter."""


class UnknownOutcome(KantaError):
    """A write was sent and no answer came in time: it may be done or not, and may still be done.

    `key` is its idempotency key: the same write sent again with it is done once, and tells what became of it.
    """

    def __init__(self, detail: str, key: str) -> None:
        super().__init__(detail)
        self.key = key


class Unreachable(KantaError):
    """No answer came in time to something that changes nothing, or was not sent: nothing was done."""


class Closed(KantaError):
    """The client is closed."""


class Overrun(KantaError):
    """An iteration over a mirror is so late that its changes are not kept any longer; the mirror itself goes on."""


class NestedTransaction(KantaError):
    """A transaction was begun within another one of the same task and client."""


BY_CODE: dict[str, type[Refused]] = {
    "not_found": NotFound,
    "conflict": Conflict,
    "patch_mismatch": PatchMismatch,
    "precondition_failed": PreconditionFailed,
    "history_gone": HistoryGone,
    "history_diverged": HistoryDiverged,
    "unauthorized": Unauthorized,
    "forbidden": Unauthorized,
    "read_only": Unauthorized,
}
TRY_AGAIN = frozenset(("unavailable", "shutting_down", "too_many", "too_slow"))  # refusals that pass by themselves
BLIND = frozenset(
    ("unauthorized", "forbidden", "read_only", "host_refused", "too_large")
)  # before the key is looked at


def settled(problem: dict[str, Any], key: str | None, doubted: bool) -> KantaError:
    """The exception for a write that was refused; `doubted` if an earlier attempt of it may have been done.

    The server looks for the key before all conditions, so most refusals tell that it was not done.
    """
    error = refusal(problem)
    if doubted and key is not None and error.code in BLIND:
        return UnknownOutcome(f"an earlier attempt may be done or not, and now: {error}", key)
    return error


def refusal(problem: Any) -> Refused:
    """The exception for an answer that is no success."""
    members = problem if isinstance(problem, dict) else {}
    kind = BY_CODE.get(str(members.get("code")))
    if kind is None:
        kind = Invalid if members.get("status") in (400, 413, 414, 415, 422) else Refused
    return kind(members)


def problem_of(status: int, answer: Any) -> dict[str, Any] | None:
    """What was refused, and why; None where it was not kantad that answered, and nothing is known of it."""
    if isinstance(answer, dict) and answer.get("status") == status and "code" in answer:
        return answer
    if status < 300 or status >= 500 or status in (408, 425, 429):  # a gateway's
        return None
    code = {401: "unauthorized", 403: "forbidden", 413: "too_large"}.get(status, "no_route")
    return {"status": status, "code": code, "detail": f"something before kantad refused it with the status {status}"}
