"""What is shown of a value: its JSON or MessagePack text with the etag, or its keys, page by page. Pure.

A `View` says which, so that it can be asked of another process, and be the key of what is remembered.
"""

from typing import Any, Final, Literal

import msgspec

from kantad.values.content import MISSING, encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.etag import etag

_KINDS: dict[type, str] = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}


class View(msgspec.Struct, frozen=True):
    """A way to show a value: `value` with its etag, `bare` without, or `keys`, which `limit` and `after` are of."""

    kind: Literal["value", "bare", "keys"] = "value"
    msgpack: bool = False
    limit: int = 0
    after: str | None = None


VALUE: Final = View()
BARE: Final = View("bare", True)  # to be decoded again, with all types of a MessagePack file


class Shown(msgspec.Struct):
    """A value as shown: its etag (empty but for `value`; None where there is no value) and the bytes."""

    tag: str | None = None
    body: bytes = b""


def show(value: Any, view: View) -> Shown:
    """A value (or MISSING) as this view shows it; raises `Problem` as `key_page` does."""
    if value is MISSING:
        return Shown()
    encode = encode_msgpack if view.msgpack else encode_json
    if view.kind == "keys":
        return Shown("", encode(key_page(value, view.limit, view.after)))
    return Shown(etag(value) if view.kind == "value" else "", encode(value))


def key_page(value: Any, limit: int, after: str | None) -> dict[str, Any]:
    """The keys of an object in order, the size of an array, the type of a scalar.

    Raises `Problem("invalid_parameter")` for an unknown `after`.
    """
    if type(value) is list:
        return {"type": "array", "size": len(value)}
    if type(value) is not dict:
        return {"type": _KINDS.get(type(value), "string")}
    names = [key if type(key) is str else str(key) for key in value]
    start = 0
    if after is not None:
        try:
            start = names.index(after) + 1
        except ValueError:
            raise Problem("invalid_parameter", "after is a key of this object", parameter="after") from None
    page = names[start : start + limit]
    more = start + limit < len(names)
    return {"type": "object", "size": len(names), "keys": page, "next": page[-1] if more else None}
