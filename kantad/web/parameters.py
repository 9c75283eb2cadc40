"""Query parameters: decoded strictly, named one by one, nothing ignored."""

import re

from kantad.engine.proposal import ACKS, Ack
from kantad.engine.requests import check_key
from kantad.values.errors import Problem
from kantad.values.moment import micros_of, parse_time
from kantad.values.pointer import percent_decoded
from kantad.web.misfit import unknown_name

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}").fullmatch


def parse_query(query: str, known: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a query string; raises `Problem("invalid_parameter")` for unknown and doubled ones."""
    found: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        name = _decoded(name, name)
        if name not in known:
            raise unknown_name(name, known)
        if name in found:
            raise Problem("invalid_parameter", f"{name} is given twice", parameter=name)
        found[name] = _decoded(value, name)
    return found


def _decoded(text: str, name: str) -> str:
    try:
        return percent_decoded(text.replace("+", " "))
    except ValueError as error:
        raise Problem(
            "invalid_parameter", f"a parameter is percent-encoded UTF-8: {error}", parameter=name[:64]
        ) from None


def moment(text: str | None, name: str) -> int | None:
    """An RFC 3339 time in microseconds since the epoch."""
    return None if text is None else micros_of(parse_time(text, name))


def acknowledgement(text: str | None) -> Ack | None:
    """`durable`, `written` or `applied`."""
    for ack in ACKS:
        if text == ack:
            return ack
    if text is None:
        return None
    raise Problem("invalid_parameter", "ack is durable, written or applied", parameter="ack")


def seconds(text: str | None, name: str, most: float) -> float:
    """A number of seconds from 0 to `most`; 0 where it is not given."""
    if text is None:
        return 0.0
    value = float(text) if _SECONDS(text) else most + 1  # `float` takes more than a decimal number
    if value > most:
        raise Problem("invalid_parameter", f"{name} is a number of seconds from 0 to {most:.0f}", parameter=name)
    return value


def count(text: str | None, name: str, default: int, most: int) -> int:
    """An integer from 1 to `most`."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise Problem("invalid_parameter", f"{name} is an integer from 1 to {most}", parameter=name)
    return int(text)


def idempotency_key(text: str | None, name: str = "Idempotency-Key") -> str | None:
    """1 to 128 printable ASCII characters, given under this name."""
    if text is not None:
        check_key(text, name)
    return text
