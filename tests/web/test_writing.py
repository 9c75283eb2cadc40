"""Section 3 of the contract: writing one path, and how bodies are labelled."""

import re
from typing import Any

import msgspec
import pytest

from tests.serving import Serving, request

pytestmark = pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])

START = {"o": {"a": 1}, "l": [1, 2, 3], "s": "text", "n": None}
MERGE = "Content-Type: application/merge-patch+json"
OPERATIONS = "Content-Type: application/json-patch+json"


@pytest.fixture
async def full(serving: Serving) -> Serving:
    await serving.put("", START)
    return serving


PUTS: list[tuple[str, Any, dict[str, Any]]] = [
    ("/o/a", 2, {"o": {"a": 2}}),
    ("/o/b", [], {"o": {"a": 1, "b": []}}),
    ("/new/deep/er", 1, {"new": {"deep": {"er": 1}}}),
    ("/l/0", "x", {"l": ["x", 2, 3]}),
    ("/l/-", 4, {"l": [1, 2, 3, 4]}),
    ("/l/-/k", 1, {"l": [1, 2, 3, {"k": 1}]}),
    ("/s", {"a": 1}, {"s": {"a": 1}}),
    ("/n", False, {"n": False}),
    ("/", 0, {"": 0}),
]


@pytest.mark.parametrize(("path", "value", "after"), PUTS)
async def test_put_sets_the_value(full: Serving, path: str, value: Any, after: dict[str, Any]) -> None:
    got = await full.ask("PUT", f"/v1/data{path}", value)
    assert (got.status, got.json["rev"], got.json["changed"]) == (200, 2, True)
    assert await full.value() == START | after


@pytest.mark.parametrize("path", ["/l/3", "/l/x", "/l/01", "/l/+1", "/l/%D9%A1", "/s/x", "/s/x/y", "/n/x", "/l/0/x"])
async def test_put_that_does_not_fit_is_409_and_names_the_path(full: Serving, path: str) -> None:
    before = full.mark()
    got = await full.ask("PUT", f"/v1/data{path}", 1)
    assert (got.status, got.code) == (409, "patch_mismatch")
    assert got.json["path"].startswith(path[:2])
    assert full.mark() == before


async def test_put_of_the_root_needs_an_object(full: Serving) -> None:
    assert (await full.ask("PUT", "/v1/data", {"a": 1})).json["changed"] is True
    assert await full.value() == {"a": 1}
    for value in ([], 1, None, "x"):
        got = await full.ask("PUT", "/v1/data", value)
        assert (got.status, got.code) == (400, "invalid_value")
    assert await full.value() == {"a": 1}


PATCHES: list[tuple[str, str, Any, Any]] = [
    ("", "", {"o": {"b": 2}, "$delete": ["n"]}, {"o": {"a": 1, "b": 2}, "l": [1, 2, 3], "s": "text"}),
    ("", "/o", {"$replace": {"z": 1}}, {"z": 1}),
    ("", "/l", {"$delete": [0], "$insert": [[2, "end"]], "0": "first"}, ["first", 3, "end"]),
    ("", "/new", {"a": {"$delete": ["x"], "b": 1}}, {"a": {"b": 1}}),
    ("", "/s", "$$x", "$x"),
    ("", "/s", "$5", "$5"),
    ("", "/o", {"$$k": "$$$v"}, {"a": 1, "$k": "$$v"}),
    (MERGE, "/o", {"a": None, "b": {"c": 1, "d": None}}, {"b": {"c": 1}}),
    (MERGE, "/l", [9], [9]),
    (MERGE, "/new", {"a": {"b": None}}, {"a": {}}),
    (MERGE, "/o", {"$delete": 1, "$$": "$5"}, {"a": 1, "$delete": 1, "$$": "$5"}),
    (OPERATIONS, "/o", [{"op": "add", "path": "/b", "value": 1}, {"op": "remove", "path": "/a"}], {"b": 1}),
    (
        OPERATIONS,
        "/l",
        [{"op": "move", "from": "/0", "path": "/-"}, {"op": "replace", "path": "/0", "value": 8}],
        [8, 3, 1],
    ),
    (
        OPERATIONS,
        "/o",
        [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "test", "path": "/b", "value": 1.0}],
        {"a": 1, "b": 1},
    ),
    (OPERATIONS, "/o", [{"op": "add", "path": "", "value": {"$x": "$$"}}], {"$x": "$$"}),
]


@pytest.mark.parametrize(("kind", "path", "patch", "after"), PATCHES)
async def test_patch_is_taken_in_three_syntaxes(full: Serving, kind: str, path: str, patch: Any, after: Any) -> None:
    got = await full.ask("PATCH", f"/v1/data{path}", patch, *([kind] if kind else []))
    assert (got.status, got.json["changed"]) == (200, True), got
    assert await full.value(path) == after


BAD_PATCHES: list[tuple[str, str, Any, int, str]] = [
    ("", "/o", {"$unknown": 1}, 400, "invalid_patch"),
    ("", "/l", {"9": 1}, 409, "patch_mismatch"),
    ("", "/l", {"$delete": [-1]}, 400, "invalid_patch"),
    ("", "/s", {"x": {"$insert": [[0, 1]]}}, 409, "patch_mismatch"),
    ("", "/s/x", 1, 409, "patch_mismatch"),
    ("", "", [1], 400, "invalid_value"),
    (MERGE, "", 5, 400, "invalid_value"),
    (OPERATIONS, "/o", {"op": "add"}, 400, "invalid_patch"),
    (OPERATIONS, "/o", [{"op": "fly", "path": "/a"}], 400, "invalid_patch"),
    (OPERATIONS, "/o", [{"op": "remove", "path": "/none"}], 409, "patch_mismatch"),
    (OPERATIONS, "/o", [{"op": "test", "path": "/a", "value": True}], 412, "precondition_failed"),
]


@pytest.mark.parametrize(("kind", "path", "patch", "status", "code"), BAD_PATCHES)
async def test_a_patch_that_does_not_fit_changes_nothing(
    full: Serving, kind: str, path: str, patch: Any, status: int, code: str
) -> None:
    before = full.mark()
    got = await full.ask("PATCH", f"/v1/data{path}", patch, *([kind] if kind else []))
    assert (got.status, got.code) == (status, code), got
    assert "path" in got.json
    assert full.mark() == before


async def test_what_changes_nothing_commits_nothing(full: Serving) -> None:
    before = full.mark()
    for method, path, value in [
        ("PUT", "/o", {"a": 1}),
        ("PUT", "/l/0", 1),
        ("PATCH", "/o", {"$delete": ["none"]}),
        ("PATCH", "/o", {}),
        ("PATCH", "", {}),
    ]:
        got = await full.ask(method, f"/v1/data{path}", value)
        assert (got.status, got.json["rev"], got.json["changed"]) == (200, 1, False), (method, path)
    assert full.mark() == before


async def test_one_and_true_and_one_point_nought_are_different_values(full: Serving) -> None:
    revs = [(await full.ask("PUT", "/v1/data/o/a", value)).json["rev"] for value in (1, True, 1.0, 1, 1)]
    assert revs == [1, 2, 3, 4, 4]


async def test_delete_removes_the_value(full: Serving) -> None:
    assert (await full.ask("DELETE", "/v1/data/o/a")).json["changed"] is True
    assert (await full.ask("DELETE", "/v1/data/l/1")).status == 200
    assert await full.value() == START | {"o": {}, "l": [1, 3]}
    for path in ("/o/a", "/l/5", "/none/deep", "/s/x"):
        assert (await full.ask("DELETE", f"/v1/data{path}")).code == "not_found", path


async def test_the_root_cannot_be_deleted(full: Serving) -> None:
    got = await full.ask("DELETE", "/v1/data")
    assert (got.status, got.code) == (405, "method_not_allowed")
    assert "DELETE" not in got.headers["allow"]
    assert "PUT" in got.headers["allow"]


async def test_post_adds_a_child_under_a_time_ordered_key(full: Serving) -> None:
    keys = []
    for path in ("/o", "/o", "/fresh/list", ""):
        got = await full.ask("POST", f"/v1/data{path}", {"v": 1})
        assert got.status == 201
        key = got.json["key"]
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", key)
        assert got.headers["location"] == f"/v1/data{path}/{key}"
        assert await full.value(got.headers["location"].removeprefix("/v1/data")) == {"v": 1}
        keys.append(key)
    assert keys == sorted(keys)


async def test_post_to_an_array_appends(full: Serving) -> None:
    got = await full.ask("POST", "/v1/data/l", "x")
    assert (got.status, got.json["key"], got.headers["location"]) == (201, "3", "/v1/data/l/3")
    assert await full.value("/l") == [1, 2, 3, "x"]


async def test_post_to_a_scalar_is_409(full: Serving) -> None:
    for path in ("/s", "/n", "/o/a", "/s/x"):
        assert (await full.ask("POST", f"/v1/data{path}", 1)).code == "patch_mismatch"


@pytest.mark.parametrize(
    "kind",
    ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense", ""],
)
async def test_a_body_is_json_whatever_its_label(serving: Serving, kind: str) -> None:
    got = await serving.ask("PUT", "/v1/data/x", {"a": 1}, f"Content-Type: {kind}")
    assert got.status == 200
    assert await serving.value("/x") == {"a": 1}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
async def test_a_messagepack_body_is_taken_when_so_labelled(serving: Serving, method: str) -> None:
    body = msgspec.msgpack.encode({"a": [1, "$$x", None]})
    kind = "Content-Type: application/msgpack; x=y"
    got = await serving.ask(method, "/v1/data/x", None, kind, "Accept: application/msgpack", body=body)
    assert got.status in (200, 201)
    answer = msgspec.msgpack.decode(got.body)
    assert (answer["rev"], answer["changed"]) == (1, True)
    assert len(await serving.value("/x")) == 1


async def test_the_parameters_are_in_the_record(serving: Serving) -> None:
    query = "action=sign%20up&user=%C3%BC&m=2026-01-02T03:04:05.5Z&ack=written"
    got = await serving.ask("PUT", f"/v1/data/x?{query}", 1)
    assert got.status == 200
    await serving.ask("PATCH", "/v1/data", {"y": 1})
    records = serving.records()
    assert (records[-2]["a"], records[-2]["u"], records[-2]["m"]) == ("sign up", "ü", "2026-01-02T03:04:05.500000Z")
    assert records[-1]["a"] == "patch"
    assert "u" not in records[-1]


@pytest.mark.parametrize(
    "query",
    [
        "action=%0A",
        "action=%1B[31m",
        "action=%E2%80%A8",
        "user=%C2%85",
        "user=%FF",
        "user=a&user=b",
        "user=" + "x" * 257,
        "m=yesterday",
        "m=2026-01-01",
        "ack=maybe",
        "base=x",
        "base=-1",
        "base=1-xyz",
        "base=",
        "colour=red",
    ],
)
async def test_a_bad_parameter_is_refused(serving: Serving, query: str) -> None:
    before = serving.mark()
    for method in ("PUT", "PATCH", "POST", "DELETE"):
        got = await serving.ask(method, f"/v1/data/x?{query}", 1)
        assert (got.status, got.code) == (400, "invalid_parameter")
        assert got.json["parameter"] in query
    assert serving.mark() == before


KEYS = [
    "__proto__",
    "constructor",
    "..",
    ".",
    "~1",
    "a/b",
    "%2F",
    "\u0661",
    "ü",
    "日本",
    "$delete",
    "$$",
    "$",
    " ",
    "+",
    "#?&",
    "\\",
    "-",
    "0",
]


@pytest.mark.parametrize("key", KEYS)
async def test_every_key_is_ordinary_data_in_every_way_of_writing(serving: Serving, key: str) -> None:
    escaped = "".join(f"%{byte:02X}" for byte in key.encode())
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    patch_key = "$" + key if key.startswith("$") else key
    target = f"/v1/data/{escaped}"
    assert (await serving.ask("PUT", target, 1)).status == 200
    assert (await serving.ask("GET", target)).json == 1
    assert (await serving.ask("PATCH", "/v1/data", {patch_key: 2})).json["rev"] == 2
    assert (await serving.ask("PATCH", "/v1/data", {key: 3}, MERGE)).json["rev"] == 3
    operation = {"op": "replace", "path": pointer, "value": 4}
    assert (await serving.ask("PATCH", "/v1/data", [operation], OPERATIONS)).json["rev"] == 4
    assert (await serving.transact(diff=5, path=pointer, when=[{"path": pointer, "equals": 4}])).json["rev"] == 5
    assert await serving.value() == {key: 5}
    assert (await serving.ask("GET", "/v1/keys")).json["keys"] == [key]
    assert (await serving.ask("POST", target, 1)).code == "patch_mismatch"
    assert (await serving.ask("DELETE", target)).json["rev"] == 6
    assert (await serving.ask("PUT", f"{target}/{escaped}", {key: key})).json["rev"] == 7
    posted = await serving.ask("POST", f"{target}/{escaped}", 1)
    assert (await serving.ask("GET", posted.headers["location"])).json == 1


@pytest.mark.parametrize("path", ["/%", "/%2", "/%zz", "/%FF", "/%C3", "/%ED%A0%80"])
async def test_a_path_that_is_not_utf8_is_refused(serving: Serving, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await serving.ask(method, f"/v1/data{path}", 1)).code == "invalid_path"


async def test_a_path_has_at_most_128_segments(serving: Serving) -> None:
    assert (await serving.ask("GET", "/v1/data" + "/a" * 128)).code == "not_found"
    assert (await serving.ask("GET", "/v1/data" + "/a" * 129)).code == "invalid_path"
    assert (await serving.ask("PUT", "/v1/data" + "/a" * 127, 1)).status == 200
    assert (await serving.ask("PUT", "/v1/data" + "/b" * 127, [[]])).code == "too_deep"


@pytest.mark.parametrize("patch", [{"$replace": []}, {"$replace": 1}, [], 1, {"$insert": [[0, 1]]}], ids=str)
async def test_the_root_stays_an_object_on_both_paths(serving: Serving, patch: Any) -> None:
    wire = await serving.connect()
    for _ in range(3):
        wire.send(request("PATCH", "/v1/data", msgspec.json.encode(patch), "Content-Type: application/json"))
        got = await wire.answer()
        assert got.status in (400, 409)
    assert await serving.value() == {}
