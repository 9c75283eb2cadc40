"""The client against a real server."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from kanta_client import ConflictError, KantaClient, KantaError, NotFoundError, PreconditionError, UnknownOutcomeError

from tests.serving import Serving


@pytest.fixture
async def kanta(serving: Serving) -> AsyncIterator[KantaClient]:
    async with KantaClient(f"http://127.0.0.1:{serving.port}/") as client:
        yield client


async def test_a_value_is_set_read_patched_and_deleted(kanta: KantaClient) -> None:
    written = await kanta.set("/users/alice", {"name": "Alice", "age": 1}, action="sign_up", user="root")
    assert (written.rev, written.changed, written.key) == (1, True, None)
    assert await kanta.get("/users/alice/name") == "Alice"
    await kanta.patch("/users/alice", {"age": 2, "$delete": ["name"]})
    await kanta.patch("/users/alice", {"age": None, "x": 1}, merge=True)
    read = await kanta.read("/users")
    assert (read.value, read.rev) == ({"alice": {"x": 1}}, 3)
    assert (await kanta.delete("/users/alice")).rev == 4
    with pytest.raises(NotFoundError) as refused:
        await kanta.get("/users/alice")
    assert (refused.value.code, refused.value.status) == ("not_found", 404)


async def test_a_child_is_added(kanta: KantaClient) -> None:
    added = await kanta.add("/notes", "first")
    assert await kanta.get(f"/notes/{added.key}") == "first"


@pytest.mark.parametrize("key", ["..", ".", "", "a/b", "~", "%2F", "ü?&#", "$x", " "])
async def test_every_key_can_be_named(kanta: KantaClient, key: str) -> None:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    await kanta.set(pointer, 1)
    assert (await kanta.get(), await kanta.get(pointer)) == ({key: 1}, 1)


@pytest.mark.parametrize("path", ["bad", "/~", "/a" * 129, "/\ud800"])
async def test_a_path_that_is_no_pointer_is_refused_as_the_server_would(kanta: KantaClient, path: str) -> None:
    for asked in (
        kanta.get(path),
        kanta.read(path),
        kanta.keys(path),
        kanta.set(path, 1),
        kanta.patch(path, {}),
        kanta.delete(path),
        kanta.add(path, 1),
    ):
        with pytest.raises(KantaError) as refused:
            await asked
        assert (refused.value.status, refused.value.code) == (400, "invalid_path")
        assert refused.value.problem["title"]
    with pytest.raises(KantaError, match="invalid_path"):
        await kanta.transact({}, path="bad")


async def test_keys_come_from_all_pages(kanta: KantaClient) -> None:
    names = [f"k&{i}" for i in range(7)]
    await kanta.set("/o", dict.fromkeys(names, 0))
    assert await kanta.keys("/o", page=3) == names


async def test_conditions_and_keys_are_passed_on(kanta: KantaClient) -> None:
    await kanta.set("/x", 1, key="k")
    assert (await kanta.set("/x", 1, key="k")).replayed
    read = await kanta.read("/x")
    await kanta.set("/x", 2, etag=read.etag)
    with pytest.raises(PreconditionError) as failed:
        await kanta.set("/x", 3, etag=read.etag)
    assert failed.value.problem["value"] == 2
    with pytest.raises(ConflictError) as conflict:
        await kanta.set("/x", 3, base=read.cursor)
    assert conflict.value.problem["conflicts"][0]["path"] == "/x"
    with pytest.raises(KantaError, match="key_reused"):
        await kanta.set("/x", 9, key="k")


async def test_a_transaction_is_committed_with_its_conditions(kanta: KantaClient) -> None:
    await kanta.set("", {"a": 1, "b": 2})
    done = await kanta.transact({"a": 2, "b": 2}, a="move", when=[{"path": "/a", "equals": 1}], want="diff")
    assert (done.rev, done.diff) == (2, {"a": 2})
    with pytest.raises(PreconditionError):
        await kanta.transact({"a": 3}, when=[{"path": "/a", "equals": 1}])


async def test_the_status_is_told(kanta: KantaClient) -> None:
    assert (await kanta.status())["rev"] == 0


async def test_a_lost_answer_is_an_unknown_outcome_and_never_a_refusal(serving: Serving, kanta: KantaClient) -> None:
    await kanta.status()
    serving.disk.hold()
    lost = asyncio.create_task(kanta.add("/x", 1, key="k"))
    await serving.disk.until_syncing()
    for connection in serving.server.aiohttp.connections:
        connection.force_close()
    with pytest.raises(UnknownOutcomeError):
        await lost
    serving.disk.release()
    again = await kanta.add("/x", 1, key="k")
    assert (again.rev, again.replayed) == (1, True)
    assert await kanta.keys("/x") == [again.key]


async def test_a_write_that_aiohttp_repeats_is_done_once(serving: Serving, kanta: KantaClient) -> None:
    await kanta.status()
    serving.disk.hold()
    lost = asyncio.create_task(kanta.set("/x", 1))
    await serving.disk.until_syncing()
    for connection in serving.server.aiohttp.connections:
        connection.force_close()
    serving.disk.release()
    assert ((await lost).rev, (await kanta.status())["rev"]) == (1, 1)


async def test_a_server_that_is_not_there_is_a_connection_error(serving: Serving, kanta: KantaClient) -> None:
    await serving.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await kanta.set("/x", 1)
