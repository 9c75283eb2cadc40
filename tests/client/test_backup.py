"""A backup into a file: whole and durable, or nothing at all."""

import asyncio
import contextlib
import errno
import os
import resource
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from kanta_client import Backup, KantaClient, Patience, Refused, Unreachable

from tests.serving import Serving
from tests.web.backup_kit import fill, opened

HEAD = b"HTTP/1.1 200 OK\r\nKanta-Revision: 7\r\nKanta-Cursor: 7-0123456789abcdef\r\nContent-Length: %d\r\n\r\n"
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: 35\r\n\r\n"
    b'{"status":503,"code":"unavailable"}'
)


@pytest.fixture
async def kanta(serving: Serving) -> AsyncIterator[KantaClient]:
    async with KantaClient(f"http://127.0.0.1:{serving.port}/") as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where copies go, and nothing else is."""
    path = tmp_path / "copies"
    path.mkdir()
    return path


Script = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[KantaClient]:
    """A client of a server that answers one request after another by these; the last one again and again."""
    left, answering = list(scripts), list[asyncio.Task[None]]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await (left.pop(0) if len(left) > 1 else left[0])(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.create_task(answer(reader, writer)))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = KantaClient(f"http://127.0.0.1:{port}", timeout=5.0, patience=Patience())
        yield client
        await client.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


def says(*parts: bytes, then: float = 0.0) -> Script:
    """Say this, and close the connection some seconds later."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        await asyncio.sleep(then)

    return script


async def test_a_backup_is_the_file_and_says_what_it_is(serving: Serving, kanta: KantaClient, folder: Path) -> None:
    await fill(serving.engine, 3)
    written = await kanta.set("/a", 1)
    made = await kanta.backup(folder / "copy.kantadb")
    held = serving.mark()[3]
    assert made == Backup(written.rev, written.cursor, len(held))
    copy = folder / "copy.kantadb"
    assert copy.read_bytes() == held
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert copy.stat().st_nlink == 1
    assert os.listdir(folder) == ["copy.kantadb"]
    assert opened(folder / "again.kantadb", held).rev == written.rev


async def test_an_empty_database_is_an_empty_file(kanta: KantaClient, folder: Path) -> None:
    assert await kanta.backup(str(folder / "copy")) == Backup(0, "0-0000000000000000", 0)
    assert (folder / "copy").read_bytes() == b""


async def test_what_is_there_is_overwritten_on_request_only(kanta: KantaClient, folder: Path) -> None:
    await kanta.set("/a", 1)
    copy = folder / "copy"
    copy.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await kanta.backup(copy)
    assert copy.read_bytes() == b"old"
    made = await kanta.backup(copy, overwrite=True)
    assert (len(copy.read_bytes()), os.listdir(folder)) == (made.bytes, ["copy"])
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        await kanta.backup(folder / "dangling")
    with pytest.raises(IsADirectoryError):
        await kanta.backup(folder, overwrite=True)
    with pytest.raises(FileNotFoundError):
        await kanta.backup(folder / "none" / "copy")
    assert sorted(os.listdir(folder)) == ["copy", "dangling"]


async def test_a_folder_that_is_not_there_is_told_by_the_name_that_was_given(folder: Path, kanta: KantaClient) -> None:
    with pytest.raises(FileNotFoundError) as error:
        await kanta.backup(folder / "no" / "copy")
    assert error.value.filename == str(folder / "no" / "copy")


async def test_what_comes_there_meanwhile_stays(folder: Path) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        (folder / "copy").write_bytes(b"new")
        await says(HEAD % 2, b"xx")(writer)

    async with scripted(script) as client:
        with pytest.raises(FileExistsError):
            await client.backup(folder / "copy")
    assert (os.listdir(folder), (folder / "copy").read_bytes()) == (["copy"], b"new")


async def test_a_file_system_without_links_will_do(
    kanta: KantaClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    await kanta.set("/a", 1)
    made = await kanta.backup(folder / "copy")
    assert (os.listdir(folder), (folder / "copy").stat().st_size) == (["copy"], made.bytes)
    with pytest.raises(FileExistsError):
        await kanta.backup(folder / "copy")


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
async def test_a_connection_that_is_cut_leaves_nothing(folder: Path, size: int) -> None:
    async with scripted(says(HEAD % (size + 1), b"x" * size)) as client:
        with pytest.raises(Unreachable, match=f"after {size} of {size + 1} bytes"):
            await client.backup(folder / "copy")
    assert os.listdir(folder) == []


async def test_a_server_that_ends_meanwhile_leaves_nothing(
    serving: Serving, kanta: KantaClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(serving.engine, 24)
    real, begun = os.write, asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(fd: int, data: bytes) -> int:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.05)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    copying = asyncio.create_task(kanta.backup(folder / "copy"))
    await begun.wait()
    monkeypatch.undo()
    await serving.stop()
    with pytest.raises(Unreachable):
        await copying
    assert os.listdir(folder) == []


async def test_a_server_that_falls_silent_is_not_waited_for_longer_than_was_said(folder: Path) -> None:
    for script in (says(HEAD % 10, b"x", then=5.0), says(then=5.0)):
        async with scripted(script) as client:
            began = time.monotonic()
            with pytest.raises(Unreachable):
                await client.backup(folder / "copy", timeout=0.3)
            assert time.monotonic() - began < 2.0
    assert os.listdir(folder) == []


async def test_it_is_asked_for_again_until_it_begins(folder: Path) -> None:
    async with scripted(says(BUSY), says(), says(HEAD % 2, b"ok")) as client:
        assert await client.backup(folder / "copy") == Backup(7, "7-0123456789abcdef", 2)
    assert (folder / "copy").read_bytes() == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_does_not_say_what_it_is_is_no_backup(folder: Path, answer: bytes) -> None:
    async with scripted(says(answer)) as client:
        with pytest.raises(Unreachable, match="does not tell"):
            await client.backup(folder / "copy")
    assert os.listdir(folder) == []


async def test_a_refusal_is_raised_at_once(folder: Path) -> None:
    refused = b'HTTP/1.1 403 Forbidden\r\nContent-Length: 33\r\n\r\n{"status":403,"code":"forbidden"}'
    async with scripted(says(refused)) as client:
        with pytest.raises(Refused) as error:
            await client.backup(folder / "copy")
    assert (error.value.code, os.listdir(folder)) == ("forbidden", [])


async def test_a_disk_without_room_is_an_oserror_and_leaves_nothing(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with scripted(says(HEAD % (6 << 20), b"x" * (6 << 20))) as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, hard))
        try:
            with pytest.raises(OSError) as error:
                await client.backup(folder / "copy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (error.value.errno, os.listdir(folder)) == (errno.EFBIG, [])


@pytest.mark.parametrize("call", ["write", "fsync", "link", "rename"])
async def test_whatever_call_fails_nothing_is_left(
    kanta: KantaClient, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await kanta.set("/a", 1)

    def fail(*arguments: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError) as error:
        await kanta.backup(folder / "copy", overwrite=call == "rename")
    monkeypatch.undo()
    assert (error.value.errno, os.listdir(folder)) == (errno.EIO, [])


async def test_a_backup_that_is_cancelled_at_any_moment_leaves_nothing_or_all_of_it(
    serving: Serving, kanta: KantaClient, folder: Path
) -> None:
    await fill(serving.engine, 12)
    size, outcomes = serving.engine.log.size, set()
    for number in range(60):
        copying = asyncio.create_task(kanta.backup(folder / "copy"))
        await asyncio.sleep(number * 0.002)
        copying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await copying
        left = os.listdir(folder)
        outcomes.add(copying.cancelled())
        assert left in ([], ["copy"])
        assert left or copying.cancelled()
        if left:
            assert (folder / "copy").stat().st_size == size
            (folder / "copy").unlink()
    assert True in outcomes


async def test_the_loop_goes_on_while_the_disk_is_slow(
    serving: Serving, kanta: KantaClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kanta.set("/a", 1)
    real, longest = os.fsync, 0.0

    def fsync(fd: int) -> None:
        time.sleep(0.3)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    copying = asyncio.create_task(kanta.backup(folder / "copy"))
    while not copying.done():
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - began)
    assert (await copying).rev == 1
    assert longest < 0.25
