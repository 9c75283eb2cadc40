"""The preconditions of a proposal, checked in the same synchronous step as the change.

A refusal carries what a retry needs (revision, etag, and the value up to 64 KiB), so that it
needs no read. What lies too far back to be read in one step is looked through beforehand:
`look_back`, which the edges await where `looks_back` says so.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from kantad.engine import since
from kantad.engine.past import Past
from kantad.engine.proposal import Looked, Outcome, Proposal
from kantad.engine.requests import Seen, added_child, child_in_outline
from kantad.store.history import Logged
from kantad.values.content import MISSING, encode_json
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.pointer import Path, format, lookup
from kantad.values.record import Change, cursor, parse_cursor
from kantad.values.touch import Tree, Watch, meeting

if TYPE_CHECKING:
    from kantad.engine.engine import Engine

SHOWN_VALUE: Final = 64 << 10  # bytes of JSON
SHOWN_TOGETHER: Final = 1 << 20  # bytes of JSON, all values of a refusal
MOST_LISTED: Final = 100  # conflicting changes
MOST_TOLD: Final = 200  # characters of a path in a text
NEAR: Final = 1000  # changes that are looked through in the step of the write, as far as the ring holds them
SLICE: Final = 0.004  # seconds of looking back between two looks at everything else


def check(proposal: Proposal, root: Any, past: Past) -> None:
    """Raise `Problem` `precondition_failed` or `conflict` where a condition does not hold."""
    looked, present = proposal.looked or Looked(), Present(root)
    if proposal.conditions:
        _check_conditions(proposal, looked, present, past)
    if proposal.base is not None:
        _check_base(proposal, proposal.base, looked, present, past)


class Present:
    """The values of this moment: each is hashed and measured once, however many conditions ask for it."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.left = SHOWN_TOGETHER
        self._tags: dict[int, str] = {}
        self._sizes: dict[int, int] = {}

    def tag(self, value: Any) -> str:
        """The etag of a value of the state."""
        known = self._tags.get(id(value))
        if known is None:
            known = self._tags[id(value)] = etag(value)
        return known

    def shown(self, path: Path) -> dict[str, Any]:
        """What a refusal tells of a path; the value is left out where it is large, and when there is no more room."""
        value = lookup(self.root, path)
        if value is MISSING:
            return {"exists": False}
        shown: dict[str, Any] = {"exists": True, "etag": self.tag(value)}
        size = self._sizes.get(id(value))
        if size is None:
            size = self._sizes[id(value)] = len(encode_json(value))
        if size <= min(SHOWN_VALUE, self.left):
            self.left -= size
            shown["value"] = value
        return shown


def at_present(past: Past, present: Present, path: Path) -> dict[str, Any]:
    """What a retry needs to know of a path: the revision, and the value there with its etag."""
    rev, chain = past.present
    return {"path": format(path), "rev": rev, "cursor": cursor(rev, chain), **present.shown(path)}


def _check_conditions(proposal: Proposal, looked: Looked, present: Present, past: Past) -> None:
    reasons = [each.fails(lookup(present.root, each.path), present.tag) for each in proposal.conditions]
    marks = {
        number: _verified(each.unchanged_since, "unchanged_since", looked, past)
        for number, each in enumerate(proposal.conditions)
        if reasons[number] is None and each.unchanged_since is not None
    }
    for number in _changed_since(marks, proposal, looked, past):
        reasons[number] = f"the value changed after revision {marks[number]}"
    failed = [(each.path, why) for each, why in zip(proposal.conditions, reasons, strict=True) if why is not None]
    if failed:
        members = at_present(past, present, proposal.path)
        named = [{"path": format(path), "reason": why, **present.shown(path)} for path, why in failed]
        raise Problem("precondition_failed", _told(failed), **members, failed=named)


def _told(failed: list[tuple[Path, str]]) -> str:
    """The first condition that does not hold, with its path: that of the write, which the refusal shows, is another."""
    path, why = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f'{why}, at "{format(path)[:MOST_TOLD]}"{more}'


def _changed_since(marks: dict[int, int], proposal: Proposal, looked: Looked, past: Past) -> set[int]:
    """Which of these conditions (number: revision) are on paths that a later change touched."""
    found = looked.changed & marks.keys()
    left = {number: max(mark, looked.rev) for number, mark in marks.items() if number not in found}
    if left:
        watched = _Watched(proposal, left)
        for change in past.changes_after(min(left.values())):
            found |= set(watched.take(change.rev, change.diff))
    return found


class _Watched:
    """The paths of conditions (number: revision), each held against the changes after its revision, in their order."""

    def __init__(self, proposal: Proposal, marks: dict[int, int]) -> None:
        self.proposal, self.watch, self.left = proposal, Watch(), len(marks)
        self.later = sorted(((mark, number) for number, mark in marks.items()), reverse=True)

    def take(self, rev: int, diff: Any) -> list[int]:
        """The conditions that the change of a revision is the first to touch."""
        while self.later and self.later[-1][0] < rev:
            number = self.later.pop()[1]
            self.watch.add(self.proposal.conditions[number].path, number)
        found = self.watch.take(diff)
        self.left -= len(found)
        return found


def _check_base(proposal: Proposal, base: str | int, looked: Looked, present: Present, past: Past) -> None:
    rev = _verified(base, "base", looked, past)
    if rev == past.present[0]:
        return
    mine = proposal.touches()
    conflicts = [*looked.conflicts, *_conflicts(past.changes_after(max(rev, looked.rev)), mine)]
    if conflicts:
        some = f"at least {MOST_LISTED}" if len(conflicts) >= MOST_LISTED else str(len(conflicts))
        detail = f"{some} change(s) after revision {rev} touched what this write touches"
        members = at_present(past, present, proposal.path)
        raise Problem("conflict", detail, conflicts=conflicts[:MOST_LISTED], **members)


def _verified(mark: str | int, name: str, looked: Looked, past: Past) -> int:
    return parse_cursor(mark, name)[0] if mark in looked.verified else past.verified(mark, name)


def _conflicts(changes: Iterable[Logged], mine: Tree | None) -> Iterator[dict[str, Any]]:
    for change in changes:
        place = meeting(mine, change.diff)
        if place is not None:
            user = {} if change.u is None else {"u": change.u}
            yield {"rev": change.rev, "a": change.a, **user, "path": format(place)}


# -- a repeated request


def replayed(engine: "Engine", seen: Seen, proposal: Proposal) -> Outcome:
    """The first answer to a request again, with what of it is to be looked up in the record, while that is held."""
    child, diff = seen.child, None
    made_child = child is None and proposal.edit == "post"
    if seen.changed and seen.rev <= engine.past.oldest:
        child = child_in_outline(seen.outline, proposal.path) if made_child else child
    elif seen.changed and (made_child or proposal.want_diff):
        looked = proposal.looked
        diff = looked.seen if looked is not None else engine.past_now().changes_after(seen.rev - 1)[0].diff
        if made_child:
            child = added_child(diff, proposal.path)
    return Outcome(seen.rev, seen.chain, seen.micros, seen.changed, True, diff, child)


# -- what is too much for one step


def looks_back(engine: "Engine", proposal: Proposal) -> bool:
    """Whether `look_back` is to be awaited before this proposal is transacted."""
    seen = engine.window.peek(proposal.key)
    if seen is not None and not proposal.dry_run:
        told = proposal.want_diff or (proposal.edit == "post" and seen.child is None)
        return seen.changed and told and engine.past.oldest < seen.rev < engine.past.ring.first
    far = _far(engine)
    return any(engine.past.oldest <= parse_cursor(mark, name)[0] < far for name, mark in _marks(proposal))


def _far(engine: "Engine") -> int:
    """The revision behind which changes are looked through in one step: at most `NEAR`, and what the ring holds.

    Its own record is in the ring, too: a cursor is verified by it.
    """
    return max(engine.written.rev - NEAR, min(engine.past.ring.first, engine.written.rev))


async def look_back(engine: "Engine", proposal: Proposal) -> None:
    """Learn what a proposal must know of changes long ago, without holding anybody up; raises `Problem`.

    What is left when this returns is little: transact the proposal in the same step.
    """
    seen = engine.window.peek(proposal.key)
    if seen is not None and not proposal.dry_run:
        try:
            record = engine.log.codec.decode(await engine.feeds.payload(seen.rev), Change)
        except Problem:
            if seen.rev > engine.past.oldest:  # else it was cut off meanwhile, and is answered without
                raise
            return
        proposal.looked = Looked(seen=record.diff)
        return
    search = _Search(proposal)
    for name, mark in _marks(proposal):
        if parse_cursor(mark, name)[0] <= engine.written.rev:
            await since.position(engine, mark, name)
            search.looked.verified.add(mark)
    loop = asyncio.get_running_loop()
    until = loop.time() + SLICE
    rev = search.first
    while rev < _far(engine) and not search.is_over():
        rev += 1
        search.take(rev, engine.log.codec.decode(await engine.feeds.payload(rev), Change))
        if loop.time() > until:
            await asyncio.sleep(0)
            until = loop.time() + SLICE
    search.looked.rev = engine.written.rev if search.is_over() else rev
    proposal.looked = search.looked


def _marks(proposal: Proposal) -> list[tuple[str, str | int]]:
    """The revisions and cursors that a proposal's preconditions begin at, each with the name of its parameter."""
    given = [("base", proposal.base), *(("unchanged_since", each.unchanged_since) for each in proposal.conditions)]
    return [(name, mark) for name, mark in given if mark is not None]


class _Search:
    """A proposal's `base` and `unchanged_since`, held against one change after another."""

    def __init__(self, proposal: Proposal) -> None:
        self.looked = Looked()
        self.base = None if proposal.base is None else parse_cursor(proposal.base, "base")[0]
        self.mine = None if proposal.base is None else proposal.touches()
        marks = {
            number: parse_cursor(each.unchanged_since, "unchanged_since")[0]
            for number, each in enumerate(proposal.conditions)
            if each.unchanged_since is not None
        }
        self.watched = _Watched(proposal, marks)
        self.first = min(parse_cursor(mark, name)[0] for name, mark in _marks(proposal))

    def take(self, rev: int, record: Change) -> None:
        """Look at the change of a revision."""
        if self.base is not None and rev > self.base:
            self.looked.conflicts += _conflicts([Logged(rev, record.a, record.u, record.diff)], self.mine)
        self.looked.changed.update(self.watched.take(rev, record.diff))

    def is_over(self) -> bool:
        """Whether what is still to come makes no difference."""
        return not self.watched.left and (self.base is None or len(self.looked.conflicts) >= MOST_LISTED)
