"""The process that replays the past: started when it is needed, asked one thing at a time, ended when it is idle.

Decoding a large snapshot holds the interpreter's lock, in a thread as on the loop; so it is done by
another interpreter, of low priority, that reads the file for itself (`kantad.tools.retrace`). It keeps
the state it came to last, so questions are put to it in the order of their revisions, going round.

There is one at most. It is killed where an answer takes too long, and at a stop; it ends by itself when
this process does. One that was killed is replaced; what a new one cannot answer is `unavailable`.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from kantad.engine.worker import Worker
from kantad.store.formats import is_own
from kantad.store.question import Answer, Question, decode_reply, message
from kantad.values.errors import Problem

logger = logging.getLogger("kantad")

COMMAND: Final = (sys.executable, "-P", "-m", "kantad.tools.retrace")
IDLE: Final = 10.0  # seconds after which the process ends
TIMEOUT: Final = 300.0  # seconds for one answer
MOST_WAITING: Final = 1000  # questions


class Job:
    """A question and who waits for its answer."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def fail(self, problem: Problem) -> None:
        """Refuse it, if anybody still waits."""
        if not self.future.done():
            self.future.set_exception(problem)


class Retracer:
    """See the module. `idle` and `timeout` in seconds."""

    def __init__(self, *, idle: float = IDLE, timeout: float = TIMEOUT, command: Sequence[str] = COMMAND) -> None:
        self.idle, self.timeout, self.command = idle, timeout, command
        self.waiting: list[Job] = []
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.woken = asyncio.Event()
        self.place = 0  # the revision it was asked for last
        self.started = 0  # processes
        self.stopping = False

    async def ask(self, question: Question) -> Answer:
        """The answer to a question; raises `Problem` `unavailable` or `shutting_down`."""
        if self.stopping:
            raise _shutting_down()
        if len(self.waiting) >= MOST_WAITING:
            raise Problem("unavailable", "too many reads of the past are waiting", retry_after=1)
        job = Job(question)
        self.waiting.append(job)
        self.woken.set()
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._work())
        try:
            return await job.future
        finally:
            if job in self.waiting:
                self.waiting.remove(job)

    async def stop(self) -> None:
        """Refuse who waits, and end the process."""
        self.stopping = True
        for job in self.waiting:
            job.fail(_shutting_down())
        self.waiting.clear()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _work(self) -> None:
        """Answer questions as they come, until the stop."""
        try:
            while True:
                job = await self._next()
                if job is None:
                    await self._end_worker()
                else:
                    await self._answer(job)
        finally:
            await self._end_worker()

    async def _next(self) -> Job | None:
        """The waiting question with the next higher revision, or the lowest; None if there was none for too long."""
        while not self.waiting:
            self.woken.clear()
            try:
                await asyncio.wait_for(self.woken.wait(), None if self.worker is None else self.idle)
            except TimeoutError:
                return None
        job = min(self.waiting, key=lambda job: (job.question.rev < self.place, job.question.rev))
        self.waiting.remove(job)
        self.place = job.question.rev
        return job

    async def _answer(self, job: Job) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                reply, body = await self._exchange(job.question)
        except TimeoutError:
            await self._failed(job, f"it took more than {self.timeout:.0f} s")
        except (OSError, EOFError) as error:
            await self._failed(job, f"its process ended ({type(error).__name__})")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # of another version than this one, perhaps
            await self._failed(job, f"its process answers otherwise than it should ({error})")
        except asyncio.CancelledError:
            job.fail(_shutting_down())
            raise
        else:
            if reply.fault:
                await self._failed(job, reply.fault)
            elif not job.future.done():
                job.future.set_result((reply, body))

    async def _exchange(self, question: Question) -> Answer:
        """Ask the process, if it still runs, or a new one."""
        if self.worker is not None:
            with contextlib.suppress(OSError, EOFError):
                return await _exchanged(self.worker, question)
            await self._end_worker()
        self.worker = Worker.start(self.command, is_own(question.format))
        self.started += 1
        return await _exchanged(self.worker, question)

    async def _failed(self, job: Job, why: str) -> None:
        logger.error("replaying the log to revision %d failed: %s", job.question.rev, why)
        job.fail(Problem("unavailable", f"the log could not be replayed: {why}", retry_after=1))
        await self._end_worker()

    async def _end_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            await asyncio.shield(worker.end())


async def _exchanged(worker: Worker, question: Question) -> Answer:
    reply = decode_reply(await worker.ask(message(question)))
    return reply, await worker.read(reply.size)


def _shutting_down() -> Problem:
    return Problem("shutting_down", "the server is shutting down", retry_after=1)
