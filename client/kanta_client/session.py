"""What a client's methods have in common: its connections, its requests, what it knows of the present.

`client` is the face of it; transactions and updates work on it directly. One event loop's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

import msgspec

from kanta_client.address import Address
from kanta_client.channel import Channel, Patience, State
from kanta_client.errors import Closed, NotFound
from kanta_client.feed import Filters
from kanta_client.messages import Get, Keys, Message, Transact, encode
from kanta_client.mirror import Mirror
from kanta_client.options import Options, transact
from kanta_client.outgoing import encoded
from kanta_client.paths import Path, pointer, url_path
from kanta_client.posting import Posting
from kanta_client.records import Change, Written
from kanta_client.subscription import converted
from kantad.values.content import MISSING, decode_json
from kantad.values.pointer import format, lookup

if TYPE_CHECKING:
    from kanta_client.http import Http
    from kanta_client.link import Socket

PAGE: Final = 1_000  # changes that are asked for at once
MOST_KEYS: Final = 100_000  # that the server gives at once, which are those of one moment
Position = int | str | Written


class Session:
    """See the module."""

    def __init__(
        self, address: Address, patience: Patience, on_state: Callable[[State], None] | None, ssl: Any
    ) -> None:
        self.address, self.patience, self.on_state, self.ssl = address, patience, on_state, ssl
        self.transacting: set[asyncio.Task[Any]] = set()
        self.mirrors: list[Mirror[Any]] = []
        self.closed = False
        self.open: Channel | None = None
        self._http: Http | None = None
        self._keys, self._number = token_urlsafe(9), count(1)

    # -- connections

    def channel(self) -> Channel:
        """The connection; raises `Closed`."""
        if self.closed:
            raise Closed("the client is closed")
        if self.open is None:
            self.open = Channel(self._dial, self.patience, self.on_state)
        return self.open

    def posting(self) -> Posting:
        """Requests over HTTP; raises `Closed`."""
        return Posting(self.channel(), self._network(), self.patience.answer)

    async def _dial(self) -> "Socket":
        return await self._network().dial()

    def _network(self) -> "Http":
        if self._http is None:
            from kanta_client.http import Http  # aiohttp takes longer to import than all else

            self._http = Http(self.address, ssl=self.ssl)
        return self._http

    async def close(self) -> None:
        """Close the connections: what still waits fails, feeds and mirrors end."""
        self.closed = True
        try:
            if self.open is not None:
                await self.open.close()
        finally:
            if self._http is not None:
                await self._http.close()

    # -- reading

    def get(self, at: str, rev: Position | None, when: str | None, seconds: float | None) -> Awaitable[Message]:
        """Ask for a value."""
        channel = self.channel()
        asked = Get(next(channel.ids), at, position_of(rev), when)
        return channel.ask(asked.id, encoded(asked), None, seconds)

    def page(
        self, at: str, limit: int, after: str | None, seconds: float | None, rev: int | None = None
    ) -> Awaitable[Message]:
        """Ask for keys."""
        channel = self.channel()
        asked = Keys(next(channel.ids), at, limit, after, rev)
        return channel.ask(asked.id, encoded(asked), None, seconds)

    async def keys_of(self, at: str, seconds: float | None, *, page: int = MOST_KEYS) -> list[str]:
        """All keys of an object: in one answer, or, where they do not fit, as of one revision in several."""
        answer = await self.page(at, page, None, seconds)
        if answer.next is None:
            return answer.keys
        rev, after, found = (await self.ping(seconds)).rev, None, list[str]()
        while True:
            answer = await self.page(at, page, after, seconds, rev)
            found += answer.keys
            if answer.next is None:
                return found
            after = answer.next

    def ping(self, seconds: float | None = None) -> Awaitable[Message]:
        """Ask for the present revision."""
        channel = self.channel()
        id = next(channel.ids)
        return channel.ask(id, b'{"id":%d,"op":"ping"}' % id, None, seconds)

    async def changes(
        self, filters: Filters, onward: str, limit: int | None, seconds: float | None, **asked: Any
    ) -> AsyncIterator[Change]:
        """The changes of a listing, page by page; `onward` is the member that says where the next one begins."""
        channel = self.channel()
        asked.update(msgspec.to_builtins(filters))
        while limit is None or limit > 0:
            asked["limit"] = PAGE if limit is None else min(limit, PAGE)
            id = next(channel.ids)
            request = {name: value for name, value in asked.items() if value is not None}
            page = await channel.ask(id, encode({"id": id, "op": "changes", **request}), None, seconds)
            for record in page.changes:
                yield record.change()
            if page.next is None:
                return
            asked[onward] = page.next
            limit = None if limit is None else limit - len(page.changes)

    def mirrored(self, keys: tuple[str, ...]) -> Mirror[Any] | None:
        """A live mirror of a path or of one above it, to make a draft of."""
        for mirror in self.mirrors:
            if mirror.for_drafts and keys[: len(mirror.keys)] == mirror.keys:
                return mirror
        return None

    async def present(self, keys: tuple[str, ...], type: Any) -> tuple[Any, str]:
        """The value at a path, MISSING where there is none, and a cursor at which it was so.

        The value may be a mirror's, which goes on changing: what is reached of it later may be of a later revision.
        """
        mirror = self.mirrored(keys)
        if mirror is not None:
            return _of_mirror(mirror, keys, type), mirror.cursor
        ping = asyncio.ensure_future(self.ping())  # before the read: there was nothing since, if there is nothing
        read = asyncio.ensure_future(self.get(format(keys), None, None, None))
        pinged, answer = await asyncio.gather(ping, read, return_exceptions=True)
        if isinstance(answer, NotFound) and isinstance(pinged, Message):
            return MISSING, pinged.cursor
        for each in (answer, pinged):
            if isinstance(each, BaseException):
                raise each
        answer = cast(Message, answer)
        return decoded(answer, type), answer.cursor

    # -- writing

    def key(self) -> str:
        """A new idempotency key. It goes into the log with the change, so it is short: 72 random bits and a number."""
        return f"{self._keys}{next(self._number):x}"

    async def propose(
        self, at: str, diff: Any, action: str, options: Options, dry_run: bool = False, want_diff: bool = False
    ) -> Written:
        """Send a write whose path and patch are ready."""
        channel = self.channel()
        id, key = next(channel.ids), f"{self._keys}{next(self._number):x}"
        if not options and not dry_run and not want_diff:
            request = Transact(id, diff, key, at, action)
        else:
            request = transact(id, at, diff, key, action, options)
            request.dry_run, request.want = dry_run, "diff" if want_diff else None
        return (await channel.ask(id, encoded(request), request.key, options.get("timeout"))).written()

    async def post(
        self, method: str, path: Path, body: Any, options: Options, kind: str = "application/json"
    ) -> Written:
        """Write by `/v1/data/<path>`, which has what the WebSocket has not; takes no conditions."""
        request = transact(0, pointer(path), None, self.key(), method.lower(), options)
        if request.conditions:
            raise TypeError("this write takes no conditions; transact does")
        given = {"action": request.a, "user": request.u, "m": request.m, "ack": request.ack, "base": request.base}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        target = f"/v1/data{url_path(path)}?{query}"
        answer = await self.posting().write(method, target, body, request.key, kind, options.get("timeout"))
        return msgspec.convert(answer, Written)

    async def revert(self, at: str, rev: Position, options: Options) -> Written:
        """`POST /v1/revert`."""
        request = transact(0, at, None, self.key(), "revert", options)
        members = msgspec.to_builtins(request)
        body = {name: value for name, value in members.items() if name not in ("op", "key", "diff")}
        body = {**body, "rev": position_of(rev), "id": request.key}
        seconds = options.get("timeout")
        answer = await self.posting().write("POST", "/v1/revert", body, request.key, seconds=seconds)
        return msgspec.convert(answer, Written)


def _of_mirror(mirror: Mirror[Any], keys: tuple[str, ...], type: Any) -> Any:
    value = lookup(mirror.raw, keys[len(mirror.keys) :])
    if type is None or value is MISSING:
        return value
    if mirror.keys == keys and mirror.type == type:
        return mirror.value
    return converted(value, type)


def position_of(given: Position | None) -> int | str | None:
    """A position as it is sent."""
    return given.cursor if isinstance(given, Written) else given


def decoded(answer: Message, type: Any) -> Any:
    """The value of an answer, as a type, if one is given; raises `msgspec.ValidationError`."""
    value = cast(msgspec.Raw, answer.value)
    return decode_json(value) if type is None else msgspec.json.decode(value, type=type)
