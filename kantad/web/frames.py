"""WebSocket frames as bytes (RFC 6455 section 5), from a client and to one. No I/O; no extensions.

A client's frames are masked, a server's are not. Whatever the RFC forbids ends the connection with
the close code it names; so does a message over the size limit, which is known from a frame's head,
before anything of it is kept.
"""

from typing import Final, NamedTuple

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
INVALID_TEXT: Final = 1007
POLICY: Final = 1008
TOO_BIG: Final = 1009
INTERNAL: Final = 1011

MOST_FRAGMENTS: Final = 16_384  # of one message

_EMPTY: Final = bytes(4)
_WHOLE: Final = (0x80 | TEXT, 0x80 | BINARY)  # the first byte of a message in one frame
_OWN_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Fault(Exception):
    """A client broke the protocol: the close code, and why in a few words."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Message(NamedTuple):
    """A whole message or control frame, unmasked."""

    opcode: int
    payload: bytes


class Head(NamedTuple):
    """The head of a frame; `end` is where the frame ends in the buffer."""

    fin: bool
    opcode: int
    mask: bytes
    start: int
    end: int


class Frames:
    """What a client sent so far. `most` is how many bytes a message may have."""

    __slots__ = ("fault", "fragments", "missing", "most", "opcode", "pieces", "received")

    def __init__(self, most: int) -> None:
        self.most = most
        self.pieces: list[
            bytearray
        ] = []  # what is not whole yet, in one: many short pieces would cost twenty times that
        self.missing = 0  # bytes until it is worth looking again
        self.opcode = 0  # of the fragmented message
        self.fragments: list[bytes] | None = None
        self.received = 0  # bytes of the fragments
        self.fault: Fault | None = None  # what comes behind the last messages that `feed` gave

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now; raises `Fault`, or notes it where there are messages before it."""
        if not self.pieces and self.fragments is None and (message := self._only(data)) is not None:
            return [message]
        if self.pieces:
            self.pieces[0] += data
            self.missing -= len(data)
            if self.missing > 0:
                return []
            data = bytes(self.pieces.pop())
        found: list[Message] = []
        try:
            self._read(data, found)
        except Fault as fault:
            if not found:
                raise
            self.fault = fault
        return found

    def _read(self, data: bytes, found: list[Message]) -> None:
        place = 0
        while place < len(data):
            head = self._head(data, place)
            if head is None or head.end > len(data):
                self.pieces.append(bytearray(data[place:]))
                self.missing = 1 if head is None else head.end - len(data)
                break
            message = self._taken(head, data)
            if message is not None:
                found.append(message)
            place = head.end

    def _only(self, data: bytes) -> Message | None:
        """The message of data that is one whole frame of the commonest kind; else None, and nothing is said of it."""
        size = len(data)
        if size < 6 or data[0] not in _WHOLE:
            return None
        length, start = data[1] - 0x80, 6
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 8
            if length < 126:
                return None
        if size != start + length or length > self.most:
            return None
        mask, payload = data[start - 4 : start], data[start:]
        if mask != _EMPTY:
            payload = masked(payload, mask)
        if data[0] == _WHOLE[0] and not payload.isascii():
            check_text(payload)
        return Message(data[0] & 0x0F, payload)

    def _head(self, data: bytes, place: int) -> Head | None:
        """The head of the frame that begins at a place; None if there is not all of it. Raises `Fault`."""
        if place + 2 > len(data):
            return None
        first, second = data[place], data[place + 1]
        fin, opcode, length = first >= 0x80, first & 0x0F, second & 0x7F
        if first & 0x70:
            raise Fault(PROTOCOL_ERROR, "reserved bits are set")
        if second < 0x80:
            raise Fault(PROTOCOL_ERROR, "a client's frames are masked")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise Fault(PROTOCOL_ERROR, "there is no such opcode")
        if opcode >= CLOSE and (not fin or length > 125):
            raise Fault(PROTOCOL_ERROR, "a control frame is whole and short")
        start = place + 2
        if length >= 126:
            size, least = (2, 126) if length == 126 else (8, 1 << 16)
            if start + size > len(data):
                return None
            length = int.from_bytes(data[start : start + size], "big")
            if not least <= length < 1 << 63:
                raise Fault(PROTOCOL_ERROR, "a frame's length is not in its shortest form")
            start += size
        if opcode < CLOSE:
            self._check_order(opcode, length)
        if start + 4 > len(data):
            return None
        return Head(fin, opcode, data[start : start + 4], start + 4, start + 4 + length)

    def _check_order(self, opcode: int, length: int) -> None:
        """Raise the `Fault` of a data frame that may not come now, or is too much."""
        if (opcode == CONTINUATION) is (self.fragments is None):
            raise Fault(PROTOCOL_ERROR, "a continuation continues a message, and nothing else does")
        if self.received + length > self.most:
            raise Fault(TOO_BIG, f"a message has at most {self.most} bytes (--max-body)")
        if self.fragments is not None and len(self.fragments) >= MOST_FRAGMENTS:
            raise Fault(POLICY, f"a message has at most {MOST_FRAGMENTS} fragments")

    def _taken(self, head: Head, data: bytes) -> Message | None:
        """The message that a whole frame completes, if it does; raises `Fault`."""
        payload = data[head.start : head.end]
        if head.mask != _EMPTY:
            payload = masked(payload, head.mask)
        if head.opcode >= CLOSE:
            return Message(head.opcode, payload)
        opcode = head.opcode or self.opcode
        if not head.fin or self.fragments is not None:
            if self.fragments is None:
                self.fragments, self.opcode = [], opcode
            self.fragments.append(payload)
            self.received += len(payload)
            if not head.fin:
                return None
            payload, self.fragments, self.received = b"".join(self.fragments), None, 0
        if opcode == TEXT and not payload.isascii():
            check_text(payload)
        return Message(opcode, payload)


def check_text(payload: bytes) -> None:
    """Raise the `Fault` of text that is not UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise Fault(INVALID_TEXT, f"a text is not valid UTF-8 at byte {error.start}") from None


def masked(payload: bytes, mask: bytes) -> bytes:
    """A payload with its mask applied or taken off (RFC 6455 section 5.3)."""
    size = len(payload)
    pattern = (mask * ((size >> 2) + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")


def close_code(payload: bytes) -> int:
    """The code of a client's close frame, `NORMAL` where it gives none; raises `Fault`."""
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in _OWN_CODES or 3000 <= code < 5000):
        raise Fault(PROTOCOL_ERROR, "there is no such close code")
    check_text(payload[2:])
    return code


def frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame, whole."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x80 | opcode, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def payload_of(data: bytes) -> bytes:
    """The payload of a server's frame."""
    return data[{126: 4, 127: 10}.get(data[1], 2) :]


def close_frame(code: int, why: str = "") -> bytes:
    """A close frame; `why` is cut to what fits."""
    return frame(CLOSE, code.to_bytes(2, "big") + why.encode()[:120].decode(errors="ignore").encode())
