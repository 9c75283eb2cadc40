"""What can go wrong, as the caller has to tell it apart: refused, and why; or not known."""

from typing import Any


class KantaError(Exception):
    """The server refused, or would have: a path that is no JSON Pointer is not sent.

    `code` is stable, `detail` is for people, `problem` is the whole body (RFC 9457).
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", f"HTTP status {status}"))
        self.problem = problem
        super().__init__(f"{self.code}: {self.detail}")


class NotFoundError(KantaError):
    """There is no value at the path."""


class ConflictError(KantaError):
    """Something that the write touches has changed since its base, or the patch does not fit."""


class PreconditionError(KantaError):
    """A precondition does not hold; `problem` has the present `etag`, `rev` and `value`."""


class UnknownOutcomeError(Exception):
    """The connection failed before the answer came: the write may have been committed or not."""


BY_STATUS: dict[int, type[KantaError]] = {404: NotFoundError, 409: ConflictError, 412: PreconditionError}


def refusal(status: int, problem: Any) -> KantaError:
    """The exception for an answer that is no success."""
    members = problem if isinstance(problem, dict) else {}
    return BY_STATUS.get(status, KantaError)(status, members)
