"""A change as lines: every edit is shown, none that was not made, and no character acts on a terminal."""

import re
import unicodedata
from copy import deepcopy
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.content import MISSING, decode_json, encode_json, same
from kantad.values.diff import SAME, difference
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.lines import (
    STYLES,
    UNKNOWN,
    Edit,
    announced,
    became,
    columns,
    cut,
    edits,
    header,
    label,
    painted,
    plain,
    safe,
    told,
    value_text,
    wants_colour,
)
from kantad.values.patch import Unfit, apply
from tests.values.documents import object_pairs, pairs, patched

COLOUR = re.compile(r"\x1b\[[0-9;]+m")
NASTY = "\x00\x07\t\n\r\x1b[31m\x7f\x80\x9b\u00ad\u061c\u200b\u200e\u2028\u202e\u2066\ufeff\U000e0001\U0001d173"

nasty = st.text(st.sampled_from(NASTY + 'a"\\.= ✗→…漢é😀') | st.characters(codec="utf-8"), max_size=12)
nasty_values = st.recursive(
    nasty | st.none() | st.booleans() | st.integers(-5, 5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty | st.integers(0, 3), inner, max_size=3),
    max_leaves=8,
)


def rebuilt(old: Any, changes: list[Edit]) -> Any:
    """The value that the edits alone make of the old one."""
    if any(not edit.path for edit in changes):
        (edit,) = changes
        assert (old is MISSING and edit.old is MISSING) or same(old, edit.old)
        return edit.new
    inner = {
        key: [edit._replace(path=edit.path[1:]) for edit in group]
        for key, group in groupby(
            sorted(changes, key=lambda edit: str(edit.path[0])),
            key=lambda edit: (edit.path[0], len(edit.path) == 1 and edit.new is MISSING),
        )
    }
    gone = {key for key, deleted in inner if deleted}
    if type(old) is dict:
        made: Any = {key: value for key, value in old.items() if key not in gone}
        made |= {key: rebuilt(old.get(key, MISSING), below) for (key, lost), below in inner.items() if not lost}
        return made
    made = [item for place, item in enumerate(old) if place not in gone]
    for (place, _), below in sorted((item for item in inner.items() if not item[0][1]), key=lambda item: item[0]):
        if len(below) == 1 and not below[0].path and below[0].old is MISSING:
            made.insert(place, below[0].new)
        else:
            made[place] = rebuilt(made[place], below)
    return made


@given(pairs)
def test_the_edits_of_a_difference_make_the_new_value(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(old, new)
    before = deepcopy(old)
    if patch is not SAME:
        assert same(rebuilt(old, list(edits(old, patch))), new)
    assert same(old, before)


@given(pairs)
def test_the_edits_between_two_values_make_the_new_one(pair: tuple[Any, Any]) -> None:
    old, new = pair
    found = list(became(old, new))
    assert same(rebuilt(old, found) if found else old, new)
    assert bool(found) != same(old, new)


@given(patched)
def test_the_edits_of_an_effect_are_all_that_it_does(pair: tuple[Any, Any]) -> None:
    old, request = pair
    try:
        patch = effect(deepcopy(old), deepcopy(request), 100)
    except Problem:
        return  # it does not fit
    if patch is not SAME:
        new = apply(deepcopy(old), decode_json(encode_json(patch)))
        assert same(rebuilt(old, list(edits(old, patch))), new)


@given(object_pairs)
def test_every_edit_has_its_line(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(old, new)
    if patch is SAME:
        return
    found = list(edits(old, patch))
    lines = [plain(line) for line in told(header(3, "now", "act", None), found)]
    text = "\n".join(lines)
    members = sum(len(edit.new) for edit in found if edit.old is MISSING and type(edit.new) is dict)
    assert len(lines) == (1 if len(found) == 1 and not members else 1 + len(found) + members)
    assert sum(line.count(" ✗ ") for line in lines) == sum(edit.new is MISSING for edit in found)
    for edit in found:
        if edit.new is not MISSING and not (edit.old is MISSING and type(edit.new) is dict):
            assert value_text(edit.new) in text


@given(nasty_values, nasty_values, nasty, st.none() | nasty, st.none() | st.integers(1, 120))
def test_nothing_acts_on_a_terminal(old: Any, new: Any, action: str, user: str | None, width: int | None) -> None:
    for changes in ([Edit((action, 1), old, new)], list(became({"x": old}, {"x": new}))):
        for line in told(header(1, "now", action, user), changes, width):
            text = plain(line)
            assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
            assert COLOUR.sub("", painted(line)) == text


@given(nasty)
def test_escaped_text_is_still_the_same_json(text: str) -> None:
    assert decode_json(value_text(text)) == text
    word = label(text)
    assert (decode_json(word) if word[:1] == '"' else word) == text


@given(nasty_values, st.integers(1, 60))
def test_a_value_is_cut_to_the_width(value: Any, most: int) -> None:
    whole = value_text(value)
    shown = value_text(value, most)
    assert columns(shown) <= most
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]) and columns(whole) > most)


@pytest.mark.parametrize(
    ("old", "patch", "shown"),
    [
        ({}, {"a": 1}, ["H  a = 1"]),
        ({"a": 1}, {"a": 2}, ["H  a = 1 → 2"]),
        ({"a": 1}, {"$delete": ["a"]}, ["H  a ✗ 1"]),
        ({"a": 1}, {"a": True}, ["H  a = 1 → true"]),
        ({"u": {"bob": {"n": 1}}}, {"u": {"bob": {"n": 2}}}, ["H  u.bob.n = 1 → 2"]),
        ({}, {"u": {"name": "Bob", "n": [1]}}, ["H", "  u =", '    name:         "Bob"', "    n:            [1]"]),
        ({}, {"u": {}}, ["H  u = {}"]),
        ({"u": 1}, {"u": {"$replace": {"x": "$$y"}}}, ['H  u = 1 → {"x":"$y"}']),
        ({"u": {"a": 1, "b": 2}}, {"u": {"$replace": {}}}, ["H", "  u.a ✗ 1", "  u.b ✗ 2"]),
        ({"u": {"a": 1}}, {"$replace": {"u": {"a": 1, "b": 2}}}, ["H  u.b = 2"]),
        ({"l": [1, 2, 3]}, {"l": {"$delete": [0, 0], "$insert": [[0, "$$x"]]}}, None),
        ({"l": [[1], 2]}, {"l": {"$insert": [[0, 0]], "1": {"$insert": [[1, 5]]}}}, ["H", "  l.0 = 0", "  l.1.1 = 5"]),
        ({"a.b": {"": 1}}, {"a.b": {"": 2}}, ['H  "a.b"."" = 1 → 2']),
        ({5: {7: 1}}, {5: {7: 2}}, ["H  5.7 = 1 → 2"]),
        ({"a": 1}, {}, ["H"]),
        ({"a": 1}, {"a": {}}, ["H"]),
        ({"a": 1}, {"$delete": ["b"]}, ["H"]),
        ({"$a": 1}, {"$$a": 2, "$delete": "$$a"}, ["H", "  $a = 1 → 2", "  $a ✗ 1"]),
    ],
)
def test_examples(old: Any, patch: Any, shown: list[str] | None) -> None:
    if shown is None:
        shown = ["H", "  l.0 ✗ 1", "  l.1 ✗ 2", '  l.0 = "$x"']
    assert [plain(line) for line in told([("", "H")], list(edits(old, patch)))] == shown


def test_a_value_itself() -> None:
    assert plain(told([("", "H")], [Edit((), 1, 2)])[0]) == "H  = 1 → 2"
    assert plain(told([("", "H")], [Edit((), 1, MISSING)])[0]) == "H  ✗ 1"
    assert [plain(line) for line in told([("", "H")], [Edit((), MISSING, {"a": 1})])][1] == "  ="


def test_headers() -> None:
    assert plain(header(7, "T", "create_user", "ann")) == "7 T create_user by ann"
    assert plain(header(7, "T", "", None)) == '7 T ""'
    assert plain(header(7, "T", "x by root", "a\x1bb")) == '7 T "x by root" by "a\\u001bb"'


def test_old_values_are_short_and_new_ones_are_whole() -> None:
    (line,) = told([("", "H")], [Edit(("a",), "o" * 100, "n" * 100)])
    assert plain(line) == f'H  a = "{"o" * 58}… → "{"n" * 100}"'
    (line,) = told([("", "H")], [Edit(("a",), "o" * 100, "n" * 100)], 80)
    assert columns(plain(line)) == 80


def test_foreign_values() -> None:
    value = {1: msgspec.msgpack.Ext(5, b"x"), "t": datetime(2026, 1, 2, tzinfo=UTC), "b": b"\xff"}
    assert value_text(value) == '{"1":"Ext","t":"2026-01-02T00:00:00Z","b":"/w=="}'
    assert value_text([value["t"], value["b"]]) == '["2026-01-02T00:00:00Z","/w=="]'


def test_cutting_counts_columns() -> None:
    assert [cut("漢字漢字", most) for most in (8, 7, 5)] == ["漢字漢字", "漢字漢…", "漢字…"]
    assert cut("e\u0301" * 3, 3) == "e\u0301" * 3
    assert cut("abc", None) == "abc"


def test_safe_escapes_beyond_the_first_plane() -> None:
    assert safe("\U000e0001") == "\\udb40\\udc01"
    assert safe("a😀\u00a0") == "a😀\u00a0"


@pytest.mark.parametrize(
    ("old", "patch"),
    [
        ({}, {"$x": 1}),
        ({"l": []}, {"l": {"$delete": [0]}}),
        ({"l": []}, {"l": {"$insert": [1]}}),
        ({"l": []}, {"l": {"0": 1}}),
        ({"l": 1}, {"l": {"$insert": []}}),
    ],
)
def test_what_does_not_fit(old: Any, patch: Any) -> None:
    with pytest.raises(Unfit):
        list(edits(old, patch))


def test_only_known_styles_are_used() -> None:
    lines = told(
        header(1, "T", "a", "u"), [Edit(("a", "b"), 1, 2), Edit(("c",), MISSING, {"d": 1}), Edit(("e",), 1, MISSING)]
    )
    assert {style for line in lines for style, _ in line} == {"", *STYLES}


# -- without the value before


@given(pairs)
def test_without_the_value_before_the_same_places_are_told(pair: tuple[Any, Any]) -> None:
    old, new = pair
    patch = difference(old, new)
    if patch is SAME:
        return
    found = list(announced(patch))
    assert found
    assert all(edit.old is UNKNOWN for edit in found)
    if type(old) is type(new) is dict and "$replace" not in patch:
        assert {edit.path[0] for edit in found} == {edit.path[0] for edit in edits(old, patch)}


@pytest.mark.parametrize(
    ("patch", "lines"),
    [
        ({"a": {"b": 1, "$$c": "$$d"}}, ["1 t x", "  a.b = 1", '  a.$c = "$d"']),
        ({"$delete": ["a", "$$b"]}, ["1 t x", "  a ✗", "  $b ✗"]),
        ({"$delete": "a"}, ["1 t x  a ✗"]),
        (
            {"l": {"$delete": [2], "$insert": [[0, "$$x"]], "3": {"n": 1}}},
            ["1 t x", "  l.2 ✗", '  l.0 = "$x"', "  l.3.n = 1"],
        ),
        ({"$replace": {"a": 1}}, ['1 t x  = {"a":1}']),
        ({"o": {}}, ["1 t x  o = {}"]),
        (5, ["1 t x  = 5"]),
    ],
)
def test_without_the_value_before_what_is_new_is_told(patch: Any, lines: list[str]) -> None:
    assert [plain(line) for line in told(header(1, "t", "x", None), list(announced(patch)))] == lines


def test_colours_are_for_terminals_that_can() -> None:
    assert wants_colour(True, {"TERM": "xterm", "NO_COLOR": ""})
    assert not any(wants_colour(*each) for each in ((False, {}), (True, {"NO_COLOR": "1"}), (True, {"TERM": "dumb"})))
