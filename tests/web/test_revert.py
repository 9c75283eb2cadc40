"""`POST /v1/revert`."""

from typing import Any

import msgspec
import pytest

from kantad.store.log import reading
from kantad.values.content import decode_json, same
from tests.serving import Got, Serving
from tests.web.history_kit import KEYS, History

both = pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])


async def reverted(serving: Serving, body: Any, *headers: str) -> Got:
    return await serving.ask("POST", "/v1/revert", body, *headers)


@both
async def test_a_value_is_brought_back_as_a_new_change(serving: Serving) -> None:
    history = History(serving)
    await history.run(40)
    for rev in (10, 37, 0, 25):
        got = await reverted(serving, {"rev": rev, "u": "ann"})
        assert (got.status, got.json["changed"]) == (200, True)
        assert got.headers["kanta-cursor"] == got.json["cursor"]
        assert same((await serving.ask("GET", "/v1/data")).json, history.states[rev])
    for key in KEYS:
        got = await reverted(serving, {"rev": history.marks[33], "path": "/" + key.replace("/", "~1")})
        assert got.status == 200
    assert same((await serving.ask("GET", "/v1/data")).json, history.states[33])
    with reading(serving.path) as (buffer, size, _, _):
        records = [decode_json(line) for line in buffer[:size].splitlines()]
    assert [(record["a"], record.get("u")) for record in records[40:44]] == [("revert", "ann")] * 4


async def test_what_was_not_there_is_removed(serving: Serving) -> None:
    await serving.put("/a/b", 1)
    await serving.put("/a/c", [1])
    await serving.put("/a/c/-", 2)
    got = await reverted(serving, {"rev": 1, "path": "/a/c", "return": "diff"})
    assert (got.json["rev"], got.json["diff"]) == (4, {"a": {"$delete": ["c"]}})
    got = await reverted(serving, {"rev": 0, "path": "/a/c"})
    assert (got.json["rev"], got.json["changed"]) == (4, False)


async def test_a_value_that_no_longer_fits_is_refused_as_a_put_would_be(serving: Serving) -> None:
    await serving.put("/list", [1, 2, 3])
    await serving.put("/list", [1])
    await serving.put("/way/down", 1)
    await serving.put("/way", "a scalar")
    for rev, path in ((1, "/list/2"), (3, "/way/down")):
        got = await reverted(serving, {"rev": rev, "path": path})
        assert (got.status, got.code) == (409, "patch_mismatch")
    assert (await reverted(serving, {"rev": 2, "path": "/way/down"})).json["changed"] is False


async def test_only_what_differs_is_logged(serving: Serving) -> None:
    await serving.put("", {"a": {"x": 1, "y": 2}, "b": 1})
    await serving.put("/a/x", 9)
    got = await reverted(serving, {"rev": 1, "return": "diff"})
    assert got.json["diff"] == {"a": {"x": 1}}


async def test_a_dry_run_commits_nothing(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    got = await reverted(serving, {"rev": 1, "dry_run": True})
    assert (got.json["rev"], got.json["changed"], got.json["diff"]) == (2, True, {"x": 1})
    assert (await serving.ask("GET", "/v1/data/x")).json == 2


async def test_conditions_are_checked_as_of_other_writes(serving: Serving) -> None:
    await serving.put("/x", 1)
    etag = (await serving.ask("GET", "/v1/data/x")).etag
    await serving.put("/x", 2)
    for more, headers in (
        ({"if": [{"path": "/x", "equals": 1}]}, ()),
        ({}, (f"If-Match: {etag}",)),
        ({}, ("If-None-Match: *",)),
    ):
        got = await reverted(serving, {"rev": 1, "path": "/x", **more}, *headers)
        assert (got.status, got.code) == (412, "precondition_failed")
    got = await reverted(serving, {"rev": 1, "path": "/x", "base": 1})
    assert (got.status, got.code, got.json["conflicts"][0]["rev"]) == (409, "conflict", 2)
    got = await reverted(serving, {"rev": 1, "path": "/x", "base": 2}, "If-Match: *")
    assert got.json["rev"] == 3


async def test_a_repeated_key_gives_the_first_answer(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    first = await reverted(serving, {"rev": 1, "path": "/x", "id": "k", "m": "2026-01-01T00:00:00Z"})
    await serving.put("/x", 3)
    for restarted in (False, True):
        if restarted:
            await serving.restart()
        serving.engine.past.oldest = 2  # the value is not looked up again
        body = {"rev": 1, "path": "/x", "m": "2026-01-01T00:00:00Z"}
        again = await reverted(serving, body, "Idempotency-Key: k")
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.json["cursor"], again.json["replayed"]) == (first.json["cursor"], True)
        other = await reverted(serving, {"rev": 2, "path": "/x", "id": "k"})
        assert (other.status, other.code) == (422, "key_reused")
        serving.engine.past.oldest = 0
    got = await reverted(serving, {"rev": 1, "id": "k"}, "Idempotency-Key: l")
    assert got.code == "invalid_parameter"


async def test_a_dry_run_with_a_used_key_tells_what_the_revert_would_do_now(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    body = {"rev": 1, "path": "/x", "id": "k"}
    assert (await reverted(serving, body)).json["rev"] == 3
    got = await reverted(serving, {**body, "dry_run": True})
    assert (got.json["changed"], got.json["diff"]) == (False, {})
    await serving.put("/x", 4)
    got = await reverted(serving, {**body, "dry_run": True})
    assert (got.json["changed"], got.json["diff"]) == (True, {"x": 1})
    assert await serving.value("/x") == 4


async def test_a_request_and_its_answer_may_be_messagepack(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    body = msgspec.msgpack.encode({"rev": 1, "path": "/x", "ack": "written"})
    headers = ("Content-Type: application/msgpack", "Accept: application/msgpack")
    got = await serving.ask("POST", "/v1/revert", None, *headers, body=body)
    assert msgspec.msgpack.decode(got.body)["rev"] == 3


async def test_what_is_asked_wrongly_is_refused(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    for body, status, code in (
        ({}, 400, "invalid_parameter"),
        ({"rev": None}, 400, "invalid_parameter"),
        ({"rev": True}, 400, "invalid_parameter"),
        ({"rev": -1}, 400, "invalid_parameter"),
        ({"rev": "x"}, 400, "invalid_parameter"),
        ({"rev": 1, "diff": {}}, 400, "invalid_parameter"),
        ({"rev": 1, "path": "x"}, 400, "invalid_path"),
        ({"rev": 1, "a": "\n"}, 400, "invalid_parameter"),
        ({"rev": 3}, 404, "unknown_revision"),
        ({"rev": 2**64 - 1}, 404, "unknown_revision"),
        ({"rev": "1-0000000000000000"}, 409, "history_diverged"),
        ({"rev": 1, "path": "/x/y"}, 200, ""),
        ({"rev": 1, "path": "/x", "base": 9}, 409, "history_diverged"),
        ([], 400, "invalid_parameter"),
    ):
        got = await reverted(serving, body)
        assert got.status == status, (body, got)
        assert status == 200 or got.code == code, body
    assert serving.engine.rev == 2
    assert (await serving.ask("POST", "/v1/revert?rev=1", {"rev": 1})).code == "invalid_parameter"
    got = await serving.ask("GET", "/v1/revert")
    assert (got.status, got.headers["allow"]) == (405, "POST")


async def test_a_refused_write_leaves_everything_as_it_was(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/x", 2)
    serving.disk.room = 0
    got = await reverted(serving, {"rev": 1})
    assert (got.status, got.code) == (507, "storage_full")
    serving.disk.room = None
    assert (await serving.ask("GET", "/v1/data/x")).json == 2
