"""Strategies: JSON documents that are hard on patches, documents that differ a little, patches that nearly fit."""

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from kantad.values.patch import escape

COMMANDS = ("$replace", "$delete", "$insert")
TEXTS = ("", "a", "b", "c", "$", "$a", "$$", "$$a", *COMMANDS, "$$replace", "0", "1", "-", "ü/~", "\U0001f600", "a~1")

texts = st.sampled_from(TEXTS)
keys = texts
scalars = (
    st.sampled_from([None, True, False, 0, 1, 1.0, 0.0, -0.0, 2, 0.1, 2**53, 2**63, 2**64 - 1, -(2**63), 1e300]) | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=5)
records = st.lists(st.dictionaries(st.sampled_from(["id", "a", "$a"]), scalars, max_size=3), max_size=6)
documents = objects | st.dictionaries(keys, values | records, max_size=4)
anything = values | documents | records


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A copy of the value, changed a little in some places, or not at all."""
    what = draw(st.integers(0, 9))
    if what == 0:
        return draw(values)
    if what == 1 or not isinstance(value, dict | list):
        return deepcopy(value) if what else draw(scalars)
    if isinstance(value, dict):
        made = {}
        for key, item in value.items():
            fate = draw(st.integers(0, 5))
            if fate > 1:
                made[key] = deepcopy(item)
            elif fate == 1:
                made[key] = draw(mutated(item))
        if draw(st.booleans()):
            made[draw(keys)] = draw(values)
        return made
    items: list[Any] = []
    for item in value:
        fate = draw(st.integers(0, 6))
        if fate == 1:
            items.append(draw(mutated(item)))
        elif fate == 2:
            items.extend([draw(values), deepcopy(item)])
        elif fate > 2:
            items.append(deepcopy(item))
    if len(items) > 1 and draw(st.integers(0, 4)) == 0:
        items.append(items.pop(0))
    return items


pairs = anything.flatmap(lambda a: st.tuples(st.just(a), mutated(a) | values))
object_pairs = documents.flatmap(lambda a: st.tuples(st.just(a), mutated(a).filter(lambda b: isinstance(b, dict))))


def spelt(value: Any) -> Any:
    """The value as a patch spells it, by the rule of the contract alone."""
    if isinstance(value, dict):
        return {spelt(key): spelt(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spelt(item) for item in value]
    return "$" + value if isinstance(value, str) and value.startswith("$") else value


def has_command_key(value: Any) -> bool:
    """Whether a user's own key is spelt as a command somewhere."""
    if isinstance(value, dict):
        return any(key in COMMANDS or has_command_key(item) for key, item in value.items())
    return isinstance(value, list) and any(map(has_command_key, value))


@st.composite
def patches(draw: st.DrawFn, value: Any) -> Any:
    """A patch that mostly fits the value."""
    what = draw(st.integers(0, 11))
    if what == 0:
        return spelt(draw(values))
    if what == 1:
        return {"$replace": spelt(draw(values))}
    if isinstance(value, dict):
        patch: dict[str, Any] = {}
        for key, item in value.items():
            if draw(st.integers(0, 2)) == 0:
                patch[spelt(key)] = draw(patches(item))
        if draw(st.integers(0, 2)) == 0:
            patch["$delete"] = [spelt(key) for key in draw(st.lists(st.sampled_from([*value, "a", "$a"]), max_size=3))]
        if draw(st.booleans()):
            patch[spelt(draw(keys))] = spelt(draw(values))
        return patch
    if isinstance(value, list):
        return draw(list_edits(value))
    return draw(st.just({}) | st.builds(spelt, scalars))


@st.composite
def list_edits(draw: st.DrawFn, value: list[Any]) -> dict[str, Any]:
    """A list edit that fits the list."""
    edit: dict[str, Any] = {}
    kept = deepcopy(value)
    if kept and draw(st.booleans()):
        edit["$delete"] = []
        for _ in range(draw(st.integers(1, len(kept)))):
            edit["$delete"].append(draw(st.integers(0, len(kept) - 1)))
            del kept[edit["$delete"][-1]]
    if draw(st.booleans()):
        edit["$insert"] = []
        for _ in range(draw(st.integers(1, 3))):
            position = draw(st.integers(0, len(kept)))
            new = draw(values | st.sampled_from(value)) if value else draw(values)
            edit["$insert"].append([position, spelt(new)])
            kept.insert(position, new)
    for position, item in enumerate(kept):
        if draw(st.integers(0, 2)) == 0:
            edit[str(position)] = draw(patches(item))
    return edit


patched = anything.flatmap(lambda a: st.tuples(st.just(a), patches(a)))
patched_objects = documents.flatmap(
    lambda a: st.tuples(st.just(a), patches(a).filter(lambda p: isinstance(p, dict) and "$replace" not in p))
)

patch_keys = st.sampled_from([*TEXTS, "$unknown", "2", "01", "path", "op", "from", "value"])
nonsense = st.recursive(
    scalars | st.integers(-3, 3) | st.sampled_from([2**64, -(2**63) - 1, float("nan"), float("inf"), "add", "test"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(patch_keys, inner, max_size=4),
    max_leaves=12,
)


def assigned(path: tuple[str, ...], value: Any = 1) -> Any:
    """A patch that assigns a value at a path."""
    for segment in reversed(path):
        value = {escape(segment): value}
    return value
