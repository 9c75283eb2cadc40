"""What stands behind damage, record by record, chained anew: the `--adopt` of the repair.

Goes on where a `Walk` stopped, with its replayer. A change is adopted if it is whole and fits the
state; one with `h` is encoded anew, without its batch, one of another program's stays as it is. A
snapshot that verifies is the truth: what the lost records had changed comes back as a change
`repair`. Old copies are passed over. Nobody but the repair calls this: it decides what an open refuses to.
"""

from collections.abc import Iterator
from typing import Any

from kantad.store.dialects import Sign, signs
from kantad.store.replay import Replayer
from kantad.store.tail import Last, Sound, records_from
from kantad.store.verify import Walk
from kantad.values.codec import Codec
from kantad.values.content import MISSING
from kantad.values.diff import SAME, difference
from kantad.values.framing import Framing
from kantad.values.moment import micros_of
from kantad.values.patch import KeyOrders, Undo, Unfit, apply, merge_verbatim
from kantad.values.record import Change, Snapshot, chain_after


class Adoption:
    """Adopts what stands behind a walk's end; counts what it did."""

    def __init__(self, buffer: Any, end: int, framing: Framing, codec: Codec, walk: Walk) -> None:
        self.buffer, self.end, self.framing, self.codec = buffer, end, framing, codec
        self.start = walk.place
        self.replayer: Replayer = walk.replayer
        self.adopted = self.unfit = self.snapshots = self.mended = 0
        self.before = b""  # the record before, where it was another program's
        self.link = self.replayer.chain  # the chain in the original behind the record before
        self.read_as = ""  # what `_reading` found, for the records up to the next one with `h`
        self.kanta: str | None = None  # what that one has to say
        self.first = self.replayer.rev + 1  # the first revision of the new chain
        self.unproven: list[
            tuple[int, int]
        ] = []  # the revisions, from and to, that the original's chain does not prove

    def frames(self, offset: int) -> Iterator[bytes]:
        """The bytes to write from this offset of the new file on."""
        replayer = self.replayer
        if replayer.rival is not None:
            replayer.settle(self._reading(self.start))
        self.before = replayer.before[1] if replayer.before is not None else b""
        last = Last(replayer.micros, replayer.chain)
        for sound in records_from(self.buffer, self.start, self.end, self.framing, self.codec, last):
            if isinstance(sound.record, Snapshot):
                payloads = self._snapshot(sound.record)
            else:
                payloads = self._change(sound, sound.record)
            for payload, snapshot in payloads:
                framed = self.framing.frame(payload, offset, snapshot)
                offset += len(framed)
                yield framed

    def _reading(self, place: int) -> str:
        """How kanta's records before and behind this place are read that can be read in two ways (see `Change.kanta`).

        The next change with `h` says it. If that does not, the one that did is lost; it said what the records before
        it showed, and now this one says that.
        """
        if not self.read_as:
            self.read_as = "0.9" if self.replayer.seen & Sign.B else "0.1"
            last = Last(self.replayer.micros, self.replayer.chain)
            for sound in records_from(self.buffer, place, self.end, self.framing, self.codec, last):
                if isinstance(sound.record, Snapshot):
                    break
                if sound.record.h is not None:
                    self.kanta = self.read_as = sound.record.kanta or self.read_as
                    break
        return self.read_as

    def _is_proven(self, sound: Sound, record: Change) -> bool:
        """Whether a record is what the original's chain says, of which the one before it is a part."""
        computed = chain_after(self.link, self.codec.hashed(sound.payload))
        try:
            self.link = computed if record.h is None else bytes.fromhex(record.h)
        except ValueError:
            self.link = computed
        return record.h == computed.hex()

    def _note_unproven(self) -> None:
        rev = self.replayer.rev
        if self.unproven and self.unproven[-1][1] == rev - 1:
            self.unproven[-1] = (self.unproven[-1][0], rev)
        else:
            self.unproven.append((rev, rev))

    def _change(self, sound: Sound, record: Change) -> list[tuple[bytes, bool]]:
        replayer, proven = self.replayer, self._is_proven(sound, record)
        if (without := replayer.without_lost_h(sound.payload)) is not None:
            record = self.codec.decode(without, Change)
            record.h = replayer.chain.hex()
        if record.h is None and sound.payload == self.before:
            return []  # kanta's doubled record counts once
        if not self._fits(record, sound.offset):
            self.unfit += 1
            return []
        if record.h is None:
            payload, chain = sound.payload, chain_after(replayer.chain, sound.payload)
        else:
            m = None if record.m is None else micros_of(record.m)
            micros = max(replayer.micros, micros_of(record.ts))
            payload, chain = self.codec.change(
                *(micros, record.a, record.diff, replayer.chain),
                v=record.v,
                u=record.u,
                m=m,
                id=record.id,
                q=record.q,
                about=record.about,
                kanta=self.kanta or record.kanta,
            )
            self.kanta, self.read_as = None, ""
        self._went_on(chain, micros_of(record.ts), record.v)
        self.before = sound.payload if record.h is None else b""
        self.adopted += 1
        if not proven:
            self._note_unproven()
        return [(payload, False)]

    def _fits(self, record: Change, place: int) -> bool:
        """Apply a change, which stands at a place, or leave the state as it was."""
        undo, state = Undo(KeyOrders()), self.replayer.state
        shown = signs(record.diff, state) if record.h is None else Sign.A
        try:
            if shown is Sign.UNCLEAR and not self.replayer.certain:
                shown = Sign.B if self._reading(place) == "0.9" else Sign.A
            if not shown & Sign.A and (shown & Sign.B or self.replayer.certain):
                merge_verbatim(state, record.diff, undo)
                return True
            changed = apply(state, record.diff, undo)
        except Unfit:
            undo.roll_back()
            return False
        return changed is state

    def _snapshot(self, snapshot: Snapshot) -> list[tuple[bytes, bool]]:
        replayer, self.before = self.replayer, b""
        if snapshot.h is not None:
            self.link = bytes.fromhex(snapshot.h)
        payloads = []
        micros = max(replayer.micros, micros_of(snapshot.ts))
        diff = difference(replayer.state, snapshot.state)
        if diff is not SAME and diff is not MISSING:
            payload, chain = self.codec.change(
                *(micros, "repair", diff, replayer.chain), v=snapshot.v, kanta=self.read_as or None
            )
            payloads.append((payload, False))
            replayer.state = snapshot.state
            self._went_on(chain, micros, snapshot.v)
            self.mended += 1
        m = None if snapshot.m is None else micros_of(snapshot.m)
        payload = self.codec.snapshot(micros, replayer.state, replayer.rev, replayer.chain, v=snapshot.v, m=m)
        payloads.append((payload, True))
        self.snapshots += 1
        self.kanta, self.read_as, replayer.certain = None, "", True
        return payloads

    def _went_on(self, chain: bytes, micros: int, v: int) -> None:
        replayer = self.replayer
        replayer.rev, replayer.chain, replayer.v = replayer.rev + 1, chain, v
        replayer.micros = max(replayer.micros, micros)
