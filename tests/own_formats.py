"""Formats of one's own to test with: classes that `--format` may name. CBOR frames, and two sorts of text lines."""

from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import cbor2
import msgspec

from kantad.store.formats import NotOurs, format_of
from kantad.values.framing import OWN as FOREIGN
from kantad.values.framing import Frame, detect
from kantad.values.record import DECODE_ERRORS, SnapshotHead

T = TypeVar("T")


class Cbor:
    """Records as CBOR, in frames."""

    framer = "frames"

    def encode(self, obj: Any) -> bytes:
        return cbor2.dumps(obj)

    def decode(self, payload: bytes, *, type: type[T]) -> T:
        return msgspec.convert(cbor2.loads(payload), type)


class Reversed:
    """Text that looks like nothing: the hexadecimal digits of JSON, backwards, in lines."""

    framer = "lines"

    def encode(self, obj: Any) -> bytes:
        return msgspec.json.encode(obj)[::-1].hex().encode()

    def decode(self, payload: bytes, *, type: type[T]) -> T:
        return msgspec.json.decode(bytes.fromhex(payload.decode())[::-1], type=type)


class Prefixed:
    """Text that is nearly kantad's own, in lines: JSON behind a word. What stands behind it is not looked at."""

    framer = "lines"

    def encode(self, obj: Any) -> bytes:
        return b"record " + msgspec.json.encode(obj)

    def decode(self, payload: bytes, *, type: type[T]) -> T:
        if payload[:7] != b"record ":
            raise ValueError("no record")
        end = payload.rindex(b"}") + 1
        return msgspec.json.decode(payload[7:end], type=type)


class KantaStyle:
    """As one writes a serializer for kanta."""

    framer_cls = __import__("kanta.serialization.framing", fromlist=["BinFramer"]).BinFramer

    def encode(self, obj: Any) -> bytes:
        return cbor2.dumps(msgspec.to_builtins(obj))

    def decode(self, payload: bytes, *, type: type[T]) -> T:
        return msgspec.convert(cbor2.loads(payload), type=type)


CBOR, REVERSED, PREFIXED, KANTA_STYLE = (
    f"tests.own_formats:{kind.__name__}" for kind in (Cbor, Reversed, Prefixed, KantaStyle)
)
OWN = (CBOR, REVERSED, PREFIXED)


def format_flag(path: Path | str) -> str | None:
    """What a test's file needs to be told to be opened: the name of its format where it is one's own."""
    return flag_of(Path(path).read_bytes())


def flags_for(path: Path | str) -> list[str]:
    """The same as arguments of a command."""
    name = format_flag(path)
    return [] if name is None else ["--format", name]


def flag_of(data: bytes) -> str | None:
    """The same of a file's content."""
    if detect(data) != FOREIGN:
        return None
    for name in OWN:
        with suppress(NotOurs, *DECODE_ERRORS):
            framing, codec = format_of(data, name)
            frame = framing.next(data, framing.header, len(data))
            if isinstance(frame, Frame) and codec.decode(frame.payload, SnapshotHead).h is not None:
                return name
    raise AssertionError("it is in none of these formats")
