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
from typing import Any, Final, Literal, NoReturn, Protocol

import msgspec

from kanta_client.backoff import Backoff
from kanta_client.book import Asked, Book, too_late
from kanta_client.errors import TRY_AGAIN, Closed, HistoryGone, KantaError, Refused, UnknownOutcome, refusal
from kanta_client.link import Lost, Socket
from kanta_client.messages import Message, decode_messages, encode
from kanta_client.outcome import committed, look_up, remembered

logger = logging.getLogger("kanta_client")

State = Literal["connecting", "connected", "catching up", "stale", "closed"]

TICK: Final = 0.25  # seconds between two looks at deadlines and at the silence
TOO_LARGE: Final = 1009  # RFC 6455 section 7.4.1


class Follower(Protocol):
    """A feed, as the channel sees it."""

    behind: bool  # whether there are changes that it has not heard of, as far as is known

    def request(self, id: int) -> bytes:
        """The request that subscribes it, from where it stands."""

    def begun(self, answer: Message) -> None:
        """It is subscribed."""

    def heard(self, event: Message, size: int) -> None:
        """An event of it, of about so many bytes."""

    def failed(self, error: KantaError) -> None:
        """It ends, and is not followed any more."""


class Patience(msgspec.Struct, frozen=True):
    """How long is waited, in seconds: for an answer, and in silence until something is done about it."""

    answer: float = 30.0
    ping: float = 5.0  # of silence, until the server is asked whether it is there
    stale: float = 10.0  # until what feeds have shown is called stale
    lost: float = 20.0  # until the connection is given up


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
        self._by_sub: dict[object, Follower] = {}
        self._book = Book()
        self._wake = asyncio.Event()
        self._socket: Socket | None = None
        self._live = False  # greeted: requests may go out
        self._pinged = False
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
        that is cancelled is forgotten.
        """
        future: asyncio.Future[Message] = self._loop.create_future()
        wait = self.patience.answer if seconds is None else seconds
        self._book.outbox.append(Asked(id, body, key, future, self._loop.time() + wait))
        if self._running is None:
            self.start()
        self._wake.set()
        return future

    def start(self) -> None:
        """Connect, if that is not done already; raises `Closed`."""
        if self.state == "closed":
            raise Closed("the client is closed")
        if self._running is None:
            self._running = self._loop.create_task(self._run())
        if self._ticking is None:
            self._ticking = self._loop.call_later(TICK, self._tick)

    def tell(self, request: dict[str, Any], take: Callable[[Message], None]) -> None:
        """Ask for a follower: `take` hears the answer, unless it is a refusal or the connection is lost."""
        self._own(
            lambda id: encode({"id": id, **request}),
            lambda message: None if message.error is not None else take(message),
        )

    def follow(self, follower: Follower) -> None:
        """Subscribe a feed, and keep it subscribed."""
        self.followers[follower] = 0
        self.start()
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
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._fail(Closed("the client is closed"))
        await asyncio.gather(*self._closing, return_exceptions=True)

    # -- the life of the connection

    async def _run(self) -> None:
        backoff = Backoff()
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
            except Exception:
                logger.exception("a fault of the client: it connects again")
            self._show("stale" if self.state != "connecting" else "connecting")
            await asyncio.sleep(backoff.next())

    async def _serve(self, socket: Socket, backoff: Backoff) -> None:
        """Greet and then serve, until the connection is lost, which raises."""
        self._socket, self._heard_at, self._pinged = socket, self._loop.time(), False
        tasks = [self._loop.create_task(each) for each in (self._receive(socket), self._talk(socket, backoff))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _talk(self, socket: Socket, backoff: Backoff) -> NoReturn:
        """Learn where the server is, settle what is not known, subscribe, and send what is asked for from then on."""
        again = self._book.lost()
        self.rev = (await self._call(socket, b'"op":"ping"}')).rev
        for asked in again:
            if asked.key is not None and asked.unknown and not remembered(asked.floor, self.rev):
                await self._find(socket, asked, asked.key)
        backoff.reset()
        self._live = True
        for follower in list(self.followers):
            self._subscribe(follower)
        self.settle()
        book = self._book
        while True:
            while batch := book.batch(self.rev):
                bodies = [asked.body for asked in batch]
                await socket.send(bodies[0] if len(bodies) == 1 else b"[%b]" % b",".join(bodies))
            self._wake.clear()
            await self._wake.wait()

    async def _find(self, socket: Socket, asked: Asked, key: str) -> None:
        """Learn from the log what became of a write whose key the server may have forgotten."""
        try:
            found = await look_up(key, asked.floor, self.rev, lambda members: self._call(socket, members))
        except HistoryGone as gone:
            if not asked.future.done():
                asked.future.set_exception(UnknownOutcome(f"the log no longer tells: {gone.detail}", key))
            return
        except Refused as refused:  # another history than that which it was sent to
            found = None
            logger.info("a write is sent again: %s", refused)
        if found is not None and not asked.future.done():
            asked.future.set_result(committed(found))

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

    def _own(self, body: Callable[[int], bytes], take: Callable[[Message], None]) -> int:
        """Send a request of the channel's own in line; it dies with the connection."""
        asked = Asked(id := next(self.ids), body(id), None, self._loop.create_future(), float("inf"))
        asked.take = take
        self._book.outbox.append(asked)
        self._wake.set()
        return id

    def _close(self, socket: Socket) -> None:
        task = self._loop.create_task(socket.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- hearing

    async def _receive(self, socket: Socket) -> NoReturn:
        book, by_sub, loop = self._book, self._by_sub, self._loop
        while True:
            data = await socket.receive()
            now = self._heard_at = loop.time()
            found = decode_messages(data)
            messages = found if type(found) is list else [found]
            size = len(data) // len(messages) if messages else 0
            for message in messages:
                if message.rev > self.rev:
                    self.rev = message.rev
                if message.event is None:
                    book.answered(message, now)
                elif (follower := by_sub.get(message.sub)) is not None:
                    self._event(follower, message, size)
            if book.outbox:
                self._wake.set()
            if self.state == "stale":
                self.settle()

    def _event(self, follower: Follower, message: Message, size: int) -> None:
        if message.event != "error":
            follower.heard(message, size)
            return
        problem = message.error or {}
        if problem.get("code") in TRY_AGAIN:  # the server stops, or could not go on: so do we, and come back
            self._by_sub.pop(message.sub, None)
            self.followers[follower] = 0
            self._loop.call_later(1.0, self._subscribe_again, follower)
        else:
            self._ended(follower, refusal(problem))

    def _subscribe(self, follower: Follower) -> None:
        def answered(message: Message) -> None:
            if self.followers.get(follower) != sub:
                return
            if message.error is None:
                follower.begun(message)
                self.settle()
            elif message.error.get("code") in TRY_AGAIN:
                self._loop.call_later(1.0, self._subscribe_again, follower)
            else:
                self._ended(follower, refusal(message.error))

        self._by_sub.pop(self.followers[follower], None)
        sub = self._own(follower.request, answered)
        self.followers[follower] = sub
        self._by_sub[sub] = follower

    def _subscribe_again(self, follower: Follower) -> None:
        if self._live and follower in self.followers:
            self._subscribe(follower)

    def _ended(self, follower: Follower, error: KantaError) -> None:
        self._by_sub.pop(self.followers.pop(follower, 0), None)
        follower.failed(error)

    # -- time and state

    def _tick(self) -> None:
        """Look at what is due."""
        self._ticking = self._loop.call_later(TICK, self._tick)
        now = self._loop.time()
        if self._book.tick(now, self._trouble):
            self._wake.set()
        if self._socket is None:
            return
        silent = now - self._heard_at
        if silent < self.patience.ping:
            self._pinged = False
        elif not self._pinged and self._live:
            self._pinged = True
            self._own(lambda id: b'{"id":%d,"op":"ping"}' % id, _ignored)
        if silent > self.patience.lost:
            self._trouble = f"nothing was heard for {silent:.0f} s"
            self._heard_at = now
            self._close(self._socket)
        elif silent > self.patience.stale:
            self._show("stale")

    def settle(self) -> None:
        """See which state this is now: followers call it when they have caught up."""
        if self._live:
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
