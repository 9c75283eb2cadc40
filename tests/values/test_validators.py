"""Validators: what they are shown, and what their refusal says."""

from typing import Any

import msgspec
import pytest

from kantad.values.errors import Problem
from kantad.values.validators import MARK, ReadOnly, judge, seen, validator


class User(msgspec.Struct):
    name: str
    tags: list[str] = []


STATE = {"users": {"ann": {"name": "Ann", "tags": ["a"]}}, "list": [1, {"b": 2}], "n": 5}


def test_the_mark_leaves_the_function_as_it_is() -> None:
    def check(state: Any, touched: Any) -> None: ...

    assert validator(check) is check
    assert getattr(check, MARK) is True


def test_an_object_is_seen_as_a_mapping() -> None:
    view = ReadOnly(STATE)
    assert view == STATE
    assert (len(view), list(view), "n" in view, "z" in view, view.get("z")) == (
        3,
        ["users", "list", "n"],
        True,
        False,
        None,
    )
    assert view["users"]["ann"]["name"] == "Ann"
    assert [user["name"] for user in view["users"].values()] == ["Ann"]
    assert repr(view) == repr(STATE)
    with pytest.raises(KeyError):
        view["nowhere"]


def test_an_array_is_seen_as_a_sequence() -> None:
    view = seen(STATE)["list"]
    assert view == [1, {"b": 2}]
    assert view != [1]
    assert (view == 5) is False
    assert (len(view), view[0], view[-1]["b"], view[0:1], list(reversed(view))[1]) == (2, 1, 2, [1], 1)
    assert repr(view) == "[1, {'b': 2}]"


def test_nothing_that_is_seen_can_be_changed() -> None:
    view = ReadOnly(STATE)
    for meddle in (
        lambda: view["list"].append(1),
        lambda: view.clear(),
        lambda: view["users"]["ann"].update(name="x"),
        lambda: view["list"].__setitem__(0, 1),
        lambda: view.__setitem__("n", 1),
    ):
        with pytest.raises(AttributeError):
            meddle()


def test_a_part_may_be_had_as_a_typed_copy() -> None:
    view = ReadOnly(STATE)
    user = view["users"]["ann"].typed(User)
    assert user == User("Ann", ["a"])
    user.tags.append("b")
    view["list"].typed(list)[1]["b"] = 3
    view["users"].typed(dict)["ann"]["name"] = "x"
    assert STATE["users"] == {"ann": {"name": "Ann", "tags": ["a"]}}
    assert STATE["list"] == [1, {"b": 2}]
    with pytest.raises(msgspec.ValidationError):
        view["users"].typed(User)


def refused(error: BaseException, *touched: tuple[str, ...]) -> tuple[str, str]:
    def check(state: Any, paths: Any) -> None:
        assert paths == touched
        raise error

    with pytest.raises(Problem) as problem:
        judge((lambda state, paths: None, check), {}, touched)
    assert problem.value.shows_state
    return problem.value.detail, problem.value.body()["path"]


def test_a_refusal_has_the_reason_and_the_path_that_all_touched_paths_share() -> None:
    assert refused(ValueError("no")) == ("no", "")
    assert refused(ValueError("no"), ("a", "b")) == ("no", "/a/b")
    assert refused(ValueError("no"), ("a", "b"), ("a", "c", "d")) == ("no", "/a")
    assert refused(ValueError("no"), ("a", "b"), ("a", "b", "d")) == ("no", "/a/b")
    assert refused(ValueError("no"), ("a",), ("b",)) == ("no", "")
    assert refused(ValueError(), ("a",)) == ("ValueError: ", "/a")
    assert refused(SystemExit(3), ("a",)) == ("SystemExit: 3", "/a")  # it would end the server
    assert refused(KeyError("x"), ("a",)) == ("KeyError: 'x'", "/a")


class Silent(ValueError):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_that_cannot_say_anything_refuses_as_others_do() -> None:
    assert refused(Silent(), ("a",)) == ("Silent: ", "/a")


def test_who_refuses_nothing_lets_it_pass() -> None:
    judge((), {}, [("a",)])
    judge((lambda state, touched: None,), STATE, [("a",)])
