"""What is asked about the past of a log, and what is answered: msgspec structs and their framing.

A message between two processes is its length (8 bytes, little-endian) and MessagePack; the bytes of a
value follow their answer as they are. Both ends are of one version: nothing here is kept or sent elsewhere.
"""

from typing import Any, Final

import msgspec

from kantad.values.pointer import Path
from kantad.values.view import VALUE, View

LENGTH: Final = 8  # bytes


class Question(msgspec.Struct):
    """The value at a path and revision, or, with `micros` instead of a revision, the revision of that time.

    `identity` is the file's device and inode, `end` where its whole records end, `oldest` its first revision.
    """

    file: str
    identity: tuple[int, int]
    end: int
    oldest: int
    rev: int = 0
    micros: int | None = None
    path: Path = ()
    view: View = VALUE
    format: str | None = None  # where the bytes do not tell


class Reply(msgspec.Struct):
    """The answer; `size` bytes follow. Where `code` is not empty it is that of a problem; `fault` says what failed."""

    rev: int = 0
    chain: bytes = b""
    tag: str | None = None
    size: int = 0
    code: str = ""
    detail: str = ""
    more: dict[str, Any] = {}
    fault: str = ""


Answer = tuple[Reply, bytes]

encode = msgspec.msgpack.Encoder().encode
decode_question = msgspec.msgpack.Decoder(Question).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def message(part: msgspec.Struct) -> bytes:
    """A message's bytes."""
    data = encode(part)
    return len(data).to_bytes(LENGTH, "little") + data
