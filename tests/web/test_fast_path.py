"""The fast path answers byte for byte as the plain one, in order, and really is taken."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.engine_kit import eventually
from tests.serving import Serving, request

HEAD = b"Host: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"


def plain(method: bytes, target: bytes, body: bytes | None = None, more: bytes = b"") -> bytes:
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, HEAD, length, more, body or b"")


GET, PUT = plain(b"GET", b"/v1/data/a"), plain(b"PUT", b"/v1/data/a", b"1")
WARM = [GET, plain(b"PUT", b"/v1/data", b'{"a":1,"b":{"c":[1,2]}}'), PUT]

# name -> the segments that one connection sends; each is sent when the answers before it are there
CORPUS: dict[str, list[bytes]] = {
    "read": [GET, GET, plain(b"GET", b"/v1/data"), plain(b"GET", b"/v1/data/b/c/1")],
    "missing": [plain(b"GET", b"/v1/data/none"), plain(b"GET", b"/v1/data/a/x"), plain(b"GET", b"/v1/data/"), GET],
    "write": [PUT, plain(b"PUT", b"/v1/data/a", b"2"), plain(b"PUT", b"/v1/data/a", b"2"), GET],
    "create": [plain(b"PUT", b"/v1/data/n/e/w", b"7"), plain(b"GET", b"/v1/data/n")],
    "patch": [plain(b"PATCH", b"/v1/data/b", b'{"d":5}'), plain(b"PATCH", b"/v1/data/b", b'{"d":5}')],
    "dollars": [plain(b"PUT", b"/v1/data/$x", b"1"), plain(b"PATCH", b"/v1/data/", b"1"), plain(b"GET", b"/v1/data")],
    "patch that does not fit": [
        plain(b"PATCH", b"/v1/data/a", b'{"x":{"$insert":[]}}'),
        plain(b"PATCH", b"/v1/data/a/b", b"1"),
    ],
    "patch that is none": [plain(b"PATCH", b"/v1/data/b", b'{"$x":1}'), plain(b"PATCH", b"/v1/data", b"1")],
    "array": [
        plain(b"PUT", b"/v1/data/b/c/-", b"3"),
        plain(b"PUT", b"/v1/data/b/c/9", b"3"),
        plain(b"PUT", b"/v1/data/b/c/0", b"3"),
    ],
    "malformed body": [plain(b"PUT", b"/v1/data/a", b"x"), plain(b"PUT", b"/v1/data/a", b"\xff"), PUT],
    "too deep": [
        plain(b"PUT", b"/v1/data/a", b"[" * 200 + b"]" * 200),
        plain(b"PUT", b"/v1/data/a", b"[" * 200 + b"]" * 200),
    ],
    "root": [plain(b"PUT", b"/v1/data", b"5"), plain(b"PUT", b"/v1/data", b"{}"), plain(b"GET", b"/v1/data")],
    "big integer": [
        plain(b"PUT", b"/v1/data/a", b"18446744073709551616"),
        plain(b"PUT", b"/v1/data/a", b"18446744073709551615"),
        GET,
    ],
    "many segments": [plain(b"GET", b"/v1/data" + b"/x" * 128), plain(b"GET", b"/v1/data" + b"/x" * 129)],
    "in two segments": [GET[:30], GET[30:], PUT[:-1], PUT[-1:], GET],
    "head and body apart": [PUT[:-1], PUT[-1:], PUT[:-1], PUT[-1:], GET],
    "pipelined": [GET + GET + GET, GET],
    "pipelined writes": [PUT + plain(b"PUT", b"/v1/data/a", b"3") + GET, GET],
    "one and a half": [GET + GET[:20], GET[20:], GET],
    "body of the next": [PUT + PUT[:-1], PUT[-1:]],
    "body too long": [plain(b"PUT", b"/v1/data/a", b"1") + b"GARBAGE\r\n\r\n"],
    "leading empty line": [b"\r\n" + GET, GET],
    "extra header": [plain(b"GET", b"/v1/data/a", None, b"X-Extra: 1\r\n"), GET],
    "query": [
        plain(b"GET", b"/v1/data/a?"),
        plain(b"GET", b"/v1/data/a?x=1"),
        plain(b"PUT", b"/v1/data/a?user=u", b"4"),
        GET,
    ],
    "percent": [plain(b"GET", b"/v1/data/%61"), plain(b"PUT", b"/v1/data/%2F", b"4"), plain(b"GET", b"/v1/data/%zz")],
    "other method": [plain(b"HEAD", b"/v1/data/a"), GET],
    "delete": [plain(b"DELETE", b"/v1/data/a"), GET, plain(b"DELETE", b"/v1/data/a"), PUT],
    "if-none-match": [plain(b"GET", b"/v1/data/a", None, b"If-None-Match: *\r\n"), GET],
    "if-match": [plain(b"PUT", b"/v1/data/a", b"1", b'If-Match: "0"\r\n'), PUT],
    "idempotency": [plain(b"PUT", b"/v1/data/a", b"5", b"Idempotency-Key: k\r\n")] * 2 + [PUT],
    "messagepack": [plain(b"GET", b"/v1/data/a", None, b"Accept: application/msgpack\r\n"), GET],
    "labelled": [plain(b"PUT", b"/v1/data/a", b"6", b"Content-Type: application/json\r\n")] * 2 + [GET],
    "labelled messagepack": [plain(b"PUT", b"/v1/data/a", b"\x06", b"Content-Type: application/msgpack\r\n")] * 2
    + [GET],
    "merge patch": [plain(b"PATCH", b"/v1/data/b", b'{"c":null}', b"Content-Type: application/merge-patch+json\r\n")]
    * 2,
    "content coding": [plain(b"PUT", b"/v1/data/a", b"6", b"Content-Encoding: gzip\r\n")],
    "chunked": [plain(b"PUT", b"/v1/data/a", None, b"Transfer-Encoding: chunked\r\n") + b"1\r\n8\r\n0\r\n\r\n", GET],
    "get with a body": [plain(b"GET", b"/v1/data/a", b"xx"), GET],
    "put without a body": [plain(b"PUT", b"/v1/data/a", b""), plain(b"PUT", b"/v1/data/a"), GET],
    "keep-alive asked for": [plain(b"GET", b"/v1/data/a", None, b"Connection: keep-alive\r\n")] * 2 + [GET],
    "close": [GET, plain(b"GET", b"/v1/data/a", None, b"Connection: close\r\n")],
    "close behind it": [plain(b"GET", b"/v1/data/a", None, b"Connection: close\r\n") + GET],
    "http/1.0": [GET.replace(b"1.1", b"1.0")],
    "http/1.0 keep-alive": [
        plain(b"GET", b"/v1/data/a", None, b"Connection: keep-alive\r\n").replace(b"1.1", b"1.0"),
        GET,
    ],
    "other endpoints": [
        plain(b"GET", b"/v1/keys/b"),
        GET,
        plain(b"GET", b"/v1/datax"),
        GET,
        plain(b"GET", b"/healthz"),
        GET,
    ],
    "foreign host": [GET, GET.replace(b"localhost", b"evil.example"), GET],
    "foreign origin": [plain(b"GET", b"/v1/data/a", None, b"Origin: https://evil.example\r\n"), GET],
    "unusual between": [GET, PUT, plain(b"POST", b"/v1/data/b/c", b"9"), GET, plain(b"GET", b"/v1/data/b?wait=1"), PUT],
    "malformed behind it": [GET, b"\x00\r\n\r\n"],
    "small letters": [GET.replace(b"Host:", b"host:"), GET.replace(b"Host:", b"HOST:")] * 2,
}


def masked(answers: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]+", b"", answers)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[list[Serving]]:
    """The same server with and without the fast path, on clocks that stand still."""
    servers = [Serving(str(tmp_path / f"{name}.kantadb"), fast_path=name == "fast") for name in ("fast", "plain")]
    for server in servers:
        server.clock.step = 0
        await server.start()
        wire = await server.connect()
        for data in WARM * 2:
            wire.send(data)
            await wire.answer()
        await wire.close()
    yield servers
    for server in servers:
        await server.stop()


async def conversation(server: Serving, segments: list[bytes]) -> bytes:
    """All that the server says to these segments, each sent when the server has been quiet, then to a half-close."""
    wire = await server.connect()
    said = b""
    for segment in segments:
        wire.send(segment)
        try:
            while True:
                async with asyncio.timeout(0.02):
                    data = await wire.reader.read(1 << 20)
                if not data:
                    return said + b"<closed>"
                said += data
        except TimeoutError:
            pass
        except ConnectionError:
            return said + b"<closed>"
    await wire.close()
    return said + b"<open>"


@pytest.mark.parametrize("name", CORPUS)
async def test_both_ways_answer_byte_for_byte_the_same(both: list[Serving], name: str) -> None:
    fast, plain = await asyncio.gather(*(conversation(server, CORPUS[name]) for server in both))
    assert b"HTTP/1.1 " in fast
    assert masked(fast) == masked(plain)
    assert fast.count(b"HTTP/1.1 5") == 0
    assert both[0].mark() == both[1].mark()
    assert both[1].fast_answers == 0


async def test_the_fast_path_is_taken_where_it_should_be(both: list[Serving]) -> None:
    fast = both[0]
    for name, hits in [("read", 4), ("missing", 4), ("write", 4), ("head and body apart", 1), ("unusual between", 4)]:
        before = fast.fast_answers
        await conversation(fast, CORPUS[name])
        assert fast.fast_answers - before == hits, name
    for name in (
        "query",
        "foreign host",
        "foreign origin",
        "if-match",
        "messagepack",
        "labelled messagepack",
        "chunked",
    ):
        before = fast.fast_answers
        segments = [one for one in CORPUS[name] if one not in (GET, PUT)]
        await conversation(fast, segments * 2)
        assert fast.fast_answers == before, name
    metrics = (await fast.ask("GET", "/metrics")).body.decode()
    assert f"kantad_fast_answers_total {fast.fast_answers}\n" in metrics


async def test_a_read_behind_an_unsynced_write_on_its_connection_waits_its_turn(both: list[Serving]) -> None:
    for server in both:
        await server.value("/a")
        server.disk.hold()
        wire = await server.connect()
        wire.send(plain(b"PATCH", b"/v1/data/a", b"5"))
        rev = server.engine.rev
        await eventually(lambda server=server, rev=rev: server.engine.rev == rev + 1)
        wire.send(GET)
        answer = asyncio.create_task(wire.answer())
        assert (await server.ask("GET", "/v1/data/a")).json == 1
        assert not answer.done()
        server.disk.release()
        first, second = await answer, await wire.answer()
        assert (first.json["rev"], second.json) == (rev + 1, 5)
        assert second.headers["kanta-revision"] == str(rev + 1)


@pytest.mark.parametrize("order", ["slow first", "fast first"])
async def test_answers_come_in_the_order_of_the_requests(both: list[Serving], order: str) -> None:
    slow = request("POST", "/v1/transaction", b'{"diff":{"b":{"z":1}}}')
    for server in both:
        wire = await server.connect()
        for _ in range(50):
            pair = [slow, GET] if order == "slow first" else [PUT, slow]
            for data in pair:  # two segments that arrive in one turn of the loop
                wire.send(data)
                await asyncio.sleep(0)
            answers = [await wire.answer(), await wire.answer()]
            kinds = [b"rev" in answer.body for answer in answers]
            assert kinds == ([True, False] if order == "slow first" else [True, True])
            if order == "slow first":
                assert answers[1].body == b"1"


async def test_a_long_pipeline_is_answered_whole_and_in_order(both: list[Serving]) -> None:
    for server in both:
        wire = await server.connect()
        for i in range(500):
            wire.send(plain(b"PUT", b"/v1/data/n", b"%d" % i) + plain(b"GET", b"/v1/data/n"))
        for i in range(500):
            assert (await wire.answer()).status == 200
            assert (await wire.answer()).json == i


async def test_a_client_that_goes_at_any_moment_leaves_the_server_usable(
    both: list[Serving], caplog: pytest.LogCaptureFixture
) -> None:
    unusual = request("PUT", "/v1/data/gone?user=u", b"[1,2,3]")
    for server in both:
        for data in (PUT, GET, unusual, plain(b"PATCH", b"/v1/data", b'{"gone":2}')):
            for length in {1, 10, len(data) // 2, len(data) - 2, len(data) - 1, len(data)}:
                wire = await server.connect()
                wire.send(data[:length])
                await wire.writer.drain()
                wire.writer.transport.abort()
        assert (await server.ask("PUT", "/v1/data/a", 1)).status == 200
        await eventually(lambda server=server: server.server.app.connections() == 1)
    assert not [record for record in caplog.records if record.exc_info]
    assert len(caplog.records) == 0


@pytest.mark.parametrize("data", [PUT[:-1] + b"9", request("PUT", "/v1/data/a?user=u", b"9")], ids=["fast", "plain"])
async def test_the_write_of_a_client_that_went_before_the_answer_is_durable(both: list[Serving], data: bytes) -> None:
    for server in both:
        server.disk.hold()
        wire = await server.connect()
        wire.send(data)
        rev = server.engine.rev
        await eventually(lambda server=server, rev=rev: server.engine.rev == rev + 1)
        wire.writer.transport.abort()
        await eventually(lambda server=server: server.server.app.connections() <= 1)
        server.disk.release()
        await server.restart()
        assert await server.value("/a") == 9


async def test_requests_held_behind_a_write_are_dropped_with_their_connection(both: list[Serving]) -> None:
    fast = both[0]
    fast.disk.hold()
    wire = await fast.connect()
    wire.send(PUT[:-1] + b"9")
    rev = fast.engine.rev
    await eventually(lambda: fast.engine.rev == rev + 1)
    wire.send(plain(b"PUT", b"/v1/data/a", b"10"))
    await fast.ask("GET", "/v1/data/a")
    wire.writer.transport.abort()
    await fast.ask("GET", "/v1/data/a")
    fast.disk.release()
    await fast.ask("PUT", "/v1/data/other", 1)
    assert fast.engine.rev in (rev + 2, rev + 3)  # never half of it
