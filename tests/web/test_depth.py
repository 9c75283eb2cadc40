"""Every depth near the bound, in every language a write has: stored or refused, never a fault."""

from typing import Any

import pytest

from kantad.web.body import Limits
from tests.serving import Serving
from tests.web.ws_kit import Peer

DEPTHS = [*range(120, 131), 200, *range(250, 262), 500, 700]


def nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if kind == "array" or (kind == "mixed" and level % 2) else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["object", "array", "mixed"])
@pytest.mark.parametrize("most", [128, 256])
async def test_a_write_near_the_bound_is_stored_or_refused(unstarted: Serving, kind: str, most: int) -> None:
    await unstarted.start(limits=Limits(max_depth=most))
    peer = await Peer.open(unstarted)
    for depth in DEPTHS:
        value = nested(depth, kind)
        add = [{"op": "add", "path": "/x", "value": value}]
        answers = [
            await unstarted.ask("PUT", "/v1/data/x", value),
            await unstarted.ask("PATCH", "/v1/data", {"x": value}),
            await unstarted.ask("PATCH", "/v1/data", {"x": {"$replace": value}}),
            await unstarted.ask("PATCH", "/v1/data", {"x": value}, "Content-Type: application/merge-patch+json"),
            await unstarted.ask("PATCH", "/v1/data", add, "Content-Type: application/json-patch+json"),
            await unstarted.ask("POST", "/v1/transaction", {"diff": {"x": value}, "base": 0}),
        ]
        fits = depth < most
        codes = {200} if fits else {422}
        assert {got.status for got in answers} - {409} == codes, (depth, [got.body[:200] for got in answers])
        peer.send({"id": "deep", "op": "transact", "diff": {"x": {"$replace": value}}}, {"id": "flat", "op": "ping"})
        answer, _ = await peer.answer("deep"), await peer.answer("flat")
        assert answer.get("error", {}).get("code") == (None if fits else "too_deep"), depth
        if fits:
            assert await unstarted.value("/x") == value
            assert (await peer.ask("get", path="/x"))["value"] == value
        await unstarted.ask("PUT", "/v1/data/x", None)


@pytest.mark.parametrize("msgpack", [False, True])
async def test_a_deep_value_survives_a_restart_and_is_followed(unstarted: Serving, msgpack: bool) -> None:
    await unstarted.start(limits=Limits(max_depth=256), format="msgpack" if msgpack else "json")
    peer = await Peer.open(unstarted, msgpack=msgpack)
    assert (await peer.ask("subscribe", path="/x"))["rev"] == 0
    value = nested(255, "mixed")
    await unstarted.ask("PUT", "/v1/data/x", value)
    assert (await peer.event())["diff"] == value
    await unstarted.ask("PATCH", "/v1/data", {"x": None})
    assert (await peer.event())["diff"] == {"$replace": None}
    assert (await unstarted.ask("GET", "/v1/data/x?rev=1")).json == value
    assert (await unstarted.ask("POST", "/v1/revert", {"rev": 1})).status == 200
    await unstarted.restart()
    assert await unstarted.value("/x") == value
