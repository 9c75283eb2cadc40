"""What a change did, told from its patch and the undo entries that it left: old and new values, without the state.

`lines.edits` walks a patch against the value before it. Here that is gone: it lives on in the undo entries alone,
which stand in the order in which `patch.apply` came to them. So the patch is walked in the same order, and each
step takes the entries that it must have left. An object that was added and one that was merged into what was there may
leave entries that look alike, where a key stands below itself; then what else the container was given tells. Where the
entries are not those of the patch it is told without old values, as `lines.announced` does. Pure; called by the log of
changes.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from kantad.values.content import MISSING
from kantad.values.lines import Edit, announced, became, edits
from kantad.values.patch import (
    ADDED,
    DELETED,
    INSERTED,
    REMOVED,
    REPLACED,
    SET,
    SPLICED,
    build,
    named,
    unescape,
    unmarshal,
)

Entry = tuple[int, Any, Any, Any, Any]
Path = tuple[Any, ...]


class Unlike(Exception):
    """The entries are not those that the patch leaves."""


def traced(patch: dict[Any, Any], entries: Sequence[Entry]) -> list[Edit]:
    """The edits of a canonical patch of the root, which left these entries."""
    try:
        trace = Trace(entries)
        if "$replace" in patch:
            found = list(became(trace.take(None, REPLACED), unmarshal(patch["$replace"])))
        else:
            found = list(trace.inside(patch, ()))
        if not trace.left:
            return found
    except Unlike:
        pass
    return list(announced(patch))


class Trace:
    """The entries that are left."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.left = deque(entries)
        self.given: dict[int, set[str]] = defaultdict(set)  # by container: the keys of it that were edited
        for _, target, key, _, _ in entries:
            self.given[id(target)].add(str(key))

    def take(self, key: Any, *kinds: int) -> Any:
        """The old value of the next entry, which must be of one of these kinds and of this key; raises `Unlike`."""
        if not self.left or self.left[0][0] not in kinds or str(self.left[0][2]) != str(key):
            raise Unlike
        what, _, _, old, _ = self.left.popleft()
        return MISSING if what in (ADDED, INSERTED) else old

    def inside(self, patch: dict[Any, Any], path: Path) -> Iterator[Edit]:
        """The edits of a patch that was merged into an object or spliced into an array."""
        if self.left and self.left[0][0] in (SPLICED, REMOVED, INSERTED) and ("$delete" in patch or "$insert" in patch):
            yield from self._shifted(patch, path)
            patch = {key: sub for key, sub in patch.items() if key not in ("$delete", "$insert")}
        for key, sub in patch.items():
            if key == "$delete":
                for name in map(named, sub if type(sub) is list else [sub]):
                    yield Edit((*path, name), self.take(name, DELETED), MISSING)
            elif type(sub) is dict and "$replace" not in sub and not self._is_new(patch, unescape(key), sub):
                yield from self.inside(sub, (*path, unescape(key)))
            else:
                name = unescape(key)
                yield from became(self.take(name, SET, ADDED), build(sub), (*path, name))

    def _is_new(self, patch: dict[Any, Any], key: Any, sub: dict[Any, Any]) -> bool:
        """Whether an object was put where there was none, rather than merged into what is there."""
        if not self.left or self.left[0][0] not in (SET, ADDED) or str(self.left[0][2]) != str(key):
            return False
        what, target, _, old, _ = self.left[0]
        if what == SET:
            return type(old) not in (dict, list) and not sub
        return str(key) not in map(str, map(unescape, sub)) or _fits(patch, self.given[id(target)])

    def _shifted(self, patch: dict[Any, Any], path: Path) -> Iterator[Edit]:
        """The elements that left an array, by their old index, and those that came, by their new one."""
        moves = {key: patch[key] for key in ("$delete", "$insert") if key in patch}
        if self.left[0][0] == SPLICED:
            yield from edits(self.take(None, SPLICED), moves, path)
            return
        gone: list[int] = []
        for position in moves.get("$delete", ()):
            origin = position
            for other in sorted(gone):
                origin += other <= origin
            gone.append(origin)
            yield Edit((*path, origin), self.take(position, REMOVED), MISSING)
        insertions = moves.get("$insert", ())
        for place, (position, value) in enumerate(insertions):
            self.take(position, INSERTED)
            for later, _ in insertions[place + 1 :]:
                position += later <= position
            yield Edit((*path, position), MISSING, unmarshal(value))


def _fits(patch: dict[Any, Any], given: set[str]) -> bool:
    """Whether a container whose keys were edited so is the one that this patch is of."""
    deleted = patch.get("$delete", [])
    gone = {str(named(name)) for name in (deleted if type(deleted) is list else [deleted])}
    keys = {str(unescape(key)): sub for key, sub in patch.items() if key != "$delete"}
    certain = {key for key, sub in keys.items() if type(sub) is not dict or "$replace" in sub}
    return gone | certain <= given <= gone | set(keys)
