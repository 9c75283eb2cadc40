"""Values on their way to the server: typed ones become JSON's, and what JSON or kantad could not keep is refused here.

msgspec writes NaN as null and a lone surrogate not at all; neither may be noticed only by who reads it. Pure.
"""

from typing import Any

from kanta_client.messages import encode
from kanta_client.paths import refused
from kantad.values.errors import Problem
from kantad.values.patch import marshal
from kantad.values.plain import plain


def builtins(value: Any) -> Any:
    """The value in JSON's types, sharing no container with the caller's; raises `Refused` (`invalid_value`).

    Structs, UUIDs, datetimes, bytes, enumerations and keys of such types become what msgspec writes for them.
    """
    try:
        return plain(value)
    except Problem as problem:
        raise refused(problem) from None
    except RecursionError:
        raise refused(Problem("too_deep", "the value is nested too deeply")) from None


def assignment(value: Any) -> dict[str, Any]:
    """The patch that puts a value in the place of whatever is there."""
    return {"$replace": marshal(builtins(value))}


def encoded(request: Any) -> bytes:
    """The bytes of a request, or of a value; raises `Refused` where text in it is no valid Unicode."""
    try:
        return encode(request)
    except UnicodeEncodeError as error:
        raise refused(Problem("invalid_value", f"text is valid Unicode: {error.reason}")) from None
