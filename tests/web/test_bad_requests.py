"""Requests that are no HTTP, or ask for what there is not: 4xx, one short log line at most, nothing changes."""

import asyncio

import pytest

from kantad.logs import TextFormatter
from kantad.web.body import Limits
from kantad.web.connection import Patience
from tests.serving import Serving, descriptors, request

HOST = b"Host: localhost\r\n"
PUT = b"PUT /v1/data/x HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED: list[tuple[str, bytes, int, str]] = [
    ("no version", b"GET /v1/data\r\n\r\n", 421, "host_refused"),
    ("HTTP/0.9 named", b"GET /v1/data HTTP/0.9\r\n" + HOST + b"\r\n", 400, "invalid_parameter"),
    ("HTTP/1.2", b"GET /v1/data HTTP/1.2\r\n" + HOST + b"\r\n", 400, "invalid_parameter"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_parameter"),
    ("HTTP/3", b"GET /v1/data HTTP/3.0\r\n" + HOST + b"\r\n", 400, "invalid_parameter"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400, "invalid_parameter"),
    ("noise", b"\x00\x01\x02\r\n\r\n", 405, "method_not_allowed"),
    ("absolute form", b"GET http://localhost/v1/data HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_path"),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_path"),
    ("authority form", b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_path"),
    ("fragment", b"GET /v1/data/a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_path"),
    ("raw UTF-8 target", "GET /v1/data/ü HTTP/1.1\r\n".encode() + HOST + b"\r\n", 400, "invalid_path"),
    ("space in target", b"GET /v1/data/a b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "invalid_parameter"),
    ("bare line feeds", b"GET /v1/data HTTP/1.1\nHost: localhost\n\n", 400, "invalid_parameter"),
    ("no Host", b"GET /v1/data HTTP/1.1\r\n\r\n", 400, "invalid_parameter"),
    ("two Hosts", b"GET /v1/data HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, "invalid_parameter"),
    ("space before colon", b"GET /v1/data HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, "invalid_parameter"),
    ("folded header", b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\n x\r\n\r\n", 400, "invalid_parameter"),
    ("NUL in header", b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400, "invalid_parameter"),
    ("both lengths", PUT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1", 400, "invalid_parameter"),
    ("two lengths", PUT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n11", 400, "invalid_parameter"),
    ("signed length", PUT + b"Content-Length: +1\r\n\r\n1", 400, "invalid_parameter"),
    ("negative length", PUT + b"Content-Length: -1\r\n\r\n1", 400, "invalid_parameter"),
    ("hexadecimal length", PUT + b"Content-Length: 0x1\r\n\r\n1", 400, "invalid_parameter"),
    ("bad chunk size", PUT + CHUNKED + b"zz\r\n1\r\n0\r\n\r\n", 400, "invalid_parameter"),
    ("huge chunk size", PUT + CHUNKED + b"f" * 40 + b"\r\n1\r\n0\r\n\r\n", 400, "invalid_parameter"),
    ("chunk without end", PUT + CHUNKED + b"1\r\n12\r\n0\r\n\r\n", 400, "invalid_parameter"),
    ("transfer coding gzip", PUT + b"Transfer-Encoding: gzip\r\n\r\n1", 400, "invalid_parameter"),
    (
        "gzip, chunked",
        PUT + b"Transfer-Encoding: gzip, " + CHUNKED[19:] + b"1\r\n1\r\n0\r\n\r\n",
        415,
        "unsupported_media_type",
    ),
    ("unknown method", b"FOO /v1/data HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method_not_allowed"),
    ("small letters", b"get /v1/data HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method_not_allowed"),
    ("long target", b"GET /v1/data/" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "uri_too_long"),
    ("very long target", b"GET /v1/data/" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "uri_too_long"),
    (
        "long header",
        b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 17_000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    (
        "very long header",
        b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 99_000 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    (
        "long header name",
        b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X" * 99_000 + b": 1\r\n\r\n",
        431,
        "headers_too_large",
    ),
    ("many headers", b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 2000 + b"\r\n", 431, "headers_too_large"),
]


def short_lines(caplog: pytest.LogCaptureFixture, most: int = 1) -> None:
    """At most so many log lines of at most 512 bytes, printable, without a traceback."""
    lines = [TextFormatter().format(record) for record in caplog.records]
    assert len(lines) <= most, lines
    for line in lines:
        assert len(line.encode()) <= 512
        assert line.isprintable()
        assert "Traceback" not in line


@pytest.mark.parametrize(("data", "status", "code"), [one[1:] for one in MALFORMED], ids=[one[0] for one in MALFORMED])
@pytest.mark.parametrize("whole", [True, False], ids=["in one piece", "in pieces"])
async def test_a_malformed_request_is_refused(
    serving: Serving, caplog: pytest.LogCaptureFixture, data: bytes, status: int, code: str, whole: bool
) -> None:
    before = serving.mark()
    wire = await serving.connect()
    pieces = (
        [data]
        if whole
        else [data[i : i + 9000] for i in range(0, len(data), 9000)]
        if len(data) > 9000
        else [data[:9], data[9:]]
    )
    for piece in pieces:
        wire.send(piece)
        await wire.writer.drain()
    got = await wire.answer()
    assert (got.status, got.code) == (status, code), got
    if status == 405:
        assert "GET" in got.headers["allow"]
    await wire.close()
    assert serving.mark() == before
    short_lines(caplog)
    assert (await serving.ask("GET", "/v1/data")).status == 200


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("/v1/data", "GET, HEAD, PUT, PATCH, DELETE, POST"),
        ("/v1/data/x", "GET, HEAD, PUT, PATCH, DELETE, POST"),
        ("/v1/keys", "GET, HEAD"),
        ("/v1/keys/x", "GET, HEAD"),
        ("/v1/transaction", "POST"),
        ("/v1/status", "GET, HEAD"),
        ("/v1/snapshot", "POST"),
        ("/v1/backup", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_other_methods_are_405_and_name_what_is_allowed(serving: Serving, target: str, allow: str) -> None:
    for method in ("OPTIONS", "TRACE", "QUERY", "PROPFIND", "GET", "PUT", "DELETE"):
        if method in allow:
            continue
        got = await serving.ask(method, target, {})
        assert (got.status, got.code, got.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/data",
        "/v1",
        "/v1/",
        "/v1/datax",
        "/v1/dat",
        "/V1/data",
        "//v1/data",
        "/v1//data",
        "/v1/./data",
        "/x/../v1/data",
        "/v1/transaction/",
        "/v1/transaction/x",
        "/v1/status/",
        "/healthz/",
        "/%76%31/data",
        "/v1/data%2Fx",
        "/v1%2Fdata",
    ],
)
async def test_an_unknown_endpoint_is_404(serving: Serving, target: str) -> None:
    for method in ("GET", "POST", "PUT"):
        got = await serving.ask(method, target, {})
        assert (got.status, got.code) == (404, "no_route")


@pytest.mark.parametrize("target", ["/v1/status", "/healthz", "/readyz", "/metrics", "/openapi.json"])
async def test_operating_endpoints_answer_and_take_no_parameters(serving: Serving, target: str) -> None:
    assert (await serving.ask("GET", target)).status == 200
    assert (await serving.ask("GET", f"{target}?x=1")).code == "invalid_parameter"


async def test_the_body_of_a_request_to_nowhere_is_not_taken_for_a_request(serving: Serving) -> None:
    wire = await serving.connect()
    wire.send(request("POST", "/nowhere", request("PUT", "/v1/data/x", b"1")))
    assert (await wire.answer()).code == "no_route"
    assert (await wire.closed()).count(b"HTTP/1.1") == 0
    await wire.close()
    assert serving.engine.rev == 0


SLOW = Patience(head=0.2, idle=0.4, tick=0.02)


@pytest.mark.parametrize(
    "beginning",
    [b"", b"G", b"GET /v1/data HTTP/1.1\r\nHost: loc", request("GET", "/v1/data") * 2 + b"GET /v1"],
    ids=["nothing", "one byte", "half a header", "half a header behind two requests"],
)
async def test_half_a_header_is_closed_in_time(
    unstarted: Serving, caplog: pytest.LogCaptureFixture, beginning: bytes
) -> None:
    await unstarted.start(patience=SLOW)
    wire = await unstarted.connect()
    wire.send(beginning)
    began = asyncio.get_running_loop().time()
    said = await wire.closed()
    assert asyncio.get_running_loop().time() - began < 1.5
    assert said.count(b"HTTP/1.1 200 ") == beginning.count(b"\r\n\r\n")
    assert (b"408 " in said) is (bool(beginning) and b"\r\n\r\n" not in beginning)
    await wire.close()
    short_lines(caplog)


async def test_a_byte_now_and_then_does_not_help(unstarted: Serving) -> None:
    await unstarted.start(patience=SLOW)
    wire = await unstarted.connect()
    ended = asyncio.create_task(wire.closed())
    for byte in b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1000:
        wire.send(bytes([byte]))
        done, _ = await asyncio.wait([ended], timeout=0.05)
        if done:
            break
    said = ended.result()  # not done: it was let go on
    assert b" 408 " in said or said == b""  # a byte that was under way when the server closed resets the connection
    await wire.close()


async def test_an_idle_connection_is_closed_silently(unstarted: Serving) -> None:
    await unstarted.start(patience=SLOW)
    wire = await unstarted.connect()
    for _ in range(2):
        wire.send(request("GET", "/v1/data"))
        assert (await wire.answer()).status == 200
    assert await wire.closed() == b""
    await wire.close()


@pytest.mark.parametrize("beginning", [b"", b"[1,", b"[" + b" " * 600])
async def test_a_stalled_body_is_408(unstarted: Serving, caplog: pytest.LogCaptureFixture, beginning: bytes) -> None:
    await unstarted.start(limits=Limits(body_seconds=0.2), patience=SLOW)
    before = unstarted.mark()
    wire = await unstarted.connect()
    wire.send(request("PUT", "/v1/data/x", None, "Content-Length: 5000") + beginning)
    got = await wire.answer()
    assert (got.status, got.code, got.headers["connection"]) == (408, "too_slow", "close")
    assert await wire.closed() == b""
    await wire.close()
    assert unstarted.mark() == before
    short_lines(caplog)


async def test_a_body_that_trickles_is_408(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(body_seconds=0.2), patience=SLOW)
    wire = await unstarted.connect()
    wire.send(request("PUT", "/v1/data/x", None, "Transfer-Encoding: chunked"))
    answer = asyncio.create_task(wire.answer())
    for _ in range(100):
        wire.send(b"1\r\n \r\n")
        done, _ = await asyncio.wait([answer], timeout=0.02)
        if done:
            break
    assert answer.result().code == "too_slow"
    await wire.close()


async def test_a_body_that_makes_progress_may_take_its_time(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(body_seconds=0.3), patience=SLOW)
    wire = await unstarted.connect()
    wire.send(request("PUT", "/v1/data/x", None, f"Content-Length: {8 * 1024}"))
    answer = asyncio.create_task(wire.answer())
    for _ in range(8):
        await asyncio.wait([answer], timeout=0.1)
        wire.send(b" " * 1023 + b"7" if _ == 7 else b" " * 1024)
    assert (await answer).status == 200
    await wire.close()


async def test_a_client_that_does_not_read_is_stopped_and_then_closed(unstarted: Serving) -> None:
    await unstarted.start(patience=SLOW)
    await unstarted.put("/big", "x" * 1_000_000)
    wire = await unstarted.connect()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(3):
        wire.send(request("GET", "/v1/data/big"))
    for _ in range(200):
        wire.send(request("GET", "/v1/data/big?wait=0"))
    connections = unstarted.server.app.connections
    assert connections() == 2
    async with asyncio.timeout(5):
        while connections() > 1:
            await unstarted.value()
            await asyncio.sleep(0.02)
    await wire.close()


async def test_too_many_connections_are_told_so(unstarted: Serving, caplog: pytest.LogCaptureFixture) -> None:
    await unstarted.start(most_connections=3, patience=Patience(tick=0.05))
    wires = [await unstarted.connect() for _ in range(3)]
    for wire in wires:
        wire.send(request("GET", "/v1/data"))
        assert (await wire.answer()).status == 200
    beyond = await unstarted.connect()
    beyond.send(request("PUT", "/v1/data/x", b"1"))
    got = await beyond.answer()
    assert (got.status, got.code, got.headers["retry-after"]) == (503, "unavailable", "1")
    assert "3 connections at most (--max-connections)" in got.json["detail"]
    assert await beyond.closed() == b""
    await beyond.close()
    short_lines(caplog)
    assert unstarted.engine.rev == 0
    await wires.pop().close()
    async with asyncio.timeout(5):
        while (await unstarted.ask("GET", "/v1/data")).status != 200:
            await asyncio.sleep(0.01)
    for wire in wires:
        await wire.close()


async def test_a_flood_of_bad_requests_logs_a_few_lines(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        wire = await serving.connect()
        wire.send(b"\x1b[31m\xff\xfe nonsense\r\n\r\n")
        assert (await wire.answer()).status in (400, 405)
        await wire.close()
    short_lines(caplog, 35)


@pytest.mark.parametrize(
    ("data", "flag", "limit"),
    [
        (b"GET /v1/data/" + b"a" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "--max-target", 1024),
        (b"GET /v1/data/" + b"a" * 99_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "--max-target", 1024),
        (b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 6000 + b"\r\n\r\n", "--max-header", 5120),
        (b"GET /v1/data HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 99_000 + b"\r\n\r\n", "--max-header", 5120),
        (PUT + b"Content-Length: 200\r\n\r\n", "--max-body", 100),
        (PUT + CHUNKED + b"65\r\n" + b" " * 101 + b"\r\n0\r\n\r\n", "--max-body", 100),
        (PUT + b"Content-Length: 3\r\n\r\n1", "--body-timeout", 0.2),
        (b"GET /v1/data HTTP/1.1\r\n", "--header-timeout", 0.5),
        (b"GET /v1/data" + b"/a" * 129 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "--max-segments", 128),
    ],
)
async def test_an_error_names_the_limit_and_its_flag(unstarted: Serving, data: bytes, flag: str, limit: float) -> None:
    limits = Limits(max_target=1024, max_header=5120, max_body=100, body_seconds=0.2)  # parsed with the same bound
    await unstarted.start(limits=limits, patience=Patience(head=0.5, tick=0.1))
    wire = await unstarted.connect()
    wire.send(data)
    got = await wire.answer()
    assert f"({flag})" in got.json["detail"], got
    assert str(limit) in got.json["detail"]
    assert got.json.get("limit", limit) == limit
    assert got.status in (400, 408, 413, 414, 431)
    await wire.close()


@pytest.mark.parametrize(
    ("method", "header", "status"),
    [
        ("GET", "Connection: Upgrade\r\nUpgrade: h2c", 200),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket", 200),
        ("CONNECT", "X: 1", 405),
    ],
)
@pytest.mark.parametrize("pipelined", [True, False])
async def test_nothing_is_lost_behind_an_upgrade_that_is_not_taken_up(
    serving: Serving, method: str, header: str, status: int, pipelined: bool
) -> None:
    wire, behind = await serving.connect(), request("PUT", "/v1/data/x", b"1")
    wire.send(request(method, "/v1/data", None, header) + (behind if pipelined else b""))
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (status, "close")
    assert await wire.closed() == b""
    assert serving.engine.rev == 0
    await wire.close()


async def test_a_transfer_coding_of_http_1_0_ends_the_connection(serving: Serving) -> None:
    wire = await serving.connect()
    put = PUT.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Connection: keep-alive\r\n" + CHUNKED + b"1\r\n1\r\n0\r\n\r\n"
    wire.send(put + request("PUT", "/v1/data/y", b"1"))
    assert (await wire.answer()).headers["connection"] == "close"
    assert await wire.closed() == b""
    assert await serving.value() == {"x": 1}
    await wire.close()


async def test_connections_that_come_and_go_leave_nothing(serving: Serving) -> None:
    await serving.value()
    before = descriptors()
    for _ in range(50):
        wire = await serving.connect()
        await wire.close()
    async with asyncio.timeout(5):
        while descriptors() > before:
            await asyncio.sleep(0.01)


async def test_a_client_of_http_1_0_may_keep_its_connection(serving: Serving) -> None:
    wire = await serving.connect()
    for _ in range(2):
        wire.send(b"GET /v1/data HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        got = await wire.answer()
        assert (got.status, got.headers["connection"]) == (200, "keep-alive")
    await wire.close()
