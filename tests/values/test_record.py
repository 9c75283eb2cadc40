"""Records: their bytes, the hash chain, cursors, times."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.codec import Codec, JsonCodec, MsgpackCodec, is_whole_snapshot
from kantad.values.errors import Problem
from kantad.values.moment import TimeText, micros_of, parse_time, time_text
from kantad.values.record import (
    CHAIN_START,
    DECODE_ERRORS,
    Change,
    Kept,
    Keyed,
    Snapshot,
    SnapshotHead,
    Step,
    chain_after,
    checksum,
    cursor,
    parse_cursor,
)
from tests.values.documents import documents, nonsense

T = 1_781_060_100_123_456
TEXT = "2026-06-10T02:55:00.123456Z"
CHAIN = bytes(range(8))
DIFF = {"ü": [1, None], "$delete": ["x"]}
FULL: dict[str, Any] = {"v": 5, "u": "älice", "m": T + 1, "id": "key-1", "q": "0badcafe", "b": 17}
CODECS: list[Codec] = [JsonCodec(), MsgpackCodec()]


def moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def members(micros: Any, m: Any, full: bool) -> dict[str, Any]:
    """The members of a change before its chain, in their order."""
    made = {"ts": micros, "a": "create"}
    if full:
        made |= {"v": 5, "u": "älice", "m": m, "id": "key-1", "q": "0badcafe"}
    made["diff"] = DIFF
    return made | ({"b": 17} if full else {})


KEPT = Kept([("key", "0badcafe", 7)], [(T, "f" * 16, {"a": None})])


@pytest.mark.parametrize("full", [False, True])
def test_the_bytes_of_a_change_in_json(full: bool) -> None:
    before = msgspec.json.encode(members(TEXT, "2026-06-10T02:55:00.123457Z", full))[:-1]
    after = blake3(CHAIN + before).digest(length=8)
    payload, chain = JsonCodec().change(T, "create", DIFF, CHAIN, **(FULL if full else {}))
    assert payload == before + b',"h":"' + after.hex().encode() + b'"}'
    assert chain == after == chain_after(CHAIN, before)
    assert JsonCodec().hashed(payload) == before


@pytest.mark.parametrize("full", [False, True])
def test_the_bytes_of_a_change_in_messagepack(full: bool) -> None:
    made = members(moment(T), moment(T + 1), full) | {"h": "0" * 16}
    before = msgspec.msgpack.encode(made)[:-19]
    after = blake3(CHAIN + before).digest(length=8)
    payload, chain = MsgpackCodec().change(T, "create", DIFF, CHAIN, **(FULL if full else {}))
    assert payload == before + b"\xa1h\xb0" + after.hex().encode()
    assert chain == after
    assert MsgpackCodec().hashed(payload) == before


@pytest.mark.parametrize("full", [False, True])
def test_the_bytes_of_a_snapshot(full: bool) -> None:
    more: dict[str, Any] = {"v": 3, "m": T + 1, "kept": KEPT} if full else {}
    for codec in CODECS:
        json_like = codec.name == "json"
        made: dict[str, Any] = {"ts": TEXT if json_like else moment(T), "v": 3 if full else 0, "state": {"ü": 1}}
        if full:
            made["m"] = "2026-06-10T02:55:00.123457Z" if json_like else moment(T + 1)
        made |= (
            {"r": 9, "k": 1}
            | ({"ids": KEPT.ids, "answers": KEPT.answers} if full else {})
            | {"h": CHAIN.hex(), "s": "0" * 16}
        )
        encoded = msgspec.json.encode(made) if json_like else msgspec.msgpack.encode(made)
        before = encoded[: -24 if json_like else -19]
        sum_ = blake3(before).digest(length=8).hex()
        payload = codec.snapshot(T, {"ü": 1}, 9, CHAIN, **more)
        assert payload == encoded.replace(b"0" * 16, sum_.encode())
        assert checksum(before) == sum_
        snapshot = codec.decode(payload, Snapshot)
        assert (snapshot.r, snapshot.k, snapshot.h, snapshot.s) == (9, 1, CHAIN.hex(), sum_)
        assert is_whole_snapshot(codec, payload, snapshot)
        assert codec.decode(payload, SnapshotHead).r == 9
        assert codec.decode(payload, Kept) == (KEPT if full else Kept())
        changed = codec.snapshot(T, {"ü": 2}, 9, CHAIN, **more).replace(
            codec.decode(codec.snapshot(T, {"ü": 2}, 9, CHAIN, **more), Snapshot).s.encode(), sum_.encode()
        )
        assert not is_whole_snapshot(codec, changed, codec.decode(changed, Snapshot))
        assert is_whole_snapshot(codec, b"{}", Snapshot(ts=TEXT, v=0, state={}))


@given(documents)
def test_a_record_is_read_back(diff: dict[str, Any]) -> None:
    for codec in CODECS:
        payload, chain = codec.change(T, "a", diff, CHAIN_START, **FULL)
        record = codec.decode(payload, Change)
        assert (record.a, record.diff, record.v, record.u) == ("a", diff, 5, "älice")
        assert (record.id, record.q, record.b, record.h) == ("key-1", "0badcafe", 17, chain.hex())
        assert (micros_of(record.ts), micros_of(record.m)) == (T, T + 1)
        assert codec.decode(payload, Step).diff == diff
        assert codec.decoder(Keyed)(payload).id == "key-1"
        assert codec.decode(codec.change(T, "a", diff, CHAIN_START)[0], Step).b == 0
        assert chain == chain_after(CHAIN_START, codec.hashed(payload))


@pytest.mark.parametrize("more", [{}, {"v": 5, "u": "älice", "m": T + 1}])
@pytest.mark.parametrize("id", ["k", 'quoted "\\', "x" * 128])
def test_a_key_put_in_later_makes_the_same_record(more: dict[str, Any], id: str) -> None:
    for codec in CODECS:
        opening, closing = codec.ends(T, "a", **more, b=7)
        assert (codec.keyed(opening, id, "0badcafe"), closing) == codec.ends(T, "a", **more, id=id, q="0badcafe", b=7)


def test_a_record_without_a_chain_enters_it_whole() -> None:
    line = b'{"ts":"x","a":"b","diff":{"h":"0123456789abcdef"}'
    assert JsonCodec().hashed(line + b"}") == line + b"}"
    assert JsonCodec().hashed(b"{}") == b"{}"
    assert MsgpackCodec().hashed(b"\x80") == b"\x80"
    assert (JsonCodec().foreign, MsgpackCodec().foreign) == (False, True)


def test_what_is_no_record_raises_what_is_announced() -> None:
    for codec in CODECS:
        for payload in (b"", b"{", b"\xff\xfe", b'{"ts":"\xff"}', b"[" * 100_000, b"\x91" * 100_000, b"1"):
            with pytest.raises(DECODE_ERRORS):
                codec.decode(payload, Change)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (0, (0, None)),
        (17, (17, None)),
        ("17", (17, None)), ("9" * 20, (10**19, None)), ("9" * 5000, (10**19, None)),
        ("17-0123456789abcdef", (17, "0123456789abcdef")),
        ("0-0000000000000000", (0, "0" * 16)),
        (-1, None), (True, None), (1.0, None), (None, None), ([], None), ("", None), ("-", None), ("-1", None),
        ("17-", None), ("17-0123456789ABCDEF", None), ("17-0123456789abcde", None), ("17-0123456789abcdef0", None),
        (" 17", None), ("+17", None), ("٣", None), ("²", None), ("17-0123456789abcdeg", None),
    ],
)  # fmt: skip
def test_a_cursor_is_read_or_refused(text: Any, found: Any) -> None:
    if found is None:
        with pytest.raises(Problem) as caught:
            parse_cursor(text, "base")
        assert caught.value.body()["parameter"] == "base"
        assert caught.value.code == "invalid_parameter"
    else:
        assert parse_cursor(text, "base") == found
        if found[1]:
            assert cursor(found[0], bytes.fromhex(found[1])) == text


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        (TEXT, T),
        ("2026-06-10T02:55:00.123456+00:00", T),
        ("2026-06-10T04:55:00.123456+02:00", T),
        ("2026-06-10 02:55:00.123456Z", T),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.5Z", -500_000),
        ("2026-06-10T02:55:00.123456", None),
        ("2026-06-10", None),
        ("2026-13-10T02:55:00Z", None),
        ("0001-01-01T00:00:00+10:00", None),
        ("9999-12-31T23:59:59-10:00", None),
        ("now", None),
        ("", None),
        (5, None),
        (None, None),
        ([], None),
    ],
)
def test_a_time_is_read_or_refused(text: Any, micros: int | None) -> None:
    if micros is None:
        with pytest.raises(Problem) as caught:
            parse_time(text, "at")
        assert (caught.value.code, caught.value.body()["parameter"]) == ("invalid_parameter", "at")
    else:
        assert micros_of(parse_time(text, "at")) == micros == micros_of(text)


@given(nonsense | st.text(max_size=30))
def test_any_json_is_a_cursor_and_a_time_or_a_problem(value: Any) -> None:
    for read in (parse_cursor, parse_time):
        try:
            read(value, "x")
        except Problem as problem:
            assert problem.code == "invalid_parameter"
    assert isinstance(micros_of(value), int)


@given(st.lists(st.integers(0, 4_000_000_000_000_000) | st.integers(T - 5, T + 2_000_000), max_size=20))
def test_the_text_of_a_moment(moments: list[int]) -> None:
    text = TimeText()
    for micros in moments:
        expected = moment(micros).isoformat(timespec="microseconds").replace("+00:00", "Z")
        assert text(micros) == text(micros) == time_text(micros) == expected
        assert micros_of(expected) == micros
        assert json.loads(json.dumps(expected)) == expected


@pytest.mark.parametrize(
    ("ts", "micros"),
    [
        (moment(T), T),
        (moment(T).astimezone(timezone(timedelta(hours=3))), T),
        (moment(T).replace(tzinfo=None), T),
        ("no time", 0),
        (None, 0),
        (17, 0),
    ],
)
def test_the_moment_of_a_record(ts: Any, micros: int) -> None:
    assert micros_of(ts) == micros
