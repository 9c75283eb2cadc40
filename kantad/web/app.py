"""The routes, and the way of a request: admitted, routed, handled, answered.

The plain path: every request that is not answered by `fast`. One dispatcher turns every `Problem`
into its answer; anything else that escapes a handler is a fault of ours, logged with a reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.http import HttpVersion11

from kantad.engine.engine import Engine
from kantad.values.errors import Problem
from kantad.values.pointer import parse_url
from kantad.web import operating
from kantad.web.access import Access
from kantad.web.answer import SWITCHING, Answer, Reply, fault_reply, json_reply, problem_reply
from kantad.web.backup import Backups, get_backup
from kantad.web.connection import Connection
from kantad.web.faults import Faults
from kantad.web.handshake import upgrade
from kantad.web.openapi import document
from kantad.web.parameters import parse_query
from kantad.web.reading import get_keys, get_value
from kantad.web.streams import get_changes
from kantad.web.writing import Limits, revert, transaction, write_value

DATA = "/v1/data"
KEYS = "/v1/keys"

# path -> methods -> name of the handler below; the two subtrees are matched by their prefix.
ROUTES: dict[str, dict[str, str]] = {
    DATA: {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "write", "POST": "write"},
    KEYS: {"GET": "keys", "HEAD": "keys"},
    "/v1/transaction": {"POST": "transaction"},
    "/v1/changes": {"GET": "changes", "HEAD": "changes"},
    "/v1/ws": {"GET": "websocket"},
    "/v1/revert": {"POST": "revert"},
    "/v1/status": {"GET": "status", "HEAD": "status"},
    "/v1/schema": {"GET": "schema", "HEAD": "schema"},
    "/v1/snapshot": {"POST": "snapshot"},
    "/v1/compact": {"POST": "compact"},
    "/v1/backup": {"GET": "backup", "HEAD": "backup"},
    "/healthz": {"GET": "healthz", "HEAD": "healthz"},
    "/readyz": {"GET": "readyz", "HEAD": "readyz"},
    "/metrics": {"GET": "metrics", "HEAD": "metrics"},
    "/openapi.json": {"GET": "openapi", "HEAD": "openapi"},
}

# What is told of the engine alone.
TOLD = {"status": operating.status, "schema": operating.schema, "readyz": operating.readyz}


POSTED = {"transaction": transaction, "revert": revert, "compact": operating.compact}  # those whose body says it all


def route(target: str, method: str) -> tuple[str, str, str]:
    """The handler's name, the rest of the path below it, and the query of a request target.

    Raises `Problem` `no_route` or `method_not_allowed`.
    """
    path, _, query = target.partition("?")
    base, rest = path, ""
    for subtree in (DATA, KEYS):
        if path.startswith(subtree + "/"):
            base, rest = subtree, path[len(subtree) :]
    methods = ROUTES.get(base)
    if methods is None:
        raise Problem("no_route", "there is no such endpoint; see /openapi.json")
    name = methods.get(method)
    if name is None:
        raise Problem("method_not_allowed", f"{base} does not have this method", allow=", ".join(methods))
    return name, rest, query


@dataclass
class App:
    """What handlers need: the engine, the limits, who may ask."""

    engine: Engine
    access: Access
    limits: Limits
    connections: Callable[[], int] = lambda: 0
    fast_answers: Callable[[], int] = lambda: 0
    faults: Faults = field(default_factory=Faults)
    backups: Backups = field(default_factory=Backups)

    async def handle(self, request: web.BaseRequest) -> Answer:
        """Answer one request; never raises but for cancellation."""
        origin: str | None = None
        connection = request.protocol if isinstance(request.protocol, Connection) else None
        try:
            if connection is not None:
                await connection.drained()
            origin = self.access.admit(request)
            self.access.check_form(request, self.limits)
            if connection is not None:
                connection.admitted()
            if origin is not None and request.method == "OPTIONS":
                reply = preflight(request)
            else:
                reply = await self.dispatch(request)
        except Problem as problem:
            close = problem.status in (408, 413, 421, 431) or not self._body_read(request)
            reply = problem_reply(problem, close=close)
        except ConnectionError:
            reply = Reply(400, b"", b"", True)  # for nobody: the client is gone
        except Exception:
            self.faults.log(f"handling {request.method[:32]!r} {request.raw_path[:128]!r}")
            reply = fault_reply()
        reply.close = reply.close or (reply.status != SWITCHING and is_last(request))
        if origin is not None:
            reply.headers += b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin.encode()
            reply.headers += b"Access-Control-Expose-Headers: ETag, Kanta-Revision, Kanta-Cursor, Location\r\n"
        if request.version < HttpVersion11 and request.keep_alive and not reply.close:
            reply.headers += b"Connection: keep-alive\r\n"
        return Answer(
            reply,
            head=request.method == "HEAD",
            keep_alive=bool(request.keep_alive),
            written=None if connection is None else connection.answered,
        )

    def _body_read(self, request: web.BaseRequest) -> bool:
        return not request.body_exists or request.content.at_eof()

    async def dispatch(self, request: web.BaseRequest) -> Reply:
        """Route and handle; raises `Problem`."""
        name, rest, query = route(request.raw_path, request.method)
        engine = self.engine
        if name in ("read", "keys", "write"):
            path = parse_url(rest)
            if name == "read":
                return await get_value(engine, request, path, query)
            if name == "keys":
                return await get_keys(engine, request, path, query)
            return await write_value(engine, request, path, query, self.limits)
        if name in POSTED:
            return await POSTED[name](engine, request, query, self.limits)
        if name == "changes":
            return await get_changes(engine, request, query)
        if name == "websocket":
            return upgrade(engine, request, query, self.limits)
        parse_query(query, ())
        match name:
            case "snapshot":
                return await operating.snapshot(engine)
            case "backup":
                return await get_backup(engine, self.backups, request)
            case "status" | "schema" | "readyz":
                return TOLD[name](engine)
            case "metrics":
                return operating.metrics(engine, self.connections(), self.fast_answers(), self.backups.count)
            case "openapi":
                return json_reply(document())
            case _:
                return operating.healthz()


def is_last(request: web.BaseRequest) -> bool:
    """Whether what stands behind a request must not be taken for another one.

    Behind a request to upgrade that is not taken up aiohttp may lose bytes; where HTTP/1.0 names a transfer coding,
    an intermediary may have seen another end of the body (RFC 9112 section 6.1).
    """
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        return True
    return "Upgrade" in request.headers or request.method == "CONNECT"


def preflight(request: web.BaseRequest) -> Reply:
    """The answer to a CORS preflight from an allowed origin."""
    headers = (
        b"Access-Control-Allow-Methods: GET, HEAD, PUT, PATCH, DELETE, POST\r\n"
        b"Access-Control-Allow-Headers: Content-Type, If-Match, If-None-Match, Idempotency-Key, Authorization\r\n"
        b"Access-Control-Max-Age: 600\r\n"
    )
    return Reply(204, headers, b"")
