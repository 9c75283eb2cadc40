"""Section 4 of the contract: `POST /v1/transaction`, the general form of every write."""

from typing import Any

import msgspec
import pytest

from tests.serving import Serving


@pytest.fixture
async def bank(serving: Serving) -> Serving:
    await serving.put("", {"accounts": {"from": {"balance": 100}, "to": {"balance": 100}}})
    return serving


TRANSFER = {"from": {"balance": 50}, "to": {"balance": 150}}


async def test_a_transaction_is_all_or_nothing(bank: Serving) -> None:
    when = [{"path": "/accounts/from/balance", "equals": 100}, {"path": "/accounts/closed", "exists": False}]
    got = await bank.transact(a="transfer", u="alice", diff=TRANSFER, path="/accounts", base=1, when=when)
    assert (got.status, got.json["rev"], got.json["changed"]) == (200, 2, True)
    assert got.headers["kanta-cursor"] == got.json["cursor"]
    assert await bank.value("/accounts") == TRANSFER
    before = bank.mark()
    assert (await bank.transact(diff=TRANSFER, path="/accounts", when=when)).status == 412
    broken = {"from": {"balance": 0}, "to": {"balance": {"$insert": [[0, 1]]}}}
    got = await bank.transact(diff=broken, path="/accounts")
    assert got.code == "patch_mismatch"
    assert got.json["path"].startswith("/accounts/to/balance")
    assert bank.mark() == before


async def test_the_record_holds_what_was_proposed(bank: Serving) -> None:
    m = "2026-06-10T02:55:00.123456Z"
    await bank.transact(a="transfer", u="alice", diff=TRANSFER, path="/accounts", m=m, id="k")
    record = bank.records()[-1]
    assert (record["a"], record["u"], record["m"], record["id"]) == ("transfer", "alice", m, "k")
    assert record["diff"] == {"accounts": TRANSFER}


async def test_a_dry_run_checks_everything_and_commits_nothing(bank: Serving) -> None:
    before = bank.mark()
    got = await bank.transact(diff={"from": {"balance": 50}, "to": {"balance": 100}}, path="/accounts", dry_run=True)
    assert (got.status, got.json["rev"], got.json["changed"]) == (200, 1, True)
    assert got.json["diff"] == {"accounts": {"from": {"balance": 50}}}
    failing = [{"path": "/accounts", "exists": False}]
    assert (await bank.transact(diff={"x": 1}, dry_run=True, when=failing)).code == "precondition_failed"
    assert (await bank.transact(diff={"accounts": {"$bad": 1}}, dry_run=True)).code == "invalid_patch"
    assert (await bank.transact(diff={"x": 1}, dry_run=True, base=9)).code == "history_diverged"
    assert bank.mark() == before


async def test_a_dry_run_does_not_use_up_its_key(bank: Serving) -> None:
    assert (await bank.transact(diff={"x": 1}, dry_run=True, id="k")).json["changed"] is True
    assert (await bank.transact(diff={"x": 1}, id="k")).json["rev"] == 2


async def test_return_diff_gives_the_effective_diff(bank: Serving) -> None:
    got = await bank.transact(diff={"x": {"$delete": ["none"], "k": 1}, "accounts": {}}, want="diff")
    assert got.json["diff"] == {"x": {"k": 1}}
    unchanged = await bank.transact(diff={"x": {"k": 1}}, want="diff")
    assert (unchanged.json["changed"], unchanged.json["diff"]) == (False, {})
    assert "diff" not in (await bank.transact(diff={"x": {"k": 2}})).json


@pytest.mark.parametrize("ack", ["durable", "written", "applied"])
async def test_each_level_of_acknowledgement_is_accepted(bank: Serving, ack: str) -> None:
    got = await bank.transact(diff={"x": ack}, ack=ack)
    assert (got.status, got.json["changed"]) == (200, True)


async def test_a_transaction_comes_as_messagepack_too(bank: Serving) -> None:
    body = msgspec.msgpack.encode({"diff": {"x": 1}, "if": [{"path": "/x", "exists": False}], "return": "diff"})
    mime = "application/vnd.msgpack"
    got = await bank.ask("POST", "/v1/transaction", None, f"Content-Type: {mime}", f"Accept: {mime}", body=body)
    assert msgspec.msgpack.decode(got.body)["diff"] == {"x": 1}


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "invalid_parameter"),
    ({"diff": {}, "more": 1}, 400, "invalid_parameter"),
    ({"diff": {}, "a": 5}, 400, "invalid_parameter"),
    ({"diff": {}, "a": "x" * 257}, 400, "invalid_parameter"),
    ({"diff": {}, "u": "\x1b[31m"}, 400, "invalid_parameter"),
    ({"diff": {}, "u": 5}, 400, "invalid_parameter"),
    ({"diff": {}, "path": "x"}, 400, "invalid_path"),
    ({"diff": {}, "path": "/~"}, 400, "invalid_path"),
    ({"diff": {}, "path": 1}, 400, "invalid_parameter"),
    ({"diff": {}, "base": -1}, 400, "invalid_parameter"),
    ({"diff": {}, "base": 1.5}, 400, "invalid_parameter"),
    ({"diff": {}, "base": True}, 400, "invalid_parameter"),
    ({"diff": {}, "base": "1-"}, 400, "invalid_parameter"),
    ({"diff": {}, "m": "now"}, 400, "invalid_parameter"),
    ({"diff": {}, "ack": "soon"}, 400, "invalid_parameter"),
    ({"diff": {}, "return": "value"}, 400, "invalid_parameter"),
    ({"diff": {}, "dry_run": 1}, 400, "invalid_parameter"),
    ({"diff": {}, "if": {}}, 400, "invalid_parameter"),
    ({"diff": []}, 400, "invalid_value"),
    ({"diff": {"$x": 1}}, 400, "invalid_patch"),
    ({"diff": {"x": {"$replace": 1, "y": 2}}}, 400, "invalid_patch"),
    ({"diff": {"$delete": "x"}}, 400, "invalid_patch"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=[str(one[0])[:40] for one in BAD])
async def test_a_malformed_transaction_is_refused(bank: Serving, body: dict[str, Any], status: int, code: str) -> None:
    before = bank.mark()
    got = await bank.ask("POST", "/v1/transaction", body)
    assert (got.status, got.code) == (status, code), got
    assert bank.mark() == before


async def test_a_transaction_takes_no_query_and_no_other_method(bank: Serving) -> None:
    assert (await bank.ask("POST", "/v1/transaction?user=x", {"diff": {}})).code == "invalid_parameter"
    got = await bank.ask("GET", "/v1/transaction")
    assert (got.status, got.headers["allow"]) == (405, "POST")


async def test_a_body_that_is_no_object_is_refused(bank: Serving) -> None:
    for body in (b"[]", b"5", b"null", b'"x"'):
        assert (await bank.ask("POST", "/v1/transaction", body=body)).code == "invalid_parameter"
