"""What the requests of a WebSocket do: section 6 of the contract, on the same engine as HTTP."""

from functools import partial
from typing import TYPE_CHECKING

from kantad.engine.engine import Engine
from kantad.engine.lane import write_all
from kantad.engine.pending import Batch
from kantad.engine.preconditions import look_back, looks_back
from kantad.engine.proposal import Outcome, Proposal, identity_of_patch
from kantad.engine.visible import Visible
from kantad.values.content import encode_json
from kantad.values.errors import Problem
from kantad.values.moment import time_text
from kantad.values.pointer import Path, format
from kantad.values.record import label
from kantad.values.view import Shown, View, show
from kantad.web.changes import list_changes, only, start_of
from kantad.web.parameters import idempotency_key
from kantad.web.past import PAST, earlier
from kantad.web.reading import MOST_KEYS, members_answer
from kantad.web.tongue import (
    Changes,
    Get,
    Id,
    Keys,
    Ping,
    Plain,
    Refused,
    Request,
    Subscribe,
    Transact,
    Unsubscribe,
    problem_members,
)
from kantad.web.writing import TransactionRequest, outcome_body, proposal_of

WHOLE = View()

if TYPE_CHECKING:
    from kantad.web.session import Session


class Operations:
    """The operations of one connection."""

    __slots__ = ("engine", "prepared", "session")

    def __init__(self, engine: Engine, session: "Session") -> None:
        self.engine, self.session = engine, session
        self.prepared: Proposal | Problem | None = None  # the next request's, after it has looked back

    def handle_all(self, requests: list[Request | Refused]) -> int:
        """Handle requests in order, plain writes that stand together in one step; returns how many.

        A write that must look back at the log first is where it stops, to be handed in again when
        the session goes on: nothing behind it may overtake it. So are answers enough for one message.
        """
        lane: list[Plain | Transact] = [request for request in requests if type(request) is Plain]
        if len(lane) == len(requests) and self.engine.policy == "durable":
            self.write_all(lane)
            return len(requests)
        lane.clear()
        for place, request in enumerate(requests):
            if isinstance(request, Plain | Transact) and self._is_plain(request):
                lane.append(request)
                continue
            if isinstance(request, Plain):
                request = request.whole()
            if lane:
                self.write_all(lane)
                lane = []
            try:
                if type(request) is not Transact:
                    self.handle(request)
                elif not self.transact(request):
                    return place
            except Problem as problem:
                self.session.answer(None if type(request) is Refused else request.id, problem_members(problem))
            if self.session.parcel is not None and self.session.parcel.full:
                return place + 1
        if lane:
            self.write_all(lane)
        return len(requests)

    def handle_one(self, request: Request | Refused) -> bool:
        """Handle the one request of a message; False, with nothing done, where it is not a plain one."""
        session, engine = self.session, self.engine
        if type(request) is Plain or type(request) is Transact:
            if not self._is_plain(request) or request.u is not None or engine.window.peek(request.key) is not None:
                return False
            try:
                batch = self.write_one(request)
            except Problem as problem:
                if problem.shows_state:
                    return False  # once more, with its answer in line
                session.answer(request.id, problem_members(problem))
                return True
            if batch is None:
                return False
            change = batch.changes[-1]
            pieces = session.tongue.written([request], [change], time_text(engine.micros))
            batch.answers.append((session, session.tongue.message(pieces)))
            session.under_way += 1
            return True
        try:
            self.handle(request)
        except Problem as problem:
            session.answer(None if type(request) is Refused else request.id, problem_members(problem))
        return True

    def handle(self, request: Request | Refused) -> None:
        """Do what is asked for (a write apart), and answer now or later; raises the `Problem` to answer with now."""
        match request:
            case Get():
                self.read(request, WHOLE)
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
        path = self.engine.places.of(asked.path)[0]
        if type(asked) is Get and asked.rev is None and asked.at is None and not self.engine.committer.pending:
            self.session.answer(asked.id, members_answer(self.engine, path))
            return
        given = {name: str(value) for name in PAST if (value := getattr(asked, name)) is not None}
        if given:
            self.session.later(asked.id, self._earlier(given, path, view))
            return
        shown, now = self.engine.read(path, partial(show, view=view)), self.engine.visible
        if shown.tag is None:
            raise Problem("not_found", "there is no value at this path", path=format(path))
        self.session.answer(asked.id, _members(view, now, shown))

    async def _earlier(self, given: dict[str, str], path: Path, view: View) -> bytes:
        async with self.session.turn():
            found = await earlier(self.engine, given, path, view)
        assert found is not None
        return _members(view, Visible(found.rev, found.chain), Shown(found.tag, found.body))

    async def changes(self, asked: Changes) -> bytes:
        """The members of a `changes`' answer."""
        return (await list_changes(self.engine, asked, self.session.turn)).members()

    # -- following

    def subscribe(self, asked: Subscribe) -> None:
        """Begin a subscription: at once where it begins now."""
        session = self.session
        session.subscriptions.check_room()
        only(asked, "a subscription", order="asc", wait=0.0)
        session.subscriptions.starting.append(asked.id)
        session.later(asked.id, self._started(asked))

    async def _started(self, asked: Subscribe) -> bytes:
        subscriptions = self.session.subscriptions
        try:
            async with self.session.turn():
                subscriptions.start(asked, await start_of(self.engine, asked))
        finally:
            subscriptions.begun(asked.id)
        return b""

    # -- writing

    def _is_plain(self, asked: Plain | Transact) -> bool:
        """Whether a proposal is a patch, with an action and a user and perhaps a key, and nothing else."""
        if self.engine.policy != "durable":
            return False
        return isinstance(asked, Plain) or (
            asked.base is None
            and asked.ack is None
            and not asked.conditions
            and asked.m is None
            and asked.want is None
            and not asked.dry_run
        )

    def write_one(self, asked: Plain | Transact) -> Batch | None:
        """A plain proposal without a user, and with no key that is known: see `Engine.write`."""
        key = idempotency_key(asked.key, "key")
        place, action, q = self.engine.places.of(asked.path), label(asked.a, "a"), ""
        if key is not None:
            q, _ = self.engine.window.find(key, identity_of_patch(place[0], asked.diff, action, None))
        return self.engine.write(place, asked.diff, "patch", action, key, q)

    def write_all(self, lane: list[Plain | Transact]) -> None:
        """Plain proposals: their answers wait for the batch that the last of them is in, or for what they know of.

        A keyed one that changed nothing, or is a repeat, never waits for more than that: it stands if the batch fails.
        """
        engine, session = self.engine, self.session
        try:
            batch, results = write_all(engine, lane, _admit)
        except Problem as problem:
            members = problem_members(problem)
            for asked in lane:
                session.answer(asked.id, members)
            return
        if batch is not None:
            pieces = session.tongue.written(lane, results, time_text(engine.micros))
            session.written(batch, pieces)
            if len(pieces) == len(lane):
                return
        for asked, result in zip(lane, results, strict=True):
            if type(result) is Problem:
                self._refuse(asked.id, result)
            elif type(result) is Outcome and (batch is None or asked.key is not None):
                session.proposed(None, result.rev, asked.id, encode_json(outcome_body(result))[1:])

    def transact(self, asked: Transact) -> bool:
        """Propose a change; the answer waits for its acknowledgement. False where it must look back first."""
        engine = self.engine
        proposal, self.prepared = self.prepared, None
        try:
            if proposal is None:
                proposal = proposal_of(transaction_of(asked), None, engine.foreign)
                if looks_back(engine, proposal):
                    self.session.hold(self._prepare(proposal))
                    return False
            if isinstance(proposal, Problem):
                raise proposal
            outcome = engine.transact(proposal)
        except Problem as problem:
            self._refuse(asked.id, problem)
            return True
        members = encode_json(outcome_body(outcome, diff=asked.dry_run or asked.want == "diff"))[1:]
        self.session.proposed(proposal.ack, outcome.rev, asked.id, members)
        return True

    async def _prepare(self, proposal: Proposal) -> None:
        try:
            await look_back(self.engine, proposal)
            self.prepared = proposal
        except Problem as problem:
            self.prepared = problem

    def _refuse(self, id: Id, problem: Problem) -> None:
        """Answer with a problem: one that shows state waits for that state to be acknowledged."""
        if problem.shows_state:
            self.session.proposed(None, self.engine.rev, id, problem_members(problem))
        else:
            self.session.answer(id, problem_members(problem))


def _admit(action: str, user: str | None) -> None:
    """Raise the `Problem` of an action or a user that is none."""
    label(action, "a")
    if user is not None:
        label(user, "u")


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
        id=idempotency_key(asked.key, "key"),
        m=asked.m,
        ack=asked.ack,
        conditions=asked.conditions,
        dry_run=asked.dry_run,
        want=asked.want,
    )
