"""`GET|HEAD /v1/data/<path>` and `GET /v1/keys/<path>`.

The value, its etag and the revision are taken in one synchronous look, so they belong together.
"""

import re
from typing import Any

from aiohttp import web

from kantad.engine.engine import Engine
from kantad.values.content import MISSING, encode_json, encode_msgpack, etag
from kantad.values.errors import Problem
from kantad.values.pointer import Path, format, lookup
from kantad.values.recent import Recent
from kantad.web.answer import JSON, MSGPACK, STATUS_LINES, Reply, encoded, json_reply, last_lines, render
from kantad.web.body import accepts_msgpack
from kantad.web.parameters import count, parse_query, seconds

MOST_WAIT = 60.0
MOST_KEYS = 100_000

MOST_KEPT = 16_384
LONGEST_KEPT = 512

_VARY = b"Vary: Accept\r\n"
_heads: Recent[bytes, bytes] = Recent(MOST_KEPT)
_TAG = re.compile(r'[ \t,]*(?:(?P<any>\*)|(?P<weak>W/)?"(?P<opaque>[^"\x00-\x20\x7f]*)")[ \t]*(?:,|$)')


def value_reply(engine: Engine, path: Path, msgpack: bool) -> Reply:
    """The value at a path with its validators; raises `Problem("not_found")`."""
    if engine.meets_hidden(path):
        body, tag = engine.read(path, lambda value: _shown(value, path, msgpack))
    else:
        body, tag = _shown(lookup(engine.root, path), path, msgpack)
    return Reply(200, (MSGPACK if msgpack else JSON) + validators(engine, tag), body)


def value_answer(engine: Engine, path: Path) -> bytes:
    """The whole answer of a plain read: `render` of `value_reply` as JSON, in one step."""
    if engine.committer.pending:
        reply = value_reply(engine, path, False)
        return render(200, reply.headers, reply.body)
    value: Any = engine.root
    try:
        for segment in path:
            value = value[segment]
    except (KeyError, TypeError):  # through arrays and foreign keys, or to nothing
        value = lookup(engine.root, path)
        if value is MISSING:
            raise _not_found(path) from None
    text = encode_json(value)
    head = _heads.young.get(text) or _heads.older(text) or _head(value, text)
    return b"".join((head, engine.visible.lines, last_lines(), text))


def _head(value: Any, text: bytes) -> bytes:
    """The lines of a plain answer that depend on the value only; small values are often asked for again."""
    head = b'%bContent-Length: %d\r\n%bETag: "%b"\r\n%b' % (
        STATUS_LINES[200],
        len(text),
        JSON,
        etag(value).encode(),
        _VARY,
    )
    if len(text) <= LONGEST_KEPT:
        _heads.keep(text, head)
    return head


def _not_found(path: Path) -> Problem:
    key = path == ("",)
    detail = 'there is no value under the key ""; the root is /v1/data' if key else "there is no value at this path"
    return Problem("not_found", detail, path=format(path))


def _shown(value: Any, path: Path, msgpack: bool) -> tuple[bytes, bytes]:
    if value is MISSING:
        raise _not_found(path)
    if msgpack:
        return encode_msgpack(value), etag(value).encode()
    return encode_json(value), etag(value).encode()


def validators(engine: Engine, tag: bytes) -> bytes:
    """The header lines `ETag`, `Vary`, `Kanta-Revision` and `Kanta-Cursor`."""
    return b'ETag: "%b"\r\n%b%b' % (tag, _VARY, engine.visible.lines)


async def get_value(engine: Engine, request: web.BaseRequest, path: Path, query: str) -> Reply:
    """`GET /v1/data/<path>`, with `If-None-Match` and `wait`."""
    given = parse_query(query, ("wait",))
    wait = seconds(given.get("wait"), "wait", MOST_WAIT)
    known = entity_tags(request.headers.getall("If-None-Match", []))
    if wait and len(known) == 1 and "*" not in known:
        await engine.wait_differs(path, next(iter(known)), wait)
    elif wait:
        raise Problem("invalid_parameter", "wait goes with If-None-Match and one etag", parameter="wait")
    reply = value_reply(engine, path, accepts_msgpack(request))
    tag = reply.headers.split(b'ETag: "', 1)[1].split(b'"', 1)[0]
    if known and ("*" in known or tag.decode() in known):
        return Reply(304, validators(engine, tag), b"")
    return reply


def entity_tags(values: list[str], name: str = "If-None-Match", *, strong: bool = False) -> set[str]:
    """The opaque tags of an `If-Match` or `If-None-Match` (RFC 9110 section 13.1), `*` among them as itself.

    A weak tag compares as its opaque part, or, where the comparison is strong, with nothing. Raises
    `Problem("invalid_parameter")` for what is no tag.
    """
    found = set()
    for value in values:
        place, end = 0, len(value.rstrip(" \t,"))
        while place < end or not end:
            tag = _TAG.match(value, place)
            if tag is None:
                raise Problem("invalid_parameter", "an entity tag stands in double quotes", parameter=name)
            place = tag.end()
            if tag["any"]:
                found.add("*")
            elif not (strong and tag["weak"]):
                found.add(tag["opaque"])
    return found


_KINDS: dict[type, str] = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}


async def get_keys(engine: Engine, request: web.BaseRequest, path: Path, query: str) -> Reply:
    """`GET /v1/keys/<path>`: the keys of an object in order, the size of an array, the type of a scalar."""
    given = parse_query(query, ("limit", "after"))
    limit = count(given.get("limit"), "limit", 1000, MOST_KEYS)
    answer = engine.read(path, lambda value: keys_of(value, path, limit, given.get("after")))
    headers = engine.visible.lines
    if accepts_msgpack(request):
        kind, body = encoded(answer, True)
        return Reply(200, kind + headers + _VARY, body)
    return json_reply(answer, headers=headers + _VARY)


def keys_of(value: Any, path: Path, limit: int, after: str | None) -> dict[str, Any]:
    """What `keys` says of a value; raises `Problem` `not_found`, and `invalid_parameter` for an unknown `after`."""
    if value is MISSING:
        raise Problem("not_found", "there is no value at this path", path=format(path))
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
