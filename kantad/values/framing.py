"""How records are told apart in a file: JSON lines, or MessagePack frames with a keyed checksum.

Decoding is incremental and decides nothing about what damage means: from a position in a buffer
it gives a record, "need more", or damage with its reason. Whether damage is a torn tail is
`store.tail`'s question.

A MessagePack file begins with a 4-byte seed `S`. A frame is a marker (`S` for a snapshot, its
complement for a change), the payload's length (4 bytes, little-endian), a checksum (8 bytes) and
the payload; the checksum is keyed with the kind, `S` and the frame's offset in the file, so bytes
that stood elsewhere do not pass.
"""

import re
import struct
from typing import Any, Final, NamedTuple, Protocol

from blake3 import blake3


class Frame(NamedTuple):
    """One record in a buffer: where it starts and ends (framing included), its payload."""

    start: int
    end: int
    snapshot: bool
    payload: bytes


class More(NamedTuple):
    """The buffer ends within a record that begins at `start`."""

    start: int


class Bad(NamedTuple):
    """What stands at `start` is no record, and why."""

    start: int
    why: str


Decoded = Frame | More | Bad

OWN: Final = "own"  # a format that the user's code knows
OWN_ENDING: Final = re.compile(rb"[\t\0][hs]=[0-9a-f]{16}")  # what its records end with
OWN_LENGTH: Final = 19

_HEAD = struct.Struct("<4sI8s")  # marker, length, checksum


class Framing(Protocol):
    """What the store needs of a framing. Buffers are whole files (or maps of them): positions are offsets."""

    @property
    def header(self) -> int:
        """How many bytes stand before the first record."""

    @property
    def extra(self) -> int:
        """How many bytes a change takes besides its payload."""

    def frame(self, payload: bytes, offset: int, snapshot: bool = False) -> bytes:
        """The bytes to write at this offset of the file."""

    def batch(self, payloads: list[bytes], offset: int) -> bytes:
        """The bytes that these changes are, one behind the other, at this offset of the file."""

    def next(self, buffer: Any, start: int, end: int, base: int = 0) -> Decoded:
        """The record that begins at `start` (at `end` it is More); `base` is where a part of a file begins."""

    def last_snapshot(self, buffer: Any, end: int, start: int = 0) -> int:
        """The offset of the last record, from `start` on, that looks like a snapshot, or -1."""

    def changes(self, block: bytes, offset: int) -> list[bytes]:
        """The payloads of the whole changes that a block of the file, from `offset` on, begins with.

        For speed only: it may stop early, and a JSON payload may be anything.
        """


class JsonLines:
    """One record a line; a snapshot's line begins with `SNAPSHOT `. The lines of an `own` format are any text."""

    def __init__(self, own: bool = False) -> None:
        self.own = own

    header: Final = 0
    extra: Final = 1
    PREFIX: Final = b"SNAPSHOT "

    def frame(self, payload: bytes, offset: int, snapshot: bool = False) -> bytes:
        """See Framing."""
        return b"%b%b\n" % (self.PREFIX if snapshot else b"", payload)

    def batch(self, payloads: list[bytes], offset: int) -> bytes:
        """See Framing."""
        return b"\n".join(payloads) + b"\n"

    def next(self, buffer: Any, start: int, end: int, base: int = 0) -> Decoded:
        """See Framing; blank lines before the record are skipped."""
        while True:
            newline = buffer.find(b"\n", start, end)
            if newline < 0:
                return More(start)
            line = buffer[start:newline]
            if line.strip():
                break
            start = newline + 1
        if line.startswith(self.PREFIX):
            return Frame(start, newline + 1, True, line[len(self.PREFIX) :])
        return Frame(start, newline + 1, False, line)

    def last_snapshot(self, buffer: Any, end: int, start: int = 0) -> int:
        """See Framing."""
        found = buffer.rfind(b"\n" + self.PREFIX, max(0, start - 1), end)
        if found >= 0:
            return int(found) + 1
        return 0 if start == 0 < end and buffer[: len(self.PREFIX)] == self.PREFIX else -1

    def changes(self, block: bytes, offset: int) -> list[bytes]:
        """See Framing."""
        lines = block[: block.rfind(b"\n") + 1].split(b"\n")
        lines.pop()
        return lines


class BinaryFrames:
    """Frames behind a seed; see the module."""

    header: Final = 4
    HEAD: Final = 16
    extra: Final = HEAD

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.change_marker = bytes(~byte & 0xFF for byte in seed)

    def _checksum(self, payload: bytes, offset: int, snapshot: bool) -> bytes:
        kind = b"SNAPSHOT" if snapshot else b"DIFFRECD"
        key = b"Kanta blake3" + kind + self.seed + offset.to_bytes(8, "little")
        return blake3(payload, key=key).digest(length=8)

    def frame(self, payload: bytes, offset: int, snapshot: bool = False) -> bytes:
        """See Framing."""
        return b"%b%b%b%b" % (
            self.seed if snapshot else self.change_marker,
            len(payload).to_bytes(4, "little"),
            self._checksum(payload, offset, snapshot),
            payload,
        )

    def batch(self, payloads: list[bytes], offset: int) -> bytes:
        """See Framing."""
        frames = []
        for payload in payloads:
            frames.append(self.frame(payload, offset))
            offset += len(frames[-1])
        return b"".join(frames)

    def next(self, buffer: Any, start: int, end: int, base: int = 0) -> Decoded:
        """See Framing."""
        head = buffer[start : min(start + self.HEAD, end)]
        marker = head[:4]
        if len(head) < 4:
            return More(start)
        snapshot = marker == self.seed
        if not snapshot and marker != self.change_marker:
            return Bad(start, "no frame marker")
        if len(head) < self.HEAD:
            return More(start)
        stop = start + self.HEAD + int.from_bytes(head[4:8], "little")
        if stop > end:
            return More(start)
        payload = buffer[start + self.HEAD : stop]
        if self._checksum(payload, base + start, snapshot) != head[8:]:
            return Bad(start, "the frame's checksum does not match")
        return Frame(start, stop, snapshot, payload)

    def last_snapshot(self, buffer: Any, end: int, start: int = 0) -> int:
        """See Framing: the last seed that begins a frame whose checksum matches."""
        start = max(start, self.header)
        found = buffer.rfind(self.seed, start, end)
        while found >= start:
            if isinstance(self.next(buffer, found, end), Frame):
                return int(found)
            found = buffer.rfind(self.seed, start, found + 3)
        return -1

    def changes(self, block: bytes, offset: int) -> list[bytes]:
        """See Framing."""
        payloads = []
        place, end, marker, key = 0, len(block) - self.HEAD, self.change_marker, b"Kanta blake3DIFFRECD" + self.seed
        while place <= end:
            found, length, checksum = _HEAD.unpack_from(block, place)
            payload = block[place + 16 : place + 16 + length]
            digest = blake3(payload, key=key + (offset + place).to_bytes(8, "little")).digest(length=8)
            if found != marker or digest != checksum or len(payload) < length:
                break
            payloads.append(payload)
            place += 16 + length
        return payloads


def is_binary(head: bytes) -> bool:
    """Whether a file that begins so is one of frames: bytes 4 to 8 equal bytes 0 to 4 or their complement."""
    return len(head) >= 8 and head[4:8] in (head[:4], bytes(~byte & 0xFF for byte in head[:4]))


def detect(buffer: Any) -> str | None:
    """The format that a file's beginning tells: `json`, `msgpack`, OWN, or None (empty, or none of these).

    A seed may begin with `{`, so frames are looked for first. Whose they are, the first one tells.
    """
    head = bytes(buffer[:16])
    if is_binary(head):
        return OWN if _is_own_frame(buffer) else "msgpack"
    text = head.lstrip(b"\r\n\t ")
    newline = buffer.find(b"\n")
    if newline >= OWN_LENGTH and OWN_ENDING.match(buffer[newline - OWN_LENGTH : newline]):
        return OWN
    return "json" if text and (text[:1] == b"{" or b"SNAPSHOT {".startswith(text[:10])) else None


def shows(buffer: Any, format: str | None) -> bool:
    """Whether a file that `detect` says this of has a first record that begins as one of that format."""
    if format == "json":
        return bytes(buffer[:16]).lstrip(b"\r\n\t ").removeprefix(JsonLines.PREFIX).startswith(b'{"')
    return format == "msgpack" and b"\xa2ts" in buffer[20:28]


def _is_own_frame(buffer: Any) -> bool:
    """Whether the first record of a file of frames is neither kantad's nor kanta's in MessagePack."""
    end = 4 + BinaryFrames.HEAD + int.from_bytes(buffer[8:12], "little")
    ending = buffer[end - OWN_LENGTH : end]
    if len(ending) == OWN_LENGTH and OWN_ENDING.match(ending):
        return True
    if ending[:3] in (b"\xa1h\xb0", b"\xa1s\xb0"):
        return False
    frame = BinaryFrames(bytes(buffer[:4])).next(buffer, 4, min(end, len(buffer)))
    return isinstance(frame, Frame) and b"\xa2ts" not in frame.payload[:8]
