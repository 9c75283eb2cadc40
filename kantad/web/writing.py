"""`PUT|PATCH|DELETE|POST /v1/data/<path>`, `POST /v1/transaction` and `POST /v1/revert`.

Each becomes a `Proposal`; the answer waits until the change is acknowledged, and so does a refusal
that shows state, because the state may still be taken back.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from kantad.engine.engine import Engine
from kantad.engine.preconditions import look_back, looks_back
from kantad.engine.proposal import Ack, Condition, Outcome, Proposal
from kantad.values.astext import as_text
from kantad.values.content import MISSING, encode_json
from kantad.values.errors import Problem
from kantad.values.moment import time_text
from kantad.values.pointer import Path, format_url, parse
from kantad.values.record import cursor, label, parse_cursor
from kantad.web.answer import JSON, Reply, encoded, last_lines
from kantad.web.body import Limits, accepts_msgpack, decode, decoded, is_msgpack, read_body
from kantad.web.parameters import acknowledgement, idempotency_key, moment, parse_query
from kantad.web.reading import entity_tags

MOST_CONDITIONS: Final = 1000  # of one transaction

_PATCHES: dict[str, Literal["merge", "json-patch"]] = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json-patch",
}


class ConditionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One member of a transaction's `if`."""

    path: str
    equals: Any = msgspec.UNSET
    exists: bool | None = None
    etag: str | None = None
    unchanged_since: int | str | None = None


Conditions = Annotated[list[ConditionRequest], Meta(max_length=MOST_CONDITIONS)]


class WriteRequest(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"conditions": "if", "want": "return"}
):
    """What the bodies of a transaction and a revert have in common."""

    a: str
    u: str | None = None
    path: str = ""
    base: int | str | None = None
    id: str | None = None
    m: str | None = None
    ack: Literal["durable", "written", "applied"] | None = None
    conditions: Conditions = []
    dry_run: bool = False
    want: Literal["diff"] | None = None


class TransactionRequest(WriteRequest, kw_only=True):
    """The body of `POST /v1/transaction`."""

    diff: Any
    a: str = "transact"


class RevertRequest(WriteRequest, kw_only=True):
    """The body of `POST /v1/revert`."""

    rev: int | str
    a: str = "revert"


MEMBERS: Final = WriteRequest.__struct_encode_fields__

_decode_transaction = msgspec.json.Decoder(TransactionRequest).decode
_decode_transaction_msgpack = msgspec.msgpack.Decoder(TransactionRequest).decode
_decode_revert = msgspec.json.Decoder(RevertRequest).decode
_decode_revert_msgpack = msgspec.msgpack.Decoder(RevertRequest).decode


async def commit(engine: Engine, proposal: Proposal) -> Outcome:
    """Transact and wait for the acknowledgement; raises the `Problem` only when it may be told."""
    if looks_back(engine, proposal):
        await look_back(engine, proposal)
    try:
        outcome = engine.transact(proposal)
    except Problem as problem:
        if problem.shows_state:
            await engine.settled(None, engine.rev)
        raise
    await engine.settled(proposal.ack, outcome.rev)
    return outcome


def outcome_body(outcome: Outcome, *, diff: bool = False) -> dict[str, Any]:
    """The members of a write's answer."""
    body: dict[str, Any] = {
        "rev": outcome.rev,
        "cursor": cursor(outcome.rev, outcome.chain),
        "ts": time_text(outcome.micros),
        "changed": outcome.changed,
    }
    if outcome.replayed:
        body["replayed"] = True
    if outcome.child is not None:
        body["key"] = outcome.child[-1]
    if diff and not outcome.changed:
        body["diff"] = {}
    elif diff and outcome.diff is not None:  # of a repeated request whose record is compacted it is not known
        body["diff"] = as_text(outcome.diff)
    return body


def revision_headers(outcome: Outcome) -> bytes:
    """The header lines of a write's answer."""
    replayed = b"Idempotency-Replayed: true\r\n" if outcome.replayed else b""
    return b"Kanta-Revision: %d\r\nKanta-Cursor: %b\r\n%b" % (
        outcome.rev,
        cursor(outcome.rev, outcome.chain).encode(),
        replayed,
    )


def plain_outcome_reply(outcome: Outcome) -> Reply:
    """The answer of a plain write, as JSON; the fast path uses it too."""
    rev = outcome.rev
    mark = cursor(rev, outcome.chain).encode()
    body = b'{"rev":%d,"cursor":"%b","ts":"%b","changed":%b%b}' % (
        rev,
        mark,
        time_text(outcome.micros).encode(),
        b"true" if outcome.changed else b"false",
        b',"replayed":true' if outcome.replayed else b"",
    )
    replayed = b"Idempotency-Replayed: true\r\n" if outcome.replayed else b""
    return Reply(200, b"%bKanta-Revision: %d\r\nKanta-Cursor: %b\r\n%b" % (JSON, rev, mark, replayed), body)


def written_answer(rev: int, chain: bytes, micros: int) -> bytes:
    """The whole answer of a plain write that changed something: `render` of `plain_outcome_reply`, in one step."""
    number, stamp, last = str(rev), time_text(micros), last_lines.text if last_lines() else ""
    mark = f"{number}-{chain.hex()}"
    body = f'{{"rev":{number},"cursor":"{mark}","ts":"{stamp}","changed":true}}'
    return (
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        f"Kanta-Revision: {number}\r\nKanta-Cursor: {mark}\r\n{last}{body}"
    ).encode()


async def write_value(engine: Engine, request: web.BaseRequest, path: Path, query: str, limits: Limits) -> Reply:
    """`PUT`, `PATCH`, `DELETE` or `POST` of `/v1/data/<path>`."""
    method = request.method
    if method == "DELETE" and not path:
        raise Problem("method_not_allowed", "the root cannot be deleted", allow="GET, HEAD, PUT, PATCH, POST")
    given = parse_query(query, ("action", "user", "m", "ack", "base"))
    proposal = Proposal(
        path,
        "put",
        action=label(given.get("action", method.lower()), "action"),
        user=label(given["user"], "user") if "user" in given else None,
        m=moment(given.get("m"), "m"),
        base=given.get("base"),
        key=header_key(request),
        conditions=header_conditions(request, path),
        ack=acknowledgement(given.get("ack")),
        foreign=engine.foreign,
    )
    if proposal.base is not None:
        parse_cursor(proposal.base, "base")
    kind = request.headers.get("Content-Type", "")
    body = await read_body(request, limits)
    if method == "DELETE":
        proposal.edit = "delete"
    else:
        proposal.body = decode(body, is_msgpack(kind), limits.max_depth)
        if method == "PATCH":
            proposal.edit = _PATCHES.get(kind.partition(";")[0].strip().lower(), "patch")
        elif method == "POST":
            proposal.edit = "post"
    outcome = await commit(engine, proposal)
    if accepts_msgpack(request):
        mime, content = encoded(outcome_body(outcome), True)
        reply = Reply(200, mime + revision_headers(outcome), content)
    elif outcome.child is None:
        reply = plain_outcome_reply(outcome)
    else:
        reply = Reply(200, JSON + revision_headers(outcome), encode_json(outcome_body(outcome)))
    if outcome.child is not None:
        reply.status = 201
        reply.headers += b"Location: /v1/data%b\r\n" % format_url(outcome.child).encode()
    return reply


def header_key(request: web.BaseRequest) -> str | None:
    """The `Idempotency-Key`; raises `Problem` for one that is none, and for several that differ."""
    given = set(request.headers.getall("Idempotency-Key", []))
    if len(given) > 1:
        raise Problem("invalid_parameter", "there are two idempotency keys", parameter="Idempotency-Key")
    return idempotency_key(given.pop() if given else None)


def header_conditions(request: web.BaseRequest, path: Path) -> tuple[Condition, ...]:
    """The preconditions that `If-Match` and `If-None-Match` are."""
    found = []
    given = request.headers.getall("If-Match", [])
    match = entity_tags(given, "If-Match", strong=True)
    if "*" in match:
        found.append(Condition(path, exists=True))
    elif given:
        found.append(Condition(path, etags=tuple(sorted(match))))
    none = entity_tags(request.headers.getall("If-None-Match", []))
    if "*" in none:
        found.append(Condition(path, exists=False))
    elif none:
        found.append(Condition(path, not_etags=tuple(sorted(none))))
    return tuple(found)


async def transaction(engine: Engine, request: web.BaseRequest, query: str, limits: Limits) -> Reply:
    """`POST /v1/transaction`."""
    parse_query(query, ())
    key = header_key(request)
    msgpack = is_msgpack(request.headers.get("Content-Type", ""))
    body = await read_body(request, limits)
    decode(body, msgpack, limits.max_depth)
    asked = decoded(_decode_transaction_msgpack if msgpack else _decode_transaction, body, MEMBERS)
    return await _committed(engine, request, proposal_of(asked, key, engine.foreign))


async def revert(engine: Engine, request: web.BaseRequest, query: str, limits: Limits) -> Reply:
    """`POST /v1/revert`: the value at a path as of a revision, as a new change.

    A repeated key is answered without that value, which the log may hold no longer; a dry run is not answered from the
    first time, so it needs it.
    """
    parse_query(query, ())
    key = header_key(request)
    msgpack = is_msgpack(request.headers.get("Content-Type", ""))
    body = await read_body(request, limits)
    decode(body, msgpack, limits.max_depth)
    asked = decoded(_decode_revert_msgpack if msgpack else _decode_revert, body, MEMBERS)
    proposal = _proposal(asked, key, engine.foreign)
    proposal.edit, proposal.to, proposal.body = "revert", asked.rev, MISSING
    proposal.conditions += header_conditions(request, proposal.path)
    parse_cursor(asked.rev, "rev")
    if proposal.dry_run or engine.window.peek(proposal.key) is None:
        proposal.body = await engine.former.value_at(asked.rev, proposal.path)
    return await _committed(engine, request, proposal)


async def _committed(engine: Engine, request: web.BaseRequest, proposal: Proposal) -> Reply:
    outcome = await commit(engine, proposal)
    answer = outcome_body(outcome, diff=proposal.dry_run or proposal.want_diff)
    mime, content = encoded(answer, accepts_msgpack(request))
    return Reply(200, mime + revision_headers(outcome), content)


def proposal_of(asked: TransactionRequest, key: str | None, foreign: bool) -> Proposal:
    """The proposal that a transaction's body is, `key` being the header's; raises `Problem`."""
    proposal = _proposal(asked, key, foreign)
    proposal.body = asked.diff
    return proposal


def _proposal(asked: WriteRequest, key: str | None, foreign: bool) -> Proposal:
    if key is not None and asked.id is not None and key != asked.id:
        raise Problem("invalid_parameter", "id and Idempotency-Key differ", parameter="id")
    if asked.base is not None:
        parse_cursor(asked.base, "base")
    return Proposal(
        parse(asked.path),
        "patch",
        action=label(asked.a, "a"),
        user=None if asked.u is None else label(asked.u, "u"),
        m=moment(asked.m, "m"),
        base=asked.base,
        key=idempotency_key(asked.id, "id") or key,
        conditions=tuple(_condition(each) for each in asked.conditions),
        ack=asked.ack,
        dry_run=asked.dry_run,
        want_diff=asked.want == "diff",
        foreign=foreign,
    )


def _condition(asked: ConditionRequest) -> Condition:
    equals = MISSING if asked.equals is msgspec.UNSET else asked.equals
    if equals is MISSING and asked.exists is None and asked.etag is None and asked.unchanged_since is None:
        detail = "a condition has equals, exists, etag or unchanged_since"
        raise Problem("invalid_parameter", detail, parameter="if", path=asked.path)
    if asked.unchanged_since is not None:
        parse_cursor(asked.unchanged_since, "unchanged_since")
    etags = None if asked.etag is None else (asked.etag.removeprefix('"').removesuffix('"'),)
    return Condition(parse(asked.path), equals, asked.exists, etags, None, asked.unchanged_since)


__all__ = ["Ack", "Limits", "commit", "plain_outcome_reply", "revert", "transaction", "write_value"]
