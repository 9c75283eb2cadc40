"""Formats of one's own: what a class must have, what it may not do, what its records look like."""

from datetime import UTC, datetime
from os import urandom
from typing import Any

import cbor2
import msgspec
import pytest

from kantad.values.codec import is_whole_snapshot
from kantad.values.errors import Problem
from kantad.values.record import CHAIN_START, Change, Kept, Keyed, Snapshot, chain_after
from kantad.values.serializer import OwnCodec, Unusable, own_codec
from tests.own_formats import Cbor, KantaStyle, Prefixed, Reversed


@pytest.mark.parametrize("kind", [Cbor, Reversed, Prefixed, KantaStyle])
def test_what_is_encoded_is_decoded_and_chained(kind: Any) -> None:
    codec = own_codec("a:B", kind())
    payload, chain = codec.change(7, "act", {"a": [1, 1.0, None, "ü"]}, CHAIN_START, u="ann", b=3, id="k", q="0" * 8)
    record = codec.decode(payload, Change)
    assert (record.ts, record.a, record.u, record.b) == ("1970-01-01T00:00:00.000007Z", "act", "ann", 3)
    assert (record.diff, record.h) == ({"a": [1, 1.0, None, "ü"]}, chain.hex())
    assert chain == chain_after(CHAIN_START, codec.hashed(payload)) == codec.chain_in(payload)
    assert kind().decode(codec.hashed(payload), type=dict)["diff"] == record.diff
    snapshot = codec.snapshot(7, {"a": 1}, 4, chain, m=8, kept=Kept([("k", "q", 1)], [(5, chain.hex(), {"a": None})]))
    found = codec.decode(snapshot, Snapshot)
    assert (found.state, found.r, found.k, found.h) == ({"a": 1}, 4, 1, chain.hex())
    assert is_whole_snapshot(codec, snapshot, found)
    assert not is_whole_snapshot(codec, b"x" + snapshot[1:], found)
    assert codec.decode(snapshot, Kept) == Kept([("k", "q", 1)], [(5, chain.hex(), {"a": None})])


def test_a_record_of_another_program_has_no_chain_value() -> None:
    codec = own_codec("a:B", Cbor())
    payload = cbor2.dumps({"ts": "2026-01-01T00:00:00Z", "a": "x", "diff": {"a": 1}})
    assert codec.hashed(payload) == payload
    assert (codec.decode(payload, Change).h, codec.decode(payload, Keyed).h) == (None, None)


class Odd(Cbor):
    """CBOR, but for what a test replaces."""


class TestRefusals:
    """A class that does not give back what it was given is none."""

    def refused(self, **members: Any) -> str:
        with pytest.raises(Unusable) as caught:
            own_codec("a:B", type("Made", (Odd,), members)())
        return str(caught.value)

    def test_what_is_missing_is_named(self) -> None:
        assert "framer" in self.refused(framer="blocks")
        assert "framer" in self.refused(framer=None)
        assert "no method encode" in self.refused(encode=None)
        assert "no method decode" in self.refused(decode=3)

    def test_what_is_raised_is_told(self) -> None:
        def fails(self: Any, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no luck")

        assert "RuntimeError: no luck" in self.refused(encode=fails)
        assert "RuntimeError: no luck" in self.refused(decode=fails)

    def test_what_is_encoded_must_be_bytes_and_lines_must_be_lines(self) -> None:
        assert "str, not bytes" in self.refused(encode=lambda self, obj: "text")
        assert "no line" in self.refused(framer="lines")
        for text in (b"", b" ", b"a\tb", b"a\nb", b"a\0b", b"SNAPSHOT {}"):
            assert "no line" in self.refused(framer="lines", encode=lambda self, obj, text=text: text)

    @pytest.mark.parametrize(
        "loses",
        [
            lambda value: {key: item for key, item in value.items() if key != "u"},
            lambda value: value | {"diff": None},
            lambda value: value | {"a": value["a"].encode()} if "a" in value else value,
        ],
    )
    def test_what_is_lost_is_noticed(self, loses: Any) -> None:
        assert "something else" in self.refused(encode=lambda self, obj: cbor2.dumps(loses(obj)))

    def test_a_record_that_is_changed_by_being_encoded_is_noticed(self) -> None:
        def encode(self: Any, obj: Any) -> bytes:
            obj.get("diff", {}).clear()
            return cbor2.dumps(obj)

        assert "something else" in self.refused(encode=encode)

    def test_a_record_that_only_the_object_that_encoded_it_decodes_is_noticed(self) -> None:
        def init(self: Any) -> None:
            self.key = urandom(1000)

        def encode(self: Any, obj: Any) -> bytes:
            return self.key + cbor2.dumps(obj)

        def decode(self: Any, payload: bytes, *, type: Any) -> Any:
            if payload[:1000] != self.key:
                raise ValueError("another key")
            return msgspec.convert(cbor2.loads(payload[1000:]), type)

        assert "another key" in self.refused(__init__=init, encode=encode, decode=decode)

    def test_a_decoder_that_gives_back_what_was_encoded_last_is_noticed(self) -> None:
        last: list[Any] = []

        def encode(self: Any, obj: Any) -> bytes:
            last[:] = [obj]
            return b"x"

        refused = self.refused(encode=encode, decode=lambda self, payload, type: msgspec.convert(last[0], type))
        assert "not what it encoded" in refused

    def test_a_line_that_decodes_without_its_first_byte_is_noticed(self) -> None:
        def decode(self: Any, payload: bytes, *, type: Any) -> Any:
            return msgspec.json.decode(payload[1:], type=type)

        told = self.refused(framer="lines", encode=lambda self, obj: b"x" + msgspec.json.encode(obj), decode=decode)
        assert "its first byte is another" in told

    def test_numbers_and_texts_keep_their_type(self) -> None:
        canonical = self.refused(encode=lambda self, obj: msgspec.json.encode(obj).replace(b"1.0", b"1"), decode=json)
        assert "something else" in canonical

    def test_an_order_of_keys_that_is_lost_is_noticed(self) -> None:
        told = self.refused(encode=lambda self, obj: msgspec.json.encode(obj, order="sorted"), decode=json)
        assert "another order" in told

    def test_a_decoder_that_does_not_heed_the_type_is_noticed(self) -> None:
        told = self.refused(decode=lambda self, payload, type: cbor2.loads(payload))
        assert "decode gives dict, not Change" in told

    def test_a_decoder_that_loses_members_of_a_struct_is_noticed(self) -> None:
        def decode(self: Any, payload: bytes, *, type: Any) -> Any:
            found = msgspec.convert(cbor2.loads(payload), type)
            if type is Snapshot:
                found.state = {}
            return found

        assert "not what it encoded" in self.refused(decode=decode)


def json(self: Any, payload: bytes, *, type: Any) -> Any:
    return msgspec.json.decode(payload, type=type)


def test_what_cannot_be_kept_later_is_refused_and_named() -> None:
    class Short(Cbor):
        def encode(self, obj: Any) -> bytes:
            if obj.get("a") == "long":
                raise ValueError("too long")
            return super().encode(obj)

    codec = own_codec("a:B", Short())
    with pytest.raises(Problem, match="a:B cannot keep this: ValueError: too long") as caught:
        codec.change(0, "long", {}, CHAIN_START)
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize("value", [b"bytes", datetime(2026, 1, 1, tzinfo=UTC), 1 << 70, float("nan"), {1: 2}])
def test_what_is_no_json_does_not_decode(value: Any) -> None:
    codec = OwnCodec("a:B", Cbor(), False)
    with pytest.raises(msgspec.DecodeError):
        codec.decode(cbor2.dumps({"ts": "", "diff": {"a": value}}), Change)


@pytest.mark.parametrize("kind", [Reversed, Prefixed])
def test_a_line_whose_ending_is_cut_off_does_not_decode(kind: Any) -> None:
    codec = own_codec("a:B", kind())
    payload, _ = codec.change(7, "act", {"a": 1}, CHAIN_START)
    for size in range(len(codec.hashed(payload)) + 1, len(payload)):
        with pytest.raises(msgspec.DecodeError):
            codec.decode(payload[:size], Change)
