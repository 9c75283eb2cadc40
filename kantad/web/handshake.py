"""`GET /v1/ws`: the opening handshake (RFC 6455 section 4.2). Host and Origin are checked before routing."""

import base64
import binascii
import hashlib
from typing import Final

from aiohttp import web
from aiohttp.http import HttpVersion11

from kantad.engine.engine import Engine
from kantad.values.errors import Problem
from kantad.web.answer import SWITCHING, Reply, problem_reply
from kantad.web.body import Limits
from kantad.web.connection import Connection
from kantad.web.parameters import parse_query
from kantad.web.session import Session
from kantad.web.tongue import JsonTongue, MsgpackTongue

MSGPACK: Final = "kanta.v1.msgpack"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def upgrade(engine: Engine, request: web.BaseRequest, query: str, limits: Limits) -> Reply:
    """Go over to WebSocket; raises `Problem`."""
    parse_query(query, ())
    connection = request.protocol
    assert isinstance(connection, Connection)
    key = request.headers.getall("Sec-WebSocket-Key", [])
    if request.version < HttpVersion11 or "websocket" not in _tokens(request, "Upgrade"):
        return _refused("this is a WebSocket endpoint: upgrade to it, with HTTP/1.1")
    if "upgrade" not in _tokens(request, "Connection"):
        return _refused("the header Connection says Upgrade")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        return _refused("version 13 of the WebSocket protocol is spoken here")
    if len(key) != 1 or not _is_key(key[0].strip()):
        return _refused("Sec-WebSocket-Key is 16 bytes in base64")
    accept = base64.b64encode(hashlib.sha1(key[0].strip().encode() + _GUID, usedforsecurity=False).digest())
    headers = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n" % accept
    binary = MSGPACK in _tokens(request, "Sec-WebSocket-Protocol", lower=False)
    if binary:
        headers += b"Sec-WebSocket-Protocol: %b\r\n" % MSGPACK.encode()
    session = Session(engine, connection, MsgpackTongue() if binary else JsonTongue(), limits)
    connection.upgrade(session)
    return Reply(SWITCHING, headers, b"", then=session.open)


def _tokens(request: web.BaseRequest, name: str, *, lower: bool = True) -> set[str]:
    """The members of a list header."""
    found = {token.strip() for value in request.headers.getall(name, []) for token in value.split(",")}
    return {token.lower() for token in found} if lower else found


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _refused(why: str) -> Reply:
    reply = problem_reply(Problem("invalid_parameter", why), close=True)
    reply.headers += b"Sec-WebSocket-Version: 13\r\n"
    return reply
