"""RFC 6455 section 5, frame by frame: what is sent in any pieces arrives, what is forbidden has its close code."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.web import frames
from kantad.web.frames import Fault, Frames, close_code, close_frame, masked, payload_of
from tests.web.ws_kit import BINARY, CLOSE, PING, PONG, TEXT, frame

CONTINUATION = 0
MOST = 200_000

payloads = st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65_535, 65_536, 70_000]).flatmap(
    lambda size: st.sampled_from([b"x" * size, "ü€\U0001f600".encode()[: size // 9 * 9] * (size // 9)])
)
masks = st.sampled_from([bytes(4), b"\x01\x02\x03\x04", b"\xff\x00\xff\x00"])


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A client's frames, and the messages that they are."""
    sent, messages = b"", []
    for _ in range(draw(st.integers(1, 5))):
        opcode = draw(st.sampled_from([TEXT, BINARY, PING, PONG]))
        mask = draw(masks)
        if opcode in (PING, PONG):
            payload = draw(st.binary(max_size=125))
            sent += frame(opcode, payload, mask=mask)
            messages.append((opcode, payload))
            continue
        payload = draw(payloads)
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for place, part in enumerate(parts):
            kind = opcode if place == 0 else CONTINUATION
            sent += frame(kind, part, last=place == len(parts) - 1, mask=mask)
            if place < len(parts) - 1 and draw(st.booleans()):
                sent += frame(PING, b"between")
                messages.append((PING, b"between"))
        messages.append((opcode, payload))
    return sent, messages


@given(conversations(), st.integers(0, 2**32))
def test_messages_arrive_in_whatever_pieces_they_are_sent(
    conversation: tuple[bytes, list[tuple[int, bytes]]], seed: int
) -> None:
    sent, messages = conversation
    chance = random.Random(seed)
    for sizes in ([len(sent)], [1, 2, 3] if len(sent) < 2000 else [997], [chance.randrange(1, 5000) for _ in range(9)]):
        reader, got, place, number = Frames(1 << 20), [], 0, 0
        while place < len(sent):
            size = sizes[number % len(sizes)]
            number += 1
            got += reader.feed(sent[place : place + size])
            place += size
        assert [(message.opcode, message.payload) for message in got] == messages
        assert (reader.pieces, reader.fragments, reader.received) == ([], None, 0)


def fed(reader: Frames, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)
    if reader.fault is not None:
        raise reader.fault


BAD_TEXT = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"ok \xe2\x82"]

FORBIDDEN: list[tuple[str, bytes, int]] = [
    ("reserved bit 1", frame(TEXT, b"x", bits=4), 1002),
    ("reserved bit 2", frame(TEXT, b"x", bits=2), 1002),
    ("reserved bit 3", frame(PING, b"x", bits=1), 1002),
    ("not masked", b"\x81\x01x", 1002),
    ("ping not masked", b"\x89\x00", 1002),
    *((f"opcode {code}", frame(code, b"x"), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("fragmented ping", frame(PING, b"x", last=False), 1002),
    ("long ping", frame(PING, b"x" * 126), 1002),
    ("long close", frame(CLOSE, b"\x03\xe8" + b"x" * 130), 1002),
    ("16 bits for a short length", b"\x81\xfe\x00\x7d" + bytes(4) + b"x" * 125, 1002),
    ("64 bits for a short length", b"\x81\xff" + (65_535).to_bytes(8) + bytes(4), 1002),
    ("the highest bit of a length", b"\x81\xff" + (1 << 63).to_bytes(8) + bytes(4), 1002),
    ("continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("text within a message", frame(TEXT, b"x", last=False) + frame(TEXT, b"y"), 1002),
    ("binary within a message", frame(TEXT, b"x", last=False) + frame(BINARY, b"y"), 1002),
    ("too big", b"\x81\xff" + (MOST + 1).to_bytes(8) + bytes(4), 1009),
    ("too big by far", b"\x82\xff" + ((1 << 63) - 1).to_bytes(8) + bytes(4), 1009),
    ("too big together", frame(TEXT, b"x" * MOST, last=False) + frame(CONTINUATION, b"x"), 1009),
    *((f"text {text!r}", frame(TEXT, text), 1007) for text in BAD_TEXT),
    ("text cut in a character", frame(TEXT, b"\xc3", last=False) + frame(CONTINUATION, b"x"), 1007),
    ("masked bad text", frame(TEXT, b"\xff\xfe", mask=b"abcd"), 1007),
]


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in FORBIDDEN], ids=[case[0] for case in FORBIDDEN])
@pytest.mark.parametrize("piece", [1, 1 << 30], ids=["byte by byte", "at once"])
def test_what_the_rfc_forbids_has_its_close_code(data: bytes, code: int, piece: int) -> None:
    with pytest.raises(Fault) as fault:
        fed(Frames(MOST), [data[place : place + piece] for place in range(0, len(data), piece)])
    assert fault.value.code == code
    assert fault.value.why


def test_a_message_over_the_limit_is_known_by_its_head_and_nothing_is_kept() -> None:
    reader = Frames(1000)
    with pytest.raises(Fault):
        reader.feed(b"\x81\xfe" + (1001).to_bytes(2))
    assert sum(map(len, reader.pieces)) == 0
    assert Frames(1000).feed(frame(TEXT, b"x" * 1000))[0].payload == b"x" * 1000


def test_a_character_may_be_cut_between_fragments() -> None:
    euro = "€".encode()
    sent = (
        frame(TEXT, euro[:1], last=False) + frame(CONTINUATION, euro[1:2], last=False) + frame(CONTINUATION, euro[2:])
    )
    assert Frames(MOST).feed(sent) == [(TEXT, euro)]


def test_fragments_are_bounded_in_number() -> None:
    reader = Frames(MOST)
    reader.feed(frame(TEXT, b"", last=False))
    with pytest.raises(Fault) as fault:
        fed(reader, [frame(CONTINUATION, b"", last=False)] * frames.MOST_FRAGMENTS)
    assert fault.value.code == 1008


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent_are_given(code: int) -> None:
    assert close_code(code.to_bytes(2) + "weil €".encode()) == code
    assert close_code(b"") == 1000


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(Fault, match="close code"):
        close_code(code.to_bytes(2))


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_malformed_close_frames_are_refused(payload: bytes, code: int) -> None:
    with pytest.raises(Fault) as fault:
        close_code(payload)
    assert fault.value.code == code


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_inverse_and_goes_byte_by_byte(payload: bytes, mask: bytes) -> None:
    done = masked(payload, mask)
    assert done == bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    assert masked(done, mask) == payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_a_server_s_frame_is_whole_unmasked_and_shortest(size: int) -> None:
    payload = b"x" * size
    made = frames.frame(TEXT, payload)
    assert payload_of(made) == payload
    assert len(made) == size + (2 if size < 126 else 4 if size < 65_536 else 10)
    assert (made[0], made[1] >> 7) == (0x81, 0)


def test_a_reason_is_cut_to_what_a_close_frame_holds() -> None:
    made = close_frame(1008, "ü" * 200)
    assert len(made) <= 127
    assert payload_of(made)[2:].decode() == "ü" * 60


def test_messages_before_a_broken_frame_are_given_first() -> None:
    reader = Frames(MOST)
    assert reader.feed(frame(TEXT, b"a") + frame(PING, b"b") + frame(3)) == [(TEXT, b"a"), (PING, b"b")]
    assert reader.fault is not None
    assert reader.fault.code == 1002


def test_a_message_in_short_pieces_costs_about_its_own_bytes() -> None:
    reader = Frames(1 << 20)
    reader.feed(b"\x82\xff" + (1 << 20).to_bytes(8) + bytes(4))
    tracemalloc.start()
    try:
        for _ in range(100_000):
            reader.feed(bytes(bytearray(b"xyz")))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
