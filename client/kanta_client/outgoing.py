"""Values on their way to the server: typed ones become JSON's, and what JSON or kantad could not keep is refused here.

msgspec writes NaN as null and a lone surrogate not at all; neither may be noticed only by who reads it. Pure.
"""

from typing import Any, Final

import msgspec

from kanta_client.messages import encode
from kanta_client.paths import refused
from kantad.values.content import check, check_scalar
from kantad.values.errors import Problem
from kantad.values.patch import marshal

DEEPEST: Final = 500  # levels of containers that are looked at; the server's own bound is lower
_PLAIN = (str, int, bool, float, type(None))


def builtins(value: Any) -> Any:
    """The value in JSON's types, sharing no container with the caller's; raises `Refused` (`invalid_value`).

    Structs, UUIDs, datetimes, bytes, enumerations and keys of such types become what msgspec writes for them.
    """
    try:
        if type(value) in _PLAIN:
            check_scalar(value)
            return value
        made = msgspec.to_builtins(value, str_keys=True)
        try:
            check(made, DEEPEST)
        except Problem as problem:
            if problem.code != "validation_failed":
                raise
            made = _listed(made)  # msgspec leaves tuples as they are
            check(made, DEEPEST)
        return made
    except Problem as problem:
        raise refused(problem) from None
    except RecursionError:
        raise refused(Problem("too_deep", "the value is nested too deeply")) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise refused(Problem("invalid_value", str(error))) from None


def assignment(value: Any) -> dict[str, Any]:
    """The patch that puts a value in the place of whatever is there."""
    return {"$replace": marshal(builtins(value))}


def _listed(value: Any) -> Any:
    """The value with lists for tuples."""
    if isinstance(value, tuple | list):
        return [_listed(item) for item in value]
    if type(value) is dict:
        return {key: _listed(item) for key, item in value.items()}
    return value


def encoded(request: Any) -> bytes:
    """The bytes of a request, or of a value; raises `Refused` where text in it is no valid Unicode."""
    try:
        return encode(request)
    except UnicodeEncodeError as error:
        raise refused(Problem("invalid_value", f"text is valid Unicode: {error.reason}")) from None
