"""Canonical patches for who has integer keys as text, as JSON has; in a MessagePack file they may be either. Pure."""

from typing import Any

from kantad.values.patch import escape, gone, is_position, named, unescape


def as_text(patch: Any) -> Any:
    """A canonical patch for who has integer keys as text, as JSON has: those that it deletes, too.

    A key that it deletes in one spelling and sets in the other is only set.
    """
    if type(patch) is not dict or "$replace" in patch:
        return patch
    names = patch.get("$delete", ())
    set_again = {escape(str(named(name))) for name in names if not is_position(name)} & set(map(str, patch))
    found: dict[Any, Any] = {}
    for key, sub in patch.items():
        if key == "$insert":
            found[key] = sub
        elif key == "$delete":
            left = [name if is_position(name) else escape(str(named(name))) for name in names]
            if left := [name for name in left if name not in set_again]:
                found[key] = left
        else:
            below = as_text(sub)
            is_merged = type(below) is dict and "$replace" not in below
            found[key] = {"$replace": below} if is_merged and str(key) in set_again else below
    return found


def keys_deleted(patch: Any, new: Any) -> Any:
    """A patch that led to this value, with the integer keys that it deletes told apart from positions.

    Other programs' records, and old ones, do not tell: what was deleted of an object is a key.
    """
    if type(patch) is not dict or "$replace" in patch:
        return patch
    found: dict[Any, Any] = {}
    for key, sub in patch.items():
        if key == "$delete" and type(new) is dict:
            sub = [gone(name) if type(name) is int else name for name in sub]
        elif key not in ("$delete", "$insert"):
            sub = keys_deleted(sub, new[int(key)] if type(new) is list else new.get(unescape(key)))
        found[key] = sub
    return found
