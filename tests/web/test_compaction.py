"""`POST /v1/compact`: what it takes, what it answers, what clients see of it."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kantad.values.record import cursor
from kantad.values.retention import retention
from tests.engine.engine_kit import LeverDisk
from tests.serving import TIMEOUT, Got, Serving, request
from tests.web.backup_kit import Slow, fill, held_against, opened
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


class Swapped(LeverDisk):
    """Tells when a swap is about to rename, and when it has renamed; each waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = Gate(), Gate()

    def rename(self, source: str, target: str) -> None:
        self.before.wait()
        super().rename(source, target)
        self.after.wait()


class Gate:
    """Where a thread waits until the loop lets it through."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(TIMEOUT)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, TIMEOUT)


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_backup_in_a_swap_is_the_old_file_or_the_new_one(
    unstarted: Serving, tmp_path: Path, format: str
) -> None:
    """As of the newest durable revision: until the loop knows the new file it is the old one, which lacks nothing."""
    disk = unstarted.disk = Swapped()
    await unstarted.start(format=format)
    await fill(unstarted.engine, 8)
    marks = await filled(unstarted, 60)
    old = Path(unstarted.path).read_bytes()
    slow = await Slow.ask(unstarted, request("GET", "/v1/backup", None, "Connection: close"))
    compacting = asyncio.create_task(apart(unstarted, "POST", "/v1/compact", b'{"retain":"20r"}'))
    waiting: list[asyncio.Task[Got]] = []
    for gate in (disk.before, disk.after):
        await gate.until_reached()
        waiting.append(asyncio.create_task(apart(unstarted, "PUT", "/v1/data/late", b"%d" % len(waiting))))
        got = await unstarted.ask("GET", "/v1/backup")
        assert (got.body, got.headers["kanta-cursor"]) == (old, marks[-1])
        gate.opened.set()
    assert (await compacting).json["oldest"] == 48
    got = await unstarted.ask("GET", "/v1/backup")
    found = held_against(unstarted, got, tmp_path / "new.copy")
    assert (found.oldest, found.rev) == (48, int(got.headers["kanta-revision"]))
    assert {(await task).status for task in waiting} == {200}
    assert await slow.rest() == old
    assert opened(tmp_path / "old.copy", old).rev == 68
    held_against(unstarted, await unstarted.ask("GET", "/v1/backup"), tmp_path / "later.copy")


async def apart(serving: Serving, method: str, target: str, body: bytes) -> Got:
    """A request on a connection of its own."""
    wire = await serving.connect()
    wire.send(request(method, target, body))
    return await wire.answer()


async def test_backups_while_it_is_compacted_again_and_again_are_all_whole(serving: Serving, tmp_path: Path) -> None:
    await filled(serving, 60)
    enough = asyncio.Event()
    backups = [asyncio.create_task(keep_backing_up(serving, tmp_path / f"{i}.copy", enough)) for i in range(3)]
    for number in range(4):
        await filled(serving, 20)
        assert (await compact(serving, "none", archive=bool(number % 2))).status == 200
    enough.set()
    assert all([await task > 1 for task in backups])


async def keep_backing_up(serving: Serving, path: Path, enough: asyncio.Event) -> int:
    """Make one backup after another, each of which must be the database that it says; how many there were."""
    wire, count = await serving.connect(), 0
    while not enough.is_set():
        wire.send(request("GET", "/v1/backup"))
        got = await wire.answer()
        assert got.status == 200
        found = opened(path, got.body)
        assert cursor(found.rev, found.chain) == got.headers["kanta-cursor"]
        path.unlink()
        count += 1
    return count
