"""Change records as feeds and listings give them, made of log records without encoding them again.

A *tail* is a change record's JSON text without its opening brace, so that each kind of feed can put
its own members in front: `"rev":17,"cursor":"17-…","ts":…,"diff":{…}}`. What only the log needs
(`q`, `b`, `h`) is left out. Pure.
"""

from typing import Any, Final

from kantad.values.astext import as_text
from kantad.values.codec import Codec
from kantad.values.content import decode_json, encode_json
from kantad.values.moment import micros_of, time_text
from kantad.values.narrow import DELETED, Verdict, narrowed
from kantad.values.pointer import Path
from kantad.values.record import Change

_DIFF: Final = b',"diff":'


class Events:
    """The change records of one log."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.json = codec.name == "json"
        self._latest: tuple[bytes, Any] = (b"", None)  # a record and its patch, which is not changed

    def cursor(self, rev: int, payload: bytes) -> bytes:
        """The cursor of a change."""
        return b"%d-%b" % (rev, payload[-18:-2] if self.json else payload[-16:])

    def tail(self, rev: int, payload: bytes) -> bytes:
        """The tail of a whole change."""
        if self.json:
            head, diff = _split(payload)
            return b'"rev":%d,"cursor":"%b",%b,"diff":%b}' % (rev, self.cursor(rev, payload), head, diff)
        return encode_json(self.record(rev, payload))[1:]

    def below(self, rev: int, payload: bytes, path: Path) -> bytes | Verdict:
        """The tail of a change's part below a path, or that it is UNTOUCHED or UNCLEAR."""
        latest, patch = self._latest
        if latest is not payload:
            patch = self.diff(payload)
            self._latest = payload, patch
        part = narrowed(patch, path)
        if isinstance(part, Verdict) and part is not DELETED:
            return part
        return self.with_part(rev, payload, None if part is DELETED else self.encoded(part))

    def with_part(self, rev: int, payload: bytes, part: bytes | None) -> bytes:
        """The tail of a change with another patch, as JSON; None: the value was deleted."""
        if self.json:
            head, _ = _split(payload)
            start = b'"rev":%d,"cursor":"%b",%b' % (rev, self.cursor(rev, payload), head)
        else:
            record = self.record(rev, payload)
            del record["diff"]
            start = encode_json(record)[1:-1]
        return start + (b',"deleted":true}' if part is None else b',"diff":%b}' % part)

    def encoded(self, patch: Any) -> bytes:
        """A canonical patch of this log as JSON."""
        return encode_json(as_text(patch) if self.codec.foreign else patch)

    def diff(self, payload: bytes) -> Any:
        """A change's patch."""
        if self.json:
            return decode_json(_split(payload)[1])
        record: Change = self.codec.decode(payload, Change)
        return record.diff

    def record(self, rev: int, payload: bytes) -> dict[str, Any]:
        """A whole change as an object."""
        logged: Change = self.codec.decode(payload, Change)
        found: dict[str, Any] = {"rev": rev, "cursor": self.cursor(rev, payload).decode()}
        found["ts"] = time_text(micros_of(logged.ts))
        found["a"] = logged.a
        if logged.v:
            found["v"] = logged.v
        if logged.u is not None:
            found["u"] = logged.u
        if logged.m is not None:
            found["m"] = time_text(micros_of(logged.m))
        if logged.id is not None:
            found["id"] = logged.id
        if logged.about is not None:
            found["about"] = logged.about
        found["diff"] = as_text(logged.diff) if self.codec.foreign else logged.diff
        return found


def revision_of(tail: bytes) -> int:
    """The revision of a tail, which begins with it."""
    return int(tail[6 : tail.index(b",")])


def _split(payload: bytes) -> tuple[bytes, bytes]:
    """The members of a JSON record before its patch, and the patch. Within strings no quote stands unescaped."""
    middle = payload.index(_DIFF)
    end = len(payload) - 24
    if payload[end - 1] != 0x7D:  # `kanta` or `b` stands between
        end = payload.rindex(b"}", 0, end) + 1
    head = payload[1:middle]
    place = head.find(b',"q":"')
    if place >= 0:
        head = head[:place] + head[place + 15 :]
    return head, payload[middle + 8 : end]
