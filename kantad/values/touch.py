"""What a patch touches: as paths, and as a tree that is held against other patches. Pure.

Below each touched path everything may have changed; a list edit that moves elements touches its
array as a whole. Two writes are in each other's way where one touches a path that is equal to,
above or below one that the other touches. That is found by going down both at once, so that it
costs what they share, not what they hold.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from kantad.values.patch import escape, is_position, named, unescape
from kantad.values.pointer import Path, key_in

MOST_PATHS: Final = 8  # of a change, that `Touches` notes, and how many segments of each
MOST_DEPTH: Final = 8

Tree = dict[str, "Tree | None"]  # None: this and all below it


def touched(patch: Any, path: Path = ()) -> Iterator[Path]:
    """The paths that a patch rooted at `path` touches."""
    if _is_whole(patch):
        yield path
        return
    for key, sub in patch.items():
        if key != "$delete":
            yield from touched(sub, (*path, str(unescape(key))))
            continue
        for name in _gone(patch):
            if is_position(name):
                yield path
                return
            yield (*path, str(named(name)))


def _is_whole(patch: Any) -> bool:
    """Whether a patch touches its place as a whole."""
    return type(patch) is not dict or not patch or "$replace" in patch or "$insert" in patch


def _gone(patch: dict[Any, Any]) -> list[Any]:
    """What a patch deletes; a request's is not checked yet."""
    names = patch.get("$delete", [])
    return names if type(names) is list else [names]


def tree_of(patch: Any) -> Tree | None:
    """What a patch touches, as a tree."""
    if _is_whole(patch):
        return None
    names = _gone(patch)
    if any(map(is_position, names)):
        return None
    tree: Tree = {}
    for key, sub in patch.items():  # one frame of the interpreter a level
        if key != "$delete":
            tree[str(unescape(key))] = tree_of(sub)
    for name in names:
        tree[str(named(name))] = None
    return tree


def tree_of_merge(patch: Any) -> Tree | None:
    """What an RFC 7396 merge patch touches, as a tree."""
    if type(patch) is not dict or not patch:
        return None
    tree: Tree = {}
    for key, value in patch.items():
        tree[str(key)] = tree_of_merge(value)
    return tree


def tree_of_paths(paths: Iterable[Path]) -> Tree | None:
    """These paths as a tree; there is at least one."""
    top: Tree = {}
    for path in paths:
        if not path:
            return None
        tree = top
        for segment in path[:-1]:
            below = tree.setdefault(segment, {})
            if below is None:
                break
            tree = below
        else:
            tree[path[-1]] = None
    return top


def rooted_at(path: Path, tree: Tree | None) -> Tree | None:
    """What touches this below `path`, as a tree of the root."""
    for segment in reversed(path):
        tree = {segment: tree}
    return tree


def meeting(tree: Tree | None, patch: Any, path: Path = ()) -> Path | None:
    """A path that a patch (rooted at `path`, as the tree is) touches and that is in the way of the tree's, or None."""
    if tree is None:
        return next(touched(patch, path), None)
    if not tree or _is_whole(patch):
        return path if tree else None
    for name in _gone(patch):
        if is_position(name):
            return path
        if (segment := str(named(name))) in tree:
            return (*path, segment)
    for segment, sub in shared(tree, patch):
        found = meeting(tree[segment], sub, (*path, segment))
        if found is not None:
            return found
    return None


def meets(patch: Any, path: Path) -> bool:
    """Whether a patch of the root touches this path, something above it or something below it."""
    return meeting(rooted_at(path, None), patch) is not None


class Watch:
    """Numbered paths that changes are held against, one after another; what is found is no longer looked for."""

    __slots__ = ("below", "numbers")

    def __init__(self) -> None:
        self.below: dict[str, Watch] = {}
        self.numbers: list[int] = []

    def add(self, path: Path, number: int) -> None:
        """Look for a path, too."""
        node = self
        for segment in path:
            node = node.below.setdefault(segment, Watch())
        node.numbers.append(number)

    def take(self, patch: Any) -> list[int]:
        """The numbers of the paths that a logged patch `meets`."""
        if _is_whole(patch):
            return self.take_all()
        names = _gone(patch)
        if any(map(is_position, names)):
            return self.take_all()
        found, self.numbers = self.numbers, []
        for name in names:
            node = self.below.pop(str(named(name)), None)
            found += node.take_all() if node is not None else ()
        for segment, sub in list(shared(self.below, patch)):
            node = self.below[segment]
            found += node.take(sub)
            if not node.below and not node.numbers:
                del self.below[segment]
        return found

    def take_all(self) -> list[int]:
        """The numbers of all paths that are left."""
        found, below = self.numbers, self.below
        self.numbers, self.below = [], {}
        for node in below.values():
            found += node.take_all()
        return found


class Touches:
    """What some changes touch, to find those of them that met a path. Built once, for many paths.

    Bounded: of a change only so many paths are noted, and only so deep; one that touches more counts as touching all.
    """

    __slots__ = ("top",)

    def __init__(self, changes: Iterable[tuple[int, Any]]) -> None:
        """The changes by their revision, in order, as canonical patches of the root."""
        self.top = _Touched()
        for rev, patch in changes:
            paths = list(islice(touched(patch), MOST_PATHS + 1))
            if len(paths) > MOST_PATHS:
                self.top.revs.append(rev)
                continue
            for path in paths:
                node = self.top
                for segment in path[:MOST_DEPTH]:
                    below = node.below.get(segment)
                    if below is None:
                        below = node.below[segment] = _Touched()
                    node = below
                node.revs.append(rev)

    def between(self, path: Path, first: int, last: int) -> list[int]:
        """Those from one revision to another that may have met a path, in order."""
        node, found = self.top, set(self.top.revs)
        for segment in path[:MOST_DEPTH]:
            below = node.below.get(segment)
            if below is None:
                break
            node = below
            found.update(node.revs)
        else:
            node.collect(found)
        return sorted(rev for rev in found if first <= rev <= last)


class _Touched:
    """A path and the revisions that touched it as a whole."""

    __slots__ = ("below", "revs")

    def __init__(self) -> None:
        self.below: dict[str, _Touched] = {}
        self.revs: list[int] = []

    def collect(self, found: set[int]) -> None:
        """Add all revisions from here on down."""
        found.update(self.revs)
        for node in self.below.values():
            node.collect(found)


def shared(below: Mapping[str, Any], patch: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The segments that these and an object's patch have in common, found from whichever has fewer."""
    if len(patch) <= len(below):
        for name, sub in patch.items():
            if name != "$delete" and (segment := str(unescape(name))) in below:
                yield segment, sub
        return
    for segment in below:
        key = escape(segment) if segment[:1] == "$" else key_in(patch, segment)
        if key in patch:
            yield segment, patch[key]
