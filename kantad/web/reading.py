"""`GET|HEAD /v1/data/<path>` and `GET /v1/keys/<path>`.

The value, its etag and the revision are taken in one synchronous look, so they belong together. What
`rev` and `at` ask for comes from `engine.former`.
"""

import re
from typing import Any

from aiohttp import web

from kantad.engine.engine import Engine
from kantad.engine.visible import Visible
from kantad.values.content import MISSING, encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.pointer import Path, format, lookup
from kantad.values.recent import Recent
from kantad.values.view import View, key_page, show
from kantad.web.answer import JSON, MSGPACK, STATUS_LINES, Reply, last_lines, render
from kantad.web.body import accepts_msgpack
from kantad.web.parameters import count, parse_query, seconds
from kantad.web.past import PAST, earlier

MOST_WAIT = 60.0
MOST_KEYS = 100_000

MOST_KEPT = 16_384
LONGEST_KEPT = 512

_VARY = b"Vary: Accept\r\n"
_heads: Recent[bytes, bytes] = Recent(MOST_KEPT)
_members: Recent[bytes, bytes] = Recent(MOST_KEPT)
_TAG = re.compile(r'[ \t,]*(?:(?P<any>\*)|(?P<weak>W/)?"(?P<opaque>[^"\x00-\x20\x7f]*)")[ \t]*(?:,|$)')


def value_reply(engine: Engine, path: Path, msgpack: bool) -> Reply:
    """The value at a path with its validators; raises `Problem("not_found")`."""
    if engine.meets_hidden(path):
        body, tag = engine.read(path, lambda value: _shown(value, path, msgpack))
    else:
        body, tag = _shown(lookup(engine.root, path), path, msgpack)
    return Reply(200, (MSGPACK if msgpack else JSON) + validators(tag, engine.visible), body)


def value_answer(engine: Engine, path: Path) -> bytes:
    """The whole answer of a plain read: `render` of `value_reply` as JSON, in one step."""
    if engine.committer.pending:
        reply = value_reply(engine, path, False)
        return render(200, reply.headers, reply.body)
    value = present(engine, path)
    text = encode_json(value)
    head = _heads.young.get(text) or _heads.older(text) or _head(value, text)
    return b"".join((head, engine.visible.lines, last_lines(), text))


def present(engine: Engine, path: Path) -> Any:
    """The value at a path while nothing is pending; raises `Problem("not_found")`."""
    value: Any = engine.root
    try:
        for segment in path:
            value = value[segment]
    except (KeyError, TypeError):  # through arrays and foreign keys, or to nothing
        value = lookup(engine.root, path)
        if value is MISSING:
            raise _not_found(path) from None
    return value


def members_answer(engine: Engine, path: Path) -> bytes:
    """A value with its revision and etag as the members of a WebSocket's answer; nothing may be pending."""
    value = present(engine, path)
    text = encode_json(value)
    tail = _members.young.get(text) or _members.older(text) or _member(value, text)
    return b"%b%b%b}" % (engine.visible.members, tail, text)


def _member(value: Any, text: bytes) -> bytes:
    tail = b',"etag":"%b","value":' % etag(value).encode()
    if len(text) <= LONGEST_KEPT:
        _members.keep(text, tail)
    return tail


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


def validators(tag: bytes, shown: Visible) -> bytes:
    """The header lines `ETag`, `Vary`, `Kanta-Revision` and `Kanta-Cursor`."""
    return b'ETag: "%b"\r\n%b%b' % (tag, _VARY, shown.lines)


async def get_value(engine: Engine, request: web.BaseRequest, path: Path, query: str) -> Reply:
    """`GET /v1/data/<path>`, with `If-None-Match`, `wait`, `rev` and `at`."""
    given = parse_query(query, ("wait", *PAST))
    wait = seconds(given.get("wait"), "wait", MOST_WAIT)
    known = entity_tags(request.headers.getall("If-None-Match", []))
    msgpack = accepts_msgpack(request)
    past = await earlier(engine, given, path, View("value", msgpack))
    if past is not None and past.tag is not None:
        headers = validators(past.tag.encode(), Visible(past.rev, past.chain))
        if "*" in known or past.tag in known:
            return Reply(304, headers, b"")
        return Reply(200, (MSGPACK if msgpack else JSON) + headers, past.body)
    if wait and len(known) == 1 and "*" not in known:
        await engine.waiting.differs(path, next(iter(known)), wait)
    elif wait:
        raise Problem("invalid_parameter", "wait goes with If-None-Match and one etag", parameter="wait")
    reply = value_reply(engine, path, msgpack)
    tag = reply.headers.split(b'ETag: "', 1)[1].split(b'"', 1)[0]
    if known and ("*" in known or tag.decode() in known):
        return Reply(304, validators(tag, engine.visible), b"")
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


async def get_keys(engine: Engine, request: web.BaseRequest, path: Path, query: str) -> Reply:
    """`GET /v1/keys/<path>`: the keys of an object in order, the size of an array, the type of a scalar."""
    given = parse_query(query, ("limit", "after", *PAST))
    limit = count(given.get("limit"), "limit", 1000, MOST_KEYS)
    msgpack = accepts_msgpack(request)
    view = View("keys", msgpack, limit, given.get("after"))
    past = await earlier(engine, given, path, view)
    if past is not None:
        at, body = Visible(past.rev, past.chain), past.body
    else:
        shown = engine.read(path, lambda value: show(value, view))
        if shown.tag is None:
            raise _not_found(path)
        at, body = engine.visible, shown.body
    return Reply(200, (MSGPACK if msgpack else JSON) + at.lines + _VARY, body)


def keys_of(value: Any, path: Path, limit: int, after: str | None) -> dict[str, Any]:
    """What `keys` says of a value; raises `Problem` `not_found`, and `invalid_parameter` for an unknown `after`."""
    if value is MISSING:
        raise _not_found(path)
    return key_page(value, limit, after)
