"""Request bodies: reading them within bounds, decoding them without surprises.

msgspec raises four kinds of error and accepts 5,000 levels of nesting; everything becomes a
`Problem` with the place. Duplicate keys: the last wins.
"""

import asyncio
import re
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from kantad.values.content import decode_json
from kantad.values.errors import Problem

T = TypeVar("T")

WINDOW: Final = 30.0  # seconds in which a body must make progress
PROGRESS: Final = 1024  # bytes of it

MSGPACK_TYPES: Final = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")

_decode_msgpack = msgspec.msgpack.Decoder().decode
_BYTE = re.compile(r"byte (\d+)")


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body; raises `Problem` `too_large` or `too_slow`."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    size = arrived = 0
    until = loop.time() + WINDOW
    while True:
        try:
            chunk = await asyncio.wait_for(request.content.readany(), until - loop.time())
        except TimeoutError:
            raise Problem("too_slow", f"a body makes progress within {WINDOW:.0f} s") from None
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
            arrived, until = 0, loop.time() + WINDOW


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
    openings = len(body) if msgpack else body.count(b"{") + body.count(b"[")
    if openings > max_depth:
        check_depth(value, max_depth)
    return value


def decoded(decoder: Any, body: bytes) -> Any:
    """What a msgspec decoder makes of the body; its errors as `Problem`."""
    try:
        return decoder(body)
    except UnicodeDecodeError as error:
        raise Problem(
            "invalid_json", f"the body is not valid UTF-8 at byte {error.start}", offset=error.start
        ) from None
    except RecursionError:
        raise Problem("too_deep", "the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        code = "invalid_value" if "out of range" in str(error) else "invalid_parameter"
        raise Problem(code, str(error)) from None
    except msgspec.DecodeError as error:
        place = _BYTE.search(str(error))
        offset = int(place.group(1)) if place else len(body)
        raise Problem("invalid_json", str(error), offset=offset) from None


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
    """Whether the client asks for MessagePack."""
    accept = request.headers.get("Accept")
    return accept is not None and any(is_msgpack(part) for part in accept.split(","))
