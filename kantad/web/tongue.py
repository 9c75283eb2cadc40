"""The two formats of WebSocket messages: JSON in text frames, MessagePack in binary ones.

A *piece* is one answer in the making; pieces are joined to one message, an array where there are
several. Requests are typed structs, told apart by `op`, decoded once; what does not decode as a
whole is looked at one by one, so that each request is answered for itself.
"""

from binascii import hexlify
from collections.abc import Callable, Hashable, Sequence
from math import isfinite
from typing import Any, Final, Literal, Protocol

import msgspec

from kantad.engine.lane import Result
from kantad.engine.pending import Applied
from kantad.engine.proposal import Outcome
from kantad.values.content import decode_json, encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.record import cursor
from kantad.web.body import check_depth, decode, decoded
from kantad.web.changes import Asked
from kantad.web.frames import BINARY, TEXT, frame, payload_of
from kantad.web.writing import MEMBERS, Conditions, outcome_body

Id = int | float | str


class Get(msgspec.Struct, tag_field="op", tag="get", forbid_unknown_fields=True):
    """Read a value; `rev` and `at` as in section 2."""

    id: Id
    path: str = ""
    rev: int | str | None = None
    at: str | None = None


class Keys(msgspec.Struct, tag_field="op", tag="keys", forbid_unknown_fields=True):
    """Read the keys of an object."""

    id: Id
    path: str = ""
    limit: int = 1000
    after: str | None = None
    rev: int | str | None = None
    at: str | None = None


class Transact(
    msgspec.Struct,
    tag_field="op",
    tag="transact",
    forbid_unknown_fields=True,
    rename={"conditions": "if", "want": "return"},
):
    """Propose a change. `id` is the request's; the idempotency key is `key` here."""

    id: Id
    diff: Any
    a: str = "transact"
    u: str | None = None
    path: str = ""
    base: int | str | None = None
    key: str | None = None
    m: str | None = None
    ack: Literal["durable", "written", "applied"] | None = None
    conditions: Conditions = []
    dry_run: bool = False
    want: Literal["diff"] | None = None


class Plain(msgspec.Struct, gc=False, tag_field="op", tag="transact", forbid_unknown_fields=True):
    """A `transact` of the commonest kind: less to fill in, and nothing to look up."""

    id: Id
    diff: Any
    a: str = "transact"
    u: str | None = None
    path: str = ""
    key: str | None = None

    def whole(self) -> Transact:
        """The same."""
        return Transact(self.id, self.diff, self.a, self.u, self.path, None, self.key)


class Subscribe(Asked, tag_field="op", tag="subscribe", forbid_unknown_fields=True, kw_only=True):
    """Follow changes."""

    id: Id


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Follow no more."""

    id: Id
    sub: Id


class Changes(Asked, tag_field="op", tag="changes", forbid_unknown_fields=True, kw_only=True):
    """List changes."""

    id: Id


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Ask for the revision."""

    id: Id


Whole = Get | Keys | Transact | Subscribe | Unsubscribe | Changes | Ping
Request = Plain | Whole


class Refused(msgspec.Struct):
    """A request that cannot be handled, and what to answer."""

    id: Id | None
    problem: Problem


class Apart:
    """The requests of a message of which not all are good: what each is, is found when its turn comes.

    A message may hold millions of bad ones, and a refusal is longer than what it refuses.
    """

    def __init__(self, values: list[Any], max_depth: int) -> None:
        self.values, self.max_depth = values, max_depth

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, places: slice) -> list[Request | Refused]:
        return [self._found(value) for value in self.values[places]]

    def _found(self, value: Any) -> Request | Refused:
        try:
            check_depth(value, self.max_depth)
            writes = type(value) is dict and value.get("op") == "transact"
            found: Request = decoded(_converted, value, MEMBERS if writes else ())
        except Problem as problem:
            given = value.get("id") if type(value) is dict else None
            return Refused(given if type(given) in (int, float, str) and not _infinite(given) else None, problem)
        if _infinite(found.id):
            return Refused(None, Problem("invalid_value", "an id is a finite number or a string", parameter="id"))
        return found


Requests = list[Request | Refused] | Apart


def problem_members(problem: Problem) -> bytes:
    """An error as the member `error` of an answer, without the opening brace."""
    body = problem.body()
    del body["type"], body["title"]
    return b'"error":%b}' % encode_json(body)


class Tongue(Protocol):
    """One of the formats."""

    def requests(self, payload: bytes, opcode: int, max_depth: int) -> Requests:
        """The requests of a message."""

    def answer(self, id: Id | None, members: bytes) -> Any:
        """An answer with these members, JSON text without the opening brace."""

    def written(self, writes: Sequence[Plain | Transact], results: list[Result], ts: str) -> list[Any]:
        """The answers of plain writes that changed something, at `ts`, or nothing and have no key."""

    def id_of(self, piece: Any) -> Id:
        """The request that a piece answers."""

    def id_of_message(self, message: bytes) -> Id:
        """The request that a message of one piece answers."""

    def message(self, pieces: list[Any]) -> bytes:
        """The frame of these pieces."""

    def events(self, sub: Id) -> "Events":
        """How the events of a subscription look."""


class Events:
    """A subscription's events in a format; an `Encoding`."""

    def __init__(self, key: Hashable, start: bytes, message: Callable[[list[bytes]], bytes]) -> None:
        self.kind, self.start, self.message = key, start, message

    @property
    def key(self) -> Hashable:
        """See `Encoding`."""
        return self.kind

    def changes(self, tails: list[bytes]) -> bytes:
        """See `Encoding`."""
        start = b'{%b"event":"change",' % self.start
        return self.message([start + tail for tail in tails])

    def event(self, kind: str, cursor: bytes, members: bytes) -> bytes:
        """See `Encoding`."""
        return self.message([b'{%b"event":"%b",%b' % (self.start, kind.encode(), members)])


class JsonTongue:
    """JSON in text frames."""

    def requests(self, payload: bytes, opcode: int, max_depth: int) -> Requests:
        """See `Tongue`."""
        if opcode != TEXT:
            return [Refused(None, Problem("invalid_json", "this connection speaks JSON in text frames"))]
        return _requests(payload, False, (_decode_plain, _decode_whole), max_depth)

    def answer(self, id: Id | None, members: bytes) -> bytes:
        """See `Tongue`."""
        mark = b"%d" % id if type(id) is int else encode_json(id)
        return b'{"id":%b,%b' % (mark, members) if members != b"}" else b'{"id":%b}' % mark

    def written(self, writes: Sequence[Plain | Transact], results: list[Result], ts: str) -> list[bytes]:
        """See `Tongue`."""
        found, end = [], b'","ts":"%b","changed":true}' % ts.encode()
        for asked, result in zip(writes, results, strict=True):
            id = asked.id
            if type(result) is Applied:
                mark, rev = b"%d" % id if type(id) is int else encode_json(id), result.rev
                found.append(b'{"id":%b,"rev":%d,"cursor":"%d-%b%b' % (mark, rev, rev, hexlify(result.chain), end))
            elif type(result) is Outcome and asked.key is None:
                found.append(self.answer(id, encode_json(outcome_body(result))[1:]))
        return found

    def id_of(self, piece: bytes) -> Id:
        """See `Tongue`."""
        id: Id = decode_json(piece)["id"]
        return id

    def id_of_message(self, message: bytes) -> Id:
        """See `Tongue`."""
        return self.id_of(payload_of(message))

    def message(self, pieces: list[bytes]) -> bytes:
        """See `Tongue`."""
        return frame(TEXT, pieces[0] if len(pieces) == 1 else b"[%b]" % b",".join(pieces))

    def events(self, sub: Id) -> Events:
        """See `Tongue`."""
        return Events(("json", sub), b'"sub":%b,' % encode_json(sub), self.message)


class MsgpackTongue:
    """MessagePack in binary frames."""

    def requests(self, payload: bytes, opcode: int, max_depth: int) -> Requests:
        """See `Tongue`."""
        if opcode != BINARY:
            return [Refused(None, Problem("invalid_json", "this connection speaks MessagePack in binary frames"))]
        return _requests(payload, True, (_decode_plain_msgpack, _decode_whole_msgpack), max_depth)

    def answer(self, id: Id | None, members: bytes) -> Any:
        """See `Tongue`."""
        return {"id": id, **decode_json(b"{" + members)}

    def written(self, writes: Sequence[Plain | Transact], results: list[Result], ts: str) -> list[Any]:
        """See `Tongue`."""
        found: list[Any] = []
        for asked, result in zip(writes, results, strict=True):
            if type(result) is Applied:
                rev, mark = result.rev, cursor(result.rev, result.chain)
                found.append({"id": asked.id, "rev": rev, "cursor": mark, "ts": ts, "changed": True})
            elif type(result) is Outcome and asked.key is None:
                found.append({"id": asked.id, **outcome_body(result)})
        return found

    def id_of(self, piece: Any) -> Id:
        """See `Tongue`."""
        id: Id = piece["id"]
        return id

    def id_of_message(self, message: bytes) -> Id:
        """See `Tongue`."""
        return self.id_of(decode_msgpack(payload_of(message)))

    def message(self, pieces: list[Any]) -> bytes:
        """See `Tongue`."""
        return frame(BINARY, encode_msgpack(pieces[0] if len(pieces) == 1 else pieces))

    def events(self, sub: Id) -> Events:
        """See `Tongue`."""
        return Events(("msgpack", sub), b'"sub":%b,' % encode_json(sub), self._of_texts)

    def _of_texts(self, texts: list[bytes]) -> bytes:
        return self.message([decode_json(text) for text in texts])


decode_msgpack = msgspec.msgpack.Decoder().decode
_decode_plain = msgspec.json.Decoder(list[Plain] | Plain).decode
_decode_plain_msgpack = msgspec.msgpack.Decoder(list[Plain] | Plain).decode
_decode_whole = msgspec.json.Decoder(list[Whole] | Whole).decode
_decode_whole_msgpack = msgspec.msgpack.Decoder(list[Whole] | Whole).decode

LOOKED_AT: Final = 64  # bytes of a message, for a hint of what it holds


def _requests(payload: bytes, msgpack: bool, decoders: tuple[Callable[[bytes], Any], ...], max_depth: int) -> Requests:
    """The requests of a message: decoded as plain writes if they look so, as what there is, or one by one."""
    if msgpack or payload.count(b"{") + payload.count(b"[") > 3 * max_depth + 8:
        try:
            decode(payload, msgpack, max_depth)  # for its depth
        except Problem:
            return _one_by_one(payload, msgpack, max_depth)
    for decoder in decoders if payload.find(b"transact", 0, LOOKED_AT) > 0 else decoders[1:]:
        try:
            found = decoder(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        requests = found if type(found) is list else [found]
        if msgpack and any(_infinite(each.id) for each in requests):
            break
        return requests
    return _one_by_one(payload, msgpack, max_depth)


def _one_by_one(payload: bytes, msgpack: bool, max_depth: int) -> Requests:
    """The requests of a message of which not all are good."""
    try:
        value = decode(payload, msgpack, len(payload))
    except Problem as problem:
        return [Refused(None, problem)]
    apart = Apart(value if type(value) is list else [value], max_depth)
    return apart if len(apart) > 1 else apart[:]


def _infinite(id: Any) -> bool:
    """Whether this is a number that JSON does not have, so no event could name it."""
    return type(id) is float and not isfinite(id)


def _converted(value: Any) -> Whole:
    request: Whole = msgspec.convert(value, Whole)
    return request
