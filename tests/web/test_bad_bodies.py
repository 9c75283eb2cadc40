"""What cannot be a body or a value: refused with a stable code and the place; nothing changes, nothing is logged."""

import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kantad.web.body import Limits
from tests.serving import Serving, request

MSGPACK = "Content-Type: application/msgpack"
CYRILLIC = b"d0"

JSON_BODIES: list[tuple[bytes, int, str, int | None]] = [
    (b"", 400, "invalid_json", 0),
    (b"   ", 400, "invalid_json", 3),
    (b'{"a":1', 400, "invalid_json", 6),
    (b'{"a" 1}', 400, "invalid_json", 5),
    (b'{"a":1}}', 400, "invalid_json", 8),
    (b"{'a':1}", 400, "invalid_json", 1),
    (b"[1,]", 400, "invalid_json", 3),
    (b"// x", 400, "invalid_json", 0),
    (b"NaN", 400, "invalid_json", 0),
    (b'{"a":Infinity}', 400, "invalid_json", 5),
    (b"[-Infinity]", 400, "invalid_json", 2),
    (b"01", 400, "invalid_json", None),
    (b"\xef\xbb\xbf1", 400, "invalid_json", 0),
    (b"\x00", 400, "invalid_json", 0),
    (b'"\x01"', 400, "invalid_json", 1),
    (b'{"a":"\xff"}', 400, "invalid_json", 6),
    (b'["abc","\xc3("]', 400, "invalid_json", 8),
    (b'{"\xed\xa0\x80":1}', 400, "invalid_json", 2),
    (b'"\\ud800"', 400, "invalid_json", None),
    (b'{"\\udc00\\ud800":1}', 400, "invalid_json", None),
    (b'{"a":[1e999]}', 400, "invalid_value", 6),
    (b'["1e999",-1e400]', 400, "invalid_value", 9),
    (b"9" * 5000, 400, "invalid_value", 0),
    (b"[" * 100_000, 422, "too_deep", 1000),
    (b'{"a":' * 100_000, 422, "too_deep", None),
    (b"[" * 100_000 + b"]" * 100_000, 422, "too_deep", 1000),
]


@pytest.mark.parametrize(("body", "status", "code", "offset"), JSON_BODIES, ids=[str(b[0])[:24] for b in JSON_BODIES])
@pytest.mark.parametrize("warm", [False, True], ids=["first", "known header"])
async def test_a_body_that_is_not_json_is_refused(
    serving: Serving,
    caplog: pytest.LogCaptureFixture,
    warm: bool,
    body: bytes,
    status: int,
    code: str,
    offset: int | None,
) -> None:
    if warm:  # the same header block again goes the fast way
        await serving.ask("PUT", "/v1/data/x", body=b" " * len(body))
    before = serving.mark()
    for method, target in (
        ("PUT", "/v1/data/x"),
        ("PATCH", "/v1/data/x"),
        ("POST", "/v1/data/x"),
        ("POST", "/v1/transaction"),
    ):
        got = await serving.ask(method, target, body=body)
        assert (got.status, got.code) == (status, code), got
        place = got.json["offset"]
        assert offset is None or place == offset
        assert 0 <= place <= len(body)
    assert serving.mark() == before
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "path", "what"),
    [
        (b"x", "/x", "a byte string"),
        ({"k": [b"x"]}, "/x/k/0", "a byte string"),
        ({"k": datetime(2026, 1, 1, tzinfo=UTC)}, "/x/k", "a timestamp"),
        ({"k": {1: 2}}, "/x/k", "a key that is an integer"),
    ],
)
async def test_what_only_messagepack_has_is_refused_of_a_file_in_json_and_called_by_its_name(
    serving: Serving, value: Any, path: str, what: str
) -> None:
    got = await serving.ask("PUT", "/v1/data/x", None, MSGPACK, body=msgspec.msgpack.encode(value))
    assert (got.status, got.code, got.json["path"]) == (422, "validation_failed", path)
    assert got.json["detail"] == f"{what} can be stored in a file in MessagePack only, and this one is in JSON"
    assert "schema" not in got.json["title"]


def pack(*parts: bytes) -> bytes:
    return b"".join(parts)


MSGPACK_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid_json"),
    (b"\xc1", 400, "invalid_json"),
    (b"\x92\x01", 400, "invalid_json"),
    (b"\x01\x02", 400, "invalid_json"),
    (b"\xdd\xff\xff\xff\xff", 400, "invalid_json"),
    (b"\xdf\xff\xff\xff\xff\xa1a", 400, "invalid_json"),
    (b"\xa2\xff\xfe", 400, "invalid_json"),
    (b"\xa3\xed\xa0\x80", 400, "invalid_json"),
    (b"\x91" * 100_000, 422, "too_deep"),
    (b"\x91" * 2000 + b"\xc0", 422, "too_deep"),
    (b"\x81\x81\xa1a\x01\x02", 400, "invalid_json"),
    (b"\x81\x01\x02", 422, "validation_failed"),
    (b"\x81\xa1a\x81\xc0\x01", 400, "invalid_value"),
    (b"\x81\x90\x01", 400, "invalid_value"),
    (b"\x81\xc4\x01k\x01", 400, "invalid_value"),
    (pack(b"\xcb", struct.pack(">d", float("nan"))), 400, "invalid_value"),
    (pack(b"\x91\xcb", struct.pack(">d", float("inf"))), 400, "invalid_value"),
    (b"\xd4\x05\x01", 400, "invalid_value"),
    (b"\xc4\x01a", 422, "validation_failed"),
    (b"\xd6\xff\x00\x00\x00\x00", 422, "validation_failed"),
    (pack(b"\xc7\x0c\xff", struct.pack(">Iq", 0, 2**60)), 400, "invalid_value"),
    (pack(b"\xc7\x0c\xff", struct.pack(">Iq", 2**31, 0)), 400, "invalid_value"),
    (b"\xc7\x05\xff12345", 400, "invalid_value"),
]


@pytest.mark.parametrize(("body", "status", "code"), MSGPACK_BODIES, ids=[repr(b[0][:12]) for b in MSGPACK_BODIES])
async def test_messagepack_that_is_no_json_value_is_refused(
    serving: Serving, caplog: pytest.LogCaptureFixture, body: bytes, status: int, code: str
) -> None:
    before = serving.mark()
    for method in ("PUT", "PATCH", "POST"):
        got = await serving.ask(method, "/v1/data/x", None, MSGPACK, body=body)
        assert (got.status, got.code) == (status, code), got
        assert "offset" in got.json or "path" in got.json or "imestamp" in got.json["detail"]
    assert serving.mark() == before
    assert not caplog.records


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
async def test_an_integer_out_of_range_is_refused_with_its_path(serving: Serving, method: str, value: int) -> None:
    got = await serving.ask(method, "/v1/data/x", body=b'{"a":[0,%d]}' % value)
    assert (got.status, got.code) == (400, "invalid_value")
    assert got.json["path"].endswith("/a/1")
    assert (await serving.transact(diff={})).json["rev"] == 0


async def test_the_last_of_duplicate_keys_wins(serving: Serving) -> None:
    await serving.ask("PUT", "/v1/data/x", body=b'{"a":1,"b":{"c":1,"c":2},"a":3}')
    assert await serving.value("/x") == {"a": 3, "b": {"c": 2}}
    await serving.ask("PUT", "/v1/data/x", None, MSGPACK, body=b"\x82\xa1a\x01\xa1a\x02")
    assert await serving.value("/x") == {"a": 2}


async def test_numbers_at_the_edges_are_kept_exactly(serving: Serving) -> None:
    body = b"[18446744073709551615,-9223372036854775808,1.7976931348623157e308,5e-324,0.1,-0.0,1e5]"
    await serving.ask("PUT", "/v1/data/x", body=body)
    got = (await serving.ask("GET", "/v1/data/x")).json
    assert [repr(one) for one in got] == [repr(one) for one in msgspec.json.decode(body)]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def test_the_root_is_the_first_of_128_levels(serving: Serving) -> None:
    assert (await serving.ask("PUT", "/v1/data/x", nested(127))).status == 200
    got = await serving.ask("PUT", "/v1/data/x", nested(128))
    assert (got.status, got.code) == (422, "too_deep")
    assert "--max-depth" in got.json["detail"]
    for kind in ("json", "merge-patch+json"):
        got = await serving.ask("PATCH", "/v1/data", {"z": {"y": nested(127)}}, f"Content-Type: application/{kind}")
        assert (got.status, got.code) == (422, "too_deep")
    await serving.restart()
    assert await serving.value("/x") == nested(127)


async def test_the_depth_is_a_setting(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_depth=3))
    assert (await unstarted.ask("PUT", "/v1/data/x", [[1]])).status == 200
    assert (await unstarted.ask("PUT", "/v1/data/x", [[[1]]])).code == "too_deep"


async def test_a_huge_body_is_413_before_it_is_read(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_body=1000))
    before = unstarted.mark()
    wire = await unstarted.connect()
    wire.send(request("PUT", "/v1/data/x", None, "Content-Length: 1000000000000"))
    got = await wire.answer()
    assert (got.status, got.code, got.json["limit"]) == (413, "too_large", 1000)
    assert "--max-body" in got.json["detail"]
    assert got.headers["connection"] == "close"
    await wire.close()
    wire = await unstarted.connect()
    wire.send(request("PUT", "/v1/data/x", None, "Transfer-Encoding: chunked") + b"200\r\n" + b"1" * 512 + b"\r\n")
    wire.send(b"200\r\n" + b"1" * 512 + b"\r\n")
    assert (await wire.answer()).code == "too_large"
    await wire.close()
    assert unstarted.mark() == before
    assert (await unstarted.ask("PUT", "/v1/data/x", "x" * 998)).status == 200
    assert (await unstarted.ask("PUT", "/v1/data/x", "x" * 999)).code == "too_large"
    assert (await unstarted.ask("PUT", "/v1/data/x", "x" * 999)).code == "too_large"


async def test_a_chunked_body_is_accepted(serving: Serving) -> None:
    wire = await serving.connect()
    head = request("PUT", "/v1/data/x", None, "Transfer-Encoding: chunked")
    for piece in (head, b"4\r\n[1,2", b"\r\n3;ext=1\r\n,3]\r\n", b"0\r\n\r\n"):
        wire.send(piece)
    assert (await wire.answer()).status == 200
    assert await serving.value("/x") == [1, 2, 3]
    wire.send(request("GET", "/v1/data/x"))
    assert (await wire.answer()).json == [1, 2, 3]
    await wire.close()


async def test_expect_100_continue_is_answered_and_the_body_then_read(serving: Serving) -> None:
    wire = await serving.connect()
    wire.send(request("PUT", "/v1/data/x", None, "Content-Length: 1", "Expect: 100-continue"))
    assert (await wire.answer()).status == 100
    wire.send(b"7")
    assert (await wire.answer()).json["rev"] == 1
    await wire.close()


async def test_an_expectation_of_http_1_0_is_disregarded(serving: Serving) -> None:
    wire = await serving.connect()
    data = request("PUT", "/v1/data/x", b"7", "Expect: 100-continue")
    wire.send(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await wire.answer()).json["rev"] == 1
    await wire.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity", "x"])
async def test_a_content_coding_is_415(serving: Serving, coding: str) -> None:
    for method, target in (("PUT", "/v1/data/x"), ("POST", "/v1/transaction"), ("GET", "/v1/data")):
        got = await serving.ask(method, target, 1, f"Content-Encoding: {coding}")
        assert (got.status, got.code) == (415, "unsupported_media_type")
    assert serving.engine.rev == 0


async def test_an_unknown_patch_type_is_jsondiff(serving: Serving) -> None:
    await serving.put("", {"a": 1})
    assert (await serving.ask("PATCH", "/v1/data", {"$delete": ["a"]}, "Content-Type: text/x-odd")).status == 200
    assert await serving.value() == {}
