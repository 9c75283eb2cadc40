"""Section 2 of the contract: reading values and keys."""

import asyncio
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from tests.serving import Serving, request

pytestmark = pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    0.0,
    -0.0,
    2**64 - 1,
    -(2**63),
    1e308,
    "",
    "ü",
    [],
    {},
    [1],
    {"a": 1},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_is_read_exactly_as_stored(serving: Serving, value: Any) -> None:
    await serving.put("/x", value)
    got = await serving.ask("GET", "/v1/data/x")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.body == msgspec.json.encode(value)


async def test_the_order_of_keys_is_kept(serving: Serving) -> None:
    await serving.ask("PUT", "/v1/data", body=b'{"z":1,"a":{"y":1,"b":2}}')
    assert (await serving.ask("GET", "/v1/data")).body == b'{"z":1,"a":{"y":1,"b":2}}'


async def test_an_answer_names_the_revision_and_the_cursor(serving: Serving) -> None:
    written = await serving.put("/x", 1)
    got = await serving.ask("GET", "/v1/data/x")
    for answer in (written, got):
        assert answer.headers["kanta-revision"] == "1"
        assert answer.headers["kanta-cursor"] == written.json["cursor"]
    assert got.headers["x-content-type-options"] == "nosniff"


async def test_equal_content_has_an_equal_etag_whatever_the_order_of_keys(serving: Serving) -> None:
    await serving.ask("PUT", "/v1/data", body=b'{"one":{"a":1,"b":[2]},"two":{"b":[2],"a":1}}')
    one, two = [(await serving.ask("GET", f"/v1/data/{name}")).etag for name in ("one", "two")]
    assert one == two
    assert one[0] == one[-1] == '"'


async def test_etags_are_strict_about_types(serving: Serving) -> None:
    values = [1, 1.0, True, "1", [1], 0, -0.0, 0.0, False, None, "", [], {}]
    await serving.put("/v", values)
    tags = {(await serving.ask("GET", f"/v1/data/v/{i}")).etag for i in range(len(values))}
    assert len(tags) == len(values)


async def test_etags_and_values_outlive_a_restart(serving: Serving) -> None:
    await serving.put("/x", {"b": 1, "a": [1.0, True]})
    before = await serving.ask("GET", "/v1/data/x")
    await serving.restart()
    after = await serving.ask("GET", "/v1/data/x")
    assert (after.etag, after.body, after.headers["kanta-cursor"]) == (
        before.etag,
        before.body,
        before.headers["kanta-cursor"],
    )


@pytest.mark.parametrize("form", ["{0}", "W/{0}", '"other", {0}', '"a,b" , W/{0}', "*", '"x",,{0},'])
async def test_if_none_match_answers_304(serving: Serving, form: str) -> None:
    await serving.put("/x", {"a": 1})
    tag = (await serving.ask("GET", "/v1/data/x")).etag
    for method in ("GET", "HEAD"):
        got = await serving.ask(method, "/v1/data/x", None, f"If-None-Match: {form.format(tag)}")
        assert (got.status, got.body, got.etag) == (304, b"", tag)
        assert got.headers["kanta-revision"] == "1"


async def test_if_none_match_of_another_content_answers_200(serving: Serving) -> None:
    await serving.put("/x", 1)
    got = await serving.ask("GET", "/v1/data/x", None, 'If-None-Match: "0", W/"1"')
    assert (got.status, got.json) == (200, 1)


@pytest.mark.parametrize("tag", ["abc", '"abc', "W/", 'w/"a"', '"a" "b"'])
async def test_an_entity_tag_without_quotes_is_refused(serving: Serving, tag: str) -> None:
    await serving.put("/x", 1)
    got = await serving.ask("GET", "/v1/data/x", None, f"If-None-Match: {tag}")
    assert (got.status, got.code) == (400, "invalid_parameter")


async def test_if_none_match_of_a_missing_value_is_404(serving: Serving) -> None:
    assert (await serving.ask("GET", "/v1/data/x", None, "If-None-Match: *")).code == "not_found"


async def test_what_is_not_there_is_404(serving: Serving) -> None:
    await serving.put("/a", {"s": "text", "l": [1]})
    for path in ("/b", "/a/x", "/a/s/0", "/a/l/1", "/a/l/-", "/a/l/01", "/a/l/x", "/", "/a/", "/a/l/%D9%A1"):
        got = await serving.ask("GET", f"/v1/data{path}")
        assert (got.status, got.code) == (404, "not_found"), path


async def test_the_path_that_ends_with_a_slash_is_the_empty_key_and_a_404_says_so(serving: Serving) -> None:
    assert (await serving.ask("GET", "/v1/data/")).json["path"] == "/"
    await serving.put("/", 5)
    assert await serving.value() == {"": 5}


async def test_head_is_get_without_the_body(serving: Serving) -> None:
    await serving.put("/x", [1, 2, 3])
    get = await serving.ask("GET", "/v1/data/x")
    head = await serving.ask("HEAD", "/v1/data/x")
    same = ("etag", "content-length", "content-type", "kanta-revision", "kanta-cursor")
    assert [head.headers[name] for name in same] == [get.headers[name] for name in same]
    missing = await serving.ask("HEAD", "/v1/data/y")
    assert missing.status == 404
    assert (await serving.ask("GET", "/v1/data/x")).json == [1, 2, 3]  # nothing was left on the connection


@pytest.mark.parametrize(
    "mime",
    [
        "application/msgpack",
        "application/vnd.msgpack",
        "text/html, application/msgpack;q=1",
        "application/json\r\nAccept: application/msgpack",
    ],
)
async def test_messagepack_is_given_to_who_accepts_it(serving: Serving, mime: str) -> None:
    value = {"a": [1, 1.5, None, True, "ü"], "b": 2**64 - 1}
    await serving.put("/x", value)
    got = await serving.ask("GET", "/v1/data/x", None, f"Accept: {mime}")
    assert got.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(got.body) == value
    assert got.etag == (await serving.ask("GET", "/v1/data/x")).etag
    keys = await serving.ask("GET", "/v1/keys/x", None, f"Accept: {mime}")
    assert msgspec.msgpack.decode(keys.body)["keys"] == ["a", "b"]
    assert "accept" in got.headers["vary"].lower()


@pytest.mark.parametrize(
    "query",
    [
        "x=1",
        "wait=1&wait=2",
        "wait=x",
        "wait=-1",
        "wait=61",
        "wait=nan",
        "wait=1",
        "wait=1_0",
        "wait=%D9%A1",
        "wait=1e1",
        "wait=+1",
        "",
        "&",
    ],
)
async def test_query_parameters_are_checked(serving: Serving, query: str) -> None:
    await serving.put("/x", 1)
    got = await serving.ask("GET", f"/v1/data/x?{query}")
    if query == "":
        assert got.status == 200
    else:
        assert (got.status, got.code) == (400, "invalid_parameter")


async def test_wait_holds_the_answer_until_the_value_differs(serving: Serving) -> None:
    await serving.put("", {"x": 1, "y": 1})
    tag = (await serving.ask("GET", "/v1/data/x")).etag
    waiting = await serving.connect()
    waiting.send(request("GET", "/v1/data/x?wait=30", None, f"If-None-Match: {tag}"))
    answer = asyncio.create_task(waiting.answer())
    await serving.put("/y", 2)
    assert not answer.done()
    await serving.put("/x", 2)
    got = await answer
    assert (got.status, got.json, got.headers["kanta-revision"]) == (200, 2, "3")
    await waiting.close()


async def test_wait_answers_304_when_the_time_is_up(serving: Serving) -> None:
    await serving.put("/x", 1)
    tag = (await serving.ask("GET", "/v1/data/x")).etag
    got = await serving.ask("GET", "/v1/data/x?wait=0.05", None, f"If-None-Match: {tag}")
    assert (got.status, got.body) == (304, b"")


async def test_wait_answers_404_when_the_value_goes(serving: Serving) -> None:
    await serving.put("/x", 1)
    tag = (await serving.ask("GET", "/v1/data/x")).etag
    waiting = await serving.connect()
    waiting.send(request("GET", "/v1/data/x?wait=30", None, f"If-None-Match: {tag}"))
    await serving.ask("DELETE", "/v1/data/x")
    assert (await waiting.answer()).code == "not_found"
    await waiting.close()


async def test_who_waits_for_a_value_is_let_go_at_a_shutdown(serving: Serving) -> None:
    await serving.put("/x", 1)
    tag = (await serving.ask("GET", "/v1/data/x")).etag
    waiting = await serving.connect()
    waiting.send(request("GET", "/v1/data/x?wait=60", None, f"If-None-Match: {tag}"))
    await serving.ask("GET", "/v1/data/x")  # by now the other one waits, or will find the server stopping
    serving.engine.retire()
    assert (await waiting.answer()).status == 304
    await waiting.close()


async def test_keys_of_an_object_come_in_pages(serving: Serving) -> None:
    names = [f"k{i}" for i in range(5)]
    await serving.put("/o", dict.fromkeys(names, 0))
    found, after, pages = [], "", 0
    while True:
        got = (await serving.ask("GET", f"/v1/keys/o?limit=2{after}")).json
        assert (got["type"], got["size"]) == ("object", 5)
        found += got["keys"]
        pages += 1
        if got["next"] is None:
            break
        after = f"&after={got['next']}"
    assert (found, pages) == (names, 3)
    exact = (await serving.ask("GET", "/v1/keys/o?limit=5")).json
    assert exact == {"type": "object", "size": 5, "keys": names, "next": None}


async def test_keys_default_to_a_thousand(serving: Serving) -> None:
    await serving.put("/o", {str(i): 0 for i in range(1001)})
    got = (await serving.ask("GET", "/v1/keys/o")).json
    assert (len(got["keys"]), got["next"]) == (1000, "999")
    assert (await serving.ask("GET", "/v1/keys/o?after=999")).json["keys"] == ["1000"]


async def test_keys_of_the_root_and_of_what_has_none(serving: Serving) -> None:
    await serving.put("", {"a": [1, 2], "s": "", "n": 1.5, "i": 1, "b": False, "z": None, "": {}})
    assert (await serving.ask("GET", "/v1/keys")).json["keys"] == ["a", "s", "n", "i", "b", "z", ""]
    kinds = {"a": {"type": "array", "size": 2}, "s": {"type": "string"}, "n": {"type": "number"}}
    kinds |= {"i": {"type": "number"}, "b": {"type": "boolean"}, "z": {"type": "null"}}
    kinds[""] = {"type": "object", "size": 0, "keys": [], "next": None}
    for name, answer in kinds.items():
        assert (await serving.ask("GET", f"/v1/keys/{name}")).json == answer
    assert (await serving.ask("GET", "/v1/keys/none")).code == "not_found"
    assert (await serving.ask("HEAD", "/v1/keys")).status == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=%D9%A1", "after=none", "rev=x", "rev=1&at=x", "wait=1"],
)
async def test_parameters_of_keys_are_checked(serving: Serving, query: str) -> None:
    await serving.put("/a", 1)
    assert (await serving.ask("GET", f"/v1/keys?{query}")).code == "invalid_parameter"


async def test_a_tag_made_in_another_process_is_the_same(serving: Serving) -> None:
    await serving.put("/x", {"k": [1, "ü", 2.5]})
    code = "from kantad.values.etag import etag; print(etag({'k': [1, 'ü', 2.5]}))"
    made = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert (await serving.ask("GET", "/v1/data/x")).etag == f'"{made.stdout.strip()}"'
