"""What is shown of a value."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from kantad.values.content import MISSING, decode_json, encode_json, encode_msgpack
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.view import BARE, VALUE, Shown, View, key_page, show
from tests.values.documents import documents


@given(documents)
def test_a_value_is_shown_as_it_is_with_its_etag(value: Any) -> None:
    assert show(value, VALUE) == Shown(etag(value), encode_json(value))
    assert show(value, View(msgpack=True)) == Shown(etag(value), encode_msgpack(value))
    assert show(value, BARE) == Shown("", encode_msgpack(value))


@pytest.mark.parametrize("view", [VALUE, BARE, View("keys", limit=1), View("keys", limit=1, after="x")])
def test_of_no_value_nothing_is_shown(view: View) -> None:
    assert show(MISSING, view) == Shown(None, b"")


def test_keys_come_in_pages() -> None:
    value = {"c": 1, "a": 2, "b": 3}
    assert key_page(value, 2, None) == {"type": "object", "size": 3, "keys": ["c", "a"], "next": "a"}
    assert key_page(value, 2, "a") == {"type": "object", "size": 3, "keys": ["b"], "next": None}
    assert key_page(value, 1, "b") == {"type": "object", "size": 3, "keys": [], "next": None}
    assert key_page({}, 1, None) == {"type": "object", "size": 0, "keys": [], "next": None}
    assert key_page({7: 1, "x": 2}, 1, None)["keys"] == ["7"]
    with pytest.raises(Problem) as caught:
        key_page(value, 1, "d")
    assert (caught.value.code, caught.value.more["parameter"]) == ("invalid_parameter", "after")


@pytest.mark.parametrize(
    ("value", "kind"),
    [("", "string"), (b"", "string"), (True, "boolean"), (1, "number"), (1.0, "number"), (None, "null")],
)
def test_of_what_has_no_keys_the_type_is_told(value: Any, kind: str) -> None:
    assert key_page(value, 1, None) == {"type": kind}
    assert key_page([value], 1, None) == {"type": "array", "size": 1}


def test_keys_are_shown_in_both_formats() -> None:
    page = {"type": "object", "size": 1, "keys": ["a"], "next": None}
    assert decode_json(show({"a": 1}, View("keys", limit=9)).body) == page
    shown = show({"a": 1}, View("keys", True, 9))
    assert (shown.tag, msgspec.msgpack.decode(shown.body)) == ("", page)


def test_a_view_is_the_key_of_what_is_remembered() -> None:
    assert len({View(), VALUE, View(msgpack=True), View("keys"), View("keys", after="a"), BARE}) == 5
