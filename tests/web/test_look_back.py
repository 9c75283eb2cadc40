"""Preconditions that reach far back, through HTTP and a WebSocket: nobody waits for them, nothing overtakes them."""

import pytest

from kantad.engine import preconditions
from tests.serving import Serving
from tests.web.ws_kit import Peer


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "NEAR", 3)


async def grow(serving: Serving) -> None:
    await serving.ask("PUT", "/v1/data/a", 0)
    for number in range(30):
        await serving.ask("PUT", "/v1/data/n", number)


async def test_a_base_long_ago_is_a_conflict_or_none(serving: Serving) -> None:
    await grow(serving)
    assert (await serving.ask("PUT", "/v1/data/n?base=1", 5)).code == "conflict"
    assert (await serving.ask("PUT", "/v1/data/a?base=1", 5)).json["rev"] == 32
    assert (await serving.ask("PUT", f"/v1/data/a?base=2-{'0' * 16}", 6)).code == "history_diverged"
    unchanged = {"diff": {"b": 1}, "if": [{"path": "/a", "unchanged_since": 2}]}
    got = await serving.ask("POST", "/v1/transaction", unchanged)
    assert (got.status, got.json["failed"][0]["value"]) == (412, 5)


@pytest.mark.parametrize("msgpack", [False, True])
async def test_writes_behind_one_that_looks_back_commit_after_it(serving: Serving, msgpack: bool) -> None:
    await grow(serving)
    peer = await Peer.open(serving, msgpack=msgpack)
    peer.send(
        {"id": 1, "op": "transact", "diff": {"log": {"0": "plain"}}},
        {"id": 2, "op": "transact", "diff": {"log": {"1": "far"}}, "base": 1},
        {"id": 3, "op": "transact", "diff": {"log": {"2": "plain"}}},
        {"id": 4, "op": "transact", "diff": {"n": -1}, "base": 1},
        {"id": 5, "op": "transact", "diff": {"log": {"3": "far"}}, "base": 2, "return": "diff"},
        {"id": 6, "op": "transact", "diff": {"log": {"4": "bad"}}, "base": f"2-{'0' * 16}"},
        {"id": 7, "op": "get", "path": "/a"},
    )
    peer.send({"id": 8, "op": "transact", "diff": {"log": {"5": "last"}}}, single=True)
    answers = {id: await peer.answer(id) for id in range(1, 9)}
    assert [answers[id]["rev"] for id in (1, 2, 3, 5, 8)] == [32, 33, 34, 35, 36]
    assert answers[5]["diff"] == {"log": {"3": "far"}}
    assert answers[4]["error"]["code"] == "conflict"
    assert answers[6]["error"]["code"] == "history_diverged"
    assert answers[7]["value"] == 0
    assert (await peer.ask("get", path="/log"))["value"] == dict(
        zip("01235", ("plain", "far", "plain", "far", "last"), strict=True)
    )


async def test_what_is_held_up_is_dropped_with_its_connection(serving: Serving) -> None:
    await grow(serving)
    peer = await Peer.open(serving)
    peer.send({"id": 1, "op": "transact", "diff": {"x": 1}, "base": 5}, {"id": 2, "op": "ping"})
    await peer.close()
    assert (await serving.ask("GET", "/v1/data/a")).json == 0


async def test_at_most_a_thousand_conditions(serving: Serving) -> None:
    condition = {"path": "/a", "exists": False}
    got = await serving.ask("POST", "/v1/transaction", {"diff": {"a": 1}, "if": [condition] * 1000})
    assert got.status == 200
    got = await serving.ask("POST", "/v1/transaction", {"diff": {"a": 1}, "if": [condition] * 1001})
    assert got.code == "invalid_parameter"
    peer = await Peer.open(serving)
    answer = await peer.ask("transact", diff={"a": 1}, **{"if": [condition] * 1001})
    assert answer["error"]["code"] == "invalid_parameter"
