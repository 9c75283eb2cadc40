"""What a draft hands out behaves as a plain dict, shares nothing with its base, and notes what was read."""

import copy
import json
import pickle
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from msgspec import Struct

from kantad.values.content import same
from kantad.values.plain import plain
from kantad.values.tracked import Journal, Tracked, drafted
from tests.values.draft_kit import do, objects, scripts, thorough


def draft(base: Any) -> tuple[Any, Journal]:
    journal = Journal()
    return drafted(base, (), journal), journal


@thorough
@given(objects, scripts)
def test_a_draft_behaves_as_a_plain_copy(base: Any, script: list[Any]) -> None:
    before = copy.deepcopy(base)
    tracked, _ = draft(base)
    model = copy.deepcopy(base)
    for step in script:
        assert do(tracked, step) == do(model, step)
        assert same(plain(tracked), plain(model))
        assert json.dumps(plain(tracked)) == json.dumps(plain(model))  # the order of keys, too
        assert repr(base) == repr(before)


@pytest.mark.parametrize(
    ("look", "read", "reached"),
    [
        (lambda d: d["n"], {("n",)}, set()),
        (lambda d: d["o"], set(), {("o",)}),
        (lambda d: d["o"]["x"], {("o", "x")}, {("o",)}),
        (lambda d: d["o"].get("y"), {("o", "y")}, {("o",)}),
        (lambda d: d["l"], {("l",)}, {("l",)}),
        (lambda d: d.get("none"), {("none",)}, set()),
        (lambda d: "none" in d, {("none",)}, set()),
        (lambda d: "o" in d, set(), {("o",)}),
        (lambda d: len(d), {()}, set()),
        (lambda d: bool(d["o"]), {("o",)}, {("o",)}),
        (lambda d: list(d), {()}, set()),
        (lambda d: list(reversed(d)), {()}, set()),
        (lambda d: d.keys(), {()}, set()),
        (lambda d: d.values(), set(), set()),
        (lambda d: [x["x"] for x in d.values() if isinstance(x, dict)], {(), ("l",)}, set()),
        (lambda d: d == {}, {()}, set()),
        (lambda d: d != {}, {()}, set()),
        (lambda d: repr(d), {()}, set()),
        (lambda d: d | {}, {(), ("l",)}, set()),
        (lambda d: d.pop("n"), {("n",)}, set()),
        (lambda d: d.__delitem__("o"), {("o",)}, set()),
        (lambda d: d.update(n=2), set(), set()),
        (lambda d: d.clear(), set(), set()),
        (lambda d: (d.update(n=2), d["n"], "n" in d, d.pop("n"), d.get("n")), set(), set()),
        (lambda d: d.get((1, 2)), set(), set()),
        (lambda d: d.get(5), {("5",)}, set()),
    ],
)
def test_what_was_looked_at_is_noted(look: Any, read: Any, reached: Any) -> None:
    tracked, journal = draft({"n": 1, "o": {"x": 1}, "l": [1]})
    look(tracked)
    assert journal.read == read
    assert journal.reached == reached


def test_two_drafts_that_are_compared_are_both_read() -> None:
    (one, read), (other, also) = draft({"a": 1}), draft({"a": 1})
    assert one == other
    assert (one != other, one != {"a": 2}, one != 5) == (False, True, True)
    assert read.read == also.read == {()}


def test_encoders_see_a_dict() -> None:
    tracked, _ = draft({"a": {"b": [1]}, "n": None})
    tracked["a"]["c"] = tracked["a"]["b"]
    text = b'{"a":{"b":[1],"c":[1]},"n":null}'
    assert msgspec.json.encode(tracked) == text
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(tracked)) == json.loads(text)
    assert json.loads(json.dumps(tracked)) == json.loads(text)
    assert msgspec.to_builtins(tracked) == json.loads(text)


def test_copies_are_plain() -> None:
    tracked, _ = draft({"a": {"b": 1}})
    for twin in (copy.deepcopy(tracked), pickle.loads(pickle.dumps(tracked))):
        assert type(twin) is dict
        assert type(twin["a"]) is dict
    assert type(copy.copy(tracked)) is type(tracked.copy()) is type(tracked | {}) is type({} | tracked) is dict
    assert copy.copy(tracked)["a"] is tracked["a"]
    with pytest.raises(KeyError):
        draft({})[0].popitem()


class Leaf(Struct, frozen=True):
    x: int
    names: list[str] = []

    def __post_init__(self) -> None:
        assert self.x < 2, "made anew"


class Inner(Struct, array_like=True):
    m: dict[str, int]


class Node(Struct, rename={"leaf": "Leaf"}):
    n: int
    leaf: Leaf
    m: dict[UUID, Leaf]
    inner: Inner
    below: "Node | None" = None
    tags: set[str] = set()


def test_a_struct_is_copied_and_its_mappings_are_tracked() -> None:
    key = UUID(int=1)
    base = Node(1, Leaf(1, ["a"]), {key: Leaf(1, ["a"])}, Inner({"a": 1}), Node(2, Leaf(0), {}, Inner({})), {"t"})
    before = repr(base)
    made, journal = draft(base)
    plain_fields = {("n",), ("Leaf",), ("inner",), ("tags",)}
    assert journal.read == plain_fields | {("below", name) for name in ("n", "Leaf", "inner", "tags", "below")}
    made.leaf.names.append("b")
    made.inner.m["b"] = 1
    made.below.m[key] = made.m[key]
    made.m[key].names.append("c")
    made.tags.add("u")
    made.n = made.below.n = 5
    assert repr(base) == before
    assert type(made.m) is Tracked
    assert made.below.m[key].names == ["a", "c"]
    assert ("m", str(key)) in journal.read


class Point(Struct, frozen=True):
    x: int


def test_what_cannot_be_changed_is_not_copied() -> None:
    base = {"p": Point(1), "t": (1, Point(2))}
    tracked, journal = draft(base)
    assert tracked["p"] is base["p"]
    assert journal.read == {("p",)}
