"""Which part of a value does not fit its type: msgspec's reason, and the path of what is wrong.

msgspec names members and positions, but not the keys of a dict: these are found by trying its items,
which only a refusal costs. Pure; called by `schema`.
"""

import re
from types import GenericAlias
from typing import Any, Final

from msgspec import ValidationError, convert

from kantad.values.errors import RAISED, Problem
from kantad.values.kinds import Kind

MOST_SEARCHED: Final = 16  # dicts whose items are tried for one refusal

_REASON: Final = re.compile(r"(.*?)(?: - at (`key` in )?`\$([^`]*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")
_MEMBER: Final = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)


def refusal(detail: str) -> Problem:
    """The refusal of a value; what it says may depend on changes that are not settled yet."""
    problem = Problem("validation_failed", detail)
    problem.of_state = True
    return problem


def blame(kind: Kind, value: Any, error: ValidationError) -> Problem:
    """The refusal of a value that could not be converted; its path begins at the value."""
    reason, of_key, place = _parts(error)
    problem, searched = refusal(reason), 0
    steps = list(_STEP.finditer(place or ""))
    while steps:
        step = steps.pop(0)
        key: Any = step[1] or (None if step[2] is None else int(step[2]))
        holder = kind.of(value)
        if key is None:
            searched += 1
            key = _failing(holder, value) if searched <= MOST_SEARCHED else None
        below = None if key is None else holder.below(key)
        if below is None:
            return problem
        problem.keys.append(str(key))
        kind, value = below, value[key]
    named = _MEMBER.fullmatch(reason)
    if named is not None:
        problem.keys.append(named[1])
    elif of_key:
        problem.keys += _failing_key(kind.of(value), value)
    return problem


def _parts(error: ValidationError) -> tuple[str, str | None, str | None]:
    found = _REASON.fullmatch(str(error))
    assert found is not None  # it matches any text
    return found[1], found[2], found[3]


def _failing(kind: Kind, value: Any) -> Any:
    """The key of the first item that does not fit; msgspec says that there is one."""
    items = value.items() if type(value) is dict and kind.item is not None else ()
    return next((key for key, item in items if not fits(kind.item, item)), None)


def _failing_key(kind: Kind, value: Any) -> list[str]:
    if kind.key is None:  # members are called by text; in MessagePack a key may be a number
        return [str(key) for key in value if type(key) is not str][:1]
    keys = dict_of(kind)
    return [str(key) for key in value if not fits(keys, {key: None})][:1]


def dict_of(kind: Kind) -> Kind:
    """The kind of an object with the keys of this one, and anything in it."""
    assert kind.key is not None
    made = Kind(GenericAlias(dict, (kind.key.annotation, Any)))
    made.key = kind.key
    return made


def fits(kind: Kind | None, value: Any) -> bool:
    """Whether a value can be converted."""
    try:
        convert(value, Any if kind is None else kind.annotation, str_keys=True)
    except RAISED:  # also of a `__post_init__`
        return False
    return True
