"""`GET /v1/changes` as a listing, held against the changes that were made; and the same over a WebSocket."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from kantad.engine.ring import RING_BYTES
from kantad.store import canonical
from kantad.values.content import MISSING, copied, decode_json, same
from kantad.values.patch import apply
from kantad.values.pointer import format, lookup
from tests.engine.engine_kit import eventually
from tests.serving import Serving
from tests.web.history_kit import KEYS, History
from tests.web.ws_kit import Peer


async def grown(serving: Serving, revisions: int = 120, *, ring: int = RING_BYTES, kind: str = "json") -> History:
    """A server with a history, in memory or (with a small ring) in the file."""
    await serving.start(ring_bytes=ring, format=kind, ack="written")
    history = History(serving)
    await history.run(revisions)
    return history


async def listed(serving: Serving, **parameters: Any) -> dict[str, Any]:
    """The answer to these parameters; `start` is `from`."""
    names = {"start": "from", "stop": "to"}
    query = "&".join(f"{names.get(name, name)}={quote(str(value), safe='')}" for name, value in parameters.items())
    got = await serving.ask("GET", f"/v1/changes?{query}")
    assert got.status == 200, got
    answer: dict[str, Any] = got.json
    return answer


async def everything(serving: Serving, **parameters: Any) -> list[dict[str, Any]]:
    """All pages together."""
    found: list[dict[str, Any]] = []
    going_on = "until" if parameters.get("order") == "desc" else "since"
    while True:
        answer = await listed(serving, **parameters)
        assert len(answer["changes"]) <= parameters.get("limit", 100)
        found += answer["changes"]
        if answer["next"] is None:
            return found
        parameters[going_on] = answer["next"]


memory_and_file = pytest.mark.parametrize("ring", [RING_BYTES, 2000], ids=["memory", "file"])


@memory_and_file
@pytest.mark.parametrize("kind", ["json", "msgpack"])
async def test_pages_in_either_order_are_the_whole_history(unstarted: Serving, ring: int, kind: str) -> None:
    history = await grown(unstarted, ring=ring, kind=kind)
    expected = [(rev, mark) for rev, mark in enumerate(history.marks) if rev]
    for limit in (1, 7, 100, 1000):
        found = await everything(unstarted, limit=limit)
        assert [(change["rev"], change["cursor"]) for change in found] == expected
        assert await everything(unstarted, limit=limit, order="desc") == found[::-1]
    state: Any = {}
    for change in found:
        state = apply(state, copied(change["diff"]))
        assert same(state, history.states[change["rev"]])
    answer = await listed(unstarted, limit=2)
    assert (answer["rev"], answer["oldest"], answer["next"]) == (120, 0, history.marks[2])


@memory_and_file
async def test_since_and_until_are_revisions_cursors_or_times(unstarted: Serving, ring: int) -> None:
    history = await grown(unstarted, ring=ring)
    for low, high in ((0, 120), (5, 9), (50, 50), (119, 120), (40, 100)):
        for form in (str, lambda rev: history.marks[rev], lambda rev: history.times[rev] if rev else "0"):
            found = await everything(unstarted, since=form(low), until=form(high))
            assert [change["rev"] for change in found] == list(range(low + 1, high + 1)), (form(low), form(high))
            down = await everything(unstarted, since=form(low), until=form(high), order="desc", limit=3)
            assert down == found[::-1]
    assert (await listed(unstarted, since=120))["changes"] == []
    assert (await listed(unstarted, until=999))["next"] == history.marks[100]


@memory_and_file
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_path_gives_what_differs_there_and_nothing_else(unstarted: Serving, ring: int, order: str) -> None:
    history = await grown(unstarted, ring=ring)
    paths = [(key,) for key in KEYS] + [("a", "b"), ("b", "0"), ("ü", "a", "x"), ("x/y", "")]
    for path in paths:
        found = await everything(unstarted, path=format(path), limit=5, order=order)
        changes = {change["rev"]: change for change in found}
        assert [change["rev"] for change in found] == sorted(changes, reverse=order == "desc")
        value: Any = MISSING
        for rev, state in enumerate(history.states):
            expected = lookup(state, path)
            if rev in changes:
                value = MISSING if changes[rev].get("deleted") else apply(copied(value), copied(changes[rev]["diff"]))
                assert ("diff" in changes[rev]) is not ("deleted" in changes[rev])
            assert (value is MISSING) is (expected is MISSING)
            assert value is MISSING or same(value, expected), (path, rev)


@memory_and_file
async def test_actions_users_and_times_filter(unstarted: Serving, ring: int) -> None:
    await unstarted.start(ring_bytes=ring)
    for number in range(60):
        await unstarted.ask("PUT", f"/v1/data/k?action={'ab'[number % 2]}{number % 3}&user=u{number % 5}", number)
    every = await everything(unstarted)
    for parameters, passes in (
        ({"action": "a*"}, lambda change: change["a"][0] == "a"),
        ({"action": "?1"}, lambda change: change["a"][1] == "1"),
        ({"action": "[ab]2", "user": "u3"}, lambda change: change["a"][1] == "2" and change["u"] == "u3"),
        ({"user": "u"}, lambda change: False),
        ({"start": every[20]["ts"], "stop": every[30]["ts"]}, lambda change: 21 <= change["rev"] <= 31),
        ({"path": "/k", "user": "u1"}, lambda change: change["u"] == "u1"),
    ):
        found = await everything(unstarted, limit=4, **parameters)
        assert [change["rev"] for change in found] == [change["rev"] for change in every if passes(change)]


async def test_a_record_has_what_was_given_and_not_what_only_the_log_needs(serving: Serving) -> None:
    moment = "2020-02-03T04:05:06.789012Z"
    await serving.transact(diff={"a": 1}, a="act", u="me", m=moment, id="key")
    (change,) = (await listed(serving))["changes"]
    assert list(change) == ["rev", "cursor", "ts", "a", "u", "m", "id", "diff"]
    assert [change[name] for name in ("a", "u", "m", "id", "diff")] == ["act", "me", moment, "key", {"a": 1}]
    got = await serving.ask("GET", "/v1/changes", None, "Accept: application/msgpack")
    assert msgspec.msgpack.decode(got.body)["changes"] == [change]


async def test_a_wait_is_answered_by_the_next_change(serving: Serving) -> None:
    await serving.put("/a", 1)
    waiting = asyncio.ensure_future(listed(serving, since=1, wait=30))
    await eventually(lambda: serving.server.aiohttp.connections)
    peer = await Peer.open(serving)
    await peer.ask("transact", diff={"a": 2})
    assert [change["rev"] for change in (await waiting)["changes"]] == [2]
    assert [change["rev"] for change in (await listed(serving, since=1, wait=30))["changes"]] == [2]
    assert (await listed(serving, since=2, wait=0.05))["changes"] == []


async def test_a_wait_with_a_filter_is_answered_by_a_change_that_passes(serving: Serving) -> None:
    peer, writer = await Peer.open(serving), await Peer.open(serving)
    peer.send({"id": "w", "op": "changes", "since": 0, "wait": 30, "path": "/wanted"}, single=True)
    for number in range(5):
        await writer.ask("transact", diff={"other": number})
    assert (await peer.ask("ping"))["rev"] == 5
    assert "w" not in peer.answers
    await writer.ask("transact", diff={"wanted": 1})
    answer = await peer.answer("w")
    assert [(change["rev"], change["diff"]) for change in answer["changes"]] == [(6, {"$replace": 1})]
    assert answer["next"] is None


async def test_a_websocket_lists_the_same(unstarted: Serving) -> None:
    await grown(unstarted, ring=2000)
    peer, packed = await Peer.open(unstarted), await Peer.open(unstarted, msgpack=True)
    for parameters in ({}, {"path": "/a"}, {"since": 50, "until": 60}, {"order": "desc", "limit": 7}, {"action": "p*"}):
        over_http = await listed(unstarted, **parameters)
        for each in (peer, packed):
            answer = await each.ask("changes", **parameters)
            del answer["id"]
            assert answer == over_http


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("since=x", "invalid_parameter", "since"),
        ("since=now", "invalid_parameter", "since"),
        ("since=-1", "invalid_parameter", "since"),
        ("until=%C2%B2", "invalid_parameter", "until"),
        ("until=%D9%A3", "invalid_parameter", "until"),
        ("since=99", "history_diverged", None),
        ("since=1-0000000000000000", "history_diverged", None),
        ("until=1-0000000000000000", "history_diverged", None),
        ("since=2026-13-01T00:00:00Z", "invalid_parameter", "since"),
        ("limit=0", "invalid_parameter", "limit"),
        ("limit=10001", "invalid_parameter", "limit"),
        ("limit=x", "invalid_parameter", "limit"),
        ("order=up", "invalid_parameter", "order"),
        ("path=x", "invalid_path", None),
        ("wait=61", "invalid_parameter", "wait"),
        ("wait=-1", "invalid_parameter", "wait"),
        ("wait=nan", "invalid_parameter", "wait"),
        ("wait=1&order=desc", "invalid_parameter", "wait"),
        ("value=true", "invalid_parameter", "value"),
        ("from=x", "invalid_parameter", "from"),
        ("to=5", "invalid_parameter", "to"),
        ("user=a%0Ab", "invalid_parameter", "user"),
        ("nothing=1", "invalid_parameter", "nothing"),
        ("since=1&since=2", "invalid_parameter", "since"),
    ],
)
async def test_what_makes_no_sense_is_refused(serving: Serving, query: str, code: str, parameter: str | None) -> None:
    await serving.put("/a", 1)
    got = await serving.ask("GET", f"/v1/changes?{query}")
    assert got.code == code
    assert got.json.get("parameter") == parameter
    streamed = await serving.ask("GET", f"/v1/changes?{query}", None, "Accept: application/x-ndjson")
    if query not in ("value=true",):
        assert streamed.code == code


@pytest.mark.parametrize("digits", [1, 2, 19, 20, 5000])
async def test_an_until_may_be_as_far_ahead_as_it_likes(serving: Serving, digits: int) -> None:
    await serving.put("/a", 1)
    assert [change["rev"] for change in (await listed(serving, until="9" * digits))["changes"]] == [1]


async def test_the_revision_of_a_listing_is_that_up_to_which_it_looked(unstarted: Serving) -> None:
    await grown(unstarted, 100, ring=2000)
    await unstarted.restart(ring_bytes=2000)
    peer = await Peer.open(unstarted)
    async with unstarted.engine.backlog.lock:  # the file is not read meanwhile
        peer.send({"id": 1, "op": "changes", "limit": 10_000}, {"id": 2, "op": "changes", "path": "/nothing"})
        assert (await peer.ask("ping"))["rev"] == 100
        await unstarted.put("/late", 1)
    for number in (1, 2):
        answer = await peer.answer(number)
        assert (answer["next"], answer["rev"]) == (None, 100)
        assert [change["rev"] for change in answer["changes"]] == ([*range(1, 101)] if number == 1 else [])
    assert [change["rev"] for change in (await listed(unstarted, since=100))["changes"]] == [101]


async def test_what_comes_during_the_search_does_not_end_a_wait(unstarted: Serving) -> None:
    await grown(unstarted, 100, ring=2000)
    await unstarted.restart(ring_bytes=2000)
    peer = await Peer.open(unstarted)
    async with unstarted.engine.backlog.lock:
        peer.send({"id": "w", "op": "changes", "path": "/wanted", "wait": 30})
        await peer.ask("ping")
        await unstarted.put("/late", 1)
    await unstarted.put("/late", 2)
    await unstarted.put("/wanted", 1)
    assert [change["rev"] for change in (await peer.answer("w"))["changes"]] == [103]


def kanta_lines(count: int) -> list[str]:
    """Records as kanta 0.1 to 0.8 wrote them."""
    head = '{"ts":"2025-01-01T00:00:00.000000Z","a":"x","diff":{"k":{"$replace":{"n":'
    return [f'{head}{number},"s":"{"x" * 500}"}}}}}}}}\n' for number in range(count)]


async def test_a_doubled_record_of_kanta_is_one_change_that_did_what_it_did(unstarted: Serving) -> None:
    lines = kanta_lines(6)
    lines.insert(3, lines[2])
    Path(unstarted.path).write_text("".join(lines))
    await unstarted.start(ring_bytes=1000)
    found = await everything(unstarted, path="/k/n")
    assert [change["diff"] for change in found] == [{"$replace": number} for number in range(6)]


async def test_blocks_of_another_program_s_records_are_read_in_one_replay(
    unstarted: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(unstarted.path).write_text("".join(kanta_lines(1000)))
    begun: list[Any] = []
    made = canonical.Canonical
    monkeypatch.setattr(canonical, "Canonical", lambda walk: begun.append(walk) or made(walk))
    await unstarted.start(ring_bytes=1000)
    assert [change["diff"] for change in await everything(unstarted, path="/k/n")] == [
        {"$replace": number} for number in range(1000)
    ]
    assert len(begun) == 1
    await unstarted.put("/k/n", 0)
    assert [change["rev"] for change in await everything(unstarted, path="/k/n", since=10)] == list(range(11, 1002))


async def test_head_is_a_listing_without_its_body(serving: Serving) -> None:
    await serving.put("/a", 1)
    full = await serving.ask("GET", "/v1/changes")
    head = await serving.ask("HEAD", "/v1/changes", None, "Accept: text/event-stream")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]
    assert decode_json(full.body)["rev"] == 1
