"""Section 1 of the contract: nothing is seen that a crash could still take back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.engine.engine_kit import eventually
from tests.serving import Got, Serving, Wire, request

pytestmark = pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])


@pytest.fixture
async def held(serving: Serving) -> AsyncIterator[Serving]:
    """A server whose disk is about to hang, with both kinds of connection warmed up."""
    await serving.put("", {"x": 1, "y": 1})
    await serving.put("/y", 2)
    await serving.value("/x")
    serving.disk.hold()
    yield serving
    serving.disk.release()


async def sent(
    serving: Serving, method: str, target: str, body: bytes | None, *headers: str
) -> tuple[Wire, asyncio.Task[Got]]:
    """A request that is under way, and its answer to come."""
    wire = await serving.connect()
    wire.send(request(method, target, body, *headers))
    return wire, asyncio.create_task(wire.answer())


async def applied(serving: Serving, rev: int) -> None:
    """Return when the engine has taken this change in."""
    await eventually(lambda: serving.engine.rev == rev)


@pytest.mark.parametrize("extra", [(), ("X-Other: 1",)], ids=["known headers", "other headers"])
async def test_a_read_never_shows_an_unsynced_change_and_does_not_wait(held: Serving, extra: tuple[str, ...]) -> None:
    wire, answer = await sent(held, "PUT", "/v1/data/x", b"2", *extra)
    await applied(held, 3)
    for path, value in (("/x", 1), ("/y", 2), ("", {"x": 1, "y": 2})):
        got = await held.ask("GET", f"/v1/data{path}", None, *extra)
        assert (got.json, got.headers["kanta-revision"]) == (value, "2")
    assert (await held.ask("GET", "/v1/keys")).headers["kanta-revision"] == "2"
    assert (await held.ask("GET", "/v1/status")).json["rev"] == 2
    assert not answer.done()
    held.disk.release()
    assert (await answer).json["rev"] == 3
    assert await held.value("/x") == 2
    await wire.close()


async def test_an_etag_condition_on_a_read_is_about_the_visible_value(held: Serving) -> None:
    tag = (await held.ask("GET", "/v1/data/x")).etag
    wire, answer = await sent(held, "PUT", "/v1/data/x", b"2")
    await applied(held, 3)
    assert (await held.ask("GET", "/v1/data/x", None, f"If-None-Match: {tag}")).status == 304
    held.disk.release()
    await answer
    assert (await held.ask("GET", "/v1/data/x", None, f"If-None-Match: {tag}")).status == 200
    await wire.close()


async def test_a_deleted_value_is_there_until_that_is_durable(held: Serving) -> None:
    wire, answer = await sent(held, "DELETE", "/v1/data/x", None)
    await applied(held, 3)
    assert await held.value("/x") == 1
    held.disk.release()
    await answer
    assert (await held.ask("GET", "/v1/data/x")).status == 404
    await wire.close()


REFUSALS = [
    ("PUT", "/v1/data/x", b"9", ('If-Match: "0"',), 412),
    ("PUT", "/v1/data/x?base=2", b"9", (), 409),
    ("PATCH", "/v1/data/x/deep", b"9", (), 409),
    ("DELETE", "/v1/data/none", None, (), 404),
    ("POST", "/v1/transaction", b'{"diff":{},"if":[{"path":"/x","equals":1}]}', (), 412),
]


@pytest.mark.parametrize(("method", "target", "body", "headers", "status"), REFUSALS)
async def test_a_refusal_that_shows_state_waits_for_that_state(
    held: Serving, method: str, target: str, body: bytes | None, headers: tuple[str, ...], status: int
) -> None:
    wire, answer = await sent(held, "PUT", "/v1/data/x", b"2")
    await applied(held, 3)
    other, refusal = await sent(held, method, target, body, *headers)
    await held.disk.until_syncing()
    await held.value("/y")
    await held.value("/y")  # whatever was sent before has been looked at
    assert not refusal.done()
    held.disk.release()
    got = await refusal
    assert got.status == status
    assert got.json.get("rev", 3) == 3
    await answer
    for one in (wire, other):
        await one.close()


async def test_what_changes_nothing_still_waits_for_what_it_saw(held: Serving) -> None:
    wire, answer = await sent(held, "PUT", "/v1/data/x", b"2")
    await applied(held, 3)
    other, same = await sent(held, "PUT", "/v1/data/x", b"2")
    await held.value("/y")
    assert not same.done()
    held.disk.release()
    assert (await same).json["changed"] is False
    await answer
    for one in (wire, other):
        await one.close()


async def test_applied_is_answered_at_once_and_still_not_shown(held: Serving) -> None:
    got = await held.ask("PUT", "/v1/data/x?ack=applied", 2)
    assert (got.status, got.json["rev"]) == (200, 3)
    assert await held.value("/x") == 1
    held.disk.release()
    await held.put("/y", 3)
    assert await held.value("/x") == 2


async def test_written_is_answered_before_the_sync_and_still_not_shown(held: Serving) -> None:
    got = await held.ask("PUT", "/v1/data/x?ack=written", 2)
    assert (got.status, got.json["rev"]) == (200, 3)
    assert await held.value("/x") == 1
    assert held.records()[-1]["diff"] == {"x": 2}


async def test_concurrent_writers_share_one_sync(held: Serving) -> None:
    first, answer = await sent(held, "PUT", "/v1/data/x", b"0")
    await held.disk.until_syncing()
    before = held.disk.calls.count("sync")
    others = [await sent(held, "PUT", f"/v1/data/n{i}", b"1") for i in range(20)]
    await applied(held, 23)
    held.disk.release()
    revs = [(await one).json["rev"] for one in [answer, *(task for _, task in others)]]
    assert sorted(revs) == list(range(3, 24))
    assert held.disk.calls.count("sync") == before + 1
    for wire in [first, *(wire for wire, _ in others)]:
        await wire.close()


async def test_a_full_disk_is_507_and_the_state_is_as_it_was(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    before = serving.mark()
    serving.disk.room = 10
    for method, target in (("PUT", "/v1/data/x"), ("POST", "/v1/data/y"), ("PATCH", "/v1/data/x?user=u")):
        got = await serving.ask(method, target, 3)
        assert (got.status, got.code) == (507, "storage_full")
        assert serving.mark() == before
        assert await serving.value("/x") == 2
    serving.disk.room = None
    assert (await serving.ask("PUT", "/v1/data/x", 3)).json["rev"] == 3


async def test_writes_at_a_shutdown_are_answered(held: Serving) -> None:
    wire, answer = await sent(held, "PUT", "/v1/data/x", b"2")
    other, plain = await sent(held, "PUT", "/v1/data/z?user=u", b"2")
    await applied(held, 4)
    held.engine.retire()
    stopping = asyncio.create_task(held.server.stop())
    refused = await held.ask("PUT", "/v1/data/y", 5)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "shutting_down", "1")
    held.disk.release()
    await stopping
    assert sorted([(await answer).json["rev"], (await plain).json["rev"]]) == [3, 4]
    for one in (wire, other):
        await one.close()
