"""Which paths somebody follows, which changes met them, and what a change does to them that only the state can tell.

Most of what a feed of a path is sent follows from the record. The rest (something above the path
was replaced, removed, or moved in an array) is worked out while the change is applied, when the
state before it is at hand, for the paths that are followed at the time. Looking for them costs what
the patch holds, not how many are followed. Nothing here awaits.

Which paths a change met is noted when it is applied, too: later the patch is part of the state, and has gone on with
it. So a feed of a path looks at the changes that met its path and at no others. That is known of the changes that
were applied since somebody follows the path, and of the last of them.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from kantad.values.content import MISSING, copied, encode_json
from kantad.values.narrow import DELETED, UNCLEAR, UNTOUCHED, Verdict, compared, narrowed
from kantad.values.patch import is_position, named
from kantad.values.pointer import Path, lookup
from kantad.values.touch import shared

if TYPE_CHECKING:
    from kantad.engine.reader import Reader

Before = list[tuple[Path, Any]]

REMEMBERED: Final = 128  # changes that met a path; half of them when there are more


class Node:
    """A path on the way to followed ones, or a followed one: `count` is by how many.

    `revs` are the published changes behind revision `since` that met it, all of them; `idle` the readers that have
    nothing to be sent before the next one.
    """

    __slots__ = ("below", "count", "idle", "path", "revs", "since")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.below: dict[str, Node] = {}
        self.count = 0
        self.since = 0
        self.revs: list[int] = []
        self.idle: dict[Reader, None] = {}

    def meets(self, rev: int) -> None:
        """A change that met the path is published, the newest one."""
        revs = self.revs
        revs.append(rev)
        if len(revs) > REMEMBERED:
            half = len(revs) // 2
            self.since = revs[half - 1]
            del revs[:half]

    def between(self, rev: int, head: int) -> list[int]:
        """The revisions behind one, up to another, that may have met the path: all where that is not known."""
        known = self.revs[bisect_right(self.revs, rev) : bisect_right(self.revs, head)]
        return known if rev >= self.since else [*range(rev + 1, min(self.since, head) + 1), *known]


class Interest:
    """The followed paths, the root not among them."""

    def __init__(self) -> None:
        self.root = Node(())
        self.paths = 0

    def follow(self, path: Path, rev: int = 0) -> Node | None:
        """Somebody follows a path from now on, where changes up to this revision are applied; None for the root."""
        if not path:
            return None
        node = self.root
        for depth, segment in enumerate(path, 1):
            below = node.below.get(segment)
            if below is None:
                below = node.below[segment] = Node(path[:depth])
            node = below
        if not node.count:
            node.since = rev
            node.revs.clear()
        node.count += 1
        self.paths += 1
        return node

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

    def met(self, patch: Any) -> Iterator[Node]:
        """The followed paths that a patch may do something to: those it meets, and those above and below."""
        return _meeting(self.root, patch)

    def met_at(self, path: Path, name: str) -> list[Node]:
        """The followed paths that a change of a scalar, the member of an object at a path, meets: those above it."""
        found: list[Node] = []
        node = self.root
        for segment in (*path, name):
            below = node.below.get(segment)
            if below is None:
                break
            node = below
            if node.count:
                found.append(node)
        return found


def before(root: Any, diff: Any, met: list[Node]) -> Before:
    """Those of the paths that a patch meets that it does something unclear to, with their values before it."""
    found = []
    for node in met:
        path = node.path
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


def _meeting(node: Node, patch: Any) -> Iterator[Node]:
    """The followed paths that a patch may do something to."""
    if type(patch) is not dict or "$replace" in patch or "$insert" in patch:
        yield from _all(node)
        return
    gone = patch.get("$delete", ())
    if any(map(is_position, gone)):
        yield from _all(node)
        return
    if node.count:
        yield node
    for name in gone:
        segment = str(named(name))
        if segment in node.below:
            yield from _all(node.below[segment])
    for segment, sub in shared(node.below, patch):
        yield from _meeting(node.below[segment], sub)


def _all(node: Node) -> Iterator[Node]:
    if node.count:
        yield node
    for below in node.below.values():
        yield from _all(below)
