"""`POST /v1/compact`: what it takes, what it answers, what clients see of it."""

import asyncio
import os
import sys
from typing import Any

import pytest

from kantad.values.retention import retention
from tests.serving import Got, Serving
from tests.web.stream_kit import Feed
from tests.web.ws_kit import Peer


async def compact(serving: Serving, retain: Any, **more: Any) -> Got:
    return await serving.ask("POST", "/v1/compact", {"retain": retain, **more})


async def filled(serving: Serving, count: int) -> list[str]:
    """Write; the cursors."""
    return [(await serving.put("/n", number)).headers["kanta-cursor"] for number in range(count)]


async def test_the_answer_tells_what_was_done(serving: Serving) -> None:
    marks = await filled(serving, 60)
    got = await compact(serving, "20r")
    assert got.status == 200, got
    told = got.json
    assert (told["rev"], told["cursor"], told["oldest"], told["dropped"]) == (60, marks[-1], 40, 40)
    assert told["bytes"] == os.path.getsize(serving.path) < told["before"]
    assert os.path.exists(os.path.join(os.path.dirname(serving.path), told["archive"]))
    status = (await serving.ask("GET", "/v1/status")).json
    assert (status["oldest"], status["records"], status["file"]["bytes"]) == (40, 20, told["bytes"])
    assert status["compaction"]["last"] == {key: told[key] for key in status["compaction"]["last"]}
    assert (await compact(serving, "20r")).json["dropped"] == 0
    none = (await compact(serving, "none", archive=False)).json
    assert (none["oldest"], none["archive"]) == (60, None)


async def test_old_cursors_are_gone_everywhere_and_later_ones_go_on(serving: Serving) -> None:
    marks = await filled(serving, 60)
    await compact(serving, "20r")
    for target in (f"/v1/changes?since={marks[10]}", f"/v1/data/n?rev={marks[10]}", "/v1/data/n?rev=39"):
        got = await serving.ask("GET", target)
        assert (got.status, got.code) == (410, "history_gone"), target
        assert (got.json["reason"], got.json["oldest"]) == ("compacted", 40)
    got = await serving.transact(diff={"n": 0}, base=marks[10])
    assert (got.status, got.json["reason"]) == (410, "compacted")
    listed = (await serving.ask("GET", f"/v1/changes?since={marks[39]}")).json
    assert [each["rev"] for each in listed["changes"]] == list(range(41, 61))
    assert listed["oldest"] == 40
    assert (await serving.ask("GET", f"/v1/data/n?rev={marks[39]}")).json == 39
    assert (await serving.transact(diff={"m": 0}, base=marks[45])).status == 200


async def test_feeds_go_on_through_it(serving: Serving) -> None:
    marks = await filled(serving, 60)
    stream = await Feed.open(serving, "since=60")
    peer = await Peer.open(serving)
    await peer.ask("subscribe", since=marks[49])
    await compact(serving, "none")
    await serving.put("/n", "after")
    assert [event[2]["rev"] for event in await stream.until(61)] == [61]
    assert [event["rev"] for event in await peer.events_until(61)] == list(range(51, 62))
    refused = await peer.ask("subscribe", since=marks[49])
    assert (refused["error"]["code"], refused["error"]["reason"]) == ("history_gone", "compacted")
    await peer.close()


@pytest.mark.parametrize("body", [{}, {"retain": 30}, {"retain": "30x"}, {"retain": "30d", "archive": 1}, {"x": 1}, []])
async def test_a_body_that_is_none_is_refused(serving: Serving, body: Any) -> None:
    got = await serving.ask("POST", "/v1/compact", body)
    assert (got.status, got.code) in ((400, "invalid_parameter"), (400, "invalid_json")), got
    assert (await serving.ask("POST", "/v1/compact?x=1", {"retain": "none"})).status == 400


async def test_a_second_one_at_the_same_time_is_refused(serving: Serving) -> None:
    await filled(serving, 20)
    first = asyncio.get_running_loop().create_task(serving.engine.compaction.compact(retention("none")))
    await asyncio.sleep(0)
    got = await compact(serving, "none")
    assert (got.status, got.code, got.headers["retry-after"]) == (503, "unavailable", "5")
    assert (await first).oldest == 20


async def test_a_full_disk_is_507_and_changes_nothing(serving: Serving) -> None:
    await filled(serving, 60)
    before = serving.mark()
    serving.engine.compaction.command = (
        "bash",
        "-c",
        'ulimit -f 0; exec "$0" -P -m kantad.tools.rewrite',
        sys.executable,
    )
    got = await compact(serving, "20r")
    assert (got.status, got.code) == (507, "storage_full"), got
    assert serving.mark() == before
    assert os.listdir(os.path.dirname(serving.path)) == ["data.kantadb"]
    await serving.put("/n", 1)
