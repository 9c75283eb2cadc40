"""Typed values follow the patches of their raw form, and convert only what was touched."""

import enum
from copy import deepcopy
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, field

from kantad.values.diff import SAME, difference
from kantad.values.patch import apply
from kantad.values.shape import shape_of

T = TypeVar("T")
IDS = [f"00000000-0000-0000-0000-00000000000{i}" for i in range(3)]
made: list[Any] = []


class Colour(enum.Enum):
    RED = "red"
    BLUE = "$blue"


class User(Struct, rename="camel"):
    """No mapping: converted as a whole."""

    name: str
    is_admin: bool = False
    tags: list[str] = field(default_factory=list)
    before: "User | None" = None
    age: Annotated[int, Meta(title="in years")] = 0

    def __post_init__(self) -> None:
        made.append(self)


class Team(Struct):
    size: int
    scores: dict[str, int] = {}
    lead: User | None = None
    note: str | UnsetType = UNSET


class Frozen(Struct, frozen=True):
    m: dict[int, Team] = {}
    n: int = 5
    sub: Annotated["Frozen | None", Meta(title="below")] = None


SHARED = Frozen({1: Team(1)}, 1)


class Checked(Struct, forbid_unknown_fields=True):
    counts: Annotated[dict[str, int], Meta(max_length=3)]
    limit: int = 3

    def __post_init__(self) -> None:
        if self.limit > 9:
            raise ValueError("over 9")
        self.limit = self.limit * 2


class Cat(Struct, tag=True):
    lives: dict[str, int]


class Dog(Struct, tag=True):
    tricks: dict[str, int]


class Tagged(Struct, tag="t", tag_field="$kind", rename={"m": "$m"}):
    m: dict[str, int] = {}


class Row(Struct, array_like=True):
    cells: dict[str, int] = {}


class Page(Struct, Generic[T]):
    items: dict[Colour, T]


class Root(Struct, rename={"any": "$any"}):
    users: dict[UUID, User] = {}
    teams: dict[str, Team] = field(default_factory=lambda: {"a": Team(1, {"x": 1})})
    frozen: Frozen = SHARED
    checked: Checked | None = None
    pet: Cat | Dog | None = None
    tagged: Tagged | None = None
    row: Row | None = None
    page: Page[Team] | None = None
    any: Any = None
    opaque: object = None
    floats: dict[float, Team] = {}
    bare: dict = {}  # type: ignore[type-arg]
    times: dict[datetime, list[dict[str, int]]] = {}
    lists: dict[Literal["a", "b"], dict[str, list[int]] | list[int]] = {}
    shorts: Annotated[dict[str, int], Meta(min_length=1)] | None = None


ROOT = shape_of(Root)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of these fields, in any order."""
    return st.fixed_dictionaries({}, optional=fields).flatmap(
        lambda found: st.permutations(sorted(found)).map(lambda names: {name: found[name] for name in names})
    )


def keyed(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(names), values, max_size=4)


ints = st.integers(0, 3)
texts = st.sampled_from(["a", "$b", "$$c"])
numbers = keyed(["a", "$b", "c"], ints)
users = st.builds(lambda more, name: {"name": name, **more}, some(isAdmin=st.booleans(), tags=st.lists(texts)), texts)
teams = st.builds(
    lambda more, size: {**more, "size": size},
    some(scores=numbers, lead=st.none() | users, note=texts, unknown=numbers),
    ints,
)
frozens: st.SearchStrategy[Any] = st.deferred(
    lambda: some(m=keyed(["1", "2", "-3"], teams), n=ints, sub=st.none() | frozens)
)
checks = st.builds(lambda counts, more: {"counts": counts, **more}, numbers, some(limit=st.integers(0, 10)))
anything = st.recursive(ints | texts | st.none(), lambda x: keyed(["a", "$b"], x) | st.lists(x, max_size=3))
pets = st.builds(lambda n: {"type": "Cat", "lives": n}, numbers) | st.builds(
    lambda n: {"type": "Dog", "tricks": n}, numbers
)
tagged = some(**{"$m": numbers, "$kind": st.sampled_from(["t", "t", "t", "x"])})
rows = st.lists(numbers, max_size=1)
wrong = st.sampled_from([0, "x", [], {}, None, {"x": 1}])
roots = some(
    **{"$any": anything},
    users=keyed([*IDS, IDS[0].replace("-", "")], users),
    teams=keyed(["a", "$b"], teams),
    frozen=frozens,
    checked=checks,
    pet=st.none() | pets,
    tagged=tagged,
    row=rows,
    page=st.none() | keyed(["red", "$blue"], teams).map(lambda items: {"items": items}),
    opaque=anything,
    floats=keyed(["1", "1.0", "2", "2.0"], teams),
    bare=anything.filter(lambda x: isinstance(x, dict)),
    times=keyed(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00"], st.lists(numbers, max_size=3)),
    lists=keyed(["a", "b"], st.lists(ints) | keyed(["x", "y"], st.lists(ints))),
    shorts=st.none() | numbers,
    unknown=ints,
)


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """The value with one member somewhere exchanged for something that may not fit."""
    if not isinstance(value, dict) or not value or draw(st.integers(0, 3)) == 0:
        return draw(wrong)
    name = draw(st.sampled_from(sorted(value)))
    return {**value, name: draw(spoilt(value[name]))}


def attempt(shape: Any, raw: Any) -> Any:
    try:
        return shape.convert(raw)
    except ValidationError:
        return ValidationError


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(roots, min_size=2, max_size=5), st.data())
def test_following_is_converting_anew(raws: list[Any], data: st.DataObject) -> None:
    shape = ROOT
    typed: Any = attempt(shape, raws[0])
    raw: Any = deepcopy(raws[0])
    for new in raws[1:]:
        if typed is ValidationError:
            return
        if data.draw(st.integers(0, 4)) == 0:
            new = data.draw(spoilt(new))
        merged = new if data.draw(st.booleans()) or not isinstance(new, dict) else raw | new
        patch = difference(raw, merged)
        if patch is SAME:
            continue
        raw = apply(raw, deepcopy(patch))
        expected = attempt(shape, raw)
        held = deepcopy(raw)
        try:
            typed = shape.follow(typed, raw, patch)
        except ValidationError:
            typed = ValidationError
        assert repr(typed) == repr(expected)  # with the order of keys, and 1 apart from true
        assert raw == held
    assert repr(SHARED) == repr(Frozen({1: Team(1)}, 1))


def test_only_what_is_touched_is_converted_and_mappings_stay_the_same() -> None:
    shape = shape_of(dict[str, dict[UUID, User]])
    raw = {"users": {str(UUID(int=i)): {"name": "x"} for i in range(100)}}
    typed = shape.convert(raw)
    inner, old = typed["users"], typed["users"][UUID(int=7)]
    made.clear()
    patch = {"users": {str(UUID(int=7)): {"name": "y"}, "$delete": [str(UUID(int=8))]}}
    apply(raw, deepcopy(patch))
    assert shape.follow(typed, raw, patch) is typed
    assert typed["users"] is inner
    assert len(made) == 1
    assert (old.name, inner[UUID(int=7)].name, len(inner)) == ("x", "y", 99)


def test_a_mapping_that_is_emptied_stays_the_same() -> None:
    shape = shape_of(Team)
    raw = {"size": 1, "scores": {"a": 1}}
    typed = shape.convert(raw)
    scores = typed.scores
    patch = {"scores": {"$replace": {}}}
    apply(raw, deepcopy(patch))
    assert shape.follow(typed, raw, patch) is typed
    assert typed.scores is scores == {}


def test_a_frozen_struct_is_made_anew_and_shares_its_mappings() -> None:
    shape = shape_of(Frozen)
    raw = {"m": {"1": {"size": 1}}, "n": 1}
    typed = shape.convert(raw)
    patch = {"n": 2, "m": {"1": {"size": 2}}}
    apply(raw, deepcopy(patch))
    new = shape.follow(typed, raw, patch)
    assert (typed.n, new.n, new.m[1].size) == (1, 2, 2)
    assert new.m is typed.m
    assert shape.follow(new, {**raw, "z": 1}, {"z": 1}) is new


def test_nothing_is_shared_with_the_raw_tree() -> None:
    raw: Any = {"a": {"b": [1]}}
    typed = shape_of(Any).convert(raw)
    raw["a"]["b"].append(2)
    assert typed == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("type", "old", "new", "text"),
    [
        (
            dict[str, Team],
            {"a`b": {"size": 1}},
            {"a`b": {"size": "x"}},
            'Expected `int`, got `str` - at `$["a`b"].size`',
        ),
        (
            dict[str, Team],
            {"a": {"size": 1, "note": "x"}},
            {"a": {"note": "x"}},
            'Object missing required field `size` - at `$["a"]`',
        ),
        (
            Root,
            {"users": {IDS[1]: {"name": "a"}}},
            {"users": {IDS[1]: {"name": "a"}, IDS[0]: {"name": 1}}},
            f'Expected `str`, got `int` - at `$.users["{IDS[0]}"].name`',
        ),
        (
            Root,
            {"users": {IDS[1]: {"name": "a"}}},
            {"users": {IDS[1]: {"name": "b"}, "x": {"name": "a"}}},
            "Invalid UUID - at `key` in `$.users`",
        ),
        (
            Root,
            {"checked": {"counts": {}}},
            {"checked": {"counts": {}, "z": 1}},
            "Object contains unknown field `z` - at `$.checked`",
        ),
        (Root, {"checked": {"counts": {}}}, {"checked": {"counts": {}, "limit": 10}}, "over 9 - at `$.checked`"),
        (
            Root,
            {"shorts": {"a": 1}},
            {"shorts": {}},
            "Expected `object` of length >= 1 - at `$.shorts`",
        ),
        (Root, {"tagged": {}}, {"tagged": {"$kind": "x"}}, "Invalid value 'x' - at `$.tagged.$kind`"),
        (dict[str, int], {"a": 1}, [], "Expected `object`, got `array`"),
    ],
)
def test_an_error_says_where(type: Any, old: Any, new: Any, text: str) -> None:
    shape = shape_of(type)
    typed = shape.convert(old)
    patch = difference(old, new)
    with pytest.raises(ValidationError) as caught:
        shape.follow(typed, apply(deepcopy(old), deepcopy(patch)), patch)
    assert str(caught.value) == text
