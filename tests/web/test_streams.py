"""`GET /v1/changes` as a stream: Server-Sent Events and NDJSON, from any place, over any break."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from kantad.engine import feed
from kantad.values.content import copied, same
from kantad.values.moment import micros_of, time_text
from kantad.values.patch import apply
from kantad.web.connection import Patience
from tests.engine.engine_kit import eventually
from tests.serving import Serving, Wire, request
from tests.store.logs import Maker
from tests.web.history_kit import History
from tests.web.stream_kit import NDJSON, SSE, Feed
from tests.web.ws_kit import Peer

kinds = pytest.mark.parametrize("kind", [SSE, NDJSON], ids=["sse", "ndjson"])


@kinds
@pytest.mark.parametrize("ring", [2000, 4 << 20], ids=["file", "memory"])
async def test_a_stream_from_the_beginning_is_the_history_and_goes_on(unstarted: Serving, kind: str, ring: int) -> None:
    await unstarted.start(ring_bytes=ring)
    history = History(unstarted)
    await history.run(60)
    stream = await Feed.open(unstarted, "since=0", kind)
    await history.run(90)
    events = await stream.until(90)
    assert [event[2]["rev"] for event in events] == list(range(1, 91))
    state: Any = {}
    for name, mark, members in events:
        assert name == "change"
        assert members["cursor"] == history.marks[members["rev"]]
        assert mark == (members["cursor"] if kind == SSE else None)
        state = apply(state, copied(members["diff"]))
        assert same(state, history.states[members["rev"]])


@kinds
async def test_without_since_a_stream_begins_now_and_says_where(serving: Serving, kind: str) -> None:
    await serving.put("/a", 1)
    stream = await Feed.open(serving, "", kind)
    assert await stream.event() == (
        "heartbeat",
        serving.engine.written.cursor if kind == SSE else None,
        {"rev": 1, "cursor": serving.engine.written.cursor},
    )
    await serving.put("/a", 2)
    assert (await stream.event())[2]["diff"] == {"a": 2}


@kinds
async def test_a_value_comes_first_and_the_changes_follow_without_a_gap(serving: Serving, kind: str) -> None:
    await serving.put("/a", {"x": 1})
    for path, expected in (("/a", {"x": 1}), ("", {"a": {"x": 1}})):
        stream = await Feed.open(serving, f"value=true&path={path}", kind)
        name, _, members = await stream.event()
        assert (name, members["rev"], members["value"]) == ("snapshot", serving.engine.rev, expected)
        await serving.put("/a/x", serving.engine.rev + 1)
        assert (await stream.event())[2]["rev"] == members["rev"] + 1
        await serving.put("/a/x", 1)
    stream = await Feed.open(serving, "value=true&path=/none", kind)
    name, _, members = await stream.event()
    assert (name, members["deleted"], "value" in members) == ("snapshot", True, False)
    await serving.put("/none", {"y": 2})
    assert (await stream.event())[2]["diff"] == {"y": 2}
    await serving.ask("DELETE", "/v1/data/none")
    last = (await stream.event())[2]
    assert (last["deleted"], "diff" in last) == (True, False)


async def test_last_event_id_wins_over_since_as_a_browser_sends_it(serving: Serving) -> None:
    for number in range(5):
        await serving.put("/a", number)
    stream = await Feed.open(serving, "since=0&value=true", SSE)
    _, mark, _ = (await stream.until(3))[-1]
    resumed = await Feed.open(serving, "since=0&value=true", SSE, f"Last-Event-ID: {mark}")
    assert [event[2]["rev"] for event in await resumed.until(5)] == [4, 5]
    empty = await Feed.open(serving, "since=2", SSE, "Last-Event-ID:")
    assert [event[2]["rev"] for event in await empty.until(5)] == [3, 4, 5]
    got = await serving.ask("GET", "/v1/changes", None, f"Accept: {SSE}", "Last-Event-ID: 3-0000000000000000")
    assert got.code == "history_diverged"
    got = await serving.ask("GET", "/v1/changes", None, f"Accept: {SSE}", "Last-Event-ID: 99")
    assert got.code == "history_diverged"


@kinds
async def test_heartbeats_carry_the_position_also_where_nothing_passes(
    unstarted: Serving, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    await unstarted.start()
    stream = await Feed.open(unstarted, "path=/never", kind)
    assert (await stream.event())[2]["rev"] == 0
    await unstarted.put("/a", 1)
    name, mark, members = await stream.event()
    while members["rev"] == 0:
        name, mark, members = await stream.event()
    assert (name, members) == ("heartbeat", {"rev": 1, "cursor": unstarted.engine.written.cursor})
    assert mark == (members["cursor"] if kind == SSE else None)
    resumed = await Feed.open(unstarted, f"since={members['cursor']}", kind)
    await unstarted.put("/a", 2)
    assert (await resumed.until(2))[0][2]["rev"] == 2


@kinds
async def test_until_and_limit_end_a_stream_with_its_position(serving: Serving, kind: str) -> None:
    for number in range(9):
        await serving.put("/a", number)
    cursors = [(await serving.ask("GET", f"/v1/data?rev={rev}")).headers["kanta-cursor"] for rev in range(10)]
    for query, revs, position in (
        ("since=2&until=5", [3, 4, 5], 5),
        ("since=0&limit=2", [1, 2], 2),
        ("since=0&until=4&path=/never", [], 4),
        (f"since=0&until={cursors[3]}", [1, 2, 3], 3),
        ("since=9&until=9", [], 9),
    ):
        stream = await Feed.open(serving, query, kind)
        *events, (name, mark, members) = await stream.rest_of_it()
        assert [event[2]["rev"] for event in events] == revs, query
        assert (name, members) == ("end", {"rev": position, "cursor": cursors[position]})
        assert mark == (cursors[position] if kind == SSE else None)
    later = await Feed.open(serving, "until=11", kind)
    await later.event()
    for number in range(4):
        await serving.put("/b", number)
    assert [event[0] for event in await later.rest_of_it()] == ["change", "change", "end"]


async def test_an_event_source_that_has_everything_is_sent_away(serving: Serving) -> None:
    for number in range(3):
        await serving.put("/a", number)
    stream = await Feed.open(serving, "since=0&until=2", SSE)
    mark = (await stream.rest_of_it())[-1][1]
    got = await serving.ask("GET", "/v1/changes?since=0&until=2", None, f"Accept: {SSE}", f"Last-Event-ID: {mark}")
    assert (got.status, got.body) == (204, b"")


async def test_a_connection_serves_requests_again_after_its_stream(serving: Serving) -> None:
    await serving.put("/a", 1)
    stream = await Feed.open(serving, "since=0&limit=1")
    await stream.rest_of_it()
    stream.wire.send(request("GET", "/v1/data/a"))
    assert (await stream.wire.answer()).json == 1


async def test_http_1_0_gets_a_stream_without_chunks(serving: Serving) -> None:
    await serving.put("/a", 1)
    wire = await serving.connect()
    wire.send(b"GET /v1/changes?since=0&limit=1 HTTP/1.0\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n")
    head = await wire.answer()
    assert (head.status, "transfer-encoding" in head.headers) == (200, False)
    assert (await wire.closed()).splitlines()[-1].startswith(b'{"event":"end"')


@kinds
async def test_a_stopping_server_says_so_and_the_stream_resumes_after_a_restart(unstarted: Serving, kind: str) -> None:
    await unstarted.start()
    await unstarted.put("/a", 1)
    stream = await Feed.open(unstarted, "since=0", kind)
    ((_, _, first),) = await stream.until(1)
    unstarted.wires.remove(stream.wire)
    await unstarted.stop()
    name, mark, members = (await stream.rest_of_it())[-1]
    assert (name, mark, members["code"]) == ("error", None, "shutting_down")
    await stream.wire.close()
    await unstarted.start()
    await unstarted.put("/a", 2)
    again = await Feed.open(unstarted, f"since={first['cursor']}", kind)
    assert [event[2]["rev"] for event in await again.until(2)] == [2]


async def cut_log(unstarted: Serving, path: Path) -> str:
    """A server on a log that begins at revision 50; the cursor there."""
    maker = Maker("json")
    maker.change({"a": 0})
    maker.rev, maker.state = 50, {"a": {"x": 50}}
    maker.data.clear()
    maker.snapshot()
    for number in range(5):
        maker.change({"a": {"x": 51 + number}})
    path.write_bytes(maker.data)
    await unstarted.start()
    return str(unstarted.engine.past_now().oldest)


@kinds
async def test_what_the_log_no_longer_holds_is_gone_or_reset(unstarted: Serving, kind: str) -> None:
    assert await cut_log(unstarted, Path(unstarted.path)) == "50"
    got = await unstarted.ask("GET", "/v1/changes?since=49", None, f"Accept: {kind}")
    assert (got.status, got.code, got.json["reason"], got.json["oldest"]) == (410, "history_gone", "compacted", 50)
    stream = await Feed.open(unstarted, "since=49&value=true&path=/a", kind)
    name, _, members = await stream.event()
    assert (name, members["rev"], members["value"]) == ("reset", 55, {"x": 55})
    await unstarted.put("/a/x", 56)
    assert (await stream.event())[2]["diff"] == {"x": 56}
    whole = await Feed.open(unstarted, "since=50", kind)
    assert [event[2]["rev"] for event in await whole.until(56)] == list(range(51, 57))
    peer = await Peer.open(unstarted)
    assert (await peer.ask("subscribe", since=3))["error"]["code"] == "history_gone"
    answer = await peer.ask("subscribe", since=3, value=True, path="/a/x")
    assert (answer["reset"], answer["value"], answer["rev"]) == (True, 56, 56)


async def test_the_revision_that_a_log_begins_with_has_a_cursor_and_a_time(unstarted: Serving) -> None:
    await cut_log(unstarted, Path(unstarted.path))
    mark = (await unstarted.ask("GET", "/v1/data?rev=50")).headers["kanta-cursor"]
    for late in (False, True):  # the start began with that snapshot, or with a later one
        if late:
            await unstarted.ask("POST", "/v1/snapshot")
            await unstarted.restart()
        assert (await unstarted.ask("GET", f"/v1/changes?since={mark}")).json["changes"][0]["rev"] == 51
        assert (await unstarted.ask("GET", "/v1/changes?since=50-0000000000000000")).code == "history_diverged"
        first = (await unstarted.ask("GET", "/v1/changes?limit=1")).json["changes"][0]
        moment = time_text(micros_of(first["ts"]) - 1)
        assert (await unstarted.ask("GET", f"/v1/data?at={moment}")).headers["kanta-cursor"] == mark
        assert (await unstarted.ask("GET", f"/v1/changes?since={moment}&limit=1")).json["changes"] == [first]
        assert (await unstarted.ask("GET", "/v1/changes?since=2000-01-01T00:00:00Z")).code == "history_gone"


async def test_a_reader_that_goes_leaves_nothing(serving: Serving) -> None:
    for _ in range(5):
        stream = await Feed.open(serving, "path=/a")
        await eventually(lambda: len(serving.engine.feeds.readers) == 1)
        stream.wire.writer.transport.abort()
        await eventually(lambda: not serving.engine.feeds.readers)
    assert serving.engine.interest.paths == 0


async def test_a_reader_that_takes_nothing_for_long_is_closed(unstarted: Serving) -> None:
    await unstarted.start(patience=Patience(stalled=0.2, tick=0.02))
    stream = await Feed.open(unstarted, "")
    stream.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    live = await Feed.open(unstarted, "")

    async def reading() -> None:
        while True:
            await live.event()

    task = asyncio.ensure_future(reading())
    number = 0
    while len(unstarted.engine.feeds.readers) == 2:
        number += 1
        await unstarted.put("/a", f"{number}" + "x" * 100_000)
    assert not task.done()
    task.cancel()
    assert number > 20


@kinds
async def test_the_first_of_two_kinds_counts_and_none_is_a_listing(serving: Serving, kind: str) -> None:
    other = NDJSON if kind == SSE else SSE
    wire = await Wire.to(serving.port)
    wire.send(request("GET", "/v1/changes?limit=1&since=0", None, f"Accept: text/html, {kind};q=0.5, {other}"))
    assert (await wire.answer()).headers["content-type"] == kind
    await wire.close()
    for accept in ("*/*", "application/json", "text/html"):
        assert "changes" in (await serving.ask("GET", "/v1/changes", None, f"Accept: {accept}")).json


async def test_what_a_stopped_reader_is_ahead_of_the_kernel_is_little(unstarted: Serving) -> None:
    """Left alone, the kernel takes megabytes for a client that reads nothing."""
    await unstarted.start()
    for number in range(64):
        engine = unstarted.engine
        engine.write(engine.places.at(()), {"blob": f"{number}" + "x" * (128 << 10)}, "patch", "patch")
        await engine.settled("durable", engine.rev)
    with socket.create_connection(("127.0.0.1", unstarted.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        sock.sendall(request("GET", "/v1/changes?since=0", None, f"Accept: {NDJSON}"))
        await eventually(lambda: unstarted.engine.feeds.readers)
        (reader,) = unstarted.engine.feeds.readers
        await eventually(lambda: reader.position and not reader.sink.free())
        assert reader.position * (128 << 10) < 2 << 20
