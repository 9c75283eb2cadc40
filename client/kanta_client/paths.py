"""Paths as callers write them: a JSON Pointer (`"/users/alice"`, `""` the root), or a tuple of keys.

In a tuple nothing is escaped by hand, and a key may be an index or anything that msgspec writes as the
key of an object: an integer, a UUID, a datetime, an enumeration. Pure.
"""

from typing import Any

import msgspec

from kanta_client.errors import Refused, refusal
from kantad.values.errors import Problem
from kantad.values.pointer import format, format_url, parse

Path = str | tuple[Any, ...]


def keys_of(path: Path) -> tuple[str, ...]:
    """The keys of a path as text; raises `Refused` (`invalid_path`)."""
    try:
        if isinstance(path, tuple):
            return tuple([key if type(key) is str else _text(key) for key in path])
        if not isinstance(path, str):
            raise Problem("invalid_path", f"a path is a string or a tuple, not a {type(path).__name__}")
        return parse(path)
    except Problem as problem:
        raise refused(problem) from None


def pointer(path: Path) -> str:
    """The JSON Pointer of a path; raises `Refused` (`invalid_path`)."""
    if type(path) is str:
        if path and (path[0] != "/" or "~" in path or not path.isascii()):
            url_path(path)  # tells what is wrong
        return path
    return format(keys_of(path))


def url_path(path: Path) -> str:
    """The path as it stands in a URL below `/v1/data`; raises `Refused` (`invalid_path`)."""
    try:
        return format_url(keys_of(path))
    except UnicodeEncodeError:
        raise refused(Problem("invalid_path", "a path is text that UTF-8 can hold")) from None


def refused(problem: Problem) -> Refused:
    """A problem that was found on this side, as if the server had."""
    return refusal(problem.body())


def _text(key: Any) -> str:
    """A key that is no string, as msgspec writes it."""
    try:
        [text] = msgspec.to_builtins({key: None}, str_keys=True)
    except (TypeError, ValueError):
        raise Problem("invalid_path", f"a {type(key).__name__} is no key of a path") from None
    return str(text)


__all__ = ["Path", "keys_of", "pointer", "refused", "url_path"]
