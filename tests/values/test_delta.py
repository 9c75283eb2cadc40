"""Typed drafts: the patch, applied to any raw form that the base may have had, makes what the draft is."""

import copy
import enum
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType, field

from kantad.values.content import MISSING
from kantad.values.delta import Findings, delta
from kantad.values.diff import SAME
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.tracked import Journal, drafted
from tests.values.draft_kit import thorough

IDS = [UUID(int=i) for i in range(1, 4)]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "$blue"


class Tag(Struct, frozen=True):
    n: int
    colour: Colour | None = None


class User(Struct, rename="camel", omit_defaults=True):
    full_name: str = "nobody"
    tags: set[str] = set()
    marks: list[Tag] = []
    favourite: Tag = Tag(1, Colour.RED)
    note: str | UnsetType = UNSET
    pair: tuple[int, int] = (1, 2)
    friends: dict[UUID, Tag] = {}


class Root(Struct, rename={"dollar": "$"}):
    users: dict[UUID, User] = {}
    sets: list[set[str]] = field(default_factory=lambda: [{"a", "b"}, {"c"}])
    numbers: list[int] = field(default_factory=lambda: [1, 2])
    given: dict[str, Tag] = field(default_factory=lambda: {"a": Tag(1), "b": Tag(2)})
    maybe: dict[str, list[int]] | None = None
    unset: dict[str, int] | UnsetType = UNSET
    owner: User = field(default_factory=lambda: User("x", friends={IDS[0]: Tag(5)}))
    dollar: dict[Colour, int] = {}


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields)


ints = st.integers(0, 3)
texts = st.sampled_from(["a", "$b", "c"])
raw_sets = st.lists(texts, max_size=3, unique=True)
raw_tags = st.builds(
    lambda n, more: {"n": n, **more}, ints, some(colour=st.sampled_from([None, "red", "$blue"]), zz=ints)
)
raw_keys = st.sampled_from([str(key) for key in IDS])
raw_users = some(
    fullName=texts,
    tags=raw_sets,
    marks=st.lists(raw_tags, max_size=3),
    favourite=raw_tags,
    note=texts,
    pair=st.just([3, 4]),
    friends=st.dictionaries(raw_keys, raw_tags, max_size=3),
    unknown=ints,
)
raw_roots = some(
    users=st.dictionaries(raw_keys, raw_users, max_size=3),
    sets=st.lists(raw_sets, max_size=3),
    numbers=st.lists(ints, max_size=3),
    given=st.dictionaries(texts, raw_tags, max_size=3),
    maybe=st.none() | st.dictionaries(texts, st.lists(ints, max_size=3), max_size=2),
    unset=st.dictionaries(texts, ints, max_size=2),
    owner=raw_users,
    unknown=st.dictionaries(texts, ints, max_size=2),
    **{"$": st.dictionaries(st.sampled_from(["red", "$blue"]), ints)},
)


def user_of(raw: Any) -> User:
    return msgspec.convert(raw, User)


Change = Callable[[Any, st.DataObject], Any]


def _some_user(root: Any, data: st.DataObject) -> Any:
    return data.draw(st.sampled_from([root.owner, *(root.users.values())]))


def _put(root: Any, data: st.DataObject) -> None:
    root.users[data.draw(st.sampled_from(IDS))] = user_of(data.draw(raw_users))


def _edit(root: Any, data: st.DataObject) -> None:
    user = _some_user(root, data)
    new = user_of(data.draw(raw_users))
    for name in data.draw(st.lists(st.sampled_from(User.__struct_fields__), max_size=2)):
        setattr(user, name, getattr(new, name))


def _mark(root: Any, data: st.DataObject) -> None:
    user = _some_user(root, data)
    mark = msgspec.convert(data.draw(raw_tags), Tag)
    user.marks.insert(data.draw(st.integers(0, 3)), mark)
    user.friends[data.draw(st.sampled_from(IDS))] = mark
    if data.draw(st.booleans()):
        user.marks.pop(0)
    user.tags ^= {data.draw(texts)}


def _sets(root: Any, data: st.DataObject) -> None:
    if root.sets and data.draw(st.booleans()):
        root.sets[0] ^= {"a"}
    elif root.sets:
        root.sets.pop(0)
    else:
        root.sets.append({"q"})


def _lists(root: Any, data: st.DataObject) -> None:
    root.numbers.append(9)
    if root.maybe is not None:
        root.maybe.setdefault("a", []).append(9)


def _swap(root: Any, data: st.DataObject) -> None:
    new = msgspec.convert(data.draw(raw_roots), Root)
    name = data.draw(st.sampled_from(Root.__struct_fields__))
    setattr(root, name, getattr(new, name))


def _clear(root: Any, data: st.DataObject) -> None:
    data.draw(st.sampled_from([root.users, root.given, root.dollar, root.owner.friends])).clear()


def _alias(root: Any, data: st.DataObject) -> None:
    for user in root.users.values():
        root.users[IDS[0]] = user
        root.owner.friends = user.friends
        break


CHANGES: list[Change] = [_put, _edit, _mark, _sets, _lists, _swap, _clear, _alias]


@thorough
@given(raw_roots, st.lists(st.sampled_from(CHANGES), max_size=4), st.data())
def test_the_patch_makes_the_draft_of_the_raw_base(raw: Any, changes: list[Change], data: st.DataObject) -> None:
    base = msgspec.convert(raw, Root, str_keys=True)
    before = repr(base)
    root = drafted(base, (), Journal())
    for change in changes:
        change(root, data)
    patch = delta(base, root, (), Findings())
    assert repr(base) == before
    if patch is SAME:
        assert base == root
        return
    made = msgspec.convert(apply(copy.deepcopy(raw), copy.deepcopy(patch)), Root, str_keys=True)
    assert made == root
    assert base != root
    if "unknown" in raw:
        assert apply(copy.deepcopy(raw), patch)["unknown"] == raw["unknown"]


def changed(base: Any, change: Callable[[Any], Any]) -> Any:
    found = Findings()
    value = drafted(base, (), Journal())
    change(value)
    return delta(base, value, (), found), found


def test_fields_that_were_left_out_are_not_written() -> None:
    base = msgspec.convert({"users": {str(IDS[0]): {}}}, Root, str_keys=True)
    patch, found = changed(base, lambda root: setattr(root.users[IDS[0]], "full_name", "x"))
    assert patch == {"users": {str(IDS[0]): {"fullName": "x"}}}
    assert found.changed == {("users",), ("users", str(IDS[0])), ("users", str(IDS[0]), "fullName")}
    assert found.relied == set()


def test_a_field_at_its_default_may_be_missing_and_is_assigned() -> None:
    patch, _ = changed(Root(), lambda root: (root.numbers.append(3), root.given.pop("a"), root.users.update()))
    assert patch == {"numbers": [1, 2, 3], "given": {"$replace": {"b": {"n": 2, "colour": None}}}}


def test_a_default_that_is_left_out_is_removed() -> None:
    base = Root(users={IDS[0]: User("x", note="n")})
    patch, _ = changed(base, lambda root: _reset(root.users[IDS[0]]))
    assert patch == {"users": {str(IDS[0]): {"$delete": ["fullName", "note"]}}}


def _reset(user: Any) -> None:
    user.full_name, user.note = User().full_name, UNSET


def test_the_same_assigned_again_relies_on_the_base() -> None:
    base = {"a": {"x": 1, "y": 2}, "n": 1, "l": [1], "k": {"z": 1}}

    def change(d: Any) -> None:
        d.update(n=1, a={"x": 1, "y": 3}, l="other", new={"q": 1}, gone=1, k={"other": 1})
        del d["gone"]

    patch, found = changed(base, change)
    assert patch == {"a": {"y": 3}, "l": "other", "new": {"q": 1}, "k": {"$replace": {"other": 1}}}
    assert found.relied == {("n",), ("a",), ("new",), ("gone",)}


def test_what_is_put_into_another_place_as_well_is_relied_on() -> None:
    def change(d: Any) -> None:
        d["b"], d["l"][0], d["c"] = d["a"], d["d"], {"x": [d["e"]["f"]]}

    _, found = changed({"a": {"x": 1}, "b": {"x": 2}, "l": [1], "d": {}, "e": {"f": {}}}, change)
    assert found.relied == {("a",), ("b",), ("d",), ("c",), ("e", "f")}


def test_clearing_relies_on_what_was_there_unless_all_is_replaced() -> None:
    patch, found = changed({"a": 1, "b": 2}, lambda d: (d.clear(), d.update(c=3)))
    assert (patch, found.relied) == ({"$replace": {"c": 3}}, set())
    patch, found = changed({"a": 1, "b": 2}, lambda d: (d.clear(), d.update(a=3)))
    assert (patch, found.relied) == ({"a": 3, "$delete": ["b"]}, {()})


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({1, 2}, {2, 1}, SAME),
        ({1, 2}, {3}, [3]),
        ({"a": {1}}, {"a": {True}}, {"a": [True]}),
        ((1, "$"), (1, "$"), SAME),
        ((1, "a"), (1, "$"), [1, "$$"]),
        (MISSING, {"$": UUID(int=1)}, {"$$": str(UUID(int=1))}),
        (1, {"a": 1}, {"$replace": {"a": 1}}),
        ([1, 2, 3], [1, 2, 4], {"2": 4}),
        ([Tag(1), Tag(2), Tag(3)], [Tag(1), Tag(2), Tag(3)], SAME),
        ([Tag(1), Tag(2), Tag(3)], [Tag(1), Tag(5), Tag(3)], {"1": {"n": 5}}),
        ([Tag(1), Tag(2), Tag(3)], [Tag(1), Tag(3)], {"$delete": [1]}),
        ([Tag(1), Tag(3)], [Tag(1), Tag(2), Tag(3)], {"$insert": [[1, {"n": 2, "colour": None}]]}),
        (Tag(1), User("x"), {"$replace": {"fullName": "x"}}),
        ({IDS[0]: Tag(1)}, {IDS[0]: Tag(2)}, {str(IDS[0]): {"n": 2}}),
        ({IDS[0]: Tag(1)}, {"x": 1}, {"$replace": {"x": 1}}),
    ],
)
def test_values_are_compared_as_what_they_are(old: Any, new: Any, patch: Any) -> None:
    assert delta(old, new, (), Findings()) == patch


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d.update({"a": {"x": float("nan")}}), "/a/x"),
        (lambda d: d["a"].update({"$b": 2**64}), "/a/$b"),
        (lambda d: d.update({"\ud800": 1}), "/\ud800"),
        (lambda d: d.update({"n": {"\ud800": 1}}), "/n"),
        (lambda d: d.update({"a": {"\ud800": 1}}), "/a/\ud800"),
        (lambda d: d.update({(1, 2): 1}), "/(1, 2)"),
        (lambda d: d.update({5: 1}), "/5"),
        (lambda d: d.update({6: 1, "6": 2}), "/6"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(change: Any, path: str) -> None:
    with pytest.raises(Problem) as caught:
        changed({"a": {"x": 1}, "n": 1, "5": 2}, change)
    assert (caught.value.code, caught.value.body()["path"]) == ("invalid_value", path)


def test_a_key_that_cannot_be_written_may_come_and_go() -> None:
    assert changed({}, lambda d: (d.update({(1, 2): 1}), d.pop((1, 2))))[0] is SAME


@pytest.mark.parametrize("value", [1, [1], {"new": 1}])
def test_a_key_that_is_removed_and_set_anew_under_another_type_is_kept(value: Any) -> None:
    def move(draft: Any) -> None:
        del draft["5"]
        draft[5] = value

    base = {"5": {"old": 1}, "6": 1}
    patch, _ = changed(base, move)
    assert apply(base, patch) == {"5": value, "6": 1}
