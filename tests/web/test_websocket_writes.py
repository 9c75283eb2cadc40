"""Writes over a WebSocket: in arrays or singly, in either format, they are the same writes with the same answers."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from kantad.values.patch import marshal
from kantad.web.body import Limits
from tests.engine.engine_kit import eventually
from tests.serving import Serving
from tests.web.ws_kit import Peer

KEYS = ("a", "b", "$x", "0", "")


class Requests:
    """Random requests: most are plain writes, some are labelled or conditional, some are refused, some are none."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def value(self, depth: int = 2) -> Any:
        if depth and self.chance.random() < 0.5:
            return {key: self.value(depth - 1) for key in self.chance.sample(KEYS, self.chance.randrange(4))}
        return self.chance.choice((0, 1, True, 1.0, None, "x", [1, {"y": 2}, 3]))

    def diff(self) -> Any:
        made = marshal(self.value())
        pick = self.chance.random()
        if pick < 0.1:
            return {"$delete": [0], "$insert": [[0, "new"]]}
        if pick < 0.2:
            return {"$replace": {"a": 1}}
        if isinstance(made, dict) and pick < 0.4:
            made["$delete"] = [self.chance.choice(("a", "b"))]
        return made

    def one(self, number: int) -> dict[str, Any]:
        chance, given = self.chance, {"id": number, "op": "transact", "diff": self.diff()}
        path = "".join("/" + chance.choice(KEYS) for _ in range(chance.randrange(3)))
        variants: list[dict[str, Any]] = [
            {"id": str(number), "a": "labelled", "u": "u", "return": "diff"},
            {"diff": {"c": number}, "if": [{"path": "/a", "exists": chance.random() < 0.5}]},
            {"diff": {"k": number % 5}, "key": f"key{number % 7}"},
            {"dry_run": True},
            {"diff": {"$what": 1}},
            {"diff": {"x": 1}, "base": 0},
            {"op": "nonsense"},
        ]
        return {**given, "path": path} if chance.random() < 0.75 else {**given, **chance.choice(variants)}


def requests_of(seed: int, count: int) -> list[dict[str, Any]]:
    requests = Requests(seed)
    return [requests.one(number) for number in range(count)]


def same_for_all(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what depends on the clock: cursors and times."""
    kept = {name: value for name, value in answer.items() if name not in ("cursor", "ts", "rev")}
    if "error" in kept:
        kept["error"] = {k: v for k, v in kept["error"].items() if k not in ("cursor", "rev", "detail")}
    return kept


async def played(
    path: Path, requests: list[dict[str, Any]], sizes: list[int], msgpack: bool, full: int | None = None
) -> tuple[list[dict[str, Any]], Any, list[Any]]:
    """Send requests in messages of these sizes; the answers by request, the state, and the changes in the file."""
    serving = Serving(str(path))
    await serving.start()
    peer = await Peer.open(serving, msgpack=msgpack)
    answers, place, number = [], 0, 0
    while place < len(requests):
        size = sizes[number % len(sizes)]
        number += 1
        message = requests[place : place + size]
        place += len(message)
        serving.disk.room = 0 if number == full else None
        peer.send(*message, single=size == 1)
        answers += [await peer.answer(each["id"]) for each in message]
    state, records = await serving.value(), serving.records()
    await serving.stop()
    return answers, state, records


@pytest.mark.parametrize("seed", range(6))
async def test_arrays_and_singles_and_both_formats_are_the_same_writes(tmp_path: Path, seed: int) -> None:
    requests = requests_of(seed, 160)
    singles = await played(tmp_path / "singles", requests, [1], False)
    for name, sizes, msgpack in (("arrays", [16], False), ("mixed", [1, 5, 40, 2], False), ("msgpack", [1, 16], True)):
        answers, state, records = await played(tmp_path / name, requests, sizes, msgpack)
        assert list(map(same_for_all, answers)) == list(map(same_for_all, singles[0])), name
        assert [each.get("rev") for each in answers] == [each.get("rev") for each in singles[0]], name
        assert state == singles[1]
        kept = [[each["a"], each.get("u"), each.get("id"), each["diff"]] for each in records]
        assert kept == [[each["a"], each.get("u"), each.get("id"), each["diff"]] for each in singles[2]]


@pytest.mark.parametrize("full", [1, 3, 5])
@pytest.mark.parametrize("msgpack", [False, True])
async def test_a_full_disk_refuses_whole_batches_and_every_request_has_its_answer(
    tmp_path: Path, full: int, msgpack: bool
) -> None:
    requests: list[dict[str, Any]] = [
        {"id": number, "op": "transact", "diff": {f"k{number}": number}} for number in range(96)
    ]
    answers, state, records = await played(tmp_path / "db", requests, [16], msgpack, full)
    refused = [number for number, answer in enumerate(answers) if "error" in answer]
    assert refused == list(range((full - 1) * 16, full * 16))
    assert {answers[number]["error"]["code"] for number in refused} == {"storage_full"}
    assert state == {f"k{number}": number for number in range(96) if number not in refused}
    accepted = [answer["rev"] for answer in answers if "rev" in answer]
    assert accepted == list(range(1, 81))
    assert len(records) == 80


async def test_writes_of_a_connection_commit_in_the_order_sent(serving: Serving) -> None:
    peers = [await Peer.open(serving, msgpack=bool(number % 2)) for number in range(4)]
    chance = random.Random(1)

    async def write(name: int, peer: Peer) -> None:
        number = 0
        while number < 300:
            size = chance.choice((1, 1, 3, 20))
            message: list[dict[str, Any]] = []
            for step in range(number, number + size):
                more = {"a": "x"} if step % 7 == 0 else {"base": 0} if step % 11 == 0 else {}
                message.append({"id": step, "op": "transact", "path": f"/p{name}", "diff": {f"n{step}": step}, **more})
            peer.send(*message, single=size == 1)
            number += size
            if chance.random() < 0.2:
                peer.answers[number - 1] = await peer.answer(number - 1)
        for step in range(number):
            peer.answers[step] = await peer.answer(step)

    await asyncio.gather(*(write(name, peer) for name, peer in enumerate(peers)))
    for name in range(4):
        order = [key for record in serving.records() for key in record["diff"].get(f"p{name}", {})]
        assert order == [f"n{step}" for step in sorted(int(key[1:]) for key in order)]
        assert len(order) >= 270


async def test_answers_wait_for_the_disk_and_a_read_does_not(serving: Serving) -> None:
    peer = await Peer.open(serving)
    serving.disk.hold()
    peer.send({"id": 1, "op": "transact", "diff": {"a": 1}}, {"id": 2, "op": "transact", "diff": {"b": 1}})
    peer.send({"id": 3, "op": "transact", "diff": {"c": 1}, "ack": "applied"}, {"id": 4, "op": "get"})
    assert (await peer.answer(4))["value"] == {}
    assert (await peer.answer(3))["rev"] == 3
    assert 1 not in peer.answers
    serving.disk.release()
    assert [(await peer.answer(id))["rev"] for id in (1, 2)] == [1, 2]
    assert (await peer.ask("get"))["value"] == {"a": 1, "b": 1, "c": 1}


async def test_a_peer_that_goes_in_the_middle_leaves_what_was_handled_durable(serving: Serving) -> None:
    peer = await Peer.open(serving)
    serving.disk.hold()
    peer.send(*({"id": number, "op": "transact", "diff": {f"k{number}": 1}} for number in range(50)))
    await eventually(lambda: serving.engine.rev == 50)
    await peer.close()
    await eventually(lambda: not serving.server.aiohttp.connections)
    serving.disk.release()
    await serving.restart()
    assert len(await serving.value()) == 50


async def test_a_shutdown_answers_what_is_under_way_and_says_goodbye(serving: Serving) -> None:
    peer = await Peer.open(serving)
    serving.disk.hold()
    peer.send(*({"id": number, "op": "transact", "diff": {f"k{number}": 1}} for number in range(20)))
    await eventually(lambda: serving.engine.rev == 20)
    serving.wires.clear()  # the server closes, not the test
    stopping = asyncio.ensure_future(serving.stop())
    closed = await peer.ended()
    await stopping
    assert closed.code == 1001
    assert sorted(peer.answers) == list(range(20))
    assert all("rev" in answer for answer in peer.answers.values())
    await peer.close()


async def test_more_than_may_be_under_way_waits_and_is_answered(unstarted: Serving) -> None:
    await unstarted.start(limits=Limits(max_in_flight=8))
    peer = await Peer.open(unstarted)
    unstarted.disk.hold()
    peer.send(*({"id": number, "op": "transact", "diff": {f"k{number}": 1}} for number in range(100)))
    await eventually(lambda: unstarted.engine.rev == 8)
    await asyncio.sleep(0.01)
    assert unstarted.engine.rev == 8
    unstarted.disk.release()
    assert [(await peer.answer(number))["rev"] for number in range(100)] == list(range(1, 101))
