"""Formats of one's own: records encoded by a class of the user's, which kantad knows nothing about.

What it encodes is not looked into. So the digits of `h` (of a snapshot, `s`) stand behind it, outside
of the record: `\\0h=` and 16 digits in a frame, a tab, `h=` and 16 digits in a line, which is why the text
of a line may hold no tab. What is hashed is what the class encoded. A snapshot that stands beside the
file begins with `at=`, 16 digits and a zero byte or a tab, so that it can be told without the class.

Nothing is written that does not come back: each record is decoded again and compared, before it counts
as made. Upstream of that, records are made in parts as JSON is, and JSON values are all that they may hold.
"""

import contextlib
import re
from binascii import hexlify
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from kantad.values.codec import Codec, JsonCodec
from kantad.values.content import check, decode_json, encode_json, same
from kantad.values.errors import Problem, told
from kantad.values.framing import OWN_ENDING, OWN_LENGTH, JsonLines
from kantad.values.moment import time_text
from kantad.values.record import (
    CHAIN_START,
    DECODE_ERRORS,
    SNAPSHOT_KIND,
    At,
    Change,
    Kept,
    Keyed,
    Snapshot,
    SnapshotBeside,
    SnapshotHead,
    Step,
    chain_after,
)

T = TypeVar("T")

FRAMERS: Final = {"lines": True, "frames": False}
KANTAS: Final = {"LineFramer": "lines", "BinFramer": "frames"}  # what kanta's `framer_cls` is called
_AT: Final = re.compile(rb"at=([0-9a-f]{16})[\t\0]")
_CUT_ENDING: Final = re.compile(rb"\t(?:[hs](?:=[0-9a-f]{0,15})?)?\Z")
_FAULTS: Final = (Exception, SystemExit)  # of the user's code
DEEPEST: Final = 512  # levels of containers in a record that is read
TRIED_DEPTH: Final = 130


class Serializer(Protocol):
    """What a class of the user's has to have; it is made without arguments."""

    framer: str  # `lines` (text) or `frames` (binary)

    def encode(self, obj: Any) -> bytes:
        """A record, which is a dict of JSON values, as bytes."""

    def decode(self, payload: bytes, *, type: type[T]) -> T:
        """What `encode` was given, as this type: dict, or a msgspec Struct with some of its members."""


class Unusable(Exception):
    """A class that records cannot be kept with, and why."""


class OwnCodec(Codec):
    """Records as a serializer encodes them."""

    foreign = False
    closing = ending = id_mark = kept_mark = b""
    keyed = staticmethod(JsonCodec.keyed)
    described = staticmethod(JsonCodec.described)
    settling = staticmethod(JsonCodec.settling)
    encode = staticmethod(encode_json)
    start, colon, end = JsonCodec.start, JsonCodec.colon, JsonCodec.end

    def __init__(self, name: str, serializer: Serializer, lines: bool) -> None:
        self.name, self.serializer, self.lines = name, serializer, lines
        self.h_mark, self.s_mark = (b"\th=", b"\ts=") if lines else (b"\0h=", b"\0s=")
        self._parts = JsonCodec()

    def ends(
        self,
        micros: int,
        a: str,
        v: int = 0,
        u: str | None = None,
        m: int | None = None,
        id: str | None = None,
        q: str | None = None,
        b: int = 0,
    ) -> tuple[bytes, bytes]:
        """See Codec."""
        return self._parts.ends(micros, a, v, u, m, id, q, b)

    def finished(self, parts: tuple[bytes, ...], chain: bytes) -> tuple[bytes, bytes]:
        """See Codec; raises `Problem("invalid_value")` for what does not come back."""
        hashed = self.encoded(b"".join(parts) + b"}")
        chain = chain_after(chain, hashed)
        return b"%b%b%b" % (hashed, self.h_mark, hexlify(chain)), chain

    def snapshot(
        self,
        micros: int,
        state: Any,
        r: int,
        chain: bytes,
        *,
        v: int = 0,
        m: int | None = None,
        kept: Kept | None = None,
        at: At | None = None,
    ) -> bytes:
        """See Codec; raises as `finished` does."""
        record: dict[str, Any] = {"ts": time_text(micros), "v": v, "state": state}
        if m is not None:
            record["m"] = time_text(m)
        record |= {"r": r, "k": SNAPSHOT_KIND}
        if kept is not None:
            record |= {"ids": kept.ids, "answers": kept.answers}
        record |= {"h": chain.hex()}
        if at is None:
            return self.sealed(self.encoded(encode_json(record)))
        record |= {name: value for name, value in (("log", at.log), ("kanta", at.kanta)) if value is not None}
        return self.sealed(b"at=%016x%b%b" % (at.at, self.h_mark[:1], self.encoded(encode_json(record))))

    def encoded(self, record: bytes) -> bytes:
        """What the class makes of a record, which is given as JSON: the class has a copy of its own.

        Raises `Problem("invalid_value")` where it does not come back.
        """
        try:
            body = self.serializer.encode(decode_json(record))
            if type(body) is not bytes:
                raise TypeError(f"encode gives {type(body).__name__}, not bytes")
            if self.lines and not _is_line(body):
                raise ValueError(
                    "what it encodes is no line: there is a tab, a newline or a zero byte in it, or nothing"
                )
            back = self.serializer.decode(body, type=dict)
        except _FAULTS as error:
            raise Problem("invalid_value", f"{self.name} cannot keep this: {told(error)}") from error
        if not same(back, decode_json(record)):
            raise Problem("invalid_value", f"{self.name} cannot keep this: it decodes to something else")
        return body

    def decode(self, payload: bytes, kind: type[Any]) -> Any:
        """See Codec."""
        ending = payload[-OWN_LENGTH:]
        mark = ending[1:2].decode() if OWN_ENDING.fullmatch(ending) else ""
        body = payload[:-OWN_LENGTH] if mark else payload
        if self.lines and not mark and _CUT_ENDING.search(payload, max(0, len(payload) - OWN_LENGTH)):
            raise msgspec.DecodeError("its ending is cut off")
        at = _AT.match(body) if mark == "s" else None
        try:
            found: Any = self._decoded(body, at, kind)
        except _FAULTS as error:
            raise msgspec.DecodeError(told(error)) from error
        if type(found) is not kind:
            raise msgspec.DecodeError(f"decode gives {type(found).__name__}, not {kind.__name__}")
        if kind is Kept:
            return _kept(found)
        _check(found)
        if kind is SnapshotBeside:
            kept = _kept(found)
            found.ids, found.answers = kept.ids, kept.answers
        if mark and mark in kind.__struct_fields__:
            setattr(found, mark, ending[3:].decode())
        if at is not None and "at" in kind.__struct_fields__:
            found.at = int(at[1], 16)
        return found

    def _decoded(self, body: bytes, at: re.Match[bytes] | None, kind: type[Any]) -> Any:
        """What the class makes of it, where it stands behind `at`, too; what looks like that may be the class's."""
        if at is None:
            return self.serializer.decode(body, type=kind)
        if kind is not SnapshotBeside:
            with contextlib.suppress(*_FAULTS):
                return self.serializer.decode(body, type=kind)
        return self.serializer.decode(body[at.end() :], type=kind)

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """See Codec."""
        return partial(self.decode, kind=kind)


def _is_line(body: bytes) -> bool:
    return bool(body.strip()) and not any(byte in body for byte in b"\t\n\0") and not body.startswith(JsonLines.PREFIX)


def _kept(record: Any) -> Kept:
    """The window that a record holds: whoever decoded it might not have looked into its lists."""
    return msgspec.convert({"ids": record.ids, "answers": record.answers}, Kept)


def _check(record: Any) -> None:
    """Raise a decoding error where a record holds what is no JSON value."""
    for name in ("diff", "state"):
        try:
            check(getattr(record, name, None), DEEPEST)
        except Problem as problem:
            raise msgspec.DecodeError(
                f"a value in it that kantad keeps in no format of one's own: {problem.detail}"
            ) from None


def own_codec(name: str, made: Any) -> OwnCodec:
    """The codec of a serializer, which was tried out; raises `Unusable`."""
    framer = getattr(made, "framer", None)
    if framer is None:
        framer = KANTAS.get(getattr(getattr(made, "framer_cls", None), "__name__", ""))
    if framer not in FRAMERS:
        raise Unusable('it has no framer: "lines" for text, or "frames" for anything')
    for method in ("encode", "decode"):
        if not callable(getattr(made, method, None)):
            raise Unusable(f"it has no method {method}")
    codec = OwnCodec(name, made, FRAMERS[framer])
    try:
        payload = _try_out(codec)
        _expect(OwnCodec(name, type(made)(), codec.lines).decode(payload, Change).diff, TRIED)  # as the next start does
    except Problem as problem:
        raise Unusable(problem.detail.removeprefix(f"{name} cannot keep this: ")) from problem.__cause__
    except DECODE_ERRORS as error:
        raise Unusable(f"what it encodes does not decode: {error}") from error
    return codec


def _deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


TRIED: Final[dict[str, Any]] = {
    "texts": ["", "a", "ü€𝄞", "\\ \" ' \n\r\t\0\x7f\x85\u2028\ufeff", "2026-06-10T02:55:00.123456Z", "1", "x" * 70_000],
    "numbers": [0, -1, 23, 24, 255, 256, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1.0, 0.1, 5e-324, 1.7e308],
    "others": [None, True, False, [], {}, [[]], {"": {"": None}}],
    "order": {"z": 1, "a": 2, "$": 3, "$$x": {"$replace": 4}, "1": 5},
    "many": list(range(300)),
    "deep": _deep(TRIED_DEPTH),
}


def _try_out(codec: OwnCodec) -> bytes:
    """Encode and decode what a database may hold; raises `Unusable`, and what the codec raises.

    Returns the first record, which is to be decoded without the object that encoded it, and after others.
    """
    fields: dict[str, Any] = {"v": 3, "u": "ann", "m": 1_750_000_000_000_001, "id": "key", "q": "0badcafe", "b": 7}
    payload, chain = codec.change(1_750_000_000_000_000, "act", TRIED, CHAIN_START, **fields)
    record: Change = codec.decode(payload, Change)
    _expect(record.diff, TRIED)
    times = [time_text(1_750_000_000_000_000), time_text(1_750_000_000_000_001)]
    _expect([record.ts, record.m], times)
    told = [record.a, record.v, record.u, record.id, record.q, record.b, record.h]
    _expect(told, ["act", 3, "ann", "key", "0badcafe", 7, chain.hex()])
    _expect(codec.decode(payload, Step).diff, TRIED)
    _expect(codec.decode(payload, Keyed).id, "key")
    _expect(codec.decode(codec.change(0, "", {}, CHAIN_START)[0], Change).u, None)
    kept = Kept([("key", "0badcafe", 8)], [(1, chain.hex(), {"x": None})])
    snapshot = codec.snapshot(0, TRIED, 9, chain, kept=kept)
    if codec.lines and _decodes(codec, bytes((payload[0] ^ 0xFF,)) + payload[1:]):  # see `Log.append_together`
        raise Unusable("a line decodes though its first byte is another, so half a write could not be told")
    _expect(codec.decode(snapshot, Snapshot).state, TRIED)
    _expect(codec.decode(snapshot, SnapshotHead).h, chain.hex())
    _expect(codec.decode(snapshot, Kept).ids, kept.ids)
    at = At(10**12, "0badcafe" * 8, "0.9")
    beside: SnapshotBeside = codec.decode(codec.snapshot(0, TRIED, 9, chain, kept=kept, at=at), SnapshotBeside)
    _expect([beside.at, beside.log, beside.kanta], list(at))
    _expect([beside.state, beside.answers], [TRIED, kept.answers])
    return payload


def _decodes(codec: OwnCodec, payload: bytes) -> bool:
    try:
        codec.decode(payload, Change)
    except DECODE_ERRORS:
        return False
    return True


def _expect(found: Any, given: Any) -> None:
    """Raise `Unusable` unless these are the same, keys in the same order."""
    if not same(found, given) or encode_json(found) != encode_json(given):
        raise Unusable("what it decodes is not what it encoded (or its keys are in another order)")
