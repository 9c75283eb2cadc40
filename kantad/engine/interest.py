"""Which paths somebody follows, and what a change does to them that only the state can tell.

Most of what a feed of a path is sent follows from the record. The rest (something above the path
was replaced, removed, or moved in an array) is worked out while the change is applied, when the
state before it is at hand, for the paths that are followed at the time. Looking for them costs what
the patch holds, not how many are followed. Nothing here awaits.
"""

from collections.abc import Iterator
from typing import Any

from kantad.values.content import MISSING, copied, encode_json
from kantad.values.narrow import DELETED, UNCLEAR, UNTOUCHED, Verdict, compared, narrowed
from kantad.values.patch import unescape
from kantad.values.pointer import Path, lookup
from kantad.values.touch import shared

Before = list[tuple[Path, Any]]


class Node:
    """A key on the way to followed paths. `count` is how many follow exactly this one."""

    __slots__ = ("below", "count")

    def __init__(self) -> None:
        self.below: dict[str, Node] = {}
        self.count = 0


class Interest:
    """The followed paths, the root not among them."""

    def __init__(self) -> None:
        self.root = Node()
        self.paths = 0

    def follow(self, path: Path) -> None:
        """Somebody follows a path."""
        if path:
            node = self.root
            for segment in path:
                node = node.below.setdefault(segment, Node())
            node.count += 1
            self.paths += 1

    def leave(self, path: Path) -> None:
        """Somebody no longer does."""
        if not path:
            return
        way = [self.root]
        for segment in path:
            way.append(way[-1].below[segment])
        way[-1].count -= 1
        self.paths -= 1
        for depth in range(len(path), 0, -1):
            if way[depth].count or way[depth].below:
                break
            del way[depth - 1].below[path[depth - 1]]

    def met(self, patch: Any) -> Iterator[Path]:
        """The followed paths that a patch may do something to: those it meets, and those above and below."""
        return _meeting(self.root, patch, ())

    def before(self, root: Any, diff: Any) -> Before:
        """The followed paths that a patch does something unclear to, with their values before it."""
        found = []
        for path in self.met(diff):
            if narrowed(diff, path) is UNCLEAR:
                old = lookup(root, path)
                through_array = any(type(lookup(root, path[:depth])) is list for depth in range(len(path)))
                found.append((path, copied(old) if through_array and old is not MISSING else old))
        return found


def after(root: Any, before: Before) -> dict[Path, bytes | Verdict]:
    """What the change did to them: a patch as JSON, DELETED or UNTOUCHED."""
    found: dict[Path, bytes | Verdict] = {}
    for path, old in before:
        part = compared(old, lookup(root, path))
        found[path] = part if part is DELETED or part is UNTOUCHED else encode_json(part)
    return found


def _meeting(node: Node, patch: Any, path: Path) -> Iterator[Path]:
    """The followed paths that a patch may do something to."""
    if type(patch) is not dict or "$replace" in patch or "$insert" in patch:
        yield from _all(node, path)
        return
    gone = patch.get("$delete", ())
    if any(type(name) is int for name in gone):
        yield from _all(node, path)
        return
    if node.count:
        yield path
    for name in gone:
        segment = unescape(name)
        if segment in node.below:
            yield from _all(node.below[segment], (*path, segment))
    for segment, sub in shared(node.below, patch):
        yield from _meeting(node.below[segment], sub, (*path, segment))


def _all(node: Node, path: Path) -> Iterator[Path]:
    if node.count:
        yield path
    for segment, below in node.below.items():
        yield from _all(below, (*path, segment))
