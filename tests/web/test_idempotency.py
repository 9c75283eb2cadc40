"""Section 3 of the contract: a repeated request is answered as the first was, and done once."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.serving import Serving, request
from tests.web.ws_kit import Peer

KEY = "Idempotency-Key: order-7"


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE"])
async def test_a_repeat_commits_nothing_and_gets_the_first_answer(serving: Serving, method: str, restart: bool) -> None:
    await serving.put("", {"x": {"old": 1}, "l": [1]})
    first = await serving.ask(method, "/v1/data/x", {"v": 1}, KEY)
    await serving.put("/other", 1)
    if restart:
        await serving.restart()
    before = serving.mark()
    again = await serving.ask(method, "/v1/data/x", {"v": 1}, KEY)
    assert (again.status, again.headers["idempotency-replayed"]) == (first.status, "true")
    assert again.json == {**first.json, "replayed": True}
    assert "idempotency-replayed" not in first.headers
    for name in ("kanta-revision", "kanta-cursor", "location"):
        assert again.headers.get(name) == first.headers.get(name)
    assert serving.mark() == before


@pytest.mark.parametrize("path", ["", "/x", "/l", "/new/path", "/$d", "/l/-/x", "/l/-/x/y", "/wide/-/x"])
async def test_the_child_that_a_post_made_is_known_after_a_restart(serving: Serving, path: str) -> None:
    await serving.put("", {"x": {}, "l": [1, 2], "$d": {}, "wide": list(range(100))})
    first = await serving.ask("POST", f"/v1/data{path}", {"v": 1}, KEY)
    assert first.status == 201
    await serving.restart()
    again = await serving.ask("POST", f"/v1/data{path}", {"v": 1}, KEY)
    assert (again.status, again.json["key"]) == (201, first.json["key"])
    assert again.headers["location"] == first.headers["location"]
    assert await serving.value(first.headers["location"].removeprefix("/v1/data")) == {"v": 1}


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
async def test_the_key_of_another_request_is_422(serving: Serving, restart: bool) -> None:
    tag = (await serving.ask("GET", "/v1/data")).etag
    assert (await serving.ask("PUT", "/v1/data/x", 1, KEY)).status == 200
    if restart:
        await serving.restart()
    before = serving.mark()
    others = [
        ("PUT", "/v1/data/x", 2, ()),
        ("PUT", "/v1/data/x", True, ()),
        ("PUT", "/v1/data/y", 1, ()),
        ("PATCH", "/v1/data/x", 1, ()),
        ("PUT", "/v1/data/x?user=u", 1, ()),
        ("PUT", "/v1/data/x?base=0", 1, ()),
        ("PUT", "/v1/data/x", 1, (f"If-Match: {tag}",)),
        ("DELETE", "/v1/data/x", None, ()),
    ]
    for method, target, value, headers in others:
        got = await serving.ask(method, target, value, KEY, *headers)
        assert (got.status, got.code) == (422, "key_reused"), target
    assert serving.mark() == before


async def test_the_key_is_looked_at_before_any_other_condition(serving: Serving) -> None:
    assert (await serving.ask("PUT", "/v1/data/x", 1, KEY, "If-None-Match: *")).status == 200
    again = await serving.ask("PUT", "/v1/data/x", 1, KEY, "If-None-Match: *")
    assert (again.status, again.json["replayed"]) == (200, True)
    based = await serving.ask("PUT", "/v1/data/x?base=1", 2, "Idempotency-Key: b")
    assert based.status == 200
    await serving.put("/x", 3)
    assert (await serving.ask("PUT", "/v1/data/x?base=1", 2, "Idempotency-Key: b")).json["replayed"] is True


async def test_a_request_that_was_refused_left_no_key(serving: Serving) -> None:
    assert (await serving.ask("PUT", "/v1/data/x", 1, KEY, "If-Match: *")).status == 412
    assert (await serving.ask("PUT", "/v1/data/x", 2, KEY)).json["rev"] == 1


async def test_a_keyed_request_that_changed_nothing_is_remembered_by_the_process(serving: Serving) -> None:
    await serving.put("/x", 1)
    assert (await serving.ask("PUT", "/v1/data/x", 1, KEY)).json["changed"] is False
    await serving.put("/x", 2)
    again = await serving.ask("PUT", "/v1/data/x", 1, KEY)
    assert (again.json["changed"], again.json["rev"], again.json["replayed"]) == (False, 1, True)
    assert await serving.value("/x") == 2
    assert (await serving.ask("PUT", "/v1/data/x", 3, KEY)).code == "key_reused"
    await serving.restart()
    assert (await serving.ask("PUT", "/v1/data/x", 1, KEY)).json["changed"] is True


async def test_a_transaction_takes_the_key_in_its_body_or_its_header(serving: Serving) -> None:
    first = await serving.transact(diff={"x": 1}, id="k")
    assert (await serving.transact(diff={"x": 1}, id="k")).json == {**first.json, "replayed": True}
    body = {"diff": {"x": 1}}
    assert (await serving.ask("POST", "/v1/transaction", body, "Idempotency-Key: k")).json["replayed"] is True
    both = {"diff": {"x": 1}, "id": "k"}
    assert (await serving.ask("POST", "/v1/transaction", both, "Idempotency-Key: k")).json["replayed"] is True
    differing = await serving.ask("POST", "/v1/transaction", both, "Idempotency-Key: other")
    assert (differing.status, differing.code) == (400, "invalid_parameter")
    assert serving.engine.rev == 1


@pytest.mark.parametrize("key", ["", "x" * 129, "\xfc", "a\tb"])
async def test_a_key_is_1_to_128_printable_ascii_characters(serving: Serving, key: str) -> None:
    got = await serving.ask("PUT", "/v1/data/x", 1, f"Idempotency-Key: {key}")
    assert (got.status, got.code) == (400, "invalid_parameter")
    assert (await serving.transact(diff={"x": 1}, id=key)).code == "invalid_parameter"
    assert serving.engine.rev == 0
    assert (await serving.transact(diff={"x": 1}, id="~" * 128)).status == 200


async def test_two_keys_that_differ_are_400(serving: Serving) -> None:
    got = await serving.ask("PUT", "/v1/data/x", 1, "Idempotency-Key: a", "Idempotency-Key: b")
    assert (got.status, got.code) == (400, "invalid_parameter")
    assert (await serving.ask("PUT", "/v1/data/x", 1, "Idempotency-Key: a", "Idempotency-Key: a")).status == 200


async def test_a_repeat_while_the_first_is_unsynced_waits_with_it(serving: Serving) -> None:
    serving.disk.hold()
    wires = [await serving.connect() for _ in range(2)]
    for wire in wires:
        wire.send(request("PUT", "/v1/data/x", b"1", KEY))
    answers = [asyncio.create_task(wire.answer()) for wire in wires]
    await serving.disk.until_syncing()
    assert not any(answer.done() for answer in answers)
    serving.disk.release()
    got = [await answer for answer in answers]
    assert sorted("replayed" in one.json for one in got) == [False, True]
    assert serving.engine.rev == 1
    for wire in wires:
        await wire.close()


async def test_a_repeat_gives_the_diff_again_when_asked(serving: Serving) -> None:
    first = await serving.transact(diff={"x": {"y": 1}}, id="k", want="diff")
    assert first.json["diff"] == {"x": {"y": 1}}
    await serving.put("/x", 2)
    for _ in range(2):
        again = await serving.transact(diff={"x": {"y": 1}}, id="k", want="diff")
        assert (again.json["replayed"], again.json["diff"]) == (True, {"x": {"y": 1}})
        await serving.restart()


@pytest.mark.parametrize(
    "member", [msgspec.msgpack.Ext(5, b"x"), {"a": msgspec.msgpack.Ext(5, b"x")}, {1.5: 1}], ids=str
)
async def test_a_key_does_not_alter_why_a_value_is_refused(serving: Serving, member: Any) -> None:
    body = msgspec.msgpack.encode(member)
    packed = "Content-Type: application/msgpack"
    plain = await serving.ask("PUT", "/v1/data/x", None, packed, body=body)
    keyed = await serving.ask("PUT", "/v1/data/x", None, packed, KEY, body=body)
    assert plain.status == 400
    assert (keyed.status, keyed.code) == (plain.status, plain.code)
    compared = {"diff": {"a": 1}, "id": "other", "if": [{"path": "/x", "equals": member}]}
    got = await serving.ask("POST", "/v1/transaction", None, packed, body=msgspec.msgpack.encode(compared))
    assert got.status == 412


async def test_a_post_below_a_foreign_key_is_known_after_a_restart(unstarted: Serving) -> None:
    await unstarted.start(format="msgpack")
    await unstarted.ask(
        "PUT", "/v1/data/o", None, "Content-Type: application/msgpack", body=msgspec.msgpack.encode({5: {}})
    )
    first = await unstarted.ask("POST", "/v1/data/o/5", 1, KEY)
    await unstarted.restart()
    again = await unstarted.ask("POST", "/v1/data/o/5", 1, KEY)
    assert (again.status, again.headers["location"]) == (201, first.headers["location"])


def keyed(id: int, value: int, key: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "op": "transact", "path": "/x", "diff": {"v": value}, "key": key, **more}


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("single", [False, True], ids=["arrays", "singles"])
@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_repeats_over_a_websocket_get_the_first_answers(
    serving: Serving, msgpack: bool, single: bool, restart: bool
) -> None:
    async def sent(*requests: dict[str, Any]) -> list[dict[str, Any]]:
        if single:
            for each in requests:
                peer.send(each, single=True)
        else:
            peer.send(*requests)
        return [await peer.answer(each["id"]) for each in requests]

    await serving.put("/x", {"v": 0})
    peer = await Peer.open(serving, msgpack=msgpack)
    asked = [keyed(number, number, f"k{number}") for number in range(1, 20)]
    asked[7]["u"] = "alice"
    firsts = await sent(*asked)
    assert [each["rev"] for each in firsts] == list(range(2, 21))
    if restart:
        await serving.restart()
        peer = await Peer.open(serving, msgpack=msgpack)
    before = serving.mark()
    other = keyed(20, 1, "k5")
    *agains, refused = await sent(*asked, other)
    assert agains == [{**first, "replayed": True} for first in firsts]
    assert refused["error"]["code"] == "key_reused"
    assert serving.mark() == before
    mixed = await sent(asked[3], {"id": 50, "op": "get"}, keyed(51, 99, "new"), asked[4])
    assert [each["rev"] for each in mixed] == [5, 20, 21, 6]


async def test_a_key_over_http_and_over_a_websocket_is_the_same_request(serving: Serving) -> None:
    peer = await Peer.open(serving)
    await serving.put("/x", {"v": 0})
    over_http = await serving.transact(path="/x", diff={"v": 1}, a="act", u="alice", id="one")
    over_websocket = await peer.ask("transact", path="/x", diff={"v": 2}, a="act", u="alice", key="two")
    peer.send(keyed(10, 1, "one", a="act", u="alice"), keyed(11, 1, "one", a="act"), keyed(12, 3, "three"))
    assert await peer.answer(10) == {**over_http.json, "id": 10, "replayed": True}
    assert (await peer.answer(11))["error"]["code"] == "key_reused"
    assert (await peer.answer(12))["rev"] == 4
    again = await serving.transact(path="/x", diff={"v": 2}, a="act", u="alice", id="two")
    assert {**again.json, "id": over_websocket["id"]} == {**over_websocket, "replayed": True}


async def test_a_repeat_stands_where_the_writes_of_its_message_find_no_room(serving: Serving) -> None:
    peer = await Peer.open(serving)
    await serving.put("/x", {"v": 0})
    first = await peer.ask("transact", path="/x", diff={"v": 1}, key="k")
    same = await peer.ask("transact", path="/x", diff={"v": 1}, key="same")
    serving.disk.room = 0
    repeat, unchanged = keyed(10, 1, "k"), keyed(11, 1, "same")
    peer.send(repeat, unchanged, keyed(12, 2, "new"), {**keyed(13, 2, "new")}, keyed(14, 2, "other"))
    assert await peer.answer(10) == {**first, "id": 10, "replayed": True}
    assert await peer.answer(11) == {**same, "id": 11, "replayed": True}
    for id in (12, 13, 14):
        assert (await peer.answer(id))["error"]["code"] == "storage_full", id
    serving.disk.room = None
    answer = await peer.ask("transact", path="/x", diff={"v": 2}, key="new")
    assert (answer["rev"], "replayed" in answer) == (first["rev"] + 1, False)


async def test_a_repeat_waits_for_the_first_to_be_on_disk(serving: Serving) -> None:
    peer = await Peer.open(serving)
    serving.disk.hold()
    peer.send(keyed(1, 1, "k"), keyed(2, 1, "k"))
    peer.send(keyed(3, 1, "k"), single=True)
    assert (await peer.ask("ping"))["rev"] == 0
    assert not peer.answers
    serving.disk.release()
    assert [(await peer.answer(id))["rev"] for id in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("key", ["", "x" * 129, "\xfc", "a\tb"])
@pytest.mark.parametrize("single", [False, True])
async def test_a_key_that_is_none_is_refused_in_a_message_of_plain_writes(
    serving: Serving, key: str, single: bool
) -> None:
    peer = await Peer.open(serving)
    peer.send(keyed(1, 1, key), *([] if single else [keyed(2, 1, "k")]), single=single)
    assert (await peer.answer(1))["error"]["parameter"] == "key"
    assert single or (await peer.answer(2))["rev"] == 1
