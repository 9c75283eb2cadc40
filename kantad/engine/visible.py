"""The revision that readers see. Made by the engine once a batch, read by every answer."""

from kantad.values.record import cursor


class Visible:
    """The revision that readers see, the chain at it, its cursor, and both as header lines and as JSON members."""

    __slots__ = ("chain", "cursor", "lines", "members", "rev")

    def __init__(self, rev: int, chain: bytes) -> None:
        self.rev, self.chain, self.cursor = rev, chain, cursor(rev, chain)
        self.lines = b"Kanta-Revision: %d\r\nKanta-Cursor: %b\r\n" % (rev, self.cursor.encode())
        self.members = b'"rev":%d,"cursor":"%b"' % (rev, self.cursor.encode())
