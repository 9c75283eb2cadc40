"""What the requests of a WebSocket do: section 6 of the contract, on the same engine as HTTP."""

from functools import partial
from typing import TYPE_CHECKING

from kantad.engine.engine import Engine
from kantad.engine.proposal import Outcome
from kantad.engine.visible import Visible
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.moment import time_text
from kantad.values.pointer import Path, format, parse
from kantad.values.record import cursor
from kantad.values.view import Shown, View, show
from kantad.web.changes import list_changes, start_of
from kantad.web.parameters import label, moment
from kantad.web.past import PAST, earlier
from kantad.web.reading import MOST_KEYS
from kantad.web.tongue import (
    Changes,
    Get,
    Id,
    Keys,
    Ping,
    Refused,
    Request,
    Subscribe,
    Transact,
    Unsubscribe,
    problem_members,
)
from kantad.web.writing import TransactionRequest, outcome_body, proposal_of

if TYPE_CHECKING:
    from kantad.web.session import Session


class Operations:
    """The operations of one connection."""

    __slots__ = ("engine", "session")

    def __init__(self, engine: Engine, session: "Session") -> None:
        self.engine, self.session = engine, session

    def handle(self, request: Request | Refused) -> None:
        """Do what is asked for, and answer now or later; raises the `Problem` to answer with now."""
        match request:
            case Transact():
                self.transact(request)
            case Get():
                self.read(request, View())
            case Subscribe():
                self.subscribe(request)
            case Keys():
                if not 1 <= request.limit <= MOST_KEYS:
                    raise Problem("invalid_parameter", f"limit is an integer from 1 to {MOST_KEYS}", parameter="limit")
                self.read(request, View("keys", False, request.limit, request.after))
            case Changes():
                self.session.later(request.id, self.changes(request), waits=request.wait > 0)
            case Unsubscribe():
                self.session.subscriptions.stop(request.sub)
                self.session.answer(request.id, b"}")
            case Ping():
                now = self.engine.visible
                self.session.answer(request.id, b'"rev":%d,"cursor":"%b"}' % (now.rev, now.cursor.encode()))
            case Refused():
                self.session.answer(request.id, problem_members(request.problem))

    # -- reading

    def read(self, asked: Get | Keys, view: View) -> None:
        """Answer with what a path shows now, or showed at the revision or moment that is asked for."""
        path = parse(asked.path)
        given = {name: str(value) for name in PAST if (value := getattr(asked, name)) is not None}
        if given:
            self.session.later(asked.id, self._earlier(given, path, view))
            return
        shown, now = self.engine.read(path, partial(show, view=view)), self.engine.visible
        if shown.tag is None:
            raise Problem("not_found", "there is no value at this path", path=format(path))
        self.session.answer(asked.id, _members(view, now, shown))

    async def _earlier(self, given: dict[str, str], path: Path, view: View) -> bytes:
        found = await earlier(self.engine, given, path, view)
        assert found is not None
        return _members(view, Visible(found.rev, found.chain), Shown(found.tag, found.body))

    async def changes(self, asked: Changes) -> bytes:
        """The members of a `changes`' answer."""
        return (await list_changes(self.engine, asked)).members()

    # -- following

    def subscribe(self, asked: Subscribe) -> None:
        """Begin a subscription: at once where it begins now."""
        session = self.session
        session.subscriptions.check_room()
        if asked.order != "asc" or asked.wait:
            raise Problem("invalid_parameter", "order and wait are not for a subscription", parameter="order")
        session.subscriptions.starting += 1
        session.later(asked.id, self._started(asked))

    async def _started(self, asked: Subscribe) -> bytes:
        subscriptions = self.session.subscriptions
        try:
            start = await start_of(self.engine, asked)
        finally:
            subscriptions.starting -= 1
        subscriptions.start(asked, start)
        return b""

    # -- writing

    def transact(self, asked: Transact) -> None:
        """Propose a change; the answer waits for its acknowledgement."""
        engine, session = self.engine, self.session
        special = asked.conditions or asked.dry_run or asked.base is not None or asked.key or asked.want or asked.ack
        if special or engine.policy != "durable":
            return self._propose(asked)
        action = asked.a if asked.a == "transact" else label(asked.a, "a")
        user = None if asked.u is None else label(asked.u, "u")
        try:
            batch = engine.write(parse(asked.path), asked.diff, "patch", action, user, moment(asked.m, "m"))
        except Problem as problem:
            return self._refuse(asked.id, problem)
        if batch is None:
            same = Outcome(engine.rev, engine.chain, engine.micros, False)
            return session.proposed(None, engine.rev, asked.id, encode_json(outcome_body(same))[1:])
        mark = cursor(engine.rev, engine.chain)
        return session.written(batch, session.tongue.written(asked.id, engine.rev, mark, time_text(engine.micros)))

    def _propose(self, asked: Transact) -> None:
        """The general form."""
        engine = self.engine
        proposal = proposal_of(transaction_of(asked), None, engine.foreign)
        try:
            outcome = engine.transact(proposal)
        except Problem as problem:
            return self._refuse(asked.id, problem)
        members = encode_json(outcome_body(outcome, diff=asked.dry_run or asked.want == "diff"))[1:]
        return self.session.proposed(proposal.ack, outcome.rev, asked.id, members)

    def _refuse(self, id: Id, problem: Problem) -> None:
        """Answer with a problem: one that shows state waits for that state to be acknowledged."""
        if not problem.shows_state:
            raise problem
        self.session.proposed(None, self.engine.rev, id, problem_members(problem))


def _members(view: View, now: Visible, shown: Shown) -> bytes:
    """The members of a `get`'s or a `keys`' answer."""
    if view.kind == "keys":
        return shown.body[1:]
    return b'"rev":%d,"cursor":"%b","etag":"%b","value":%b}' % (
        now.rev,
        now.cursor.encode(),
        (shown.tag or "").encode(),
        shown.body,
    )


def transaction_of(asked: Transact) -> TransactionRequest:
    """The same proposal as the body of a `POST /v1/transaction`, where `id` is the idempotency key."""
    return TransactionRequest(
        diff=asked.diff,
        a=asked.a,
        u=asked.u,
        path=asked.path,
        base=asked.base,
        id=asked.key,
        m=asked.m,
        ack=asked.ack,
        conditions=asked.conditions,
        dry_run=asked.dry_run,
        want=asked.want,
    )
