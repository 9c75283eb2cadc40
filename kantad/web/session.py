"""One WebSocket: requests in, answers and events out.

Requests are handled in the order they arrive, so the writes of a connection commit in the order
sent; what has to wait (the disk, the past, a change to come) is answered when it is through. The
plain answers to a message leave in one message, what is sent in a tick leaves in one write. What a
client may have under way is bounded: beyond it the socket is not read, and requests that wait for
something to happen are refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from kantad.engine.engine import Engine
from kantad.engine.pending import Batch
from kantad.engine.proposal import Ack
from kantad.values.errors import Problem
from kantad.web import frames
from kantad.web.body import Limits
from kantad.web.connection import Connection
from kantad.web.frames import Fault, Frames, close_frame, frame
from kantad.web.operations import Operations
from kantad.web.parcel import Parcel
from kantad.web.subscriptions import Subscriptions
from kantad.web.tongue import Id, Plain, Requests, Tongue, problem_members

AT_ONCE: Final = 128  # requests handled before others get their turn
ABREAST: Final = 8  # requests whose answers may be large and are made beside others
LINGER: Final = 1.0  # seconds for the client to answer a close frame
MOST_CONTROLS: Final = 200  # pings and pongs in a second


class Session:
    """See the module. Also what aiohttp takes for the parser of the connection: `feed_data`, `feed_eof`."""

    ends = False

    __slots__ = (
        "abreast",
        "closing",
        "connection",
        "controls",
        "engine",
        "frames",
        "freed",
        "heard",
        "held",
        "holding",
        "limits",
        "most",
        "opened",
        "operations",
        "parcel",
        "paused",
        "pinged",
        "queue",
        "second",
        "subscriptions",
        "tasks",
        "tongue",
        "unanswered",
        "under_way",
        "waiting",
    )

    def __init__(self, engine: Engine, connection: Connection, tongue: Tongue, limits: Limits) -> None:
        self.engine, self.connection, self.tongue, self.limits = engine, connection, tongue, limits
        self.most = limits.max_in_flight
        self.frames = Frames(limits.max_body)
        self.operations = Operations(engine, self)
        self.subscriptions = Subscriptions(engine, self)
        self.queue: deque[Parcel] = deque()  # messages that are not handled yet, or not all of them
        self.parcel: Parcel | None = None  # what is being handled
        self.tasks: set[asyncio.Task[None]] = set()
        self.abreast = asyncio.Semaphore(ABREAST)
        self.freed = asyncio.Event()
        self.under_way = self.waiting = 0
        self.opened = self.closing = self.paused = self.holding = False
        self.held = b""  # what came before the handshake was answered
        self.heard = self.pinged = 0.0  # on the loop's clock
        self.unanswered = 0  # pings in a row
        self.second = self.controls = 0

    # -- the connection

    async def open(self) -> None:
        """The handshake is answered."""
        if not self.connection.carry(self):
            return
        self.opened = True
        self.heard = self.pinged = asyncio.get_running_loop().time()
        held, self.held = self.held, b""
        if held:
            self.feed_data(held)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """What the client sent."""
        if not self.opened:
            self.held += data
            if len(self.held) > self.limits.max_body:
                self.connection.force_close()
        elif self.connection.transport is not None:
            self._fed(data)
        return False, b""

    def feed_eof(self) -> None:
        """The client is gone; `lost` says so, too."""

    def _fed(self, data: bytes) -> None:
        self.unanswered = 0
        try:
            messages = self.frames.feed(data)
            for opcode, payload in messages:
                if opcode == frames.CLOSE:
                    self._closed(payload)
                    return
                if self.closing:
                    continue
                if opcode >= frames.PING:
                    self._control(opcode, payload)
                else:
                    self._arrived(self.tongue.requests(payload, opcode, self.limits.max_depth), len(messages) == 1)
            if self.queue:
                self.work()
            if self.frames.fault is not None:
                raise self.frames.fault
        except Fault as fault:
            self.close(fault.code, fault.why)
        except Exception:
            self.failed()

    def failed(self) -> None:
        """Handling a request raised what it must not: nothing more can be promised here."""
        self.connection.faults.log("handling a message of a WebSocket")
        self.close(frames.INTERNAL, "a fault of the server; it is in its log")

    def _arrived(self, requests: Requests, alone: bool) -> None:
        """A message: one plain request is handled at once, or with others of its kind, all else in its turn."""
        if type(requests) is list and len(requests) == 1:
            write = type(requests[0]) is Plain and not alone
            last = self.queue[-1] if write and self.queue else None
            if last is not None and last.singly and type(last.requests) is list and len(last.requests) < AT_ONCE:
                last.requests.append(requests[0])
                return
            free = not self.queue and self.under_way < self.most and not self.connection.writing_paused
            if free and not write and self.operations.handle_one(requests[0]):
                return
            self.queue.append(Parcel(self, requests, write))
        else:
            self.queue.append(Parcel(self, requests))

    def _control(self, opcode: int, payload: bytes) -> None:
        """A ping or a pong."""
        second = int(time.monotonic())
        if second != self.second:
            self.second, self.controls = second, 0
        self.controls += 1
        if self.controls > MOST_CONTROLS:
            raise Fault(frames.POLICY, f"at most {MOST_CONTROLS} pings a second")
        if opcode == frames.PING:
            self.connection.write(frame(frames.PONG, payload))

    def _closed(self, payload: bytes) -> None:
        """The client closes, or answers our closing."""
        if not self.closing:
            try:
                self.connection.write(close_frame(frames.close_code(payload)))
            except Fault as fault:
                return self.close(fault.code, fault.why)
        self._end()
        self.connection.hang_up()
        return None

    def close(self, code: int, why: str) -> None:
        """Say goodbye, and close when the client has answered, or soon."""
        if self.closing:
            return
        self.connection.write(close_frame(code, why))
        self._end()
        asyncio.get_running_loop().call_later(LINGER, self.connection.hang_up)

    def _end(self) -> None:
        self.closing = True
        self.queue.clear()
        self.subscriptions.end()
        for task in self.tasks:
            task.cancel()

    def lost(self) -> None:
        """See `Carried`."""
        self._end()

    def ending(self) -> None:
        """See `Carried`."""
        self.close(frames.GOING_AWAY, "the server is shutting down")

    def sweep(self, now: float) -> None:
        """Ping; a client that missed two is gone."""
        if now - self.pinged < self.connection.patience.ping:
            return
        if self.unanswered >= 2 and self.connection.transport is not None:
            self._end()
            self.connection.transport.abort()
        elif not self.closing:
            self.pinged = now
            self.unanswered += not self.paused or self.connection.writing_paused  # else it is us who do not listen
            self.connection.write(frame(frames.PING, b""))

    # -- requests

    def work(self) -> None:
        """Handle what has arrived, as far as may be under way at once, and give others their turn now and then."""
        queue, connection, handle_all = self.queue, self.connection, self.operations.handle_all
        left = AT_ONCE
        while queue and left > 0 and not self.holding and self.under_way < self.most and not connection.writing_paused:
            parcel = self.parcel = queue[0]
            upto = min(len(parcel.requests), parcel.place + left, parcel.place + self.most - self.under_way)
            try:
                handled = handle_all(parcel.requests[parcel.place : upto])
            except Exception:
                self.parcel = None
                return self.failed()
            left -= handled
            parcel.place += handled
            if parcel.place == len(parcel.requests):
                queue.popleft()
                parcel.finished()
            elif parcel.full:
                parcel.relieve()
        self.parcel = None
        if queue and left <= 0 and not self.holding:
            asyncio.get_running_loop().call_soon(self.work)
        self._read_on(not queue)
        return None

    def hold(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Handle nothing more until a coroutine is through."""
        self.holding = True
        self._run(self._held(coroutine))

    async def _held(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception:
            self.failed()
        finally:
            self.holding = False
        if not self.closing:
            self.work()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _read_on(self, wanted: bool) -> None:
        """Read from the socket only while nothing waits to be handled."""
        transport = self.connection.transport
        if transport is not None and wanted is self.paused:
            self.paused = not wanted
            if wanted:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def resumed(self) -> None:
        """See `Carried`."""
        self.freed.set()
        self.subscriptions.resumed()
        self.work()

    # -- answers

    def answer(self, id: Id | None, members: bytes) -> None:
        """Answer a request: with its message's others while that is handled, later by itself."""
        piece = self.tongue.answer(id, members)
        if self.parcel is not None:
            self.parcel.now.append(piece)
            self.parcel.size += len(members)
        else:
            self.send([piece])

    def send(self, pieces: list[Any], singly: bool = False) -> None:
        """Send answers in one message, or one each. The transport joins the messages of a tick to one write."""
        if self.closing:
            return
        message = self.tongue.message
        self.connection.write(b"".join([message([piece]) for piece in pieces]) if singly else message(pieces))

    def written(self, batch: Batch, pieces: list[Any]) -> None:
        """Answer writes when their batch is durable, with the other writes of their message."""
        assert self.parcel is not None
        self.parcel.wait(batch, pieces)
        self.under_way += len(pieces)

    def proposed(self, ack: Ack | None, rev: int, id: Id, members: bytes) -> None:
        """Answer a write (or a refusal that shows state) when an answer that knows a revision may go out."""
        assert self.parcel is not None
        self.parcel.size += len(members)
        self.under_way += self.parcel.wait_for(ack, rev, self.tongue.answer(id, members))

    def settled(self, data: bytes) -> None:
        """See `Answering`: the one write of a message."""
        if not self.closing:
            self.connection.write(data)
        self.told(1)

    def refused(self, problem: Problem, data: bytes) -> None:
        """See `Answering`."""
        self.send([self.tongue.answer(self.tongue.id_of_message(data), problem_members(problem))])
        self.told(1)

    def told(self, count: int) -> None:
        """So many requests that were under way are answered."""
        self.under_way -= count
        if self.queue:
            self.work()

    def later(self, id: Id, coroutine: Coroutine[Any, Any, bytes], *, waits: bool = False) -> None:
        """Answer a request with the members that a coroutine gives, when it does."""
        if waits and self.waiting >= self.most:
            coroutine.close()
            raise Problem("too_many", f"at most {self.most} requests of a connection wait at once")
        if waits:
            self.waiting += 1
        else:
            self.under_way += 1
        task = self._run(self._later(id, coroutine, waits))
        task.add_done_callback(lambda _: coroutine.close())  # of one that was given up before it began

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn to make an answer that may be large: a few at once, while the client takes what it is sent."""
        async with self.abreast:
            while self.connection.writing_paused:
                self.freed.clear()
                await self.freed.wait()
            yield

    async def _later(self, id: Id, coroutine: Coroutine[Any, Any, bytes], waits: bool) -> None:
        try:
            members = await coroutine
        except Problem as problem:
            members = problem_members(problem)
        except Exception:
            members = b""
            self.failed()
        finally:
            if waits:
                self.waiting -= 1
            else:
                self.under_way -= 1
        if members:
            self.send([self.tongue.answer(id, members)])
        if self.queue and not self.closing:
            self.work()
