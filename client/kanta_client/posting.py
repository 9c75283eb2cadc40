"""Requests over HTTP: what the WebSocket has no operation for. Sent again until it is known what became of them."""

import asyncio
from typing import TYPE_CHECKING, Any

from kanta_client.backoff import Backoff
from kanta_client.channel import Channel
from kanta_client.errors import TRY_AGAIN, Closed, KantaError, UnknownOutcome, Unreachable, problem_of, refusal, settled
from kanta_client.link import Lost
from kanta_client.messages import Message
from kanta_client.outcome import look_up, remembered
from kanta_client.outgoing import encoded

if TYPE_CHECKING:
    from kanta_client.http import Http


class Posting:
    """The requests over HTTP of one client."""

    def __init__(self, channel: Channel, http: "Http", seconds: float) -> None:
        self.channel, self.http, self.seconds = channel, http, seconds

    async def read(self, target: str, *, method: str = "GET", seconds: float | None = None) -> Any:
        """The answer to a request that may be repeated as it is; raises `Refused` and `Unreachable`."""
        until = self._until(seconds)
        backoff, trouble = Backoff(), "no attempt was made"
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self._check_open()
            try:
                status, answer = await self.http.ask(method, target, None, {}, left)
            except Lost as lost:
                trouble = str(lost)
            else:
                if status < 300 and answer is not None:
                    return answer
                problem = problem_of(status, answer)
                if problem is not None and problem["code"] not in TRY_AGAIN:
                    raise refusal(problem)
                trouble = f"an answer with the status {status}"
            await asyncio.sleep(min(backoff.next(), left))
        raise Unreachable(f"no answer in time: {trouble}")

    async def write(
        self,
        method: str,
        target: str,
        body: Any,
        key: str,
        kind: str = "application/json",
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """The answer to a write, done once; raises `Refused`, `Unreachable` and `UnknownOutcome`."""
        until = self._until(seconds)
        data = None if body is None else encoded(body)
        attempts = _Attempts(method, target, data, {"Idempotency-Key": key, "Content-Type": kind}, key)
        attempts.floor = (await self._call(b'"op":"ping"}', until)).rev
        backoff = Backoff()
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                self._check_open()
                if attempts.doubted and (found := await self._found(attempts, until)) is not None:
                    return found
            except KantaError as error:
                if attempts.doubted:
                    raise UnknownOutcome(f"an earlier attempt may be done or not, and now: {error}", key) from error
                raise
            answer = await attempts.another(self.http, left)
            if answer is not None:
                return answer
            await asyncio.sleep(min(backoff.next(), left))
        if attempts.doubted:
            raise UnknownOutcome(f"no answer in time, it may be done or not: {attempts.trouble}", key)
        raise Unreachable(f"no answer in time, nothing was done: {attempts.trouble}")

    async def _found(self, attempts: "_Attempts", until: float) -> dict[str, Any] | None:
        """The answer of a write that was done so long ago that the server may not know its key any more."""
        now = (await self._call(b'"op":"ping"}', until)).rev
        if remembered(attempts.floor, now):
            return None
        found = await look_up([attempts.key], attempts.floor, now, lambda members: self._call(members, until))
        attempts.floor = now
        record = found.get(attempts.key)
        if record is None:
            return None
        return {"rev": record.rev, "cursor": record.cursor, "ts": record.ts, "changed": True, "replayed": True}

    async def _call(self, members: bytes, until: float) -> Message:
        id = next(self.channel.ids)
        left = until - asyncio.get_running_loop().time()
        return await self.channel.ask(id, b'{"id":%d,%b' % (id, members), None, left)

    def _until(self, seconds: float | None) -> float:
        return asyncio.get_running_loop().time() + (self.seconds if seconds is None else seconds)

    def _check_open(self) -> None:
        if self.channel.state == "closed":
            raise Closed("the client is closed")


class _Attempts:
    """A write, and what is known of it."""

    def __init__(self, method: str, target: str, data: bytes | None, headers: dict[str, str], key: str) -> None:
        self.method, self.target, self.data, self.headers, self.key = method, target, data, headers, key
        self.floor = 0  # the revision before the first attempt
        self.doubted = False  # whether any may have been done
        self.trouble = "no attempt was made"

    async def another(self, http: "Http", seconds: float) -> dict[str, Any] | None:
        """The answer; None where there was none, or it asks to try again. Raises `Refused`, `UnknownOutcome`."""
        earlier, self.doubted = self.doubted, True  # also for who cancels it
        try:
            status, answer = await http.ask(self.method, self.target, self.data, self.headers, seconds)
        except Lost as lost:
            self.trouble = str(lost)
            return None
        if status < 300 and isinstance(answer, dict) and "rev" in answer:
            return answer
        self.trouble = f"an answer with the status {status}"
        problem = problem_of(status, answer)
        if problem is None:
            return None
        if problem["code"] not in TRY_AGAIN:
            raise settled(problem, self.key, earlier)
        self.doubted = earlier or problem.get("outcome") == "unknown"
        return None
