"""Every error a client can meet: its stable code, its HTTP status, its title.

Raised anywhere below the edges as `Problem`; the edges turn one into `application/problem+json`
(RFC 9457). Nothing here does I/O. Codes are part of the wire contract: never rename one.
"""

from collections.abc import Iterable
from typing import Any

RAISED = (Exception, SystemExit)  # by the user's code; who interrupts the process from the keyboard means it


def told(error: BaseException) -> str:
    """The class of an exception and what it says, which may raise in turn: its class is the user's."""
    return f"{type(error).__name__}: {said(error)}"


def said(error: BaseException) -> str:
    """What an exception of the user's code says; nothing, where it cannot."""
    try:
        return str(error)
    except RAISED:
        return ""


CODES: dict[str, tuple[int, str]] = {
    "invalid_json": (400, "The body could not be decoded"),
    "invalid_patch": (400, "The patch is not well-formed"),
    "invalid_path": (400, "The path is not well-formed"),
    "invalid_parameter": (400, "A parameter is not valid"),
    "invalid_value": (400, "A value cannot be stored"),
    "unauthorized": (401, "A token is needed"),
    "forbidden": (403, "The token does not cover this"),
    "origin_refused": (403, "Cross-origin request refused"),
    "read_only": (403, "This server does not take writes"),
    "not_found": (404, "There is nothing at this path"),
    "unknown_revision": (404, "This revision was not reached yet"),
    "no_route": (404, "There is no such endpoint"),
    "method_not_allowed": (405, "The endpoint does not have this method"),
    "too_slow": (408, "The request took too long to arrive"),
    "conflict": (409, "Something this write touches has changed since its base"),
    "patch_mismatch": (409, "The patch does not fit the value"),
    "history_diverged": (409, "The cursor is not of this history"),
    "history_gone": (410, "The log no longer holds this revision"),
    "precondition_failed": (412, "A precondition does not hold"),
    "too_large": (413, "The request is too large"),
    "uri_too_long": (414, "The request target is too long"),
    "unsupported_media_type": (415, "The content type or coding is not supported"),
    "host_refused": (421, "This host name is not served here"),
    "validation_failed": (422, "The value is not one that this database takes"),
    "too_deep": (422, "The value is nested too deeply"),
    "key_reused": (422, "The idempotency key was used for another request"),
    "too_many": (429, "Too many requests"),
    "headers_too_large": (431, "The header block is too large"),
    "unavailable": (503, "Writes are not possible right now"),
    "shutting_down": (503, "The server is shutting down"),
    "storage_full": (507, "There is no room to store the change"),
}


class Problem(Exception):
    """A refusal with a stable code; `more` are further members of the problem body."""

    def __init__(self, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.more = more
        self.keys: list[str] = []
        self.of_state = False  # whether it came of looking at the state, whatever its code

    def at(self, key: object) -> "Problem":
        """Say that what is wrong is below this key; called by each level on the way up."""
        self.keys.insert(0, str(key))
        return self

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return CODES[self.code][0]

    @property
    def shows_state(self) -> bool:
        """Whether it tells of the state, so that it may be told only when that state is settled."""
        return self.of_state or self.status in (404, 409, 412) or self.code == "key_reused"

    def body(self) -> dict[str, Any]:
        """The members of the RFC 9457 problem body, in the order they are sent."""
        status, title = CODES[self.code]
        path = {"path": pointer_text(self.keys)} if self.keys else {}
        return {
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": self.detail,
            **path,
            **self.more,
        }


def pointer_text(keys: Iterable[str]) -> str:
    """The RFC 6901 JSON Pointer of these keys."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


class Damaged(Exception):
    """The file is not what was written: says where, why, and what to do (exit status 65)."""

    def __init__(self, why: str, *, offset: int, record: int = 0, line: int = 0) -> None:
        self.why, self.offset, self.record, self.line = why, offset, record, line
        place = f"line {line}" if line else f"record {record}"
        super().__init__(f"{place}, byte {offset}: {why}")
