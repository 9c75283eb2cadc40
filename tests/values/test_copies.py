"""Copies that are made when they are needed: as good as those made at once, and never taken for the whole before."""

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.content import MISSING, same
from kantad.values.copies import LARGE_DICT, LARGE_LIST, LazyList, is_untouched
from kantad.values.diff import SAME
from kantad.values.draft import Draft
from kantad.values.patch import apply
from kantad.values.tracked import cloned

LARGE = {str(number): {"n": number} for number in range(LARGE_DICT + 1)}
LONG = [{"n": number} for number in range(LARGE_LIST + 1)]


class Root(msgspec.Struct):
    users: dict[str, Any] = {}
    log: list[Any] = []


def draft() -> Any:
    return Draft(LARGE).value


keys = st.sampled_from(["0", "7", "1000", "new", "newer"])
steps = st.one_of(
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("set"), keys),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("pop"), keys),
    st.tuples(st.just("change"), keys),
    st.tuples(st.sampled_from(["len", "list", "items", "copy", "equal", "repr", "popitem"]), st.just("")),
)


def take(value: Any, step: str, key: str) -> Any:
    """Do a step; what it gives."""
    match step:
        case "get":
            return value.get(key), key in value
        case "set":
            value[key] = {"set": key}
        case "delete":
            try:
                del value[key]
            except KeyError as error:
                return repr(error)
        case "pop":
            return value.pop(key, None)
        case "change":
            value.setdefault(key, {})["changed"] = True
        case "len":
            return len(value), bool(value)
        case "list":
            return sorted(value)
        case "items":
            return sorted(value.items(), key=str)
        case "copy":
            return {**value}, dict(value), value | {}
        case "equal":
            return value == LARGE, value != LARGE
        case "repr":
            return len(repr(value))
        case "popitem":
            return len(value.popitem())
    return None


@given(st.lists(steps, max_size=12))
def test_the_draft_of_a_large_dict_does_what_a_dict_does(asked: list[tuple[str, str]]) -> None:
    base = copy.deepcopy(LARGE)
    drafted, model = Draft(base), copy.deepcopy(LARGE)
    for step, key in asked:
        if step == "popitem":  # which one it is depends on the order
            last = next(reversed(drafted.value))
            drafted.value.popitem()
            del model[last]
            continue
        assert take(drafted.value, step, key) == take(model, step, key)
    assert base == LARGE
    patch = drafted.patch()
    after = apply(copy.deepcopy(LARGE), {} if patch is SAME else patch)
    assert same(after, model)
    assert drafted.value == model


def test_one_key_of_a_large_dict_leaves_the_others_alone() -> None:
    value = draft()
    value["7"]["n"] = 8
    assert dict.__len__(value) == 2  # that one, and what says that there are more


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins])
def test_an_encoder_does_not_take_a_part_for_the_whole(encode: Any) -> None:
    value = draft()
    value["7"] = 1
    with pytest.raises(TypeError):
        encode(value)
    assert json.loads(json.dumps(value)) == {**LARGE, "7": 1}
    assert encode(value)  # it was read by its methods


def test_a_large_dict_can_be_put_into_another_place() -> None:
    root = Draft({"a": LARGE, "b": 1})
    root.value["b"] = root.value["a"]
    del root.value["a"]["7"]
    without = {key: value for key, value in LARGE.items() if key != "7"}
    assert root.patch() == {"a": {"$delete": ["7"]}, "b": {"$replace": without}}


def test_a_long_list_that_nobody_looked_at_is_not_copied() -> None:
    root = Draft(Root({}, LONG), Root)
    assert is_untouched(root.value.log, LONG)
    assert root.patch() is SAME
    assert is_untouched(root.value.log, LONG)


@pytest.mark.parametrize(
    "look",
    [
        lambda log: log[0],
        lambda log: len(log),
        lambda log: list(log),
        lambda log: [] + log,
        lambda log: log + [],
        lambda log: log == [],
        lambda log: sorted(log, key=str),
        lambda log: copy.copy(log),
        lambda log: copy.deepcopy(log),
        lambda log: pickle.dumps(log),
        lambda log: log.append(1),
        lambda log: log.__iadd__([1]),
        lambda log: repr(log),
        lambda log: {} in log,
    ],
)
def test_whatever_looks_at_a_long_list_finds_all_of_it(look: Any) -> None:
    log, model = LazyList(LONG, cloned), copy.deepcopy(LONG)
    given, expected = look(log), look(model)
    assert isinstance(given, bytes) or given == expected
    assert log == model
    assert LONG[0] == {"n": 0}
    assert log[0] is not LONG[0]


def test_a_long_list_is_edited_and_encoded() -> None:
    root = Draft(Root({}, LONG), Root)
    with pytest.raises(TypeError):
        msgspec.json.encode(root.value)
    root.value.log[3]["n"] = "three"
    root.value.log.append({"n": "last"})
    assert msgspec.json.encode(root.value)
    assert apply({"users": {}, "log": copy.deepcopy(LONG)}, root.patch())["log"] == [
        *({"n": "three" if number == 3 else number} for number in range(len(LONG))),
        {"n": "last"},
    ]


def test_what_is_gone_is_missing() -> None:
    value = draft()
    del value["7"]
    assert value.held("7") is MISSING
    with pytest.raises(KeyError):
        del value["7"]
    assert len(value) == len(LARGE) - 1
