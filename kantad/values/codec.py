"""How records are encoded: as JSON objects, or as MessagePack maps; what all codecs have in common.

A payload is encoded once, in parts: what stands around the patch is the same for many records,
and so is what stands around a patch at a path. `h` is always last, so what is hashed is the parts
as they are, and a payload is finished by a suffix of fixed length: `,"h":"9f2c..."}` in JSON,
`a1 68 b0` and 16 bytes in MessagePack. A snapshot's checksum `s` stands there in the same way. Pure;
the fields and the chain are in `record`, formats of one's own in `serializer`.
"""

from binascii import hexlify
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec
from blake3 import blake3

from kantad.values.content import encode_json, encode_msgpack
from kantad.values.moment import datetime_of, time_text
from kantad.values.record import SNAPSHOT_KIND, At, Kept, Snapshot, SnapshotHead, chain_after, checksum

DIGITS: Final = 16  # of a chain value or a checksum


class Codec(Protocol):
    """How records are encoded; times are microseconds since the epoch, `diff` is a patch."""

    name: str  # the format's name
    foreign: bool  # whether values may be timestamps and bytes, and keys integers
    h_mark: bytes  # what stands before the digits of a change's chain value, the last of its payload
    s_mark: bytes  # what stands before those of a snapshot's checksum
    closing: bytes  # what stands behind either
    ending: bytes  # what closes a payload that has neither
    id_mark: bytes  # what every record with an idempotency key holds
    kept_mark: bytes  # what every snapshot with a part of the idempotency window holds

    def change(
        self,
        micros: int,
        a: str,
        diff: Any,
        chain: bytes,
        *,
        v: int = 0,
        u: str | None = None,
        m: int | None = None,
        id: str | None = None,
        q: str | None = None,
        b: int = 0,
        about: str | None = None,
        kanta: str | None = None,
    ) -> tuple[bytes, bytes]:
        """The payload of a change record, and the chain after it."""
        opening, closing = self.ends(micros, a, v, u, m, id, q, b)
        if about is not None:
            opening = self.described(opening, about)
        if kanta is not None:
            opening, closing = self.settling(opening, closing, kanta)
        return self.finished((opening, self.encode(diff), closing), chain)

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
        """What stands before and behind the encoded patch in a change's payload, up to its `h`."""

    @staticmethod
    def keyed(opening: bytes, id: str, q: str) -> bytes:
        """The first of `ends`, which was made without an idempotency key, with one."""

    @staticmethod
    def described(opening: bytes, about: str) -> bytes:
        """The first of `ends` with a description of the change."""

    @staticmethod
    def settling(opening: bytes, closing: bytes, kanta: str) -> tuple[bytes, bytes]:
        """The `ends` of a change that says how records of kanta's before it are read (see `Change.kanta`)."""

    @staticmethod
    def encode(value: Any, /) -> bytes:
        """A value, or a patch, as it stands in a record."""

    @property
    def start(self) -> bytes:
        """What stands before the one member of an encoded patch."""

    @property
    def colon(self) -> bytes:
        """What stands between its key and its value."""

    @property
    def end(self) -> bytes:
        """What stands behind it."""

    def finished(self, parts: tuple[bytes, ...], chain: bytes) -> tuple[bytes, bytes]:
        """The payload of a change of which these are the parts up to its `h`, and the chain after it."""

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
        """The payload of a snapshot record; with `at`, one that stands beside the log, begins with that."""

    def sealed(self, hashed: bytes) -> bytes:
        """The payload of a snapshot of which this is all before its `s`."""
        return b"%b%b%b%b" % (hashed, self.s_mark, checksum(hashed).encode(), self.closing)

    def hashed(self, payload: bytes) -> bytes:
        """The part of a change payload that enters the chain: all before `h`, or all where there is none."""
        place = len(payload) - len(self.h_mark) - DIGITS - len(self.closing)
        if payload[place : place + len(self.h_mark)] == self.h_mark and payload.endswith(self.closing) and place >= 0:
            return payload[:place]
        return payload

    def chain_in(self, payload: bytes) -> bytes:
        """The chain value that a change's payload, which must have one, ends with."""
        return bytes.fromhex(self.digits(payload).decode())

    def digits(self, payload: bytes) -> bytes:
        """The digits that a payload, which must have some, ends with."""
        end = len(payload) - len(self.closing)
        return payload[end - DIGITS : end]

    def with_chain(self, payload: bytes, digits: bytes) -> bytes:
        """A change's payload, which has a chain value, with another one."""
        return payload[: len(payload) - len(self.closing) - DIGITS] + digits + self.closing

    def lost_h(self, payload: bytes, chain: bytes) -> bytes | None:
        """What a change would be without its `h`, where only the mark before the digits of that is damaged."""
        place = len(payload) - len(self.h_mark) - DIGITS - len(self.closing)
        if chain_after(chain, payload[:place]).hex().encode() != self.digits(payload):
            return None
        return payload[:place] + self.ending

    def decode(self, payload: bytes, kind: type[Any]) -> Any:
        """The record; raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError."""
        return self.decoder(kind)(payload)

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """`decode` for one kind of record, to be called often."""


class JsonCodec(Codec):
    """Records as JSON objects."""

    name = "json"
    foreign = False
    h_mark, s_mark, closing, id_mark = b',"h":"', b',"s":"', b'"}', b',"id":"'
    ending, kept_mark = b"}", b',"answers":'
    encode = staticmethod(encode_json)
    start, colon, end = b"{", b":", b"}"

    def __init__(self) -> None:
        self._decoders: dict[type[Any], Callable[[bytes], Any]] = {}
        self._hasher = blake3()  # used again and again: a new one costs a third more, and 2 KB

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
        start = f'{{"ts":"{time_text(micros)}","a":{_quoted(a)}'
        if v or u is not None or m is not None or id is not None:
            start += _optional(v, u, m, id, q).decode()
        return f'{start},"diff":'.encode(), b',"b":%d' % b if b else b""

    @staticmethod
    def keyed(opening: bytes, id: str, q: str) -> bytes:
        """See Codec."""
        return b'%b,"id":%b,"q":"%b","diff":' % (opening[:-8], encode_json(id), q.encode())

    @staticmethod
    def described(opening: bytes, about: str) -> bytes:
        """See Codec."""
        return b'%b,"about":%b,"diff":' % (opening[:-8], encode_json(about))

    @staticmethod
    def settling(opening: bytes, closing: bytes, kanta: str) -> tuple[bytes, bytes]:
        """See Codec."""
        return opening, b',"kanta":"%b"%b' % (kanta.encode(), closing)

    def finished(self, parts: tuple[bytes, ...], chain: bytes) -> tuple[bytes, bytes]:
        """See Codec."""
        hashed, hasher = b"".join(parts), self._hasher
        hasher.reset()
        hasher.update(chain + hashed)
        chain = hasher.digest(8)
        return b"".join((hashed, b',"h":"', hexlify(chain), b'"}')), chain

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
        """See Codec."""
        hashed = b'{%b"ts":"%b","v":%d,"state":%b%b,"r":%d,"k":%d%b,"h":"%b"' % (
            b"" if at is None else encode_json(_members(at))[1:-1] + b",",
            time_text(micros).encode(),
            v,
            encode_json(state),
            _optional(0, None, m, None, None),
            r,
            SNAPSHOT_KIND,
            b"" if kept is None else b',"ids":%b,"answers":%b' % (encode_json(kept.ids), encode_json(kept.answers)),
            chain.hex().encode(),
        )
        return self.sealed(hashed)

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """See Codec."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = msgspec.json.Decoder(kind).decode
        return decode


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return encode_json(text).decode()


def _optional(v: int, u: str | None, m: int | None, id: str | None, q: str | None) -> bytes:
    parts = b""
    if v:
        parts += b',"v":%d' % v
    if u is not None:
        parts += b',"u":' + encode_json(u)
    if m is not None:
        parts += b',"m":"%b"' % time_text(m).encode()
    if id is not None:
        parts += b',"id":' + encode_json(id)
    if q is not None:
        parts += b',"q":' + encode_json(q)
    return parts


class MsgpackCodec(Codec):
    """Records as MessagePack maps; times are timestamps."""

    name = "msgpack"
    foreign = True
    h_mark, s_mark, closing, id_mark = b"\xa1h\xb0", b"\xa1s\xb0", b"", b"\xa2id"
    ending, kept_mark = b"", b"\xa7answers"
    encode = staticmethod(encode_msgpack)
    start, colon, end = b"\x81", b"", b""

    def __init__(self) -> None:
        self._decoders: dict[type[Any], Callable[[bytes], Any]] = {}
        self._hasher = blake3()  # used again and again: a new one costs a third more, and 2 KB

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
        fields: dict[str, Any] = {"ts": datetime_of(micros), "a": a}
        if v:
            fields["v"] = v
        if u is not None:
            fields["u"] = u
        if m is not None:
            fields["m"] = datetime_of(m)
        if id is not None:
            fields["id"] = id
        if q is not None:
            fields["q"] = q
        members = b"%c" % (0x80 + len(fields) + (3 if b else 2))  # with `diff`, `b` and `h`: a map of fewer than 16
        return members + encode_msgpack(fields)[1:] + b"\xa4diff", b"\xa1b" + encode_msgpack(b) if b else b""

    @staticmethod
    def keyed(opening: bytes, id: str, q: str) -> bytes:
        """See Codec."""
        members = encode_msgpack({"id": id, "q": q})[1:]
        return b"%c%b%b\xa4diff" % (opening[0] + 2, opening[1:-5], members)

    @staticmethod
    def described(opening: bytes, about: str) -> bytes:
        """See Codec."""
        return b"%c%b%b\xa4diff" % (opening[0] + 1, opening[1:-5], encode_msgpack({"about": about})[1:])

    @staticmethod
    def settling(opening: bytes, closing: bytes, kanta: str) -> tuple[bytes, bytes]:
        """See Codec."""
        return b"%c%b" % (opening[0] + 1, opening[1:]), encode_msgpack({"kanta": kanta})[1:] + closing

    def finished(self, parts: tuple[bytes, ...], chain: bytes) -> tuple[bytes, bytes]:
        """See Codec."""
        hashed, hasher = b"".join(parts), self._hasher
        hasher.reset()
        hasher.update(chain + hashed)
        chain = hasher.digest(8)
        return b"".join((hashed, b"\xa1h\xb0", hexlify(chain))), chain

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
        """See Codec."""
        fields: dict[str, Any] = {} if at is None else _members(at)
        fields |= {"ts": datetime_of(micros), "v": v, "state": state}
        if m is not None:
            fields["m"] = datetime_of(m)
        fields |= {"r": r, "k": SNAPSHOT_KIND}
        if kept is not None:
            fields |= {"ids": kept.ids, "answers": kept.answers}
        fields |= {"h": chain.hex(), "s": "0123456789abcdef"}
        return self.sealed(encode_msgpack(fields)[: -len(self.s_mark) - DIGITS])

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """See Codec."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = msgspec.msgpack.Decoder(kind).decode
        return decode


def _members(at: At) -> dict[str, Any]:
    return {name: value for name, value in at._asdict().items() if value is not None}


def is_whole_snapshot(codec: Codec, payload: bytes, snapshot: Snapshot | SnapshotHead) -> bool:
    """Whether a snapshot's own checksum holds; one without `s` (kanta's) has none to fail."""
    if snapshot.s is None:
        return True
    return checksum(payload[: len(payload) - len(codec.s_mark) - DIGITS - len(codec.closing)]) == snapshot.s
