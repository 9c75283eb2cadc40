"""`GET /v1/changes` as a listing, and what all feeds of changes are asked with.

A listing goes through the log a portion at a time and gives way in between. It stops at its limit,
at a bound of bytes or after two seconds, whichever comes first, and then says where to go on.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, Literal, NamedTuple

import msgspec

from kantad.engine import since as place
from kantad.engine.engine import Engine
from kantad.engine.filter import Filter
from kantad.values.errors import Problem
from kantad.values.moment import micros_of, parse_time
from kantad.values.pointer import parse
from kantad.values.record import cursor, label, parse_cursor
from kantad.web.misfit import misfit
from kantad.web.parameters import count, parse_query, seconds

MOST_WAIT: Final = 60.0
MOST_CHANGES: Final = 10_000  # of one listing, or of a feed that is to end
MOST_BYTES: Final = 8 << 20  # of one listing
MOST_SECONDS: Final = 2.0  # of going through the log for one listing
SLICE: Final = 0.004  # seconds between two looks at everything else

Turn = Callable[[], AbstractAsyncContextManager[None]]

PARAMETERS: Final = (
    "since",
    "until",
    "limit",
    "order",
    "path",
    "action",
    "user",
    "from",
    "to",
    "wait",
    "value",
)


class Asked(msgspec.Struct, kw_only=True, rename={"start": "from", "stop": "to"}):
    """The parameters of section 5 of the contract, of a query or of a WebSocket request."""

    since: int | str | None = None
    until: int | str | None = None
    limit: int | None = None
    order: Literal["asc", "desc"] = "asc"
    path: str = ""
    action: str | None = None
    user: str | None = None
    start: str | None = None
    stop: str | None = None
    wait: float = 0.0
    value: bool = False

    def filter(self) -> Filter:
        """What the changes must be; raises `Problem`, also for a limit that is none."""
        if self.limit is not None:
            count(str(self.limit), "limit", 1, MOST_CHANGES)
        return Filter(
            parse(self.path),
            None if self.action is None else label(self.action, "action"),
            None if self.user is None else label(self.user, "user"),
            None if self.start is None else micros_of(parse_time(self.start, "from")),
            None if self.stop is None else micros_of(parse_time(self.stop, "to")),
        )


def asked_of(query: str) -> Asked:
    """The parameters of a query string; raises `Problem("invalid_parameter")`."""
    given = parse_query(query, PARAMETERS)
    count(given.get("limit"), "limit", 1, MOST_CHANGES)
    seconds(given.get("wait"), "wait", MOST_WAIT)
    try:
        return msgspec.convert(given, Asked, strict=False)
    except msgspec.ValidationError as error:
        raise misfit(error, query=True) from None


def only(asked: Asked, where: str, **defaults: Any) -> None:
    """Refuse parameters that mean nothing here: each must be as given."""
    for name, default in defaults.items():
        if getattr(asked, name) != default:
            raise Problem("invalid_parameter", f"{name} is not for {where}", parameter=name)


class Listing:
    """The answer of `changes`: records as JSON text, and where to go on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tails: list[bytes] = []
        self.rev = engine.written.rev  # the present one when it was last looked for changes
        self.next: str | None = None

    def members(self) -> bytes:
        """The members of the answer as JSON text, without the opening brace."""
        following = b"null" if self.next is None else b'"%b"' % self.next.encode()
        return b'"changes":[%b],"rev":%d,"oldest":%d,"next":%b}' % (
            b",".join([b"{" + tail for tail in self.tails]),
            self.rev,
            self.engine.backlog.oldest,
            following,
        )


async def list_changes(engine: Engine, asked: Asked, turn: Turn = nullcontext) -> Listing:
    """The changes that are asked for; holds the answer for `wait` seconds while there is none. Raises `Problem`.

    Going through the log is done in a `turn`; what was found is to be sent in the step that ends it.
    """
    only(asked, "a listing", value=False)
    if not 0 <= asked.wait <= MOST_WAIT:
        raise Problem("invalid_parameter", f"wait is a number of seconds from 0 to {MOST_WAIT:.0f}", parameter="wait")
    if asked.wait and asked.order == "desc":
        raise Problem("invalid_parameter", "wait goes with the order asc", parameter="wait")
    filter, limit = asked.filter(), asked.limit or 100
    oldest = engine.backlog.oldest
    low = oldest if asked.since is None else await place.position(engine, asked.since)
    listing = Listing(engine)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + asked.wait
    while True:
        listing.rev = engine.written.rev
        high = await last_of(engine, asked.until)
        listing.rev = max(listing.rev, high)  # an `until` may have been waited for
        if asked.order == "desc":
            async with turn():
                await _walk(listing, filter, limit, range(high, low, -1))
            return listing
        async with turn():
            await _walk(listing, filter, limit, range(low + 1, high + 1))
        left = deadline - loop.time()
        if listing.tails or listing.next or left <= 0 or engine.stopping or high < listing.rev:
            return listing
        low = max(low, high)
        if engine.written.rev == high and not await engine.waiting.change(left):
            return listing


async def last_of(engine: Engine, until: int | str | None) -> int:
    """The last revision of a listing; raises `Problem` for a cursor of another history."""
    newest = engine.written.rev
    if until is None or _is_ahead(str(until), newest):
        return newest
    try:
        return await place.position(engine, until, "until")
    except Problem as problem:
        if problem.code != "history_gone":
            raise
        return engine.backlog.oldest  # nothing is left of what was asked for


def _is_ahead(text: str, newest: int) -> bool:
    """Whether this is a plain revision that is not reached yet, however far away."""
    return text.isascii() and text.isdigit() and parse_cursor(text, "until")[0] > newest


async def _walk(listing: Listing, filter: Filter, limit: int, revs: range) -> None:
    """Collect the changes among these revisions, and note where to go on if they are too many.

    Where the log is damaged on the way, what was collected up to there is given; going on from there is refused.
    """
    feeds, loop = listing.engine.feeds, asyncio.get_running_loop()
    stop = loop.time() + MOST_SECONDS
    until = loop.time() + SLICE
    size = 0
    for rev in revs:
        try:
            tail = await feeds.clear_tail(filter, rev, await feeds.payload(rev))
        except Problem as problem:
            if problem.code != "history_gone" or rev == revs[0]:
                raise
            listing.next = await _following(listing.engine, rev - 1 if revs.step > 0 else rev)
            return
        if tail is not None:
            listing.tails.append(tail)
            size += len(tail)
        now = loop.time()
        if len(listing.tails) == limit or size > MOST_BYTES or now > stop:
            if rev != revs[-1]:
                listing.next = await _following(listing.engine, rev if revs.step > 0 else rev - 1)
            return
        if now > until:
            await asyncio.sleep(0)
            until = loop.time() + SLICE


async def _following(engine: Engine, rev: int) -> str:
    """The cursor of a revision; the bare revision where the log is damaged there."""
    try:
        return await _cursor(engine, rev)
    except Problem as problem:
        if problem.code != "history_gone":
            raise
        return str(rev)


async def _cursor(engine: Engine, rev: int) -> str:
    return cursor(rev, await place.chain_at(engine, rev))


class Start(NamedTuple):
    """Where a feed begins: at a revision, or (None) now; with the whole value, because of a `reset` perhaps."""

    filter: Filter
    rev: int | None
    cursor: str | None
    until: int | None
    whole: bool
    reset: bool

    def position(self, engine: Engine) -> int:
        """The revision behind which the changes are sent."""
        return engine.written.rev if self.rev is None else self.rev


async def start_of(engine: Engine, asked: Asked, name: str = "since") -> Start:
    """Where the feed that is asked for begins; raises `Problem`. `name` is what told its `since`."""
    filter = asked.filter()
    until: int | None = None
    if asked.until is not None:
        if place.is_time(asked.until):
            raise Problem("invalid_parameter", "the until of a feed is a revision; to takes a time", parameter="until")
        plain = str(asked.until).isdigit()  # a revision may be still to come
        until = parse_cursor(asked.until, "until")[0] if plain else await place.position(engine, asked.until, "until")
    if asked.since is None:
        return Start(filter, None, None, until, asked.value, False)
    try:
        rev = await place.position(engine, asked.since, name)
        return Start(filter, rev, await _cursor(engine, rev), until, False, False)
    except Problem as problem:
        if problem.code != "history_gone" or not asked.value:
            raise
        return Start(filter, None, None, until, True, True)
