"""What a patch touches, and its part below a path. Pure; called by conflict checks and feeds."""

from collections.abc import Iterator
from typing import Any

from kantad.values.patch import unescape
from kantad.values.pointer import Path, overlap


def touched(patch: Any, path: Path = ()) -> Iterator[Path]:
    """The paths that a patch rooted at `path` touches.

    Below each of them everything may have changed; a list edit that moves elements touches its
    array as a whole.
    """
    if type(patch) is not dict or not patch or "$replace" in patch or "$insert" in patch:
        yield path
        return
    for key, sub in patch.items():
        if key != "$delete":
            yield from touched(sub, (*path, str(unescape(key))))
            continue
        for name in sub if type(sub) is list else [sub]:  # a request's patch is not checked yet
            if type(name) is int:
                yield path
                return
            yield (*path, unescape(name))


def meets(patch: Any, path: Path) -> bool:
    """Whether a patch of the root touches this path, something above it or something below it."""
    return any(overlap(mine, path) for mine in touched(patch))
