"""The connection of a client, which stays: requests and feeds go over it, whatever becomes of the sockets below.

What is asked for in one tick of the loop leaves in one message; answers are matched by id. When a
socket is lost another one is dialled, and then everything without an answer is sent again, in the
order in which it was asked for, and every feed goes on behind its last event. A write is only sent
again with its idempotency key, and only while the server is bound to remember that key; beyond that,
the log is searched for it first (`outcome`). So an answer is always the answer of the one commit.

Nothing here knows what the requests mean. It lives in one event loop and is not for several threads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final, Literal, NoReturn
from weakref import WeakSet

import msgspec

from kanta_client.backoff import Backoff
from kanta_client.book import Asked, Book, too_late
from kanta_client.errors import TRY_AGAIN, Closed, KantaError, Refused, refusal
from kanta_client.link import Follower, Lost, Socket
from kanta_client.messages import Message, decode_messages, encode
from kanta_client.outcome import search

logger = logging.getLogger("kanta_client")

State = Literal["connecting", "connected", "catching up", "stale", "closed"]

TICK: Final = 0.25  # seconds between two looks at deadlines and at the silence
REST: Final = 1.0  # seconds until a feed that the server could not serve is subscribed again
TOO_LARGE: Final = 1009  # RFC 6455 section 7.4.1


class Patience(msgspec.Struct, frozen=True):
    """How long is waited, in seconds: for an answer, and in silence until something is done about it."""

    answer: float = 30.0
    ping: float = 5.0  # of silence, until the server is asked whether it is there
    stale: float = 10.0  # until what feeds have shown is called stale
    lost: float = 20.0  # until the connection is given up
    retry: float = 2.0  # at most, between two attempts to connect


class Channel:
    """See the module."""

    def __init__(
        self, dial: Callable[[], Awaitable[Socket]], patience: Patience, on_state: Callable[[State], None] | None
    ) -> None:
        self.dial, self.patience, self.on_state = dial, patience, on_state
        self.state: State = "connecting"
        self.rev = 0  # the newest revision heard of
        self.ids = count(1)
        self.followers: dict[Follower, int] = {}  # and the id of its subscription at present, 0 if there is none
        self.dead: WeakSet[object] = WeakSet()  # mirrors that have ended and are not closed yet
        self._by_sub: dict[object, Follower] = {}
        self._book = Book()
        self._wake = asyncio.Event()
        self._socket: Socket | None = None
        self._live = False  # greeted: requests may go out
        self._pinged = False
        self._arrived = -1  # see `Socket.arrived`
        self._given_up = asyncio.Event()
        self._due = 0.0  # when the next tick is
        self._running: asyncio.Task[None] | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._trouble = "no connection was made yet"
        self._heard_at = 0.0
        self._loop = asyncio.get_running_loop()

    # -- asking

    def ask(
        self, id: int, body: bytes, key: str | None = None, seconds: float | None = None
    ) -> asyncio.Future[Message]:
        """Send a request; the future has its answer, or the error that it was refused with or never answered.

        `id` is one of `ids`, `body` the request as JSON. With `key` it is a write with that idempotency key. A future
        that is cancelled is forgotten. Raises `Closed`.
        """
        if self._running is None or self.state == "closed":
            self.start()
        future: asyncio.Future[Message] = self._loop.create_future()
        wait = self.patience.answer if seconds is None else seconds
        self._book.outbox.append(Asked(id, body, key, future, self._loop.time() + wait))
        self._wake.set()
        return future

    def start(self) -> None:
        """Connect, if that is not done already; raises `Closed`."""
        if self.state == "closed":
            raise Closed("the client is closed")
        if self._running is None or self._running.done():
            self._running = self._loop.create_task(self._run())
        if self._ticking is None:
            self._tick_later()

    def tell(self, request: dict[str, Any], take: Callable[[Message], None]) -> asyncio.Future[Message] | None:
        """Ask for a follower: `take` hears the answer, unless it is a refusal, or there is no connection any more.

        The future is done when there is an answer, or the connection is another one; None if there is none now.
        """
        if not self._live:
            return None
        asked = self._own(
            lambda id: encode({"id": id, **request}),
            lambda message: None if message.error is not None else take(message),
        )
        return asked.future

    def follow(self, follower: Follower) -> None:
        """Subscribe a feed, and keep it subscribed; raises `Closed`."""
        self.start()
        self.followers[follower] = 0
        if self._live:
            self._subscribe(follower)

    def unfollow(self, follower: Follower) -> None:
        """Follow no more; what is under way is not heard of any more. Nothing happens where it is not followed."""
        sub = self.followers.pop(follower, 0)
        self._by_sub.pop(sub, None)
        if sub and self._live:
            self._own(lambda id: b'{"id":%d,"op":"unsubscribe","sub":%d}' % (id, sub), _ignored)
        self.settle()

    async def close(self) -> None:
        """Close the connection; what waits fails with `Closed`, a write that was sent with `UnknownOutcome`."""
        self._show("closed")
        if self._ticking is not None:
            self._ticking.cancel()
        try:
            if self._running is not None:
                self._running.cancel()
                await asyncio.gather(self._running, return_exceptions=True)
        finally:  # also for who is cancelled
            self._fail(Closed("the client is closed"))
        await asyncio.gather(*self._closing, return_exceptions=True)

    # -- the life of the connection

    async def _run(self) -> None:
        backoff = Backoff(most=self.patience.retry)
        while True:
            try:
                socket = await self.dial()
                try:
                    await self._serve(socket, backoff)
                finally:
                    self._live, self._socket = False, None
                    self._close(socket)
            except Refused as error:
                self._running = None
                self._fail(error)
                return
            except Lost as lost:
                self._trouble = str(lost)
                if lost.code == TOO_LARGE:
                    self._book.too_large()
            except Exception as error:
                self._trouble = repr(error)
                logger.exception("a fault of the client: it connects again")
            self._show("stale" if self.state != "connecting" else "connecting")
            await asyncio.sleep(backoff.next())

    async def _serve(self, socket: Socket, backoff: Backoff) -> NoReturn:
        """Greet and then serve, until the connection is lost, which raises."""
        self._socket, self._heard_at, self._pinged, self._arrived = socket, self._loop.time(), False, -1
        self._given_up.clear()
        work = self._receive(socket), self._talk(socket, backoff), self._given_up.wait()
        receiving, *_ = tasks = [self._loop.create_task(each) for each in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not self._given_up.is_set():  # sending may fail before it is heard why the peer has closed
                await asyncio.wait([receiving], timeout=TICK)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        raise Lost(self._trouble)

    async def _talk(self, socket: Socket, backoff: Backoff) -> NoReturn:
        """Learn where the server is, settle what is not known, subscribe, and send what is asked for from then on."""
        book = self._book
        book.lost()
        self.rev = (await self._call(socket, b'"op":"ping"}')).rev
        while doubtful := book.doubtful(self.rev):
            await self._search(socket, doubtful)
        backoff.reset()
        self._live, self._trouble = True, "the server is connected, and silent"
        for follower in list(self.followers):
            self._subscribe(follower)
        self.settle()
        while True:
            while batch := book.batch(self.rev):
                bodies = [asked.body for asked in batch]
                await socket.send(bodies[0] if len(bodies) == 1 else b"[%b]" % b",".join(bodies))
            if doubtful := book.doubtful(self.rev):
                await self._search(socket, doubtful)
                continue
            self._wake.clear()
            await self._wake.wait()

    async def _search(self, socket: Socket, doubtful: list[Asked]) -> None:
        self.rev = (await self._call(socket, b'"op":"ping"}')).rev
        await search(doubtful, self.rev, lambda members: self._call(socket, members))

    async def _call(self, socket: Socket, members: bytes) -> Message:
        """Ask at once, before anything else is sent; raises `Lost` and `Refused`."""
        future: asyncio.Future[Message] = self._loop.create_future()
        asked = Asked(id := next(self.ids), b'{"id":%d,%b' % (id, members), None, future, float("inf"))
        asked.take = future.set_result
        self._book.send(asked, self.rev)
        await socket.send(asked.body)
        message = await future
        if message.error is not None:
            raise refusal(message.error) if message.error.get("code") not in TRY_AGAIN else Lost(str(message.error))
        return message

    def _own(self, body: Callable[[int], bytes], take: Callable[[Message], None]) -> Asked:
        """Send a request of the channel's own in line; it dies with the connection."""
        asked = Asked(id := next(self.ids), body(id), None, self._loop.create_future(), float("inf"))
        asked.take = take
        self._book.outbox.append(asked)
        self._wake.set()
        return asked

    def _close(self, socket: Socket) -> None:
        async def close() -> None:
            try:
                await socket.close()
            except Exception as error:
                logger.debug("closing a connection: %s", error)

        task = self._loop.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- hearing

    async def _receive(self, socket: Socket) -> NoReturn:
        book, by_sub, loop = self._book, self._by_sub, self._loop
        while True:
            data = await socket.receive()
            now = self._heard_at = loop.time()
            try:
                found = decode_messages(data)
            except ValueError as error:
                raise Lost(f"what came is no message of kantad: {error}") from error
            messages = found if type(found) is list else [found]
            size = len(data) // len(messages) if messages else 0
            for message in messages:
                if message.rev > self.rev:
                    self.rev = message.rev
                if message.event is None:
                    if message.id is None:
                        raise Lost(f"a message was not understood: {message.error}")
                    book.answered(message, now)
                elif (follower := by_sub.get(message.sub)) is not None:
                    self._event(follower, message, size)
            if book.outbox:
                self._wake.set()
            if self.state == "stale":
                self.settle()
            self._heard_at = loop.time()  # a large value takes its time

    def _event(self, follower: Follower, message: Message, size: int) -> None:
        if message.event != "error":
            follower.heard(message, size)
            return
        problem = message.error or {}
        if problem.get("code") in TRY_AGAIN:  # the server stops, or could not go on: so do we, and come back
            self._rest(follower, problem)
        else:
            self._ended(follower, refusal(problem))
            self.settle()

    def _subscribe(self, follower: Follower) -> None:
        def answered(message: Message) -> None:
            if self.followers.get(follower) != sub:
                return
            if message.error is None:
                follower.begun(message)
                self.settle()
            elif message.error.get("code") in TRY_AGAIN and message.error.get("code") != "too_many":
                self._rest(follower, message.error)
            else:  # one subscription too many stays one until another is closed, which nobody may ever do
                self._ended(follower, refusal(message.error))
                self.settle()

        self._by_sub.pop(self.followers[follower], None)
        try:
            sub = self._own(follower.request, answered).id
        except Exception as error:  # no request can be made of what it was given: the feed ends, the others go on
            invalid = {
                "code": "invalid_parameter",
                "status": 400,
                "detail": f"a subscription cannot be asked for: {error}",
            }
            self._ended(follower, refusal(invalid))
            return
        self.followers[follower] = sub
        self._by_sub[sub] = follower

    def _rest(self, follower: Follower, problem: dict[str, Any]) -> None:
        """Subscribe it again in a while, unless that has been done by then."""
        level = logging.INFO if problem.get("code") == "shutting_down" else logging.WARNING
        logger.log(level, "a feed is subscribed again in %.0f s: %s", REST, problem.get("detail", problem))
        self._by_sub.pop(self.followers[follower], None)
        self.followers[follower] = 0
        follower.behind = True
        self.settle()
        self._loop.call_later(REST, self._subscribe_again, follower)

    def _subscribe_again(self, follower: Follower) -> None:
        if self._live and self.followers.get(follower) == 0:
            self._subscribe(follower)

    def _ended(self, follower: Follower, error: KantaError) -> None:
        self._by_sub.pop(self.followers.pop(follower, 0), None)
        follower.failed(error)

    # -- time and state

    def _tick_later(self) -> None:
        self._due = self._loop.time() + TICK
        self._ticking = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        """Look at what is due."""
        now = self._loop.time()
        late = now - self._due
        self._tick_later()
        if late > 4 * TICK:  # the loop stood still: what has come meanwhile is to be heard first
            self._heard_at += late
            return
        if self._book.tick(now, self._trouble):
            self._wake.set()
        if self._running is not None and self._running.done():  # cancelled, by who cancels all tasks
            self._show("stale")
            self.start()
        if self._socket is not None:
            self._listen(self._socket, now)

    def _listen(self, socket: Socket, now: float) -> None:
        """Do something about silence."""
        silent = now - self._heard_at
        if silent < self.patience.ping:
            self._pinged, self._arrived = False, -1
            return
        if (arrived := socket.arrived()) != self._arrived:
            if self._arrived >= 0:  # a message that is so long that it is on its way all the time
                self._heard_at = now
            self._arrived = arrived
        elif silent > self.patience.lost:
            self._trouble = f"nothing was heard for {silent:.0f} s"
            self._given_up.set()
        elif silent > self.patience.stale:
            self._show("stale")
        if not self._pinged and self._live:
            self._pinged = True
            self._own(lambda id: b'{"id":%d,"op":"ping"}' % id, _ignored)

    def settle(self) -> None:
        """See which state this is now: followers call it when they have caught up."""
        if self._live and self.dead:
            self._show("stale")
        elif self._live:
            self._show("catching up" if any(follower.behind for follower in self.followers) else "connected")

    def _show(self, state: State) -> None:
        if state == self.state or self.state == "closed":
            return
        self.state = state
        if self.on_state is not None:
            try:
                self.on_state(state)
            except Exception:
                logger.exception("the callback of a client's state raised")

    def _fail(self, error: KantaError) -> None:
        """Fail everything that waits, and every feed."""
        self._book.fail(lambda asked: too_late(asked, str(error)) if asked.unknown else error)
        for follower in list(self.followers):
            self._ended(follower, error)
        self._by_sub.clear()


def _ignored(message: Message) -> None:
    """The answer tells nothing that is not known otherwise."""
