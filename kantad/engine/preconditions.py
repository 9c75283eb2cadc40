"""The preconditions of a proposal, checked in the same synchronous step as the change.

A refusal carries what a retry needs (revision, etag, and the value up to 64 KiB), so that it
needs no read.
"""

from typing import Any, Final

from kantad.engine.past import Past
from kantad.engine.proposal import Proposal
from kantad.values.content import MISSING, encode_json, etag
from kantad.values.errors import Problem
from kantad.values.pointer import Path, format, lookup, overlap
from kantad.values.record import cursor
from kantad.values.touch import meets, touched

SHOWN_VALUE: Final = 64 << 10  # bytes of JSON
MOST_LISTED: Final = 100  # conflicting changes


def check(proposal: Proposal, root: Any, past: Past) -> None:
    """Raise `Problem` `precondition_failed` or `conflict` where a condition does not hold."""
    if proposal.conditions:
        _check_conditions(proposal, root, past)
    if proposal.base is not None:
        _check_base(proposal, proposal.base, root, past)


def _check_conditions(proposal: Proposal, root: Any, past: Past) -> None:
    failed = []
    for condition in proposal.conditions:
        why = condition.fails(root)
        if why is None and condition.unchanged_since is not None:
            rev = past.verified(condition.unchanged_since, "unchanged_since")
            if any(meets(change.diff, condition.path) for change in past.changes_after(rev)):
                why = f"the value changed after revision {rev}"
        if why is not None:
            failed.append({"path": format(condition.path), "reason": why, **_shown(root, condition.path)})
    if failed:
        raise Problem(
            "precondition_failed", failed[0]["reason"], **at_present(root, past, proposal.path), failed=failed
        )


def _check_base(proposal: Proposal, base: str | int, root: Any, past: Past) -> None:
    rev = past.verified(base, "base")
    if rev == past.present[0]:
        return
    mine = proposal.touches()
    conflicts = []
    for change in past.changes_after(rev):
        place = next((path for path in touched(change.diff) if any(overlap(path, own) for own in mine)), None)
        if place is not None:
            user = {} if change.u is None else {"u": change.u}
            conflicts.append({"rev": change.rev, "a": change.a, **user, "path": format(place)})
    if conflicts:
        detail = f"{len(conflicts)} change(s) after revision {rev} touched what this write touches"
        listed = conflicts[:MOST_LISTED]
        raise Problem("conflict", detail, conflicts=listed, **at_present(root, past, proposal.path))


def at_present(root: Any, past: Past, path: Path) -> dict[str, Any]:
    """What a retry needs to know of a path: the revision, and the value there with its etag."""
    rev, chain = past.present
    return {"path": format(path), "rev": rev, "cursor": cursor(rev, chain), **_shown(root, path)}


def _shown(root: Any, path: Path) -> dict[str, Any]:
    value = lookup(root, path)
    if value is MISSING:
        return {"exists": False}
    shown: dict[str, Any] = {"exists": True, "etag": etag(value)}
    if len(encode_json(value)) <= SHOWN_VALUE:
        shown["value"] = value
    return shown
