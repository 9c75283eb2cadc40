"""Paths: JSON Pointers, URL paths, lookups."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.content import MISSING
from kantad.values.errors import Problem
from kantad.values.pointer import (
    bounded,
    format,
    format_url,
    index,
    key_in,
    lookup,
    overlap,
    parse,
    parse_url,
)

paths = st.lists(st.text(max_size=6) | st.sampled_from(["", "~", "/", "~1", "%", ".", "..", "-", "0"]), max_size=6).map(
    tuple
)

RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/2", MISSING),
        ("/foo/-", MISSING),
        ("/foo/00", MISSING),
        ("/foo/0/x", MISSING),
        ("/none/x", MISSING),
        ("/~01", MISSING),
    ],
)
def test_a_pointer_finds_what_rfc_6901_says(pointer: str, value: Any) -> None:
    assert lookup(RFC, parse(pointer)) == value


@pytest.mark.parametrize("pointer", ["a", " /a", "/~", "/~2", "/a~", "/a/~/b", "/~~0", "~0", "#/a"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(pointer)
    assert caught.value.code == "invalid_path"
    assert caught.value.more == {"pointer": pointer}


@given(paths)
def test_a_pointer_says_its_path(path: tuple[str, ...]) -> None:
    assert parse(format(path)) == path


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=6).map(tuple))
def test_a_url_says_its_path(path: tuple[str, ...]) -> None:
    assert parse_url(format_url(path)) == path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("", ()),
        ("/", ("",)),
        ("/a/b", ("a", "b")),
        ("/a//", ("a", "", "")),
        ("/a%2Fb", ("a/b",)),
        ("/a%2fb", ("a/b",)),
        ("/./..", (".", "..")),
        ("/%2E", (".",)),
        ("/a+b", ("a+b",)),
        ("/~1", ("~1",)),
        ("/ü", ("ü",)),
        ("/%C3%BC", ("ü",)),
        ("/%00", ("\0",)),
    ],
)
def test_a_url_path_is_split_then_decoded(raw: str, path: tuple[str, ...]) -> None:
    assert parse_url(raw) == path


@pytest.mark.parametrize(
    "raw", ["/%", "/%1", "/%zz", "/a%", "/%ff", "/%C3", "/%ED%A0%80", "/\ud800", "/%C0%AF", "/%+1", "/%١٢"]
)
def test_what_is_no_url_path_is_refused(raw: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_url(raw)
    assert caught.value.code == "invalid_path"


@given(st.text(max_size=20) | st.text("/~%01aF\ud800", max_size=20))
def test_any_text_is_a_path_or_a_problem(text: str) -> None:
    for read, raw in ((parse, text), (parse_url, "/" + text)):
        try:
            path = read(raw)
        except Problem as problem:
            assert problem.code == "invalid_path"
        else:
            assert all(isinstance(segment, str) for segment in path)


def test_a_path_has_a_bounded_number_of_segments() -> None:
    path = ("a",) * 128
    assert bounded(path) == parse("/a" * 128) == parse_url("/a" * 128) == path
    for read in (parse, parse_url):
        with pytest.raises(Problem) as caught:
            read("/a" * 129)
        assert caught.value.code == "invalid_path"


@pytest.mark.parametrize(
    ("segment", "length", "position"),
    [
        ("0", 1, 0),
        ("9", 10, 9),
        ("10", 10, -1),
        ("0", 0, -1),
        ("", 1, -1),
        ("-", 1, -1),
        ("-1", 3, -1),
        ("+1", 3, -1),
        ("01", 3, -1),
        ("00", 3, -1),
        (" 1", 3, -1),
        ("1 ", 3, -1),
        ("1.0", 3, -1),
        ("1e0", 3, -1),
        ("1_0", 30, -1),
        ("٣", 9, -1),
        ("²", 9, -1),
        ("9" * 19, 3, -1),
        ("9" * 5000, 3, -1),
        (2, 3, 2),
        (3, 3, -1),
        (-1, 3, -1),
        (True, 3, -1),
        (1.0, 3, -1),
        (None, 3, -1),
    ],
)
def test_an_index_is_canonical_decimal(segment: object, length: int, position: int) -> None:
    assert index(segment, length) == position


@pytest.mark.parametrize(
    ("target", "segment", "key"),
    [
        ({"1": 0}, "1", "1"),
        ({1: 0}, "1", 1),
        ({-1: 0}, "-1", -1),
        ({1: 0}, "01", "01"),
        ({1: 0}, "2", "2"),
        ({1: 0}, "a", "a"),
        ({1: 0}, "", ""),
        ({1: 0}, "--1", "--1"),
        ({1: 0}, "²", "²"),
        ({1: 0}, "١", "١"),
        ({1: 0}, "9" * 5000, "9" * 5000),
        ({1: 0}, "-", "-"),
    ],
)
def test_a_segment_names_an_integer_key_where_there_is_one(target: dict[Any, Any], segment: str, key: Any) -> None:
    found = key_in(target, segment)
    assert (found, type(found)) == (key, type(key))
    assert lookup(target, (segment,)) == target.get(key, MISSING)


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ((), (), True),
        ((), ("a",), True),
        (("a",), ("a", "b"), True),
        (("a", "b"), ("a",), True),
        (("a",), ("b",), False),
        (("a", "b"), ("a", "c"), False),
        (("a",), ("ab",), False),
    ],
)
def test_paths_overlap_when_one_is_at_or_above_the_other(one: Any, other: Any, answer: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is answer
