"""Operating endpoints: status, health, readiness, metrics, snapshots, compaction."""

import os
import time
from typing import Any

import msgspec
from aiohttp import web

from kantad import __version__
from kantad.engine.engine import Engine
from kantad.values.errors import Problem
from kantad.values.retention import retention
from kantad.web.answer import Reply, json_reply
from kantad.web.body import Limits, decode, decoded, is_msgpack, read_body
from kantad.web.parameters import parse_query

_STARTED = time.monotonic()
ROOM = 1 << 20  # bytes that must be free before a full disk counts as ready again


def status(engine: Engine) -> Reply:
    """`GET /v1/status`."""
    log, visible = engine.log, engine.visible
    body: dict[str, Any] = {
        "version": __version__,
        "rev": visible.rev,
        "cursor": visible.cursor,
        "durable_rev": engine.durable_rev,
        "oldest": engine.past.oldest,
        "schema": None if engine.schema is None else engine.schema.name,
        "schema_version": engine.v,
        "file": {"path": log.path, "format": log.codec.name, "bytes": log.size},
        "records": visible.rev - engine.past.oldest,
        "subscribers": len(engine.feeds.readers),
        "uptime": round(time.monotonic() - _STARTED, 3),
        "ack": engine.policy,
        "readonly": engine.readonly,
        "idempotency_keys": len(engine.window.changes),
        "history": engine.history,
        "warnings": engine.warnings,
        "trouble": engine.trouble,
        "snapshot": engine.snapshots.status(),
        "compaction": engine.compaction.status(),
    }
    return json_reply(body)


def schema(engine: Engine) -> Reply:
    """`GET /v1/schema`."""
    if engine.schema is None:
        raise Problem("not_found", "there is no schema: the server was started without --schema")
    return json_reply(engine.schema.json_schema())


def healthz() -> Reply:
    """`GET /healthz`: the process answers."""
    return json_reply({"status": "ok"})


def readyz(engine: Engine) -> Reply:
    """`GET /readyz`: it can take writes; 503 with the reason when it cannot."""
    if engine.stopping:
        raise Problem("shutting_down", "the server is shutting down", retry_after=1)
    if engine.readonly:
        raise Problem("unavailable", "the file is served read-only")
    if engine.trouble is not None and not _room(engine):
        raise Problem("unavailable", engine.trouble, retry_after=2)
    return json_reply({"status": "ready", "rev": engine.visible.rev})


def _room(engine: Engine) -> bool:
    try:
        free = os.fstatvfs(engine.log.fd)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize >= ROOM


async def snapshot(engine: Engine) -> Reply:
    """`POST /v1/snapshot`."""
    visible, size = await engine.snapshot()
    return json_reply({"rev": visible.rev, "cursor": visible.cursor, "bytes": size})


class CompactRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/compact`."""

    retain: str
    archive: bool = True


_decode_compact = msgspec.json.Decoder(CompactRequest).decode
_decode_compact_msgpack = msgspec.msgpack.Decoder(CompactRequest).decode


async def compact(engine: Engine, request: web.BaseRequest, query: str, limits: Limits) -> Reply:
    """`POST /v1/compact`: answered when it is done; raises `Problem`."""
    parse_query(query, ())
    msgpack = is_msgpack(request.headers.get("Content-Type", ""))
    body = await read_body(request, limits)
    decode(body, msgpack, limits.max_depth)
    asked = decoded(_decode_compact_msgpack if msgpack else _decode_compact, body, ("retain", "archive"))
    try:
        retain = retention(asked.retain)
    except ValueError as error:
        raise Problem("invalid_parameter", f"retain is {error}", parameter="retain") from None
    done = await engine.compaction.compact(retain, asked.archive)
    now = engine.visible
    return json_reply({"rev": now.rev, "cursor": now.cursor, **done.told()})


def metrics(engine: Engine, connections: int, fast_answers: int, backups: int) -> Reply:
    """`GET /metrics`: Prometheus text."""
    figures = [
        ("kantad_revision", "gauge", "The visible revision.", engine.visible.rev),
        ("kantad_durable_revision", "gauge", "The revision that a power cut leaves.", engine.durable_rev),
        ("kantad_log_bytes", "gauge", "Bytes of the log.", engine.log.size),
        ("kantad_batches_total", "counter", "Batches handed to the disk.", engine.committer.batches),
        ("kantad_changes_pending", "gauge", "Changes that are not yet on disk.", len(engine.committer.unsettled())),
        ("kantad_idempotency_keys", "gauge", "Keys in the idempotency window.", len(engine.window.changes)),
        ("kantad_subscribers", "gauge", "Streams and subscriptions that are open.", len(engine.feeds.readers)),
        ("kantad_connections", "gauge", "Open connections.", connections),
        ("kantad_backups", "gauge", "Backups that are being sent.", backups),
        ("kantad_fast_answers_total", "counter", "Requests answered by the fast path.", fast_answers),
        (
            "kantad_writable",
            "gauge",
            "1 where writes are taken, and the last one had room.",
            int(engine.trouble is None and not engine.readonly),
        ),
    ]
    text = "".join(
        f"# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n" for name, kind, help, value in figures
    )
    return Reply(200, b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", text.encode())
