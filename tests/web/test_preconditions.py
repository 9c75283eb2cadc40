"""Section 3 of the contract: preconditions of a write, and what a refusal tells."""

from typing import Any

import pytest

from tests.serving import Serving

MERGE = "Content-Type: application/merge-patch+json"


@pytest.fixture
async def full(serving: Serving) -> Serving:
    await serving.put("", {"a": {"x": 1}, "b": 2, "l": [1, 2]})
    return serving


async def tag_of(serving: Serving, path: str) -> str:
    return (await serving.ask("GET", f"/v1/data{path}")).etag


async def test_if_match_of_the_present_etag_lets_the_write_pass(full: Serving) -> None:
    tag = await tag_of(full, "/a")
    assert (await full.ask("PATCH", "/v1/data/a", {"x": 2}, f'If-Match: "other", {tag}')).status == 200
    assert (await full.ask("PATCH", "/v1/data/a", {"x": 3}, f"If-Match: {tag}")).code == "precondition_failed"


async def test_a_failed_if_match_carries_what_a_retry_needs(full: Serving) -> None:
    before = full.mark()
    got = await full.ask("PUT", "/v1/data/a", 1, 'If-Match: "00"')
    assert (got.status, got.code) == (412, "precondition_failed")
    problem = got.json
    assert (problem["rev"], problem["value"], problem["path"]) == (1, {"x": 1}, "/a")
    assert f'"{problem["etag"]}"' == await tag_of(full, "/a")
    assert full.mark() == before
    again = await full.ask("PUT", "/v1/data/a", 1, f'If-Match: "{problem["etag"]}"')
    assert again.status == 200


async def test_if_match_compares_strongly(full: Serving) -> None:
    tag = await tag_of(full, "/a")
    assert (await full.ask("PUT", "/v1/data/a", 1, f"If-Match: W/{tag}")).code == "precondition_failed"
    assert (await full.ask("PUT", "/v1/data/a", 1, "If-Match:")).code == "invalid_parameter"
    assert (await full.ask("PUT", "/v1/data/a", 1, "If-Match: abc")).json["parameter"] == "If-Match"


async def test_if_match_star_needs_a_value(full: Serving) -> None:
    for method in ("PUT", "PATCH", "POST"):
        got = await full.ask(method, "/v1/data/none", {}, "If-Match: *")
        assert (got.status, got.json["exists"]) == (412, False), method
        assert "etag" not in got.json
    assert (await full.ask("PUT", "/v1/data/b", 3, "If-Match: *")).status == 200


async def test_if_none_match_star_needs_that_there_is_none(full: Serving) -> None:
    assert (await full.ask("PUT", "/v1/data/b", 3, "If-None-Match: *")).json["value"] == 2
    assert (await full.ask("PUT", "/v1/data/c", 3, "If-None-Match: *")).status == 200
    assert (await full.ask("PUT", "/v1/data/c", 4, "If-None-Match: *")).status == 412


async def test_a_precondition_is_checked_for_every_method(full: Serving) -> None:
    for method in ("PUT", "PATCH", "POST", "DELETE"):
        assert (await full.ask(method, "/v1/data/a", {}, 'If-Match: "0"')).status == 412
    tag = await tag_of(full, "/a")
    assert (await full.ask("DELETE", "/v1/data/a", None, f"If-Match: {tag}")).status == 200


async def test_a_value_over_64_kib_is_not_shown(full: Serving) -> None:
    for size, shown in ((64 * 1024 - 2, True), (64 * 1024 - 1, False)):
        await full.put("/big", "x" * size)
        problem = (await full.ask("PUT", "/v1/data/big", 1, 'If-Match: "0"')).json
        assert ("value" in problem) is shown
        assert (len(problem["etag"]) > 8, problem["exists"]) == (True, True)


async def test_base_lets_writes_to_different_paths_pass(full: Serving) -> None:
    await full.put("/b", 3)
    for method, path, value in [
        ("PUT", "/c", 2),
        ("PATCH", "/a", {"y": 1}),
        ("POST", "/l", 3),
        ("DELETE", "/a/x", None),
    ]:
        assert (await full.ask(method, f"/v1/data{path}?base=1", value)).status in (200, 201), method


@pytest.mark.parametrize("path", ["/a", "/a/x", "/a/x/deep", ""])
async def test_base_refuses_where_the_same_path_or_one_above_or_below_changed(full: Serving, path: str) -> None:
    changed = await full.ask("PATCH", "/v1/data/a?action=edit&user=alice", {"x": {"deep": 1}})
    assert changed.json["rev"] == 2
    before = full.mark()
    got = await full.ask("PUT", f"/v1/data{path}?base=1", {})
    assert (got.status, got.code) == (409, "conflict")
    assert got.json["conflicts"] == [{"rev": 2, "a": "edit", "u": "alice", "path": "/a/x"}]
    assert got.json["rev"] == 2
    assert got.json["path"] == path
    assert got.json["value"] == await full.value(path)
    assert f'"{got.json["etag"]}"' == await tag_of(full, path)
    assert full.mark() == before
    assert (await full.ask("PUT", f"/v1/data{path}?base=2", {})).status == 200


async def test_base_is_a_revision_or_a_cursor(full: Serving) -> None:
    cursor = full.engine.visible.cursor
    await full.put("/b", 3)
    assert (await full.ask("PUT", f"/v1/data/a?base={cursor}", 1)).status == 200
    assert (await full.ask("PUT", f"/v1/data/b?base={cursor}", 1)).code == "conflict"
    assert (await full.ask("PUT", "/v1/data/b?base=3", 1)).status == 200


async def test_a_cursor_of_another_history_is_diverged(full: Serving) -> None:
    await full.put("/b", 3)
    before = full.mark()
    for base in ("1-0123456789abcdef", "2-0123456789abcdef", "3", "99-0123456789abcdef"):
        got = await full.ask("PUT", f"/v1/data/a?base={base}", 1)
        assert (got.status, got.code) == (409, "history_diverged"), base
        got = await full.transact(diff={"a": 1}, base=base)
        assert (got.status, got.code) == (409, "history_diverged"), base
    assert (await full.transact(diff={"a": 1}, base=3)).code == "history_diverged"
    assert full.mark() == before


async def test_base_reaches_back_over_a_restart(full: Serving) -> None:
    cursor = full.engine.visible.cursor
    await full.put("/b", 3)
    await full.restart()
    assert (await full.ask("PUT", f"/v1/data/b?base={cursor}", 1)).code == "conflict"
    assert (await full.ask("PUT", f"/v1/data/a?base={cursor}", 1)).status == 200


CONDITIONS: list[tuple[dict[str, Any], bool]] = [
    ({"path": "/b", "equals": 2}, True),
    ({"path": "/b", "equals": 2.0}, True),
    ({"path": "/b", "equals": True}, False),
    ({"path": "/b", "equals": "2"}, False),
    ({"path": "/a", "equals": {"x": 1.0}}, True),
    ({"path": "/l", "equals": [1, 2]}, True),
    ({"path": "/l", "equals": [2, 1]}, False),
    ({"path": "/none", "equals": None}, False),
    ({"path": "/none", "exists": False}, True),
    ({"path": "/none", "exists": True}, False),
    ({"path": "/l/1", "exists": True}, True),
    ({"path": "", "exists": False}, False),
    ({"path": "/a", "etag": "0"}, False),
    ({"path": "/none", "etag": "0"}, False),
    ({"path": "/a", "unchanged_since": 1}, True),
    ({"path": "/a", "unchanged_since": 0}, False),
    ({"path": "/b", "unchanged_since": "1"}, True),
    ({"path": "/b", "equals": 2, "exists": False}, False),
]


@pytest.mark.parametrize(("condition", "holds"), CONDITIONS)
async def test_a_condition_of_a_transaction(full: Serving, condition: dict[str, Any], holds: bool) -> None:
    got = await full.transact(diff={"new": 1}, when=[condition])
    assert got.status == (200 if holds else 412), got


async def test_every_failed_condition_is_named_with_the_current_value(full: Serving) -> None:
    tag = (await tag_of(full, "/a")).strip('"')
    cursor = full.engine.visible.cursor
    await full.put("/l", [3])
    before = full.mark()
    when = [
        {"path": "/b", "equals": 7},
        {"path": "/a", "etag": tag},
        {"path": "/none", "exists": True},
        {"path": "/l", "unchanged_since": cursor},
        {"path": "/a/x", "exists": False},
        {"path": "/b", "exists": True},
        {"path": "/l/0", "etag": "0"},
    ]
    got = await full.transact(diff={"b": 3}, when=when)
    assert (got.status, got.code) == (412, "precondition_failed")
    failed = got.json["failed"]
    assert [one["path"] for one in failed] == ["/b", "/none", "/l", "/a/x", "/l/0"]
    assert [one.get("value") for one in failed] == [2, None, [3], 1, 3]
    assert all(one["reason"] for one in failed)
    assert full.mark() == before


async def test_quotes_around_the_etag_of_a_condition_do_not_matter(full: Serving) -> None:
    tag = await tag_of(full, "/a")
    for given in (tag, tag.strip('"')):
        assert (await full.transact(diff={}, when=[{"path": "/a", "etag": given}])).status == 200


async def test_a_diverged_cursor_in_a_condition_is_409(full: Serving) -> None:
    for cursor in ("1-0123456789abcdef", 5):
        got = await full.transact(diff={}, when=[{"path": "/a", "unchanged_since": cursor}])
        assert (got.status, got.code) == (409, "history_diverged")


BAD_CONDITIONS: list[Any] = [
    {},
    {"path": "/a"},
    {"path": "a", "exists": True},
    {"path": "/~2", "exists": True},
    {"path": "/a", "exists": 1},
    {"path": "/a", "exists": True, "more": 1},
    {"path": "/a", "unchanged_since": "x"},
    {"path": "/a", "unchanged_since": -1},
    {"path": 5, "exists": True},
    7,
]


@pytest.mark.parametrize("condition", BAD_CONDITIONS, ids=repr)
async def test_a_malformed_condition_is_400(full: Serving, condition: Any) -> None:
    got = await full.transact(diff={"b": 1}, when=[condition])
    assert (got.status, got.code) in [(400, "invalid_parameter"), (400, "invalid_path")]
    assert full.engine.rev == 1


async def test_conditions_hold_for_merge_patches_too(full: Serving) -> None:
    await full.put("/a/x", 5)
    assert (await full.ask("PATCH", "/v1/data?base=1", {"b": 9}, MERGE)).status == 200
    assert (await full.ask("PATCH", "/v1/data?base=1", {"a": {"x": 9}}, MERGE)).code == "conflict"


async def test_a_failed_test_of_a_json_patch_carries_what_a_retry_needs(serving: Serving) -> None:
    await serving.put("/a", {"b": 1})
    body = b'[{"op":"test","path":"/b","value":2}]'
    got = await serving.ask("PATCH", "/v1/data/a", None, "Content-Type: application/json-patch+json", body=body)
    tag = (await serving.ask("GET", "/v1/data/a/b")).etag.strip(chr(34))
    assert got.code == "precondition_failed"
    assert (got.json["path"], got.json["value"], got.json["rev"], got.json["etag"]) == ("/a/b", 1, 1, tag)


async def test_a_child_of_a_scalar_is_refused_with_its_path(serving: Serving) -> None:
    await serving.put("/a", {"b": 1})
    got = await serving.ask("POST", "/v1/data/a/b", 2)
    assert (got.code, got.json["path"]) == ("patch_mismatch", "/a/b")


async def test_the_key_of_no_characters_is_not_the_root(serving: Serving) -> None:
    got = await serving.ask("GET", "/v1/data/")
    assert (got.code, got.json["path"]) == ("not_found", "/")
    assert 'the key ""' in got.json["detail"]


async def test_a_failed_condition_is_told_with_its_path_and_the_value_shown_is_that_of_the_write(full: Serving) -> None:
    when = [{"path": "/b", "equals": 2}, {"path": "/l/0", "equals": 9}, {"path": "", "exists": False}]
    for path, value in (("", await full.value()), ("/b", 2)):
        got = await full.transact(diff={}, path=path, when=when)
        assert got.json["detail"] == 'the value is not equal, at "/l/0" (and 1 more)'
        assert (got.status, got.json["path"], got.json["value"]) == (412, path, value)
        assert [each["path"] for each in got.json["failed"]] == ["/l/0", ""]
    got = await full.ask("PUT", "/v1/data/b", 1, 'If-Match: "x"')
    assert got.json["detail"] == 'the etag does not match, at "/b"'
    long = await full.transact(diff={}, when=[{"path": "/" + "k" * 10_000, "exists": True}])
    assert len(long.json["detail"]) < 300
