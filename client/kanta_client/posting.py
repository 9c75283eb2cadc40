"""Requests over HTTP: what the WebSocket has no operation for. Sent again until it is known what became of them."""

import asyncio
from typing import TYPE_CHECKING, Any

from kanta_client.backoff import Backoff
from kanta_client.channel import Channel
from kanta_client.errors import TRY_AGAIN, UnknownOutcome, Unreachable, refusal
from kanta_client.link import Lost
from kanta_client.messages import Message
from kanta_client.outcome import committed, look_up, remembered
from kantad.values.content import encode_json

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
            try:
                status, answer = await self.http.ask(method, target, None, {}, left)
            except Lost as lost:
                trouble = str(lost)
            else:
                if status < 300:
                    return answer
                error = refusal(answer if isinstance(answer, dict) else {"status": status})
                if error.code not in TRY_AGAIN and status not in (502, 504):
                    raise error
                trouble = str(error)
            await asyncio.sleep(min(backoff.next(), max(left, 0)))
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
        floor = (await self._ping(until)).rev
        headers = {"Idempotency-Key": key, "Content-Type": kind}
        data = None if body is None else encode_json(body)
        backoff, unknown, trouble = Backoff(), False, "no attempt was made"
        while (left := until - asyncio.get_running_loop().time()) > 0:
            if unknown and (found := await self._found(key, floor, until)) is not None:
                return {"rev": found.rev, "cursor": found.cursor, "ts": found.ts, "changed": True, "replayed": True}
            try:
                status, answer = await self.http.ask(method, target, data, headers, left)
            except Lost as lost:
                trouble, unknown = str(lost), True
            else:
                if status < 300 and isinstance(answer, dict):
                    return answer
                error = refusal(answer if isinstance(answer, dict) else {"status": status})
                if error.code not in TRY_AGAIN and status not in (502, 504):
                    raise error
                trouble = str(error)
                unknown = status in (502, 504) or error.problem.get("outcome") == "unknown"
            await asyncio.sleep(min(backoff.next(), max(left, 0)))
        if unknown:
            raise UnknownOutcome(f"no answer in time, it may be done or not: {trouble}", key)
        raise Unreachable(f"no answer in time, nothing was done: {trouble}")

    async def _found(self, key: str, floor: int, until: float) -> Message | None:
        """The change that a write whose answer was lost has made, if the server may not know its key any more."""
        now = (await self._ping(until)).rev
        if remembered(floor, now):
            return None
        record = await look_up(key, floor, now, lambda members: self._call(members, until))
        return None if record is None else committed(record)

    async def _ping(self, until: float) -> Message:
        return await self._call(b'"op":"ping"}', until)

    async def _call(self, members: bytes, until: float) -> Message:
        id = next(self.channel.ids)
        left = until - asyncio.get_running_loop().time()
        return await self.channel.ask(id, b'{"id":%d,%b' % (id, members), None, left)

    def _until(self, seconds: float | None) -> float:
        return asyncio.get_running_loop().time() + (self.seconds if seconds is None else seconds)
