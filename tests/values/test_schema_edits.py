"""What a schema says of single edits: the place and the reason of a refusal, the stored form, the short ways."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta
from msgspec import inspect as types

from kantad.values.content import MISSING
from kantad.values.diff import SAME
from kantad.values.effect import effect
from kantad.values.errors import Problem
from kantad.values.kinds import Unsupported
from kantad.values.patch import apply
from kantad.values.schema import Schema
from kantad.values.spelling import type_of
from tests.values.typed_edits import Data


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: Annotated[int, Meta(ge=0)] = 0


class Judged(msgspec.Struct):
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")
        if self.low < 0:
            raise KeyError("low")


class Lean(msgspec.Struct, omit_defaults=True):
    a: int = 0
    b: list[int] = []


class Root(msgspec.Struct):
    by: dict[str, dict[UUID, list[Inner]]] = {}
    pair: tuple[int, Inner] = (1, Inner())
    judged: Judged = msgspec.field(default_factory=Judged)
    lean: Lean = msgspec.field(default_factory=Lean)
    when: dict[datetime, int] = {}
    either: Inner | list[Inner] | None = None
    maybe: int | msgspec.UnsetType = msgspec.UNSET
    word: str = "w"
    free: dict[str, Any] = {}


ID = "00000000-0000-0000-0000-00000000000a"
ROOT = Schema(Root)
START: dict[str, Any] = {
    "by": {"x": {ID: [{"n": 1}, {"n": 2}]}},
    "pair": [1, {"n": 0}],
    "judged": {"low": 0, "high": 1},
    "lean": {"a": 5},
    "when": {"2026-06-01T00:00:00Z": 1},
    "either": None,
    "maybe": 3,
    "word": "w",
    "free": {"$a": "$b"},
}

REFUSED: list[tuple[Any, str, str]] = [
    ({"by": {"x": {ID: {"0": {"n": -1}}}}}, f"/by/x/{ID}/0/n", "Expected `int` >= 0"),
    ({"by": {"x": {ID: {"$insert": [[1, {"n": "x"}]]}}}}, f"/by/x/{ID}/1/n", "Expected `int`, got `str`"),
    ({"by": {"y": {ID: [{"n": 1}, {"n": None}]}}}, f"/by/y/{ID}/1/n", "Expected `int`, got `null`"),
    ({"by": {"y": {ID: [{"n": 1}, {"m": 1}]}}}, f"/by/y/{ID}/1/m", "Object contains unknown field `m`"),
    ({"by": {"y": {ID: [], "no": []}}}, "/by/y/no", "Invalid UUID"),
    ({"by": {"x": {"no": []}}}, "/by/x/no", "Invalid UUID"),
    ({"by": {"x": {ID: {"1": {"m": 1}}}}}, f"/by/x/{ID}/1/m", "Object contains unknown field `m`"),
    ({"by": {"$replace": {"y": {ID: 5}}}}, f"/by/y/{ID}", "Expected `array`, got `int`"),
    ({"pair": {"1": {"n": -1}}}, "/pair/1/n", "Expected `int` >= 0"),
    ({"pair": [1, {"n": 1}, 2]}, "/pair", "Expected `array` of length 2, got 3"),
    ({"judged": {"low": 2}}, "/judged", "low is above high"),
    ({"judged": {"low": -1}}, "/judged", "KeyError: 'low'"),
    ({"judged": {"middle": 1}}, "/judged/middle", "Object contains unknown field `middle`"),
    ({"when": {"today": 1}}, "/when/today", "Invalid RFC3339 encoded datetime"),
    ({"when": {"2026-06-01T00:00:00+00:00": 1}}, "/when/2026-06-01T00:00:00+00:00", "this key is spelled '2026-"),
    ({"either": {"$replace": {"n": "x"}}}, "/either/n", "Expected `int`, got `str`"),
    ({"either": [{"n": 1}, 5]}, "/either/1", "Expected `object`, got `int`"),
    ({"either": 5}, "/either", "Expected `object | array | null`, got `int`"),
    ({"word": 5}, "/word", "Expected `str`, got `int`"),
    ({"word": "$$5", "nope": "$"}, "/nope", "Object contains unknown field `nope`"),
    ({"$replace": {"nope": 1}}, "/nope", "Object contains unknown field `nope`"),
]


@pytest.mark.parametrize(("patch", "path", "why"), REFUSED)
def test_a_refusal_names_the_place_and_the_reason(patch: Any, path: str, why: str) -> None:
    with pytest.raises(Problem) as problem:
        ROOT.fitted(START, effect(START, patch, 128))
    assert problem.value.body()["path"] == path
    assert problem.value.detail.startswith(why)
    assert problem.value.of_state


FITTED: list[tuple[Any, Any]] = [
    ({"by": {"$delete": ["x"]}}, {"by": {"$delete": ["x"]}}),
    ({"by": {"x": {ID: {"$insert": [[0, {}]]}}}}, {"by": {"x": {ID: {"$insert": [[0, {"n": 0}]]}}}}),
    ({"by": {"x": {ID: {"$delete": [0]}}}}, {"by": {"x": {ID: [{"n": 2}]}}}),
    ({"lean": {"a": 0}}, {"lean": {"$replace": {}}}),
    ({"lean": {"b": [1]}}, {"lean": {"b": [1]}}),
    ({"$delete": ["maybe"]}, {"$delete": ["maybe"]}),
    ({"$delete": ["word", "pair"]}, SAME),
    ({"free": {"$$a": 1, "k": {"deep": [1]}}}, {"free": {"$$a": 1, "k": {"deep": [1]}}}),
    ({"either": {"n": 5}}, {"either": {"$replace": {"n": 5}}}),
    ({"either": [{}]}, {"either": [{"n": 0}]}),
    ({"word": "$$x"}, {"word": "$$x"}),
    ({"judged": {"low": 1}}, {"judged": {"low": 1}}),
]


@pytest.mark.parametrize(("patch", "expected"), FITTED)
def test_what_fits_is_given_as_it_is_stored(patch: Any, expected: Any) -> None:
    assert ROOT.fitted(START, effect(START, patch, 128)) == expected


def test_no_patch_fits_anything() -> None:
    assert ROOT.fitted(START, SAME) is SAME
    assert ROOT.fitted_at(START, (), None, SAME) == (None, SAME)


def test_a_patch_at_a_path_is_fitted_there_or_at_the_root_where_all_is_made_anew() -> None:
    target = START["by"]["x"]
    assert ROOT.fitted_at(START, ("by", "x"), target, {ID: {"0": {"n": 7}}}) == (target, {ID: {"0": {"n": 7}}})
    judged = START["judged"]
    assert ROOT.fitted_at(START, ("judged",), judged, {"low": 1}) == (judged, {"low": 1})
    assert ROOT.fitted_at(START, ("lean",), START["lean"], {"a": 0}) == (None, {"lean": {"$replace": {}}})
    free = START["free"]
    assert ROOT.fitted_at(START, ("free",), free, {"x": 1}) == (free, {"x": 1})
    with pytest.raises(Problem) as problem:
        ROOT.fitted_at(START, ("by", "x"), target, {ID: {"0": {"n": -7}}})
    assert problem.value.body()["path"] == f"/by/x/{ID}/0/n"


class Tree(msgspec.Struct):
    below: list["Tree"] = []
    n: int = 0


@pytest.mark.parametrize("levels", [60, 126])
def test_deep_values_fit_without_end_of_the_interpreters_stack(levels: int) -> None:
    schema = Schema(Tree)
    value: Any = {"n": 1}
    for _ in range(levels):
        value = {"below": [value]}
    patch = effect({"below": [], "n": 0}, value, 256)
    made = schema.fitted({"below": [], "n": 0}, patch)
    root = apply({"below": [], "n": 0}, made)
    edit: Any = {"n": 2}
    wrong: Any = {"n": "x"}
    for _ in range(levels):
        edit, wrong = {"below": {"0": edit}}, {"below": {"0": wrong}}
    assert schema.fitted(root, edit) == edit
    with pytest.raises(Problem) as problem:
        schema.fitted(root, wrong)
    assert problem.value.body()["path"] == "/below/0" * levels + "/n"


def test_many_dicts_in_each_other_are_searched_so_far_and_no_further() -> None:
    schema = Schema(Deep)
    value: Any = 5
    for _ in range(20):
        value = {"by": {"k": {"by": {}}, "j": value}}
    with pytest.raises(Problem) as problem:
        schema.fitted({"by": {}}, effect({"by": {}}, value, 128))
    assert problem.value.body()["path"] == "/by/j" * 17 + "/by"


class Deep(msgspec.Struct):
    by: dict[str, "Deep"] = {}


# -- types


class Custom:
    pass


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Custom, "no type of stored values"),
        (msgspec.Raw, "no type of stored values"),
        (dict[str, Custom], "no type of stored values"),
        (set[int] | list[int], "more than one array-like"),
    ],
)
def test_types_that_cannot_be_stored_are_refused(kind: Any, why: str) -> None:
    root = msgspec.defstruct("Root", [("x", kind)])
    with pytest.raises(Unsupported, match=why):
        Schema(root)


def test_annotations_come_back_as_they_were() -> None:
    for field in types.type_info(Data).fields:  # type: ignore[attr-defined]
        made = type_of(field.type)
        assert type_of(types.type_info(made)) == made


def test_the_json_schema_is_msgspecs() -> None:
    made = ROOT.json_schema()
    assert made["$ref"] == "#/$defs/Root"
    assert made["$defs"]["Inner"]["additionalProperties"] is False
    assert ROOT.name == "tests.values.test_schema_edits:Root"


def test_defaults_that_cannot_be_stored_are_refused() -> None:
    root = msgspec.defstruct("Root", [("x", float, float("inf"))])
    with pytest.raises(Problem) as problem:
        Schema(root).normalised({})
    assert problem.value.code == "invalid_value"


# -- the short ways


class Circle(msgspec.Struct, tag="circle"):
    radius: float = 1.0


class Box(msgspec.Struct, tag="box"):
    width: Annotated[int, Meta(ge=0)] = 1


class Short(msgspec.Struct):
    n: Annotated[int, Meta(ge=0)] = 0
    f: float = 0.0
    at: datetime | None = None
    who: UUID | None = None
    shape: Circle | Box | None = None
    lean: Lean = msgspec.field(default_factory=Lean)
    judged: Judged = msgspec.field(default_factory=Judged)
    counts: dict[str, int] = {}
    free: Any = None
    anything: int | Any = 1


SHORT: dict[str, Any] = {
    "n": 1,
    "f": 1.0,
    "at": "2026-06-01T00:00:00Z",
    "who": ID,
    "shape": {"type": "box", "width": 2},
    "lean": {"a": 2},
    "judged": {"low": 0, "high": 1},
    "counts": {"a": 1},
    "free": {"x": {"y": 1}},
    "anything": {"x": 1},
}

TAKEN: list[tuple[tuple[str, ...], str, Any, bool | str]] = [  # or what is stored instead
    ((), "n", 5, True),
    ((), "n", -5, False),
    ((), "f", 5, False),  # it is stored as 5.0
    ((), "f", 5.5, True),
    ((), "at", "2026-06-02T00:00:00Z", True),
    ((), "at", "2026-06-02T00:00:00+00:00", "2026-06-02T00:00:00Z"),
    ((), "at", "2026-06-01T00:00:00+00:00", "2026-06-01T00:00:00Z"),  # as it is already
    ((), "at", "2026-06-02T01:00:00+01:00", True),
    ((), "at", None, True),
    ((), "who", "no", False),
    ((), "who", ID, True),
    ((), "who", ID.replace("-", ""), ID),
    ((), "nope", 1, False),
    ((), "counts", 1, False),
    (("counts",), "a", 2, True),
    (("counts",), "a", "x", False),
    (("shape",), "width", 3, True),
    (("shape",), "width", -3, False),
    (("shape",), "type", "circle", False),
    (("shape",), "radius", 1.5, False),
    (("lean",), "a", 0, False),
    (("judged",), "low", 1, False),
    (("judged", "low"), "x", 1, False),
    (("nope", "x"), "x", 1, False),
    (("free", "x"), "y", "text", True),
    (("free",), "y", "text", True),
    (("anything",), "x", 1, True),
]


@pytest.mark.parametrize(("path", "key", "value", "taken"), TAKEN)
def test_a_scalar_that_is_stored_as_it_is_is_taken_without_ceremony(
    path: tuple[str, ...], key: str, value: Any, taken: bool | str
) -> None:
    schema = Schema(Short)
    target: Any = SHORT
    for segment in path:
        target = target.get(segment, {}) if isinstance(target, dict) else {}
    stored = taken if isinstance(taken, str) else value if taken else MISSING
    assert schema.kept(SHORT, path, target, key, value) == stored
    if stored is not MISSING and key in target:
        asis = target[key] == stored and stored is not value
        assert schema.fitted_at(SHORT, path, target, {key: value}) == (target, SAME if asis else {key: stored})


def test_in_messagepack_times_are_stored_and_never_as_the_text_that_they_are_given_as() -> None:
    schema = Schema(Short)
    schema.bind(True)
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    for text in ("2026-06-01T12:00:00Z", "2026-06-01T14:00:00+02:00"):
        assert schema.kept(SHORT, (), SHORT, "at", text) == noon
    assert schema.kept(SHORT, (), SHORT, "at", noon) == noon
    assert schema.kept(SHORT, (), SHORT, "at", "noon") is MISSING
    assert schema.fitted(SHORT, {"at": "2026-06-01T12:00:00Z"}) == {"at": noon}
    assert schema.fitted(SHORT, {"at": noon}) == {"at": noon}
    assert schema.kept(SHORT, (), SHORT, "who", noon) is MISSING
    with pytest.raises(Problem):
        schema.fitted(SHORT, {"who": noon})


def test_a_patch_below_what_is_made_anew_is_rooted_where_that_is() -> None:
    class Above(msgspec.Struct):
        within: Judged2 = msgspec.field(default_factory=Judged2)

    schema = Schema(Above)
    root = {"within": {"inner": {"low": 0, "high": 1}}}
    target = root["within"]["inner"]
    assert schema.fitted_at(root, ("within", "inner"), target, {"low": 1}) == (
        None,
        {"within": {"inner": {"low": 1}}},
    )
    assert schema.fitted_at(root, ("within",), root["within"], {"$delete": ["inner"]}) == (root["within"], SAME)


class Judged2(msgspec.Struct):
    inner: Judged = msgspec.field(default_factory=Judged)

    def __post_init__(self) -> None: ...


def test_a_state_with_keys_of_several_types_is_normalised() -> None:
    class Numbers(msgspec.Struct):
        by: dict[int, int] = {}
        free: Any = None

    schema = Schema(Numbers)
    schema.bind(True)
    state: dict[str, Any] = {"by": {"7": 1}, "free": {1: 1, "x": 2}}
    made, patch = schema.normalised(state)
    assert made == {"by": {7: 1}, "free": {1: 1, "x": 2}}
    assert patch == {"by": {"$replace": {7: 1}}}
    assert schema.normalised(made)[1] is SAME


def test_keys_that_no_messagepack_file_of_ours_can_have_are_refused_there() -> None:
    for key in (float, bytes):
        schema = Schema(msgspec.defstruct("Root", [("by", dict[key, int], {})]))
        schema.bind(False)
        with pytest.raises(Unsupported, match="floats or byte strings"):
            schema.bind(True)


def test_a_union_that_may_be_anything_is_free() -> None:
    schema = Schema(Short)
    assert schema.fitted(SHORT, {"anything": {"x": ["y"]}}) == {"anything": {"x": ["y"]}}


def test_a_described_field_is_what_it_describes() -> None:
    class Told(msgspec.Struct):
        n: Annotated[int, Meta(ge=0, description="a number")] = 0
        many: list[Annotated[int, Meta(ge=0, title="each")]] = []

    schema = Schema(Told)
    assert schema.fitted({"n": 0, "many": []}, {"n": 1, "many": [1]}) == {"n": 1, "many": [1]}
    with pytest.raises(Problem):
        schema.fitted({"n": 0, "many": []}, {"many": [-1]})
