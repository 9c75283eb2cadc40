"""Scripts of what a user may do to a value, run on a draft and on a plain copy alike."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

KEYS = ("a", "b", "$c", "0")
thorough = settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

keys = st.sampled_from(KEYS)
scalars = st.sampled_from([None, True, 1, 1.0, 0.0, -0.0, "x", "$x"])
values = st.recursive(scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(keys, x, max_size=3), max_leaves=8)
objects = st.dictionaries(keys, values | st.dictionaries(keys, values, max_size=3), max_size=4)

Action = Callable[[Any, Any, Any], Any]


def _pop_any(x: Any, key: Any, value: Any) -> Any:
    return x.popitem() if isinstance(x, dict) else x.pop()


def _put(x: Any, key: Any, value: Any) -> Any:
    x[key] = copy.deepcopy(value)
    return None


def _put_again(x: Any, key: Any, value: Any) -> Any:
    x["b"] = x[key]  # one object in two places
    return None


def _remove(x: Any, key: Any, value: Any) -> Any:
    del x[key]
    return None


def _change_all(x: Any, key: Any, value: Any) -> Any:
    for item in x.values():
        if isinstance(item, dict):
            item[key] = copy.deepcopy(value)
        elif isinstance(item, list):
            item.append(1)
    return None


def _extend(x: Any, key: Any, value: Any) -> Any:
    if isinstance(x, dict):
        x |= {key: copy.deepcopy(value)}
    else:
        x += [copy.deepcopy(value)]
    return None


def _ruin_copies(x: Any, key: Any, value: Any) -> Any:
    """What is done to a deep copy is not done to the value."""
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        for item in twin.values():
            if isinstance(item, dict):
                item.clear()
        twin[key] = 1
    return None


ACTIONS: dict[str, Action] = {
    "get": lambda x, key, value: x[key],
    "get or": lambda x, key, value: x.get(key, 7),
    "in": lambda x, key, value: key in x,
    "put": _put,
    "put it": _put,
    "put again": _put_again,
    "remove": _remove,
    "take": lambda x, key, value: x.pop(key, 7),
    "take it": lambda x, key, value: x.pop(key),
    "take any": _pop_any,
    "set default": lambda x, key, value: x.setdefault(key, copy.deepcopy(value)),
    "update": lambda x, key, value: x.update({key: copy.deepcopy(value)}, b=2),
    "update itself": lambda x, key, value: x.update(x),
    "clear": lambda x, key, value: x.clear(),
    "size": lambda x, key, value: (len(x), bool(x)),
    "keys": lambda x, key, value: [list(x), list(x.keys()), list(reversed(x)), x.keys() >= {key}],
    "all": lambda x, key, value: [list(x.items()), list(x.values()), dict(x), {**x}, x.copy()],
    "change all": _change_all,
    "or": lambda x, key, value: [x | {key: 1}, {key: 1} | x, x | x],
    "extend": _extend,
    "equal": lambda x, key, value: [x == {key: value}, x != {key: value}, {key: value} == x, x == x.copy()],
    "text": lambda x, key, value: [repr(x), str(x), json.dumps(x)],
    "copies": lambda x, key, value: [copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))],
    "ruin copies": _ruin_copies,
    "match": lambda x, key, value: _matched(x),
    "append": lambda x, key, value: x.append(copy.deepcopy(value)),
}
steps = st.tuples(st.lists(keys, max_size=3), st.sampled_from(sorted(ACTIONS)), keys, values)
scripts = st.lists(steps, max_size=8)


def _matched(x: Any) -> Any:
    match x:
        case {"a": found, **rest}:
            return [found, rest]
        case _:
            return None


def do(value: Any, step: Any) -> Any:
    """What a user sees who does this step."""
    path, action, key, other = step
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name == "0" and value:
            value = value[0]
    try:
        return _frozen(ACTIONS[action](value, key, other))
    except (LookupError, TypeError, AttributeError) as error:
        return type(error).__name__


def _frozen(seen: Any) -> str:
    """What was seen, as a text that tells values and the order of keys; of an object by itself only that it is one."""
    return "an object" if isinstance(seen, dict) else json.dumps(seen)


def run(value: Any, script: list[Any]) -> list[Any]:
    """All that is seen."""
    return [do(value, step) for step in script]
