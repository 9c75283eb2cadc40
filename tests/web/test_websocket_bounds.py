"""What one WebSocket may cost, whatever it asks for and however little it reads."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from kantad.engine import feed
from kantad.web.body import Limits
from kantad.web.connection import Connection, Patience
from tests.engine.engine_kit import eventually
from tests.serving import Serving
from tests.web.ws_kit import CLOSE, Peer, frame

MANY = 200
LARGE = 400_000  # bytes of the value that is asked for


def carrying(serving: Serving) -> Connection:
    """The server's end of the only WebSocket."""
    (found,) = (each for each in serving.server.aiohttp.connections if getattr(each, "carried", None) is not None)
    assert isinstance(found, Connection)
    return found


def unsent(connection: Connection) -> int:
    """Bytes that wait in the server for the client."""
    assert connection.transport is not None
    return connection.transport.get_write_buffer_size()  # type: ignore[no-any-return]


async def deaf(serving: Serving) -> Peer:
    """A client that reads nothing, until its transport resumes."""
    peer = await Peer.open(serving)
    peer.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return peer


def hear(peer: Peer) -> None:
    """Read again."""
    peer.wire.writer.transport.resume_reading()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "asked",
    [
        {"op": "get"},
        {"op": "get", "rev": 1},
        {"op": "changes", "limit": 10_000},
        {"op": "changes", "limit": 10_000, "wait": 30},
        {"op": "subscribe", "value": True},
        {"op": "transact", "diff": {}, "path": "/a", "if": [{"path": "/small", "equals": "x"}] * 40},
    ],
    ids=["get", "past", "changes", "wait", "subscribe", "refused"],
)
async def test_answers_are_made_as_they_are_taken(unstarted: Serving, asked: dict[str, Any]) -> None:
    await unstarted.start()
    await unstarted.put("/large", "x" * LARGE)
    await unstarted.put("/small", "y" * 50_000)
    peer = await deaf(unstarted)
    connection = carrying(unstarted)
    tracemalloc.start()
    try:
        peer.send(*({"id": number, **asked} for number in range(MANY)))
        await eventually(lambda: connection.writing_paused)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert unsent(connection) < 12 * LARGE
            assert tracemalloc.get_traced_memory()[0] < 30 * LARGE
    finally:
        tracemalloc.stop()
    assert (await unstarted.ask("GET", "/v1/status")).status == 200
    hear(peer)
    for number in range(MANY):
        answer = await peer.answer(number)
        assert ("error" in answer) == ("if" in asked), answer


@pytest.mark.parametrize("msgpack", [False, True])
async def test_a_message_of_many_bad_requests_costs_little_and_each_has_its_answer(
    serving: Serving, msgpack: bool
) -> None:
    peer = await Peer.open(serving, msgpack=msgpack)
    count = 100_000
    tracemalloc.start()
    try:
        peer.send_text(
            b"\xdd" + count.to_bytes(4) + bytes(count) if msgpack else b"[" + b",".join([b"0"] * count) + b"]"
        )
        found = 0
        while found < count:
            message = await peer.message()
            assert len(message) <= 4000
            assert all(answer["id"] is None for answer in message)
            assert {answer["error"]["code"] for answer in message} == {"invalid_parameter"}
            found += len(message)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert found == count
    assert (await peer.ask("ping"))["rev"] == 0


async def test_the_order_of_writes_holds_where_answers_are_sent_early(serving: Serving) -> None:
    await serving.put("/large", "x" * LARGE)
    peer = await Peer.open(serving)
    requests: list[dict[str, Any]] = []
    for number in range(60):
        more: dict[str, Any] = [{}, {"base": 1, "path": "/x"}, {"if": [{"path": "/large", "equals": 0}]}][number % 3]
        requests.append({"id": f"w{number}", "op": "transact", "diff": {"n": number}, **more})
        requests.append({"id": f"g{number}", "op": "get", "path": "/large"})
    peer.send(*requests)
    revs = [(await peer.answer(f"w{number}")).get("rev") for number in range(60)]
    committed = [rev for rev in revs if rev is not None]
    assert committed == sorted(committed)
    for number in range(60):
        assert len((await peer.answer(f"g{number}"))["value"]) == LARGE


async def test_a_reader_that_waits_for_room_stands_in_line_once(
    unstarted: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.1)
    await unstarted.start()
    await unstarted.put("/large", "x" * 8_000_000)
    peer = await Peer.open(unstarted)
    for number in range(3):
        await peer.ask("subscribe", path=f"/{number}")
    line = next(iter(unstarted.engine.feeds.readers)).sink.subscriptions.line  # type: ignore[attr-defined]
    peer.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    peer.send({"id": "g", "op": "get"})
    await eventually(lambda: len(line) == 3)
    await asyncio.sleep(2.2)  # two looks at who heard nothing for long
    assert len(line) == 3
    hear(peer)
    await peer.answer("g")
    await unstarted.put("/1", 1)
    assert (await peer.event())["diff"] == {"$replace": 1}


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", frame(CLOSE, b"\x03\xe8")], ids=["broken", "close"])
async def test_a_peer_that_is_told_goodbye_and_reads_nothing_is_let_go(unstarted: Serving, sent: bytes) -> None:
    await unstarted.start(patience=Patience(idle=0.2))
    await unstarted.put("/large", "x" * 8_000_000)
    peer = await deaf(unstarted)
    peer.send({"id": 1, "op": "get"})
    await eventually(lambda: carrying(unstarted).writing_paused)
    await asyncio.sleep(0.05)
    peer.wire.send(sent)
    await eventually(lambda: not any(getattr(each, "carried", None) for each in unstarted.server.aiohttp.connections))


async def test_pings_are_not_missed_while_the_server_reads_nothing(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_in_flight=2), patience=Patience(ping=0.05, tick=0.01))
    peer = await Peer.open(unstarted)
    unstarted.disk.hold()
    peer.send(*({"id": number, "op": "transact", "diff": {"n": number}} for number in range(10)))
    answers = asyncio.ensure_future(peer.answer(9))
    await asyncio.sleep(0.5)
    unstarted.disk.release()
    assert (await answers)["changed"]


@pytest.mark.parametrize("msgpack", [False, True])
async def test_a_subscription_that_has_not_begun_can_be_ended(serving: Serving, msgpack: bool) -> None:
    peer = await Peer.open(serving, msgpack=msgpack)
    again = {"id": "s", "op": "subscribe", "since": 0}
    peer.send(again, {"id": 2, "op": "unsubscribe", "sub": "s"}, {"id": 3, "op": "unsubscribe", "sub": "s"})
    assert await peer.answer(2) == {"id": 2}
    assert (await peer.answer(3))["error"]["code"] == "not_found"
    assert (await peer.answer("s"))["sub"] == "s"
    await eventually(lambda: not serving.engine.feeds.readers)
    peer.send(again, {"id": 4, "op": "unsubscribe", "sub": "s"}, again)  # as a page does that is mounted twice
    await peer.answer(4)
    await eventually(lambda: len(serving.engine.feeds.readers) == 1)
    peer.send(
        {"id": 5, "op": "subscribe", "since": 99}, {"id": 6, "op": "unsubscribe", "sub": 5}, {"id": 7, "op": "ping"}
    )
    assert (await peer.answer(5))["error"]["code"] == "history_diverged"
    await peer.answer(7)
    await serving.put("/a", 1)
    assert (await peer.event())["rev"] == 1
    assert (await peer.ask("unsubscribe", sub="s"))["id"]
    assert not serving.engine.feeds.readers


async def test_subscriptions_that_read_the_file_fill_their_connection_once_between_them(unstarted: Serving) -> None:
    await unstarted.start(ring_bytes=1000)
    for number in range(100):
        await unstarted.put("/large", f"{number}" + "x" * 30_000)
    peer = await deaf(unstarted)
    connection = carrying(unstarted)
    peer.send(*({"id": number, "op": "subscribe", "since": 0} for number in range(MANY)))
    await eventually(lambda: len(unstarted.engine.feeds.readers) == MANY)
    readers = unstarted.engine.feeds.readers
    subscriptions = next(iter(readers)).sink.subscriptions  # type: ignore[attr-defined]
    most = 0

    def all_wait() -> bool:
        nonlocal most
        most = max(most, unsent(connection))
        return len(subscriptions.line) == MANY

    await eventually(all_wait)
    assert most < 300_000
    hear(peer)
    last = dict.fromkeys(range(MANY), 0)
    while min(last.values()) < 100:
        event = await peer.event()
        last[event["sub"]] += 1
        assert event["rev"] == last[event["sub"]]


async def test_subscriptions_of_one_connection_go_on_side_by_side_wherever_in_the_file_they_are(
    unstarted: Serving,
) -> None:
    await unstarted.start(ring_bytes=1000)
    for number in range(100):
        await unstarted.put("/large", f"{number}" + "x" * 30_000)
    peer = await deaf(unstarted)
    peer.send({"id": "behind", "op": "subscribe", "since": 0}, {"id": "ahead", "op": "subscribe", "since": 70})
    subscriptions = None

    def both_wait() -> bool:
        nonlocal subscriptions
        readers = unstarted.engine.feeds.readers
        subscriptions = next(iter(readers)).sink.subscriptions if readers else None  # type: ignore[attr-defined]
        return subscriptions is not None and len(subscriptions.line) == 2

    await eventually(both_wait)
    hear(peer)
    last = {"behind": 0, "ahead": 70}
    while last["ahead"] < 100:
        event = await peer.event()
        last[event["sub"]] = event["rev"]
    assert 10 <= last["behind"] <= 90
    while last["behind"] < 100:
        last["behind"] = (await peer.event())["rev"]
