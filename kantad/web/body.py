"""Request bodies: reading them within bounds, decoding them without surprises.

msgspec raises four kinds of error and accepts 5,000 levels of nesting; everything becomes a
`Problem` with the place. Duplicate keys: the last wins.
"""

import asyncio
import re
from collections.abc import Container
from math import isinf
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion11

from kantad.values.content import decode_json
from kantad.values.errors import Problem
from kantad.web.misfit import misfit

T = TypeVar("T")

PROGRESS: Final = 1024  # bytes that count as progress

MSGPACK_TYPES: Final = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")

_decode_msgpack = msgspec.msgpack.Decoder().decode
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?").fullmatch
_BYTE = re.compile(r"byte (\d+)")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|-?[0-9][0-9.eE+-]*', re.DOTALL)


class Limits(msgspec.Struct, frozen=True):
    """The limits of requests: bytes, container levels, seconds in which a body must make progress.

    `max_target` and `max_header` are bytes; `max_subscriptions` and `max_in_flight` are of one WebSocket.
    """

    max_body: int = 16 << 20
    max_depth: int = 128
    body_seconds: float = 30.0
    max_target: int = 8 << 10
    max_header: int = 16 << 10
    max_subscriptions: int = 1000
    max_in_flight: int = 1024

    def target_too_long(self) -> Problem:
        """The problem of a request target over the limit."""
        detail = f"a request target has at most {self.max_target} bytes (--max-target)"
        return Problem("uri_too_long", detail, limit=self.max_target)

    def header_too_large(self) -> Problem:
        """The problem of a header block over the limit."""
        detail = f"a header block has at most {self.max_header} bytes (--max-header)"
        return Problem("headers_too_large", detail, limit=self.max_header)


async def read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    """The whole body; raises `Problem` `too_large` or `too_slow`."""
    limit, window = limits.max_body, limits.body_seconds
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    expects = request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"
    if expects and request.transport is not None:  # of HTTP/1.0 it means nothing (RFC 9110 section 10.1.1)
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    size = arrived = 0
    until = loop.time() + window
    while True:
        try:
            chunk = await asyncio.wait_for(request.content.readany(), until - loop.time())
        except TimeoutError:
            raise Problem("too_slow", f"a body makes progress within {window:g} s (--body-timeout)") from None
        except web.RequestPayloadError as error:
            raise Problem("invalid_json", f"the body's transfer coding is malformed: {error}") from None
        if not chunk:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        arrived += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if arrived >= PROGRESS:
            arrived, until = 0, loop.time() + window


def _too_large(limit: int) -> Problem:
    return Problem("too_large", f"a body has at most {limit} bytes (--max-body)", limit=limit)


def decode(body: bytes, msgpack: bool, max_depth: int) -> Any:
    """The value of a body; raises `Problem` `invalid_json`, `invalid_value` or `too_deep`."""
    if msgpack:
        value = decoded(_decode_msgpack, body)
    else:
        try:
            value = decode_json(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            value = decoded(decode_json, body)
    if len(body) > max_depth and (msgpack or body.count(b"{") + body.count(b"[") > max_depth):
        check_depth(value, max_depth)
    return value


def decoded(decoder: Any, body: Any, known: Container[str] = ()) -> Any:
    """What a msgspec decoder makes of the body; its errors as `Problem`. `known` is as for `misfit`."""
    try:
        return decoder(body)
    except UnicodeDecodeError as error:  # tells the place within the string
        place = max(body.find(error.object), 0) + error.start
        raise Problem("invalid_json", f"the body is not valid UTF-8 at byte {place}", offset=place) from None
    except RecursionError:
        raise Problem("too_deep", "the body is nested too deeply (--max-depth)", offset=_too_deep_at(body)) from None
    except msgspec.ValidationError as error:
        if "imestamp" in str(error):  # of MessagePack, before the year 1 or after 9999, or none at all
            raise Problem("invalid_value", str(error).strip()) from None
        if "out of range" in str(error):
            raise Problem("invalid_value", "a number is finite", offset=_out_of_range_at(body)) from None
        raise misfit(error, known) from None
    except msgspec.DecodeError as error:
        if not body:
            raise Problem("invalid_json", "there is no body", offset=0) from None
        found = _BYTE.search(str(error))
        offset = int(found.group(1)) if found else len(body)
        detail = str(error) if found else "the body ends in the middle of a value"
        raise Problem("invalid_json", detail, offset=offset) from None


def _out_of_range_at(body: bytes) -> int:
    """Where the first number of a JSON text stands that no stored number can hold."""
    for token in _TOKENS.finditer(body):
        if token.group()[:1] not in b'"[{]}':
            try:
                if isinf(float(token.group())):
                    return token.start()
            except ValueError:
                continue
    return 0


def _too_deep_at(body: bytes, levels: int = 1000) -> int:
    """Where a JSON text is nested deeper than so many levels."""
    depth = 0
    for token in _TOKENS.finditer(body):
        kind = token.group()
        depth += 1 if kind in (b"[", b"{") else -1 if kind in (b"]", b"}") else 0
        if depth > levels:
            return token.start()
    return min(levels, len(body))


def check_depth(value: Any, max_depth: int) -> None:
    """Refuse what could not be walked: a patch has at most three levels for one of the value it makes."""
    limit = 3 * max_depth + 8
    level = [value]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(x for x in item.values() if type(x) in (dict, list))
            elif type(item) is list:
                below.extend(x for x in item if type(x) in (dict, list))
        if not below:
            return
        level = below
    raise Problem("too_deep", "the body is nested too deeply (--max-depth)")


def is_msgpack(content_type: str) -> bool:
    """Whether a Content-Type says MessagePack."""
    return content_type.partition(";")[0].strip().lower() in MSGPACK_TYPES


def accepts_msgpack(request: web.BaseRequest) -> bool:
    """Whether the client asks for MessagePack, and rather than for JSON (RFC 9110 section 12.5.1)."""
    accept = ",".join(request.headers.getall("Accept", ()))  # several lines are one list (RFC 9110 section 5.3)
    if "msgpack" not in accept.lower():
        return False
    wanted = {media.lower(): weight for media, weight in map(_weighed, accept.split(","))}
    msgpack = max((wanted[media] for media in MSGPACK_TYPES if media in wanted), default=0.0)
    return msgpack > 0 and msgpack >= wanted.get("application/json", 0.0)


def _weighed(part: str) -> tuple[str, float]:
    """A media range of `Accept` and its weight; a weight that is none is 0."""
    media, *parameters = (piece.strip() for piece in part.split(";"))
    given = [piece[2:].strip() for piece in parameters if piece[:2].lower() == "q="]
    if not given:
        return media, 1.0
    return media, float(given[0]) if _WEIGHT(given[0]) else 0.0
