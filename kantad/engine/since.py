"""Where a `since` or an `until` leads: a revision, a cursor or a time to a place in the log.

A cursor is verified against the chain, wherever in the log it is; a time is found by bisection over
blocks of the file. Reading goes through the backlog, so the loop is never held up.
"""

from typing import TYPE_CHECKING

from kantad.engine.backlog import gone
from kantad.engine.filter import Labels
from kantad.store.history import Anchor
from kantad.values.errors import Problem
from kantad.values.moment import micros_of, parse_time
from kantad.values.record import parse_cursor
from kantad.values.view import BARE

if TYPE_CHECKING:
    from kantad.engine.engine import Engine


async def position(engine: "Engine", given: str | int, name: str = "since") -> int:
    """The revision that a revision, cursor or RFC 3339 time names, which readers may know and the log holds.

    Raises `Problem`: `history_diverged` for what is not of this history or ahead of it, `history_gone`.
    """
    if is_time(given):
        return await at(engine, micros_of(parse_time(str(given), name)))
    try:
        rev, digits = parse_cursor(given, name)
    except Problem:
        raise Problem("invalid_parameter", f"{name} is a revision, a cursor or a time", parameter=name) from None
    if engine.written.rev < rev <= engine.rev:  # told to its writer before it was safe
        await engine.settled("written" if engine.policy == "applied" else None, rev)
    if rev > engine.written.rev:
        now = engine.written.rev
        raise Problem("history_diverged", f"{name} is ahead of this database, which is at revision {now}", rev=now)
    if rev < engine.backlog.oldest:
        raise gone(engine.backlog.oldest)
    if digits is not None and (await chain_at(engine, rev)).hex() != digits:
        raise Problem("history_diverged", f"{name} is not a cursor of this history")
    return rev


def is_time(given: str | int) -> bool:
    """Whether it is written as a time: revisions and cursors have no colon."""
    return type(given) is str and ":" in given


async def chain_at(engine: "Engine", rev: int) -> bytes:
    """The chain at a held revision; raises `Problem("history_gone")` where the log is damaged there."""
    if rev == engine.written.rev:
        return engine.written.chain
    for part in engine.backlog.index.parts:  # what begins behind damage begins here
        begin: Anchor = part.anchors[0]
        if rev == begin.rev and begin.chain is not None:
            return begin.chain
    if rev == engine.backlog.oldest:  # the snapshot that the log begins with says it
        return (await engine.former.show(rev, ("",), BARE)).chain
    return engine.log.codec.chain_in(await engine.feeds.payload(rev))


async def at(engine: "Engine", micros: int) -> int:
    """The last revision that is not after a time; raises `Problem("history_gone")` before the oldest one held."""
    decode = engine.log.codec.decoder(Labels)
    if micros >= engine.micros:
        return engine.written.rev

    async def time_of(rev: int) -> int:
        return micros_of(decode(await engine.feeds.payload(rev)).ts)

    low, high = engine.backlog.oldest, engine.written.rev  # low is not after it, what is behind high is
    middle = engine.backlog.index.parts[0].last + 1  # what may be damaged stands before it
    while low < high:
        middle = middle if low < middle <= high else (low + high + 1) // 2
        if await time_of(middle) <= micros:
            low = middle
        else:
            high = middle - 1
    if low == engine.backlog.oldest and low > 0:
        await engine.former.revision_at(micros)  # which raises where the log begins after it
    return low
