"""Keys for new children: unique without asking anybody, and sorted by time. Called by the engine and the client."""

import os
from uuid import UUID


def time_ordered_key(micros: int) -> str:
    """A new UUIDv7 (RFC 9562 section 5.7): the time in milliseconds, 12 bits of its fraction, 62 random bits."""
    millis, rest = divmod(micros, 1000)
    bits = millis << 80 | 7 << 76 | (rest * 4096 // 1000) << 64 | 2 << 62
    return str(UUID(int=bits | int.from_bytes(os.urandom(8)) >> 2))
