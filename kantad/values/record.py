"""Log records: their fields, their encoding in both formats, the hash chain, cursors.

`c(0)` is 8 zero bytes; `c(n)` the first 8 bytes of BLAKE3(`c(n-1)` + payload of record n up to its
`h`). `h` is always last, so a payload is encoded once, hashed as far as it stands, and finished by
a suffix of fixed length: `,"h":"9f2c..."}` in JSON, `a1 68 b0` and 16 bytes in MessagePack. A
record without `h` (another program's) enters the chain with its whole payload. A snapshot's `h` is
the chain at its revision; `s`, a checksum of the payload before it, is last there.

Pure. The store writes and reads what this makes; cursors are what clients see of the chain.
"""

import re
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from blake3 import blake3

from kantad.values.errors import Problem

CHAIN_START: Final = bytes(8)
SNAPSHOT_KIND: Final = 1  # the `k` of snapshots whose `r` can be trusted
LABEL: Final = 256  # characters of an action or a user
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and what UTF-8 has no form for
ChainText = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]  # anything else does not decode


def label(text: Any, name: str) -> str:
    """An action or a user, if it is one: at most 256 characters, none of them a control character; raises `Problem`."""
    if type(text) is not str or len(text) > LABEL or _CONTROL.search(text):
        raise Problem(
            "invalid_parameter", f"{name} has at most {LABEL} characters and no control characters", parameter=name
        )
    return text


class Change(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A change record as read from a log; `ts` as the format holds it (text or datetime)."""

    ts: Any
    a: str = ""
    v: int = 0
    u: str | None = None
    m: Any = None
    id: str | None = None
    q: str | None = None
    about: str | None = None
    diff: dict[Any, Any] = {}
    kanta: str | None = None  # `0.1` or `0.9`: as whose records of kanta's before it are read that read in two ways
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
    h: ChainText | None = None
    s: str | None = None


class SnapshotHead(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A snapshot record without its state."""

    ts: Any = None
    r: int = 0
    k: int = 0
    h: ChainText | None = None
    s: str | None = None
    at: int | None = None
    log: str | None = None
    kanta: str | None = None


class Kept(msgspec.Struct):
    """The idempotency window in a snapshot that a compaction made, or that stands beside the log: `ids` are
    `[id, q, rev]`, and for each of them `answers` has what its first answer said besides: the time in microseconds,
    the chain value, the outline of the patch (see `outline`), where the record may be held no longer."""

    ids: list[tuple[str, str, int]] = []
    answers: list[tuple[int, ChainText, Any]] = []


class At(NamedTuple):
    """Where a snapshot beside the log is of: `at` is where the last change in it stands there.

    If that says no chain value, `log` is the BLAKE3 of the log up to its end, as 64 hex digits. `kanta` as in `Change`,
    where no record of the log says it.
    """

    at: int
    log: str | None = None
    kanta: str | None = None


class SnapshotBeside(Snapshot):
    """One that stands beside the log: `At`, flat, and the window, as `Kept`."""

    at: int | None = None
    log: str | None = None
    kanta: str | None = None
    ids: list[tuple[str, str, int]] = []
    answers: list[tuple[int, ChainText, Any]] = []


def chain_after(chain: bytes, hashed: bytes) -> bytes:
    """The chain value after a record whose hashed part this is."""
    return blake3(chain + hashed).digest(length=8)


def checksum(hashed: bytes) -> str:
    """A snapshot's `s` over its payload up to `s`."""
    return blake3(hashed).hexdigest(length=8)


def cursor(rev: int, chain: bytes) -> str:
    """The cursor of a revision."""
    return f"{rev}-{chain.hex()}"


FARTHEST: Final = 10**19


def parse_cursor(text: str | int, name: str) -> tuple[int, str | None]:
    """A revision or a cursor as (revision, chain or None); raises `Problem("invalid_parameter")`.

    All revisions of more than 19 digits are one that no database reaches: ahead of it, and not malformed.
    """
    if type(text) is int and text >= 0:
        return text, None
    if type(text) is str:
        number, dash, chain = text.partition("-")
        if number.isascii() and number.isdigit():
            rev = int(number) if len(number) < 20 else FARTHEST
            if not dash:
                return rev, None
            if len(chain) == 16 and all(c in "0123456789abcdef" for c in chain):
                return rev, chain
    raise Problem("invalid_parameter", f"{name} is a revision or a cursor", parameter=name)


DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
