"""Framing: every truncation, damage, kanta's framers, telling formats apart."""

from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from kanta.serialization.framing import BinFramer, LineFramer

from kantad.values.framing import Bad, BinaryFrames, Frame, Framing, JsonLines, More, detect

SEED = b"\x7b\xe1\x05\x99"
RECORDS = [(False, b'{"a":1}'), (True, b'{"state":{}}'), (False, b'{"b":2}'), (True, b'{"x":3}'), (False, b'{"c":4}')]


def framings() -> list[Framing]:
    return [JsonLines(), BinaryFrames(SEED)]


def written(framing: Framing, records: list[tuple[bool, bytes]]) -> tuple[bytes, list[Frame]]:
    data = SEED[: framing.header]
    frames = []
    for snapshot, payload in records:
        start = len(data)
        data += framing.frame(payload, start, snapshot)
        frames.append(Frame(start, len(data), snapshot, payload))
    return data, frames


def read(framing: Framing, data: bytes) -> tuple[list[Frame], More | Bad]:
    frames = []
    place = framing.header
    while True:
        found = framing.next(data, place, len(data))
        if not isinstance(found, Frame):
            return frames, found
        frames.append(found)
        place = found.end


@pytest.mark.parametrize("framing", framings())
def test_at_every_truncation_the_whole_records_are_read(framing: Framing) -> None:
    data, frames = written(framing, RECORDS)
    for end in range(framing.header, len(data) + 1):
        whole = [frame for frame in frames if frame.end <= end]
        stop = whole[-1].end if whole else framing.header
        assert read(framing, data[:end]) == (whole, More(stop))
        found = framing.last_snapshot(data, end)
        complete = [frame.start for frame in whole if frame.snapshot]
        if isinstance(framing, BinaryFrames):
            assert found == (complete[-1] if complete else -1)
        else:  # a line is looked for by its beginning
            assert found in [-1, *(frame.start for frame in frames if frame.snapshot)]
            assert found >= (complete[-1] if complete else -1)


@pytest.mark.parametrize("framing", framings())
def test_a_batch_is_its_frames_one_behind_the_other(framing: Framing) -> None:
    payloads = [payload for _, payload in RECORDS]
    data, _ = written(framing, [(False, payload) for payload in payloads])
    assert framing.batch(payloads, framing.header) == data[framing.header :]
    for end in range(framing.header, len(data) + 1):
        changes = framing.changes(data[framing.header : end], framing.header)
        assert changes == payloads[: len(changes)]
        assert len(changes) == len(read(framing, data[:end])[0])


def test_changes_stop_before_a_snapshot_or_damage() -> None:
    framing = BinaryFrames(SEED)
    data, _ = written(framing, RECORDS)
    assert framing.changes(data[4:], 4) == [b'{"a":1}']
    assert framing.changes(data[4:], 5) == []


def test_a_flipped_bit_in_a_frame_is_seen() -> None:
    framing = BinaryFrames(SEED)
    data, frames = written(framing, RECORDS[:2])
    for place in range(4, frames[0].end):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            found = framing.next(bytes(flipped), 4, len(data))
            assert isinstance(found, Bad | More)
            assert found.start == 4
            if place < 8:
                assert found == Bad(4, "no frame marker")


def test_a_frame_that_stood_elsewhere_does_not_pass() -> None:
    framing = BinaryFrames(SEED)
    frame = framing.frame(b"payload", 4)
    assert framing.next(SEED + frame + frame, 4 + len(frame), 1000) == Bad(
        4 + len(frame), "the frame's checksum does not match"
    )
    assert framing.last_snapshot(SEED + SEED + b"\x01\0\0\0" + b"12345678x", 21) == -1


def test_the_bytes_of_a_frame() -> None:
    payload = b"\x81\xa1a\x01"
    for snapshot, marker, kind in ((False, b"\x84\x1e\xfa\x66", b"DIFFRECD"), (True, SEED, b"SNAPSHOT")):
        key = b"Kanta blake3" + kind + SEED + (4).to_bytes(8, "little")
        expected = marker + b"\x04\0\0\0" + blake3(payload, key=key).digest(length=8) + payload
        assert BinaryFrames(SEED).frame(payload, 4, snapshot) == expected
    assert JsonLines().frame(b"{}", 9) == b"{}\n"
    assert JsonLines().frame(b"{}", 9, True) == b"SNAPSHOT {}\n"


def test_blank_lines_are_skipped() -> None:
    data = b"\n \r\n{}\n\n"
    assert read(JsonLines(), data) == ([Frame(4, 7, False, b"{}")], More(8))


def test_a_word_in_a_line_is_no_snapshot() -> None:
    assert JsonLines().last_snapshot(b'{"a":"SNAPSHOT x"}\n', 19) == -1
    assert JsonLines().last_snapshot(b"", 0) == -1
    assert JsonLines().last_snapshot(b"SNAPSHOT {}\n", 12) == 0


payloads = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=6)


@given(payloads, st.binary(min_size=4, max_size=4))
def test_kanta_reads_our_frames_and_we_read_kantas(records: list[tuple[bool, bytes]], seed: bytes) -> None:
    ours = BinaryFrames(seed)
    data = seed
    theirs = BinFramer()
    theirs.set_sync(seed)
    same = b""
    for snapshot, payload in records:
        data += ours.frame(payload, len(data), snapshot)
        frame = theirs.frame_snapshot if snapshot else theirs.frame_change
        same += frame(payload, record_offset=len(same))
    assert (same or seed) == data
    assert [(snapshot, payload) for snapshot, payload, _, _ in BinFramer().iter_records(data)] == records
    assert [(frame.snapshot, frame.payload) for frame in read(ours, data)[0]] == records


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"{}", b'{"a":"SNAPSHOT "}'])), max_size=6))
def test_kanta_reads_our_lines_and_we_read_kantas(records: list[tuple[bool, bytes]]) -> None:
    data = b"".join(JsonLines().frame(payload, 0, snapshot) for snapshot, payload in records)
    theirs = LineFramer()
    assert data == b"".join((theirs.frame_snapshot if s else theirs.frame_change)(p) for s, p in records)
    assert [(snapshot, payload) for snapshot, payload, _, _ in theirs.iter_records(data)] == records
    assert [(frame.snapshot, frame.payload) for frame in read(JsonLines(), data)[0]] == records


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"", None),
        (b"\n", None),
        (b"{", "json"),
        (b'{"ts":', "json"),
        (b"\n {", "json"),
        (b"SNAPSHOT {", "json"),
        (b"SNAP", "json"),
        (b"SNAPSHOTS", None),
        (b"SNAP{", None),
        (b"PK\x03\x04", None),
        (SEED, "json"),  # too short to tell: a seed that begins with {
        (SEED + b"\x84\x1e\xfa\x66", "msgpack"),
        (SEED + SEED, "msgpack"),
        (SEED + b"\x84\x1e\xfa\x67", "json"),
        (b"\x01\x02\x03\x04\xfe\xfd\xfc\xfb", "msgpack"),
        (b"\x01\x02\x03\x04", None),
        (b"[1, 2, 3]", None),
    ],
)
def test_the_format_is_told_from_the_first_bytes(head: bytes, format: Any) -> None:
    assert detect(head) == format
