"""RFC 7396 and RFC 6902: their examples, and naive references."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.content import MISSING, equal, same
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.pointer import overlap
from kantad.values.touch import meeting, tree_of_merge
from kantad.values.translate import json_patch, merge_patch, operation_paths
from tests.values.documents import anything, assigned, documents, keys, nonsense, values
from tests.values.test_touch import differing

ALLOWED = {400, 409, 412, 422}


def applied(old: Any, patch: Any) -> Any:
    if patch is SAME:
        return deepcopy(old)
    return apply(deepcopy(old), json.loads(json.dumps(patch)))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, to the letter."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(old: Any, patch: Any, new: Any) -> None:
    assert same(merged(old, patch), new)
    assert same(applied(old, merge_patch(old, patch, 8)), new)


@given(anything, anything)
def test_a_merge_patch_does_what_the_rfc_says(old: Any, patch: Any) -> None:
    before = json.dumps([old, patch])
    narrowed = merge_patch(old, patch, 64)
    new = merged(old, patch)
    assert (narrowed is SAME) == same(old, new)
    assert same(applied(old, narrowed), new)
    for path in differing(old, new):
        assert meeting(tree_of_merge(patch), assigned(path)) is not None
    state = deepcopy(old)
    if narrowed is not SAME:
        state = apply(state, narrowed)
        for container in (state, *(state.values() if isinstance(state, dict) else ())):
            if isinstance(container, dict | list):
                container.clear()
    assert json.dumps([old, patch]) == before


def test_a_merge_patch_over_nothing_makes_an_object() -> None:
    assert merge_patch(MISSING, {"a": None, "b": 1}, 8) == {"b": 1}
    assert merge_patch(MISSING, {}, 8) == {}


@pytest.mark.parametrize(
    ("patch", "code", "path"),
    [
        ({"a": {"b": {"c": {}}}}, "too_deep", "/a/b/c"),
        ({"x": {"y": {"z": {}}}}, "too_deep", "/x/y/z"),
        ({"a": {"b": [2**64]}}, "invalid_value", "/a/b/0"),
        ({"a": {"b": b"x"}}, "validation_failed", "/a/b"),
        ({1: 2}, "validation_failed", ""),
        (float("nan"), "invalid_value", ""),
    ],
)
def test_a_merge_patch_that_cannot_be_stored_is_refused(patch: Any, code: str, path: str) -> None:
    with pytest.raises(Problem) as caught:
        merge_patch({"a": {"b": {"c": 1}}}, patch, 3)
    assert (caught.value.code, caught.value.body().get("path", "")) == (code, path)


def test_a_merge_patch_of_foreign_keys_names_them_as_they_show() -> None:
    narrowed = merge_patch({1: 1, 2: 2}, {"1": 5, "2": None}, 8, foreign=True)
    assert same(apply({1: 1, 2: 2}, narrowed), {1: 5})


class Refused(Exception):
    pass


def at(holder: Any, path: list[str], making: bool = False) -> tuple[Any, Any]:
    """The container of a path and the key in it."""
    node = holder
    for depth, segment in enumerate(path):
        last = depth == len(path) - 1
        key: Any = segment
        if isinstance(node, list):
            if segment == "-" and last and making:
                return node, len(node)
            if not segment.isdecimal() or not segment.isascii() or (segment[0] == "0" and segment != "0"):
                raise Refused
            key = int(segment)
            if key >= len(node) + (1 if last and making else 0):
                raise Refused
        elif not isinstance(node, dict) or (segment not in node and not (last and making)):
            raise Refused
        if last:
            return node, key
        node = node[key]
    raise AssertionError


def run(document: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902 on deep copies."""
    holder = {"": deepcopy(document)}

    def put(path: list[str], value: Any) -> None:
        node, key = at(holder, path, making=True)
        if isinstance(node, list):
            node.insert(key, deepcopy(value))
        else:
            node[key] = deepcopy(value)

    for operation in operations:
        path = operation["path"].split("/")
        path = [part.replace("~1", "/").replace("~0", "~") for part in path]
        op = operation["op"]
        source = [part.replace("~1", "/").replace("~0", "~") for part in operation.get("from", "").split("/")]
        if op == "add":
            put(path, operation["value"])
        elif op == "remove":
            node, key = at(holder, path)
            del node[key]
        elif op == "replace":
            node, key = at(holder, path)
            node[key] = deepcopy(operation["value"])
        elif op == "move":
            if path != source and path[: len(source)] == source:
                raise Refused
            node, key = at(holder, source)
            value = node[key]
            del node[key]
            put(path, value)
        elif op == "copy":
            node, key = at(holder, source)
            put(path, node[key])
        else:
            node, key = at(holder, path)
            if not equal(node[key], operation["value"]):
                raise Refused
    if "" not in holder:
        raise Refused
    return holder[""]


def pointers(value: Any, path: str = "") -> list[str]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += pointers(item, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")
    return found


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    document = draw(documents | anything)
    operations: list[dict[str, Any]] = []
    now = document
    for _ in range(draw(st.integers(1, 6))):
        known = pointers(now)

        def place(known: list[str] = known) -> str:
            base: str = draw(st.sampled_from(known))
            more = draw(st.sampled_from(["", "", "", "/-", "/0", "/1", "/a", "/b", "/00", "/$a"]))
            return base + more

        op = draw(st.sampled_from(["add", "add", "remove", "replace", "move", "copy", "test"]))
        operation: dict[str, Any] = {"op": op, "path": place()}
        if op in ("add", "replace", "test"):
            operation["value"] = draw(values)
        elif op in ("move", "copy"):
            operation["from"] = draw(st.sampled_from(known))
        operations.append(operation)
        try:
            now = run(document, operations)
        except Refused:
            if draw(st.integers(0, 3)):
                operations.pop()
                now = run(document, operations)
                continue
            break
    return document, operations


@given(sequences())
def test_a_json_patch_does_what_the_rfc_says(case: tuple[Any, list[dict[str, Any]]]) -> None:
    document, operations = case
    before = json.dumps(case)
    try:
        expected = run(document, operations)
    except Refused:
        with pytest.raises(Problem) as caught:
            json_patch(document, operations, 64)
        assert caught.value.status in ALLOWED
        assert caught.value.body().get("operation", 0) < len(operations)
        return
    narrowed = json_patch(document, operations, 64)
    assert (narrowed is SAME) == same(document, expected)
    assert same(applied(document, narrowed), expected)
    touched = operation_paths(operations, ())
    for path in differing(document, expected):
        assert any(overlap(path, other) for other in touched)
    if narrowed is not SAME:
        state = apply(deepcopy(document), narrowed)
        assert same(state, expected)
        seen: set[int] = set()
        stack = [state]
        while stack:
            part = stack.pop()
            if isinstance(part, dict | list):
                assert id(part) not in seen
                seen.add(id(part))
                stack += part.values() if isinstance(part, dict) else part
    assert json.dumps(case) == before


A = "add"


@pytest.mark.parametrize(
    ("old", "operations", "new"),
    [
        ({"foo": "bar"}, [{"op": A, "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [{"op": A, "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": 1}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": 1}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        ({"foo": [1, 2, 3, 4]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}], {"foo": [1, 3, 4, 2]}),
        (
            {"baz": "qux", "foo": ["a", 2, "c"]},
            [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        ({"foo": "bar"}, [{"op": A, "path": "/c", "value": {"g": {}}}], {"foo": "bar", "c": {"g": {}}}),
        ({"foo": "bar"}, [{"op": A, "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, [{"op": A, "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
        ({"a": 1}, [{"op": A, "path": "", "value": [1]}, {"op": A, "path": "/0", "value": 2}], [2, 1]),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}], {"b": 1}),
        ({"a": 1}, [], {"a": 1}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": {"b": 1}}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        (MISSING, [{"op": A, "path": "", "value": 1}], 1),
    ],
)
def test_the_examples_of_rfc_6902(old: Any, operations: Any, new: Any) -> None:
    narrowed = json_patch(old, operations, 8)
    if old is MISSING:
        assert same(apply({}, {"k": narrowed})["k"], new)
    else:
        assert same(applied(old, narrowed), new)


@pytest.mark.parametrize(
    ("operations", "code", "path"),
    [
        ({"op": "add"}, "invalid_patch", None),
        ([1], "invalid_patch", None),
        ([{"path": "/a"}], "invalid_patch", None),
        ([{"op": 1, "path": "/a"}], "invalid_patch", None),
        ([{"op": "add", "value": 1}], "invalid_patch", None),
        ([{"op": "add", "path": 1, "value": 1}], "invalid_patch", None),
        ([{"op": "add", "path": "/a"}], "invalid_patch", None),
        ([{"op": "move", "path": "/a"}], "invalid_patch", None),
        ([{"op": "copy", "path": "/a", "from": 3}], "invalid_patch", None),
        ([{"op": "spam", "path": "/a"}], "invalid_patch", None),
        ([{"op": "add", "path": "a", "value": 1}], "invalid_path", None),
        ([{"op": "move", "path": "/a/b", "from": "/a"}], "invalid_patch", None),
        ([{"op": "test", "path": "/baz", "value": "bar"}], "precondition_failed", "/baz"),
        ([{"op": "test", "path": "/n", "value": True}], "precondition_failed", "/n"),
        ([{"op": "test", "path": "/none", "value": 1}], "patch_mismatch", "/none"),
        ([{"op": "add", "path": "/none/bat", "value": 1}], "patch_mismatch", "/none/bat"),
        ([{"op": "add", "path": "/n/bat", "value": 1}], "patch_mismatch", "/n/bat"),
        ([{"op": "add", "path": "/l/3", "value": 1}], "patch_mismatch", "/l/3"),
        ([{"op": "add", "path": "/l/01", "value": 1}], "patch_mismatch", "/l/01"),
        ([{"op": "remove", "path": "/l/-"}], "patch_mismatch", "/l/-"),
        ([{"op": "remove", "path": "/none"}], "patch_mismatch", "/none"),
        ([{"op": "remove", "path": "/n/x"}], "patch_mismatch", "/n/x"),
        ([{"op": "replace", "path": "/none", "value": 1}], "patch_mismatch", "/none"),
        ([{"op": "remove", "path": ""}], "patch_mismatch", None),
        ([{"op": "add", "path": "/a", "value": 2**64}], "invalid_value", None),
        ([{"op": "add", "path": "/a", "value": [[[[]]]]}], "too_deep", None),
        ([{"op": "add", "path": "/deep/x/y", "value": {"z": 1}}], "too_deep", "/deep/x/y"),
        ([{"op": "add", "path": "/l/0", "value": [[1]]}], "too_deep", "/l/0/0"),
        (
            [{"op": "add", "path": "", "value": {"a": 1}}, {"op": "add", "path": "/b", "value": [[[1]]]}],
            "too_deep",
            None,
        ),
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused(operations: Any, code: str, path: str | None) -> None:
    old = {"baz": "qux", "n": 1, "l": [1, 2], "deep": {"x": {}}}
    with pytest.raises(Problem) as caught:
        json_patch(old, operations, 3)
    assert caught.value.code == code
    if path is not None:
        assert caught.value.body()["path"] == path


def test_a_problem_names_its_operation() -> None:
    with pytest.raises(Problem) as caught:
        json_patch({"a": 1}, [{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/a"}], 8)
    assert caught.value.body()["operation"] == 1


def test_a_failed_test_names_the_place_and_leaves_the_value_to_who_knows_how_much_to_show() -> None:
    with pytest.raises(Problem) as caught:
        json_patch(
            {"a": [1, {"b": 2}]},
            [{"op": "add", "path": "/a/-", "value": 3}, {"op": "test", "path": "/a", "value": 0}],
            8,
        )
    assert (caught.value.code, caught.value.more) == ("precondition_failed", {"path": "/a", "operation": 1})


def test_copies_that_double_a_value_again_and_again_are_refused() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 60
    with pytest.raises(Problem) as caught:
        json_patch({"a": ["x" * 100]}, doubling, 128)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("depth", [100, 200, 255, 256])
def test_patches_as_deep_as_may_be_are_handled(depth: int) -> None:
    deep: Any = 1
    for _ in range(depth - 1):
        deep = {"a": deep}
    wide = {"a": [deep]} if depth < 255 else {"a": deep}
    assert applied({}, merge_patch({}, wide, 256)) == wide
    assert applied(wide, merge_patch(wide, {"b": None, "c": deep}, 256)) == {**wide, "c": deep}
    assert meeting(tree_of_merge(wide), assigned(("a",))) == ("a",)
    moved = json_patch(
        wide, [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "move", "from": "/a", "path": "/c"}], 256
    )
    assert applied(wide, moved) == {"b": wide["a"], "c": wide["a"]}


def test_foreign_keys_are_named_as_they_show() -> None:
    old = {1: {"a": 1}, 2: 2}
    operations = [{"op": "add", "path": "/1/b", "value": 2}, {"op": "remove", "path": "/2"}]
    assert same(apply(deepcopy(old), json_patch(old, operations, 8, foreign=True)), {1: {"a": 1, "b": 2}})
    old = {"x": {1: [1]}}
    narrowed = json_patch(old, [{"op": "copy", "from": "/x/1/0", "path": "/x/1/-"}], 8, foreign=True)
    assert same(apply(deepcopy(old), narrowed), {"x": {1: [1, 1]}})


@given(
    anything, nonsense | st.lists(st.dictionaries(st.sampled_from(["op", "path", "from", "value"]), nonsense | keys))
)
def test_any_json_is_a_patch_or_a_problem(old: Any, patch: Any) -> None:
    for translate in (merge_patch, json_patch):
        for foreign in (False, True):
            try:
                narrowed = translate(old, patch, 64, foreign)
            except Problem as problem:
                assert problem.status in ALLOWED
            else:
                applied(old, narrowed)
