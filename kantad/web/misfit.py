"""What msgspec says of members and parameters that do not have their types, in words of the contract.

A text of msgspec's speaks of Python's types and of places such as `$.if[0]`; a client wants the name that it gave,
what is allowed there, and what the name is that it should have given. Pure; called by `body` and `changes`.
"""

import re
from collections.abc import Container
from typing import Final

import msgspec

from kantad.values.errors import Problem

LONGEST: Final = 64  # characters of a name or a value that is repeated

OTHERWISE: Final = {"user": "u", "action": "a", "u": "user", "a": "action"}
"""What a query calls otherwise than a body does, both ways."""

CHOICES: Final = {
    "ack": "ack is durable, written or applied",
    "op": "op is get, keys, transact, subscribe, unsubscribe, changes or ping",
    "order": "order is asc or desc",
    "return": "return is diff",
}

_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
    "bytes": "a byte string",
    "datetime": "a timestamp",
    "ext": "an extension",
}

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL).fullmatch
_MISSING = re.compile(r"Object missing required field `(.*)`").fullmatch
_TYPES = re.compile(r"Expected `([^`]*)`, got `([^`]*)`").fullmatch
_LENGTH = re.compile(r"Expected `array` of length <= (\d+)").fullmatch


def misfit(error: msgspec.ValidationError, known: Container[str] = (), *, query: bool = False) -> Problem:
    """The problem of members, or of parameters of a query, that do not have their types: it names the one.

    `known` are the names that there are, as far as an unknown one may be meant for one of them.
    """
    text, _, place = str(error).rpartition(" - at `") if " - at `" in str(error) else (str(error), "", "")
    if place.startswith("key`"):
        return Problem("invalid_parameter", "the name of a member is a string")
    name = place.rstrip("`").removeprefix("$").removeprefix(".")
    if unknown := _UNKNOWN(text):
        return unknown_name(unknown[1], known, name, what="member")
    if missing := _MISSING(text):
        choice = f"; {CHOICES[missing[1]]}" if missing[1] in CHOICES else ""
        where = f" in {name}" if name else ""
        return Problem(
            "invalid_parameter", f"{missing[1]} is missing{where}{choice}", parameter=_below(name, missing[1])
        )
    parameter = {"parameter": name} if name else {}
    return Problem("invalid_parameter", CHOICES.get(name) or _unfit(text, name, query), **parameter)


def unknown_name(given: str, known: Container[str], where: str = "", *, what: str = "parameter") -> Problem:
    """The problem of a name that means nothing, and perhaps what it is called here."""
    given = given[:LONGEST]
    other = OTHERWISE.get(given)
    hint = f"; it is called {other}" if other is not None and other in known else ""
    return Problem("invalid_parameter", f"there is no {what} {given!r} here{hint}", parameter=_below(where, given))


def _unfit(text: str, name: str, query: bool) -> str:
    """What is expected at a place and what stands there."""
    if found := _TYPES(text):
        kinds = [each for each in found[1].split(" | ") if not (query and each == "null")]
        words = [_WORDS.get(each, each) for each in kinds]
        expected = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        given = "a boolean" if found[2] == "bool" else _WORDS.get(found[2], found[2])
        instead = "" if query else f", not {given}"
        return f"{name} is {expected}{instead}" if name else f"{expected} is expected{instead}"
    if found := _LENGTH(text):
        return f"{name} has at most {found[1]} elements"
    return f"{name}: {text.replace('`', '')}"


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
