"""A log in the other format, or kanta's made kantad's: the same changes, encoded anew, with a chain of their own.

Revisions, times, actions, users, keys and batches stay what they are; each change's patch is canonical
afterwards, whichever dialect it was in. The chain is over the bytes of the records, so the cursors are
other ones; it goes on from that of the snapshot that the file begins with, if it does. From kantad's own file
there and back gives the same bytes, so the same cursors.

MessagePack may hold what JSON has no word for. In JSON it is then what a reader of it is shown:
timestamps as RFC 3339, byte strings as base64, integer keys as decimal strings. That is not undone on the way back.

The log is read twice: at first from its start to its end, as a check does, which also tells how kanta's
unclear records are read; nothing is written of a log that is damaged. Reads a buffer, gives bytes; no I/O.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from kantad.store.canonical import lenient_effect, meant, verbatim_effect
from kantad.store.dialects import Sign, signs
from kantad.store.recovery import damaged
from kantad.store.verify import Walk
from kantad.values.astext import as_text, keys_deleted
from kantad.values.codec import Codec
from kantad.values.diff import SAME, difference
from kantad.values.framing import Frame, Framing
from kantad.values.moment import micros_of
from kantad.values.record import Change, Kept


class Told(msgspec.Struct):
    """What a snapshot tells besides its state."""

    ts: Any
    v: int = 0
    m: Any = None


class Conversion:
    """The first `end` bytes of a log, whole records all of them, to be framed and encoded otherwise.

    `rev`, `chain` and `state` are those of its end, once `parts` were gone through.
    """

    def __init__(self, buffer: Any, end: int, framing: Framing, codec: Codec, to: Framing, encoded: Codec) -> None:
        self.buffer, self.end, self.framing, self.codec = buffer, end, framing, codec
        self.to, self.encoded = to, encoded
        self.as_text = codec.foreign and not encoded.foreign
        self.verbatim: list[range] = []  # revisions whose unclear records are read as kanta 0.9's
        self._survey()
        self.walk = self._walk()
        self.chain, self.micros = self.walk.replayer.chain, 0
        self.before: dict[str, Any] | None = None  # the state before a snapshot of kanta's that told another one

    @property
    def rev(self) -> int:
        """The revision that it came to."""
        return self.walk.replayer.rev

    def _walk(self) -> Walk:
        return Walk(self.buffer, self.end, self.framing, self.codec)

    def _survey(self) -> None:
        """Read it all; raises `Damaged`."""
        walk = self._walk()
        replayer, begun, taken = walk.replayer, 0, 0
        for _ in walk.records():
            if begun and replayer.rival is None:
                if replayer.taken > taken:
                    self.verbatim.append(range(begun, replayer.rev + 1))
                begun = 0
            elif replayer.rival is not None and not begun:
                begun, taken = replayer.rev, replayer.taken
        if walk.why:
            raise damaged(self.buffer, self.framing, self.codec, walk.place, walk.why)
        if begun and replayer.seen & Sign.B:
            self.verbatim.append(range(begun, replayer.rev + 1))

    def parts(self, offset: int) -> Iterator[bytes]:
        """The records' bytes, the first to be written at this offset; raises `Damaged`."""
        walk = self.walk
        while isinstance(frame := self.framing.next(self.buffer, walk.place, self.end), Frame):
            payload = self._snapshot(frame) if frame.snapshot else self._change(frame)
            if payload is not None:
                framed = self.to.frame(payload, offset, frame.snapshot)
                offset += len(framed)
                yield framed
        if self.before is not None:  # nothing follows that could tell what kanta's snapshot changed
            replayer = self.walk.replayer
            payload = self._encoded(Change(ts=None, a="convert", v=replayer.v), self._difference())
            replayer.rev += 1
            yield self.to.frame(payload, offset)

    def _take(self, frame: Frame) -> None:
        if not self.walk.take(frame):
            raise damaged(self.buffer, self.framing, self.codec, self.walk.place, self.walk.why)

    def _snapshot(self, frame: Frame) -> bytes | None:
        """The snapshot; None for one of kanta's that is not what the records before it make."""
        walk, replayer = self.walk, self.walk.replayer
        first, before = not (walk.changes or walk.snapshots), replayer.state
        self._take(frame)
        kept = Kept()
        if first:
            self.chain, kept = replayer.chain, self.codec.decode(frame.payload, Kept)
        elif replayer.state is not before and self.before is None:
            self.before = before
        if self.before is not None:
            return None
        told: Told = self.codec.decode(frame.payload, Told)
        self.micros = max(self.micros, micros_of(told.ts))
        m = None if told.m is None else micros_of(told.m)
        window = kept if kept.ids else None
        return self.encoded.snapshot(self.micros, replayer.state, replayer.rev, self.chain, v=told.v, m=m, kept=window)

    def _change(self, frame: Frame) -> bytes | None:
        """The change; None for kanta's doubled record."""
        replayer = self.walk.replayer
        record: Change = self.codec.decode(frame.payload, Change)
        rev = replayer.rev
        verbatim = any(rev + 1 in part for part in self.verbatim)
        diff = self._meant(record, verbatim)
        self._take(frame)
        if replayer.rev == rev:
            return None
        if replayer.rival is not None:
            if verbatim:
                replayer.take_rival()
            replayer.rival = None
        return self._encoded(record, diff if self.before is None else self._difference())

    def _meant(self, record: Change, verbatim: bool) -> Any:
        """The canonical patch of a record."""
        if record.h is not None:
            return record.diff
        replayer = self.walk.replayer
        if not replayer.certain and signs(record.diff, replayer.state) is Sign.UNCLEAR:
            read = verbatim_effect if verbatim else lenient_effect
            diff = read(replayer.state, record.diff)
            return {} if diff is SAME else diff
        return meant(replayer, record)[1]

    def _difference(self) -> Any:
        """The patch from the state that was put aside to the present one."""
        diff, self.before = difference(self.before, self.walk.replayer.state), None
        return {} if diff is SAME else diff

    def _encoded(self, record: Change, diff: Any) -> bytes:
        if self.as_text:
            diff = as_text(keys_deleted(diff, self.walk.replayer.state))
        self.micros = max(self.micros, micros_of(record.ts))
        m = None if record.m is None else micros_of(record.m)
        payload, self.chain = self.encoded.change(
            *(self.micros, record.a, diff, self.chain),
            v=record.v,
            u=record.u,
            m=m,
            id=record.id,
            q=record.q,
            b=record.b,
            about=record.about,
        )
        return payload
