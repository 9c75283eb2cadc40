"""Logs to test with: made with the codecs and framings alone, in memory, batch by batch."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from kantad.store.formats import new_file
from kantad.values.codec import Codec
from kantad.values.framing import Framing
from kantad.values.patch import apply
from kantad.values.record import CHAIN_START, chain_after
from tests.own_formats import OWN

T0 = 1_750_000_000_000_000
SEED = b"\x7b\xe1\x05\x99"
FORMATS = ("json", "msgpack")
ALL = (*FORMATS, *OWN)


def parts(format: str) -> tuple[Framing, Codec]:
    """The framing and codec of a format."""
    return new_file(format, SEED)


@dataclass
class Point:
    """What a log holds up to an offset; `first` is the revision that its batch began with."""

    end: int
    rev: int
    chain: bytes
    state: dict[str, Any]
    kind: str = ""
    batch: int = 0


@dataclass
class Maker:
    """A log under construction; `points` are its states at the end of each record, from empty on."""

    format: str
    data: bytearray = field(default_factory=bytearray)
    rev: int = 0
    chain: bytes = CHAIN_START
    state: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    batches: int = 0
    tick: int = 7

    def __post_init__(self) -> None:
        self.framing, self.codec = parts(self.format)
        self.micros = T0
        self.data += SEED[: self.framing.header]
        if self.format == "json":
            self._mark("start")
        else:
            self.snapshot()

    @property
    def binary(self) -> bool:
        """Whether it is one of frames, not of lines."""
        return self.framing.header > 0

    def _mark(self, kind: str) -> None:
        point = Point(len(self.data), self.rev, self.chain, deepcopy(self.state), kind, self.batches)
        self.points.append(point)

    def change(self, diff: Any, first: int = 0, **fields: Any) -> None:
        """Append one change of the batch that began with revision `first` (0: this one)."""
        self.micros += self.tick
        if not first:
            self.batches += 1
        payload, self.chain = self.codec.change(self.micros, "act", diff, self.chain, b=first, **fields)
        self.rev += 1
        self.state = apply(self.state, diff)
        self.data += self.framing.frame(payload, len(self.data))
        self._mark("change")

    def batch(self, *diffs: Any, **fields: Any) -> None:
        """Append a batch of changes."""
        first = self.rev + 1
        for i, diff in enumerate(diffs):
            self.change(diff, first if i else 0, **fields)

    def snapshot(self, **fields: Any) -> None:
        """Append a snapshot."""
        self.batches += 1
        payload = self.codec.snapshot(self.micros, self.state, self.rev, self.chain, **fields)
        self.data += self.framing.frame(payload, len(self.data), True)
        self._mark("snapshot")

    def foreign(self, diff: Any, **fields: Any) -> None:
        """Append a record without `h`, as kanta 0.9 does."""
        self.micros += self.tick
        self.batches += 1
        payload = foreign_payload(self.format, self.micros, diff, **fields)
        self.chain = chain_after(self.chain, payload)
        self.rev += 1
        self.state = apply(self.state, diff)
        self.data += self.framing.frame(payload, len(self.data))
        self._mark("foreign")

    def prefix(self, size: int) -> Point:
        """The last whole record within the first `size` bytes."""
        return max((p for p in self.points if p.end <= size), key=lambda p: p.end)


def foreign_payload(format: str, micros: int, diff: Any, **fields: Any) -> bytes:
    """The payload of a change record without `h`."""
    codec = parts(format)[1]
    payload, _ = codec.change(micros, "kanta", diff, CHAIN_START, **fields)
    if format == "json":
        return payload[:-24] + b"}"
    if format != "msgpack":
        return payload[:-19]
    return bytes([payload[0] - 1]) + payload[1:-19]  # one entry less in the map's header


LOOKALIKE = {"ts": "2035-01-01T00:00:00.000000Z", "a": "x", "diff": {"z": 1}, "h": "0123456789abcdef"}


def every_kind(format: str) -> Maker:
    """A small log with every kind of record: ids, batches, unicode, snapshots between, a batch at the end."""
    log = Maker(format)
    log.change({"a": 1}, id="key-1", q="0badcafe")
    log.batch({"ü€𝄞": 'naïve\u2028\n"\\'}, {"list": [1, [2], {}]}, {"b": {"$replace": {"x": True}}}, u="ann")
    log.change({"like": [LOOKALIKE, LOOKALIKE, 'SNAPSHOT {"ts":1}\n']}, m=T0, v=2)
    log.snapshot()
    log.change({"list": {"$insert": [[0, "$$x"]]}, "$delete": ["a"]}, id="key-2", q="0badcafe")
    log.batch({"n": 1}, {"n": 2}, {"deep": {"er": {"n": None}}})
    return log
