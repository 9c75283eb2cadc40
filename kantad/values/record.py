"""Log records: their fields, their encoding in both formats, the hash chain, cursors.

`c(0)` is 8 zero bytes; `c(n)` the first 8 bytes of BLAKE3(`c(n-1)` + payload of record n up to its
`h`). `h` is always last, so a payload is encoded once, hashed as far as it stands, and finished by
a suffix of fixed length: `,"h":"9f2c..."}` in JSON, `a1 68 b0` and 16 bytes in MessagePack. A
record without `h` (another program's) enters the chain with its whole payload. A snapshot's `h` is
the chain at its revision; `s`, a checksum of the payload before it, is last there.

Pure. The store writes and reads what this makes; cursors are what clients see of the chain.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Protocol

import msgspec
from blake3 import blake3

from kantad.values.content import encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.moment import datetime_of, time_text

CHAIN_START: Final = bytes(8)
SNAPSHOT_KIND: Final = 1  # the `k` of snapshots whose `r` can be trusted
ChainText = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]  # anything else does not decode


class Change(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A change record as read from a log; `ts` as the format holds it (text or datetime)."""

    ts: Any
    a: str = ""
    v: int = 0
    u: str | None = None
    m: Any = None
    id: str | None = None
    q: str | None = None
    diff: dict[Any, Any] = {}
    b: int = 0
    h: str | None = None


class Step(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a replay needs of a change record: decoding only this is faster."""

    v: int = 0
    m: Any = None
    diff: dict[Any, Any] = {}
    b: int = 0


class Keyed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the idempotency window needs of a change record."""

    ts: Any
    id: str | None = None
    q: str | None = None
    h: ChainText | None = None


class Snapshot(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A snapshot record as read from a log."""

    ts: Any
    v: int
    state: dict[Any, Any]
    m: Any = None
    r: int = 0
    k: int = 0
    ids: list[list[Any]] = []
    h: ChainText | None = None
    s: str | None = None


class SnapshotHead(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A snapshot record without its state."""

    r: int = 0
    k: int = 0
    h: ChainText | None = None
    s: str | None = None


def chain_after(chain: bytes, hashed: bytes) -> bytes:
    """The chain value after a record whose hashed part this is."""
    return blake3(chain + hashed).digest(length=8)


def checksum(hashed: bytes) -> str:
    """A snapshot's `s` over its payload up to `s`."""
    return blake3(hashed).hexdigest(length=8)


def cursor(rev: int, chain: bytes) -> str:
    """The cursor of a revision."""
    return f"{rev}-{chain.hex()}"


def parse_cursor(text: str | int, name: str) -> tuple[int, str | None]:
    """A revision or a cursor as (revision, chain or None); raises `Problem("invalid_parameter")`."""
    if type(text) is int and text >= 0:
        return text, None
    if type(text) is str:
        number, dash, chain = text.partition("-")
        if number.isascii() and number.isdigit() and len(number) < 20:
            if not dash:
                return int(number), None
            if len(chain) == 16 and all(c in "0123456789abcdef" for c in chain):
                return int(number), chain
    raise Problem("invalid_parameter", f"{name} is a revision or a cursor", parameter=name)


Series = Callable[[Any, bytes, int], tuple[bytes, bytes]]  # diff, chain, b: the payload and the chain after it


class Codec(Protocol):
    """How records are encoded; times are microseconds since the epoch, `diff` is a patch."""

    @property
    def name(self) -> str:
        """The format's name."""

    @property
    def foreign(self) -> bool:
        """Whether values may be timestamps and bytes, and keys integers."""

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
    ) -> tuple[bytes, bytes]:
        """The payload of a change record, and the chain after it."""

    def snapshot(
        self,
        micros: int,
        state: Any,
        r: int,
        chain: bytes,
        *,
        v: int = 0,
        m: int | None = None,
        ids: list[list[Any]] | None = None,
    ) -> bytes:
        """The payload of a snapshot record."""

    def series(self, micros: int, a: str, v: int) -> Series:
        """`change` for several that have all but patch, chain and `b` in common."""

    def hashed(self, payload: bytes) -> bytes:
        """The part of a change payload that enters the chain: all before `h`, or all where there is none."""

    def chain_in(self, payload: bytes) -> bytes:
        """The chain value that a change's payload, which must have one, ends with."""

    def with_chain(self, payload: bytes, digits: bytes) -> bytes:
        """A change's payload, which has a chain value, with another one."""

    def decode(self, payload: bytes, kind: type[Any]) -> Any:
        """The record; raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError."""

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """`decode` for one kind of record, to be called often."""


class JsonCodec:
    """Records as JSON objects."""

    name = "json"
    foreign = False
    H_LENGTH: Final = 24  # ,"h":"0123456789abcdef"}

    def __init__(self) -> None:
        self._decoders: dict[type[Any], Callable[[bytes], Any]] = {}

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
    ) -> tuple[bytes, bytes]:
        """See Codec."""
        optional = b""
        if v or u is not None or m is not None or id is not None:
            optional = _optional(v, u, m, id, q)
        batch = b',"b":%d' % b if b else b""
        hashed = b'{"ts":"%b","a":%b%b,"diff":%b%b' % (
            time_text(micros).encode(),
            _quoted(a),
            optional,
            encode_json(diff),
            batch,
        )
        chain = blake3(chain + hashed).digest(length=8)
        return hashed + f',"h":"{chain.hex()}"}}'.encode(), chain

    def series(self, micros: int, a: str, v: int) -> Series:
        """See Codec."""
        optional = _optional(v, None, None, None, None) if v else b""
        start = b'{"ts":"%b","a":%b%b,"diff":' % (time_text(micros).encode(), _quoted(a), optional)

        def change(diff: Any, chain: bytes, b: int) -> tuple[bytes, bytes]:
            hashed = b'%b%b,"b":%d' % (start, encode_json(diff), b) if b else start + encode_json(diff)
            chain = blake3(chain + hashed).digest(length=8)
            return hashed + f',"h":"{chain.hex()}"}}'.encode(), chain

        return change

    def snapshot(
        self,
        micros: int,
        state: Any,
        r: int,
        chain: bytes,
        *,
        v: int = 0,
        m: int | None = None,
        ids: list[list[Any]] | None = None,
    ) -> bytes:
        """See Codec."""
        hashed = b'{"ts":"%b","v":%d,"state":%b%b,"r":%d,"k":%d%b,"h":"%b"' % (
            time_text(micros).encode(),
            v,
            encode_json(state),
            _optional(0, None, m, None, None),
            r,
            SNAPSHOT_KIND,
            b',"ids":' + encode_json(ids) if ids else b"",
            chain.hex().encode(),
        )
        return b'%b,"s":"%b"}' % (hashed, checksum(hashed).encode())

    def hashed(self, payload: bytes) -> bytes:
        """See Codec."""
        tail = payload[-self.H_LENGTH :]
        if tail[:6] == b',"h":"' and tail[-2:] == b'"}':
            return payload[: -self.H_LENGTH]
        return payload

    def chain_in(self, payload: bytes) -> bytes:
        """See Codec."""
        return bytes.fromhex(payload[-18:-2].decode())

    def with_chain(self, payload: bytes, digits: bytes) -> bytes:
        """See Codec."""
        return b'%b%b"}' % (payload[:-18], digits)

    def decode(self, payload: bytes, kind: type[Any]) -> Any:
        """See Codec."""
        return self.decoder(kind)(payload)

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """See Codec."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = msgspec.json.Decoder(kind).decode
        return decode


@lru_cache(maxsize=1024)
def _quoted(text: str) -> bytes:
    return encode_json(text)


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


class MsgpackCodec:
    """Records as MessagePack maps; times are timestamps."""

    name = "msgpack"
    foreign = True
    H_LENGTH: Final = 19  # a1 68 b0 and 16 digits

    def __init__(self) -> None:
        self._decoders: dict[type[Any], Callable[[bytes], Any]] = {}

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
        fields["diff"] = diff
        if b:
            fields["b"] = b
        fields["h"] = "0123456789abcdef"  # of the right length, so that the map's header is right
        hashed = encode_msgpack(fields)[: -self.H_LENGTH]
        chain = blake3(chain + hashed).digest(length=8)
        return b"%b\xa1h\xb0%b" % (hashed, chain.hex().encode()), chain

    def series(self, micros: int, a: str, v: int) -> Series:
        """See Codec."""
        return lambda diff, chain, b: self.change(micros, a, diff, chain, v=v, b=b)

    def snapshot(
        self,
        micros: int,
        state: Any,
        r: int,
        chain: bytes,
        *,
        v: int = 0,
        m: int | None = None,
        ids: list[list[Any]] | None = None,
    ) -> bytes:
        """See Codec."""
        fields: dict[str, Any] = {"ts": datetime_of(micros), "v": v, "state": state}
        if m is not None:
            fields["m"] = datetime_of(m)
        fields |= {"r": r, "k": SNAPSHOT_KIND}
        if ids:
            fields["ids"] = ids
        fields |= {"h": chain.hex(), "s": "0123456789abcdef"}
        hashed = encode_msgpack(fields)[: -self.H_LENGTH]
        return b"%b\xa1s\xb0%b" % (hashed, checksum(hashed).encode())

    def hashed(self, payload: bytes) -> bytes:
        """See Codec."""
        return payload[: -self.H_LENGTH] if payload[-self.H_LENGTH : -16] == b"\xa1h\xb0" else payload

    def chain_in(self, payload: bytes) -> bytes:
        """See Codec."""
        return bytes.fromhex(payload[-16:].decode())

    def with_chain(self, payload: bytes, digits: bytes) -> bytes:
        """See Codec."""
        return payload[:-16] + digits

    def decode(self, payload: bytes, kind: type[Any]) -> Any:
        """See Codec."""
        return self.decoder(kind)(payload)

    def decoder(self, kind: type[Any]) -> Callable[[bytes], Any]:
        """See Codec."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = msgspec.msgpack.Decoder(kind).decode
        return decode


DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def is_whole_snapshot(codec: Codec, payload: bytes, snapshot: Snapshot | SnapshotHead) -> bool:
    """Whether a snapshot's own checksum holds; one without `s` (kanta's) has none to fail."""
    if snapshot.s is None:
        return True
    suffix = 24 if codec.name == "json" else 19
    return checksum(payload[:-suffix]) == snapshot.s
