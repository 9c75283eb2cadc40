"""What a server tells the processes that write its log anew, or a snapshot beside it, and what it is told back.

Msgspec structs, framed as `question` does it. Of the log: an `Order` comes first, then any number of `Further`;
`Stay` is the last, and says that the new file has taken its place. Where the socket is closed without it, the process
removes what it made. Of a snapshot: a `Depict`, and a `Depicted` as the answer.
"""

from typing import Any, Final

import msgspec

from kantad.store.compaction import Rewritten

AT_ONCE: Final = 256  # outlines in a piece: decoding one takes less than a millisecond


class Order(msgspec.Struct, tag=True):
    """Write a file of this `format`, of which `end` bytes are whole records, anew.

    `rev` and `chain` are of the newest one of these.

    What is retained is `retain` (see `values.retention`) at the time `now`, in microseconds.
    """

    file: str
    identity: tuple[int, int]
    end: int
    oldest: int
    rev: int
    chain: bytes
    retain: str
    now: int
    archive: bool
    format: str


class Further(msgspec.Struct, tag=True):
    """Copy what came to the file, up to `end`."""

    end: int


class Stay(msgspec.Struct, tag=True):
    """The new file has taken its place: keep everything."""


class Report(msgspec.Struct):
    """What was done. `code` is empty where all went well; `nothing` where nothing is older than what is retained.

    `outlines` are pieces, each the MessagePack of a
    list of (idempotency key, outline), of the keyed changes that are cut off.
    """

    code: str = ""
    detail: str = ""
    done: Rewritten | None = None
    temporary: str = ""
    archive: str = ""
    is_new: bool = False  # the archive was made by this order
    outlines: list[msgspec.Raw] = []


class Depict(msgspec.Struct):
    """Write the snapshot of a file whose first `end` bytes are whole records under the name of one beside it.

    The file is of this `format`. `rev`, `chain` and `last` are of the newest change there: its revision, its chain
    value, where it stands.
    """

    file: str
    identity: tuple[int, int]
    end: int
    last: int
    rev: int
    chain: bytes
    format: str


class Depicted(msgspec.Struct):
    """What was written, synced: its name and its size in bytes. `code` is empty where all went well."""

    code: str = ""
    detail: str = ""
    temporary: str = ""
    bytes: int = 0


decode_depict = msgspec.msgpack.Decoder(Depict).decode
decode_depicted = msgspec.msgpack.Decoder(Depicted).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_task = msgspec.msgpack.Decoder(Order | Further | Stay).decode


def pieces(outlines: list[tuple[str, Any]]) -> list[msgspec.Raw]:
    """The `outlines` of a report."""
    encode = msgspec.msgpack.encode
    return [msgspec.Raw(encode(outlines[start : start + AT_ONCE])) for start in range(0, len(outlines), AT_ONCE)]
