"""What a writer asks for and what comes of it: the general form of every write.

The edges build a `Proposal` from a request; `Engine.transact` answers with an `Outcome` or raises
`Problem`. A proposal's `edit` is the request's own language (put, patch, ...): `narrowed` turns it
into the canonical patch of the root. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal

from kantad.values.content import MISSING, check, copied, equal
from kantad.values.diff import SAME
from kantad.values.effect import SAFE, assignment, effect, locate, removal, rooted
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.identifier import time_ordered_key
from kantad.values.patch import escape, marshal
from kantad.values.pointer import Path, format, lookup
from kantad.values.schema import Schema
from kantad.values.touch import Tree, rooted_at, tree_of, tree_of_merge, tree_of_paths
from kantad.values.translate import json_patch, merge_patch, operation_paths

Edit = Literal["put", "patch", "merge", "json-patch", "delete", "post", "revert"]
Ack = Literal["durable", "written", "applied"]
ACKS: tuple[Ack, ...] = ("durable", "written", "applied")


@dataclass(slots=True)
class Condition:
    """One precondition on the value at a path; members left at MISSING or None do not matter."""

    path: Path
    equals: Any = MISSING
    exists: bool | None = None
    etags: tuple[str, ...] | None = None
    not_etags: tuple[str, ...] | None = None
    unchanged_since: str | int | None = None

    def fails(self, value: Any, tag: Callable[[Any], str] = etag) -> str | None:
        """Why the condition does not hold for the value at its path, or None (`unchanged_since` is the engine's)."""
        if self.exists is not None and (value is not MISSING) is not self.exists:
            return "there is no value" if self.exists else "there is a value"
        if self.equals is not MISSING and (value is MISSING or not equal(value, self.equals)):
            return "the value is not equal"
        if self.etags is not None and (value is MISSING or tag(value) not in self.etags):
            return "the etag does not match"
        if self.not_etags is not None and value is not MISSING and tag(value) in self.not_etags:
            return "the etag matches"
        return None


@dataclass(slots=True)
class Looked:
    """What was learnt beforehand of the changes up to `rev`, which are too many to be read in the step of the write.

    `conflicts` are those with `base`, `changed` the conditions (by their place in the request) that
    do not hold, `verified` the cursors that are of this history, `seen` the diff of the first answer.
    """

    rev: int = 0
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    verified: set[str | int] = field(default_factory=set)
    seen: Any = None


@dataclass(slots=True)
class Proposal:
    """A proposed change. `key` is the idempotency key, `base` a revision or cursor.

    The body of a `revert` is the former value, or MISSING; `to` is the revision or cursor that was asked for.
    """

    path: Path
    edit: Edit
    body: Any = None
    action: str = "patch"
    user: str | None = None
    m: int | None = None
    base: str | int | None = None
    key: str | None = None
    conditions: tuple[Condition, ...] = ()
    ack: Ack | None = None
    dry_run: bool = False
    want_diff: bool = False
    foreign: bool = False
    must_exist: bool = False
    to: str | int | None = None
    looked: "Looked | None" = None

    def identity(self) -> tuple[Any, ...]:
        """All that makes two requests the same one."""
        conditions = [
            [c.path, None if c.equals is MISSING else [c.equals], c.exists, c.etags, c.not_etags, c.unchanged_since]
            for c in self.conditions
        ]
        body = self.to if self.edit == "revert" else self.body
        return self.edit, self.path, body, self.action, self.user, self.m, self.base, conditions, self.must_exist

    def touches(self) -> Tree | None:
        """What the request is about, for `base`: what touches it, or something above or below, is a conflict."""
        match self.edit:
            case "patch":
                return rooted_at(self.path, tree_of(self.body))
            case "merge":
                return rooted_at(self.path, tree_of_merge(self.body))
            case "json-patch":
                return tree_of_paths(operation_paths(self.body, self.path))
            case _:
                return rooted_at(self.path, None)


def identity_of_patch(path: Path, patch: Any, action: str, user: str | None) -> tuple[Any, ...]:
    """The `Proposal.identity` of a patch with an action and a user, and nothing else."""
    return "patch", path, patch, action, user, None, None, (), False


@dataclass(slots=True)
class Outcome:
    """What a transaction came to; where nothing changed, `rev`, `chain` and `micros` are the present ones."""

    rev: int
    chain: bytes
    micros: int
    changed: bool
    replayed: bool = False
    diff: Any = None
    child: Path | None = None  # of a `post`: the path of what it added


def narrowed(proposal: Proposal, root: dict[str, Any], max_depth: int, micros: int) -> tuple[Any, Path | None]:
    """The canonical patch of the root (or SAME) that a proposal amounts to, and a new child's path.

    Raises `Problem`; the state is not touched.
    """
    path, edit = proposal.path, proposal.edit
    if (proposal.must_exist or edit == "delete") and lookup(root, path) is MISSING:
        raise Problem("not_found", "there is no value at this path", path=format(path))
    gone = edit == "revert" and proposal.body is MISSING
    if gone and lookup(root, path) is MISSING:
        return SAME, None
    steps, old = locate(root, path)
    if edit == "delete" or gone:
        return removal(steps), None
    room = max_depth - len(path)
    try:
        if edit in ("put", "revert"):
            sub = _put(proposal, steps, old, room)
        elif edit == "patch":
            sub = effect(old, proposal.body, room, proposal.foreign)
        elif edit == "merge":
            sub = merge_patch(old, proposal.body, room, proposal.foreign)
        elif edit == "json-patch":
            sub = json_patch(old, proposal.body, room, proposal.foreign)
        else:
            return _post(proposal, steps, old, room, micros)
    except Problem as problem:
        raise _under(problem, path) from None
    if sub is SAME:
        return SAME, None
    if path:
        return rooted(steps, sub), None
    if not _makes_object(sub):
        raise _not_object()
    return sub, None


def _makes_object(patch: Any) -> bool:
    """Whether a canonical patch of the root leaves it an object."""
    return type(patch) is dict and type(patch.get("$replace", patch)) is dict


def one_member(
    root: dict[str, Any], path: Path, patch: Any, schema: Schema | None = None
) -> tuple[dict[Any, Any], str, Any, Any] | None:
    """Where a patch does nothing but assign a scalar to a member that is there: the object, key, old and new value.

    The commonest write; the new value is what is stored of it. None where it is anything else, or what is stored is not
    told at once; then nothing is said of it.
    """
    if type(patch) is not dict or len(patch) != 1:
        return None
    target: Any = root
    try:
        for segment in path:
            target = target[segment]
        (key,) = patch
        old = target[key]
    except (KeyError, TypeError, IndexError):
        return None
    if type(target) is not dict or type(key) is not str or "$" in key:
        return None
    value = patch[key]
    kind = type(value)
    plain = -SAFE < value < SAFE if kind is int else "$" not in value if kind is str else kind in (bool, NoneType)
    if plain and schema is not None:
        value = schema.kept(root, path, target, key, value)
    return (target, key, old, value) if plain and value is not MISSING else None


def written(
    root: dict[str, Any], path: Path, body: Any, put: bool, max_depth: int, foreign: bool
) -> tuple[dict[Any, Any] | None, Any]:
    """What a `put` or `patch` amounts to: the object at the path and its patch (or SAME); or None and that of the root.

    Which is what `narrowed` gives. An object at the end of a path through objects only is the short way.
    """
    found = None if put else one_member(root, path, body)
    if found is not None:
        target, _, before, value = found
        return (None, SAME) if before == value and type(before) is type(value) else (target, body)
    old: Any = root
    try:
        for segment in path:
            old = old[segment]
    except (KeyError, TypeError):  # through arrays or foreign keys, or to nothing
        return None, narrowed(Proposal(path, "put" if put else "patch", body, foreign=foreign), root, max_depth, 0)[0]
    try:
        room = max_depth - len(path)
        sub = assignment(old, body, room, foreign) if put else effect(old, body, room, foreign)
    except Problem as problem:
        raise _under(problem, path) from None
    if sub is SAME:
        return None, SAME
    if not path and not _makes_object(sub):
        raise _not_object()
    if type(old) is dict and type(sub) is dict and "$replace" not in sub:
        return old, sub
    for segment in reversed(path):
        sub = {escape(segment): sub}
    return None, sub


def _not_object() -> Problem:
    return Problem("invalid_value", "the root is an object", path="")


def _under(problem: Problem, path: Path) -> Problem:
    """The problem with its path told from the root."""
    if problem.code in ("precondition_failed", "patch_mismatch") and "path" in problem.more:
        problem.more["path"] = format(path) + problem.more["path"]
    elif "path" not in problem.more:
        problem.keys[:0] = path
        if not problem.keys:
            problem.more["path"] = ""
    return problem


def _put(proposal: Proposal, steps: list[tuple[Any, Any]], old: Any, room: int) -> Any:
    if not proposal.path and type(proposal.body) is not dict:
        raise _not_object()
    return assignment(old, proposal.body, room, proposal.foreign)


def _post(proposal: Proposal, steps: list[tuple[Any, Any]], old: Any, room: int, micros: int) -> tuple[Any, Path]:
    check(proposal.body, room - 1, proposal.foreign)
    value = marshal(copied(proposal.body))
    path = tuple(str(len(each)) if type(each) is list and key == "-" else str(key) for each, key in steps)
    if type(old) is list:
        return rooted([*steps, (old, "-")], value), (*path, str(len(old)))
    past_the_end = old is MISSING and bool(steps) and type(steps[-1][0]) is list
    if past_the_end or (old is not MISSING and type(old) is not dict):
        raise Problem("patch_mismatch", "a child can be added to an object or an array")
    child = time_ordered_key(micros)
    return rooted([*steps, (old, child)], value), (*path, child)
