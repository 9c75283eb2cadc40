"""What goes over the network, through things that stand in between: gateways, silence, slow lines."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from kanta_client import Closed, KantaClient, Patience, Refused, Unauthorized, UnknownOutcome, Unreachable
from kanta_client import http as http_module

from tests.client.proxy import Proxy
from tests.serving import Serving, descriptors

QUICK = Patience(ping=0.3, stale=0.6, lost=1.0, retry=0.05)
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[str]:
    """The URL of a server that does this with each connection."""
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handle(reader, writer)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def saying(*answers: bytes) -> Handle:
    """Answers each request with the next of these, the last again and again."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(left.pop(0) if len(left) > 1 else left[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return handle


def page(status: int, body: bytes = b"<html>") -> bytes:
    return b"HTTP/1.1 %d Some\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_a_server_that_is_not_there_is_named_and_no_certificates() -> None:
    async with KantaClient("http://127.0.0.1:1", timeout=0.2) as db:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 \["):
            await db.get("/a")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 200])
async def test_a_gateway_without_a_server_behind_it_is_no_answer(status: int) -> None:
    async with listening(saying(page(status))) as url, KantaClient(url, timeout=0.5, patience=QUICK) as db:
        with pytest.raises(Unreachable, match=str(status)):
            await db.set("/a", 1)


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Unauthorized), (404, Refused), (302, Refused)]
)
async def test_a_gateway_that_refuses_is_told_at_once(status: int, error: type[Exception]) -> None:
    async with listening(saying(page(status))) as url, KantaClient(url, timeout=5, patience=QUICK) as db:
        with pytest.raises(error, match=str(status)):
            await db.set("/a", 1)


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH\r\n", b"\x00" * 100, b"HTTP/1.1 101 Switching\r\n\r\n"])
async def test_something_else_on_the_port_is_no_answer_and_no_traceback(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(saying(garbage)) as url, KantaClient(url, timeout=0.5, patience=QUICK) as db:
        with pytest.raises((Unreachable, Refused)):
            await db.set("/a", 1)
    assert "Traceback" not in caplog.text


async def test_a_handshake_without_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, serving: Serving) -> None:
    monkeypatch.setattr(http_module, "CONNECT", 0.3)
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=10, patience=QUICK) as db:
        proxy.flowing.clear()
        writing = asyncio.create_task(db.set("/a", 1))
        async with asyncio.timeout(5):
            while proxy.connections < 3:
                await asyncio.sleep(0.02)
        proxy.flowing.set()
        assert (await writing).rev == 1


async def test_closing_does_not_wait_for_a_peer_that_takes_nothing(serving: Serving) -> None:
    async with Proxy(serving.port) as proxy:
        db = KantaClient(proxy.url, timeout=10)
        await db.ping()
        proxy.flowing.clear()
        writing = [asyncio.create_task(db.set(f"/a{number}", "x" * 4_000_000)) for number in range(6)]
        await asyncio.sleep(0.1)
        began, opened = time.monotonic(), descriptors()
        await db.close()
        await asyncio.sleep(0.05)
        assert time.monotonic() - began < 4
        assert descriptors() < opened  # it does not linger until the peer reads on
        for result in await asyncio.gather(*writing, return_exceptions=True):
            assert isinstance(result, UnknownOutcome | Closed)


async def test_a_connection_that_went_silent_is_replaced(serving: Serving) -> None:
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=10, patience=QUICK) as db:
        states: list[str] = []
        async with db.mirror("/a") as copy:
            proxy.flowing.clear()
            await serving.put("/a", 1)
            async with asyncio.timeout(5):
                while db.state != "stale":
                    await asyncio.sleep(0.02)
            states.append(db.state)
            assert not copy.live
            proxy.flowing.set()
            await copy.at_least(1)
            assert copy.value == 1
            assert copy.live


async def test_a_large_value_over_a_slow_line_is_no_silence(serving: Serving) -> None:
    await serving.put("/large", "x" * 6_000_000)
    async with Proxy(serving.port) as proxy, KantaClient(proxy.url, timeout=20, patience=QUICK) as db:
        await db.ping()
        proxy.delay = 0.03  # 6 MB in pieces of 64 KiB: 3 s, where 1 s of silence is too much
        async with db.mirror("/large") as copy:
            assert len(copy.value) == 6_000_000
        assert proxy.connections == 1


async def test_a_value_of_a_hundred_megabytes_arrives(serving: Serving) -> None:
    for number in range(8):
        await serving.put(f"/large/{number}", "x" * 14_000_000)
    async with KantaClient(f"http://127.0.0.1:{serving.port}", patience=QUICK) as db, db.mirror("/large") as copy:
        assert [len(value) for value in copy.value.values()] == [14_000_000] * 8
        written = await db.set("/large/0", 1)
        await copy.at_least(written)
        assert copy["0"] == 1


async def test_a_unix_socket_does_as_well(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "kantad.sock")

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", serving.port)

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(carry(reader, back), carry(there, writer), return_exceptions=True)

    server = await asyncio.start_unix_server(accepted, path)
    async with KantaClient(f"unix:{path}", patience=QUICK) as db:
        assert (await db.set("/a", [1])).rev == 1
        assert (await db.append("/a", 2)).rev == 2
        await asyncio.sleep(0.5)  # silence enough to be asked what has arrived
        assert await db.get("/a") == [1, 2]
    server.close()
