"""`GET /v1/backup`: a copy of exactly one revision, whatever is written meanwhile, and whoever reads it."""

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kanta import Kanta

from kantad.values.content import same
from kantad.web import backup
from kantad.web.backup import file_name
from kantad.web.connection import Patience
from tests.engine.engine_kit import eventually
from tests.serving import Got, Serving, Wire, request
from tests.web.backup_kit import Slow, descriptors_of, fill, held_against, opened, shown, under_way

WRITERS = 12
formats = pytest.mark.parametrize("format", ["json", "msgpack"])


class Item(msgspec.Struct):
    n: int = 0
    s: str = ""


class Root(msgspec.Struct):
    k0: Item
    k1: Item
    k2: Item


class Load:
    """Writers at work, and what each revision is by their answers."""

    def __init__(self, serving: Serving, ack: str = "") -> None:
        self.serving, self.query = serving, f"?ack={ack}" if ack else ""
        self.made: dict[int, tuple[str, int]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]

    async def _write(self, writer: int) -> None:
        wire, number = await Wire.to(self.serving.port), 0
        try:
            while True:
                number += 1
                key = f"k{writer}-{number % 5}"
                wire.send(request("PUT", f"/v1/data/{key}{self.query}", b"%d" % number))
                self.made[(await wire.answer()).json["rev"]] = (key, number)
        finally:
            await wire.close()

    async def stop(self) -> None:
        """Let each get its last answer; what it was asked last may be done without one."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def state(self, rev: int) -> dict[str, Any]:
        state = {}
        for number in range(1, rev + 1):
            key, value = self.made[number]
            state[key] = value
        return state


@formats
@pytest.mark.parametrize("ack", ["durable", "written", "applied"])
async def test_a_copy_under_load_is_a_prefix_of_the_file_and_exactly_the_revision_it_says(
    unstarted: Serving, tmp_path: Path, format: str, ack: str
) -> None:
    await unstarted.start(format=format, ack=ack, flush_interval=0.02)
    engine, load = unstarted.engine, Load(unstarted)
    load.start()
    copies: list[Got] = []
    for turn in range(12):
        last = int(copies[-1].headers["kanta-revision"]) if copies else -1
        await eventually(lambda turn=turn, last=last: len(load.made) > turn * 40 and engine.durable_rev > last)
        durable = engine.durable_rev
        copies.append(await unstarted.ask("GET", "/v1/backup"))
        assert int(copies[-1].headers["kanta-revision"]) >= durable
        if turn % 4 == 3:
            assert (await unstarted.ask("POST", "/v1/snapshot")).status == 200
    until = engine.durable_rev
    await eventually(lambda: all(rev in load.made for rev in range(1, until + 1)))
    await load.stop()
    for number, got in enumerate(copies):
        found = held_against(unstarted, got, tmp_path / f"{number}.kantadb")
        assert same(shown(found.state), load.state(found.rev))
    assert len({got.headers["kanta-cursor"] for got in copies}) == 12


@formats
async def test_a_copy_is_served_and_goes_on_as_the_original_would(
    unstarted: Serving, tmp_path: Path, format: str
) -> None:
    await unstarted.start(format=format)
    await unstarted.put("/a", {"x": 1})
    await unstarted.ask("PUT", "/v1/data/b", 1, "Idempotency-Key: k")
    mark = (await unstarted.ask("GET", "/v1/data")).headers["kanta-cursor"]
    got = await unstarted.ask("GET", "/v1/backup")
    held_against(unstarted, got, tmp_path / "copy.kantadb")
    later = (await unstarted.put("/a", 2)).json["cursor"]
    restored = Serving(str(tmp_path / "copy.kantadb"))
    await restored.start()
    assert await restored.value() == {"a": {"x": 1}, "b": 1}
    assert (await restored.ask("PUT", "/v1/data/b", 1, "Idempotency-Key: k")).json["replayed"] is True
    assert (await restored.ask("GET", f"/v1/changes?since={mark}")).json["changes"] == []
    assert (await restored.ask("GET", f"/v1/changes?since={later}")).code == "history_diverged"
    await restored.put("/c", 1)
    assert (await restored.ask("GET", f"/v1/changes?since={later}")).code == "history_diverged"
    await restored.stop()


async def test_kanta_opens_a_copy(serving: Serving, tmp_path: Path) -> None:
    for number in range(20):
        await serving.put(f"/k{number % 3}", {"n": number, "s": "$x"})
    got = await serving.ask("GET", "/v1/backup")
    (tmp_path / "copy.kantadb").write_bytes(got.body)
    kanta = Kanta(str(tmp_path / "copy.kantadb"), Root(Item(), Item(), Item()))
    await kanta.open(readonly=True)
    assert msgspec.to_builtins(kanta.data) == await serving.value()
    await kanta.close()


@formats
async def test_a_new_database_has_a_copy_too(unstarted: Serving, tmp_path: Path, format: str) -> None:
    await unstarted.start(format=format)
    found = held_against(unstarted, await unstarted.ask("GET", "/v1/backup"), tmp_path / "copy.kantadb")
    assert (found.rev, found.state) == (0, {})


async def test_what_waits_for_the_disk_is_not_in_the_copy(serving: Serving, tmp_path: Path) -> None:
    await serving.put("/a", 1)
    serving.disk.hold()
    wire = await serving.connect()
    wire.send(request("PUT", "/v1/data/a", b"2"))
    await serving.disk.until_syncing()
    got = await serving.ask("GET", "/v1/backup")
    assert held_against(serving, got, tmp_path / "copy.kantadb").state == {"a": 1}
    serving.disk.release()
    assert (await wire.answer()).json["rev"] == 2
    got = await serving.ask("GET", "/v1/backup")
    assert held_against(serving, got, tmp_path / "copy.kantadb").state == {"a": 2}


async def test_what_found_no_room_is_not_in_the_copy(serving: Serving, tmp_path: Path) -> None:
    await serving.put("/a", 1)
    serving.disk.room = 20
    assert (await serving.ask("PUT", "/v1/data/a", "x" * 99)).code == "storage_full"
    got = await serving.ask("GET", "/v1/backup")
    assert held_against(serving, got, tmp_path / "copy.kantadb").state == {"a": 1}
    serving.disk.room = None
    await serving.put("/a", 3)
    got = await serving.ask("GET", "/v1/backup")
    assert held_against(serving, got, tmp_path / "copy.kantadb").state == {"a": 3}


async def test_a_snapshot_of_the_revision_is_part_of_its_copy(serving: Serving, tmp_path: Path) -> None:
    await serving.put("/a", 1)
    await serving.ask("POST", "/v1/snapshot")
    got = await serving.ask("GET", "/v1/backup")
    assert got.body == serving.mark()[3]
    assert got.body.splitlines()[-1].startswith(b"SNAPSHOT ")
    assert held_against(serving, got, tmp_path / "copy.kantadb").start_rev == 1


async def test_the_head_tells_what_it_is_a_copy_of_and_the_connection_is_kept(serving: Serving) -> None:
    written = (await serving.put("/a", 1)).json
    wire = await serving.connect()
    wire.send(request("HEAD", "/v1/backup"))
    head = await wire.answer(head=True)
    wire.send(request("GET", "/v1/backup") + request("GET", "/v1/data/a"))
    got = await wire.answer()
    assert (await wire.answer()).json == 1
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == 'attachment; filename="data-1.kantadb"'
    assert (got.headers["kanta-revision"], got.headers["kanta-cursor"]) == ("1", written["cursor"])
    assert got.body == serving.mark()[3]
    assert "transfer-encoding" not in got.headers
    assert (await serving.ask("GET", "/v1/backup?x=1")).code == "invalid_parameter"
    assert (await serving.ask("GET", "/v1/backup", None, "Origin: http://evil.example")).code == "origin_refused"
    assert (await serving.ask("GET", "/v1/backup", None, "Host: evil.example")).code == "host_refused"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/data.kantadb", "data-7.kantadb"), ('a "b"\r\nü.db', "a_b_-7.db"), (".kantadb", ".kantadb-7")],
)
def test_a_copy_has_a_name_that_is_safe_in_a_header(path: str, name: str) -> None:
    assert file_name(path, 7) == name


async def test_http_1_0_and_a_client_that_says_no_more_get_all_of_it(serving: Serving) -> None:
    await fill(serving.engine, 3)
    held = serving.mark()[3]
    wire = await serving.connect()
    wire.send(b"GET /v1/backup HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (await wire.answer()).body == held
    assert await wire.closed() == b""
    slow = await Slow.ask(serving)
    slow.sock.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.05)
    assert await slow.rest() == held


async def test_a_slow_reader_costs_little_and_slows_no_writer(serving: Serving, tmp_path: Path) -> None:
    await fill(serving.engine, 8)
    held = serving.mark()[3]
    slow = await Slow.ask(serving)
    (carried,) = under_way(serving)
    loop, slowest = asyncio.get_running_loop(), 0.0
    for number in range(200):
        began = loop.time()
        await serving.put("/n", number)
        slowest = max(slowest, loop.time() - began)
        if number % 20 == 0:
            await slow.take(1)
        assert carried.place - len(slow.data) <= 1 << 20
    assert len(slow.data) < 1000
    assert slowest < 1.0
    await serving.ask("POST", "/v1/snapshot")
    while len(slow.data) < slow.length:
        assert await slow.take(1 << 20)
    slow.sock.close()
    assert slow.data == held
    assert f"Kanta-Cursor: {opened_cursor(tmp_path, held)}" in slow.head.decode()
    await eventually(lambda: descriptors_of(serving.path) == 1)


def opened_cursor(folder: Path, data: bytes) -> str:
    """The cursor of a copy."""
    found = opened(folder / "copy.kantadb", data)
    return f"{found.rev}-{found.chain.hex()}"


async def test_a_reader_that_stops_is_dropped_and_one_that_is_slow_is_not(unstarted: Serving) -> None:
    await unstarted.start(patience=Patience(stalled=0.5, tick=0.02))
    await fill(unstarted.engine, 8)
    asked = request("GET", "/v1/backup", None, "Connection: close")
    stopped, slow = await Slow.ask(unstarted, asked), await Slow.ask(unstarted, asked)
    metrics = (await unstarted.ask("GET", "/metrics")).body
    assert b"\nkantad_backups 2\n" in metrics
    began = time.monotonic()
    while time.monotonic() - began < 1.2:
        await slow.take(128 << 10)
        await asyncio.sleep(0.05)
    assert len(under_way(unstarted)) == 1
    assert len(await stopped.rest()) < stopped.length
    assert len(await slow.rest()) == slow.length


async def test_a_client_that_goes_leaves_nothing(serving: Serving) -> None:
    await fill(serving.engine, 8)
    for _ in range(5):
        slow = await Slow.ask(serving)
        assert under_way(serving)
        slow.sock.close()
        await eventually(lambda: not under_way(serving) and descriptors_of(serving.path) == 1)


async def test_a_shutdown_cuts_a_backup_so_that_its_client_sees_it(serving: Serving) -> None:
    await fill(serving.engine, 8)
    slow = await Slow.ask(serving)
    began = time.monotonic()
    await serving.stop()
    assert time.monotonic() - began < 4.0
    assert len(await slow.rest()) < slow.length
    assert descriptors_of(serving.path) == 0


async def test_none_is_begun_while_the_server_ends(serving: Serving) -> None:
    serving.engine.retire()
    assert (await serving.ask("GET", "/v1/backup")).code == "shutting_down"


async def test_many_at_once_are_all_whole(serving: Serving) -> None:
    await fill(serving.engine, 2)
    held = serving.mark()[3]
    asked = [await Slow.ask(serving, request("GET", "/v1/backup", None, "Connection: close")) for _ in range(40)]
    load = Load(serving)
    load.start()
    assert all(data == held for data in await asyncio.gather(*(each.rest() for each in asked)))
    await load.stop()


async def test_there_are_so_many_at_once_and_no_more(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "MOST", 2)
    await fill(serving.engine, 8)
    first, second = await Slow.ask(serving), await Slow.ask(serving)
    got = await serving.ask("GET", "/v1/backup")
    assert (got.status, got.code, got.headers["retry-after"]) == (503, "unavailable", "1")
    assert (await serving.ask("HEAD", "/v1/backup")).status == 200
    first.sock.close()
    await eventually(lambda: len(under_way(serving)) == 1)
    assert (await serving.ask("GET", "/v1/backup")).status == 200
    second.sock.close()


async def test_a_file_that_cannot_be_read_cuts_the_backup_and_is_logged_once(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(serving.engine, 8)
    slow = await Slow.ask(serving)
    os.truncate(serving.path, 4 << 20)
    with caplog.at_level(logging.INFO):
        assert len(await slow.rest()) < slow.length
    assert [record.getMessage() for record in caplog.records if record.name == "kantad.http"] == [
        f"the backup of revision 8 was cut off at byte {4 << 20}: the file ends there"
    ]
    assert (await serving.ask("PUT", "/v1/data/x", 1)).status == 503  # which notices it, too


async def backed_up(serving: Serving, mebibytes: int) -> tuple[float, float, float]:
    """Back up such a file with writers at work; seconds that it took, the longest stall of the loop before and then.

    Client and writers run on the same loop, so it is what they cost, too.
    """
    await fill(serving.engine, mebibytes)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)  # without a pause it would be this that the reading thread waits for
            longest = max(longest, time.perf_counter() - began - 0.002)

    load, ticking = Load(serving), asyncio.create_task(tick())
    load.start()
    command = f"sleep 3; curl -sS --fail http://127.0.0.1:{serving.port}/v1/backup -o /dev/null -w %{{size_download}}"
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    await asyncio.sleep(0.5)  # starting a process is a stall, too
    longest = 0.0
    await asyncio.sleep(2)
    before, longest, began = longest, 0.0, time.monotonic() + 0.5
    said, _ = await process.communicate()
    took = time.monotonic() - began
    ticking.cancel()
    await load.stop()
    assert process.returncode == 0
    assert int(said) > mebibytes * (1 << 20) * 0.99
    return took, before, longest


@pytest.mark.long
async def test_a_large_file_does_not_hold_up_the_loop(serving: Serving) -> None:
    took, before, longest = await backed_up(serving, 1024)
    print(f"1 GiB in {took:.2f} s; longest stall {before * 1e3:.1f} ms without, {longest * 1e3:.1f} ms with it")
    assert longest < 0.1
