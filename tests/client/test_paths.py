"""Paths in both forms."""

import enum
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kanta_client.errors import Invalid
from kanta_client.paths import keys_of, pointer, url_path

from kantad.values.pointer import format, parse

keys = st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)


@given(keys)
def test_a_tuple_and_its_pointer_are_the_same_path(path: tuple[str, ...]) -> None:
    text = pointer(path)
    assert text == format(path)
    assert keys_of(text) == keys_of(path) == path
    assert pointer(text) == text
    assert url_path(path) == url_path(text)


class Colour(enum.Enum):
    RED = "red"


def test_keys_are_written_as_msgspec_writes_them() -> None:
    id = uuid.UUID(int=5)
    assert keys_of(("a", 3, id, Colour.RED)) == ("a", "3", str(id), "red")


@pytest.mark.parametrize("path", ["users", "/a~", "/a~2b", "/\ud800", ("\ud800",), (object(),), (["list"],)])
def test_what_is_no_path_is_refused_before_it_is_sent(path: Any) -> None:
    with pytest.raises(Invalid, match="invalid_path"):
        url_path(path)
    if not isinstance(path, tuple) or not isinstance(path[0], str):
        with pytest.raises(Invalid, match="invalid_path"):
            pointer(path)


@pytest.mark.parametrize("path", [5, None, ["users"], b"/users"])
def test_what_is_neither_text_nor_a_tuple_is_told_so(path: Any) -> None:
    with pytest.raises(Invalid, match="a string or a tuple, not a"):
        pointer(path)


def test_pointers_are_taken_as_they_are() -> None:
    for text in ("", "/", "/a~1b/~0", "/ü/..", "//"):
        assert pointer(text) == text == format(parse(text))
