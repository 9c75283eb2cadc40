"""`KantaClient`: one server's database as an object. The guide is docs/client.md.

One WebSocket carries everything that section 6 of the contract has an operation for, HTTP the rest.
Methods raise what `errors` has; they may be cancelled at any await, and the client goes on. A client
belongs to one event loop; nothing is imported or connected before it is used.
"""

from collections.abc import AsyncIterator, Callable
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

import msgspec

from kanta_client.address import address_of
from kanta_client.appending import append
from kanta_client.channel import Patience, State
from kanta_client.errors import NotFound, PreconditionFailed, refusal
from kanta_client.feed import Filters
from kanta_client.mirror import Mirror
from kanta_client.options import Options, Unnamed
from kanta_client.outgoing import assignment, builtins
from kanta_client.paths import Path, keys_of, pointer
from kanta_client.records import Backup, Change, Read, Written
from kanta_client.session import Position, Session, decoded, position_of
from kanta_client.subscription import Subscription
from kanta_client.transaction import Transaction
from kanta_client.update import update
from kantad.values.content import MISSING
from kantad.values.identifier import time_ordered_key
from kantad.values.moment import now_micros
from kantad.values.patch import escape
from kantad.values.pointer import format

if TYPE_CHECKING:
    from kanta_client.sync import SyncKantaClient

T = TypeVar("T")
D = TypeVar("D")


class KantaClient:
    """A client of the server at `url`: `http://…`, `https://…` or `unix:/path`.

    `token` is sent with everything. `timeout`, in seconds, is how long an answer is waited for, reconnecting and
    sending again as often as it takes. `on_state` is called with the new `state` whenever that changes. `ssl` is an
    `ssl.SSLContext` for certificates that the system does not know.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        on_state: Callable[[State], None] | None = None,
        ssl: Any = True,
        patience: Patience | None = None,
    ) -> None:
        self.url = url
        self._given: dict[str, Any] = {"token": token, "timeout": timeout, "on_state": on_state, "ssl": ssl}
        self._given["patience"] = patience
        self._session = Session(
            address_of(url, token), msgspec.structs.replace(patience or Patience(), answer=timeout), on_state, ssl
        )

    async def __aenter__(self) -> Self:
        self._session.channel().start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection: what still waits fails, feeds and mirrors end. A closed client stays closed."""
        await self._session.close()

    @property
    def state(self) -> State:
        """Of the connection, and with it of feeds and mirrors.

        `connecting` (for the first time), `connected`, `catching up` (connected, but feeds still hear of the past),
        `stale` (not connected, or nothing was heard for too long; it is being mended), `closed`.
        """
        session = self._session
        return "closed" if session.closed else "connecting" if session.open is None else session.open.state

    @property
    def rev(self) -> int:
        """The newest revision that was heard of."""
        return 0 if self._session.open is None else self._session.open.rev

    def sync(self) -> "SyncKantaClient":
        """A client with the same settings and connections of its own, whose methods wait: for scripts and the like."""
        from kanta_client.sync import SyncKantaClient

        return SyncKantaClient(self.url, **self._given)

    # -- reading

    @overload
    async def get(
        self, path: Path = ..., *, rev: Position | None = ..., at: str | None = ..., timeout: float | None = ...
    ) -> Any: ...
    @overload
    async def get(
        self,
        path: Path,
        default: D,
        *,
        type: type[T],
        rev: Position | None = ...,
        at: str | None = ...,
        timeout: float | None = ...,
    ) -> T | D: ...
    @overload
    async def get(
        self,
        path: Path = ...,
        *,
        type: type[T],
        rev: Position | None = ...,
        at: str | None = ...,
        timeout: float | None = ...,
    ) -> T: ...
    @overload
    async def get(
        self,
        path: Path,
        default: D,
        *,
        rev: Position | None = ...,
        at: str | None = ...,
        timeout: float | None = ...,
    ) -> Any | D: ...
    async def get(
        self,
        path: Path = "",
        default: Any = MISSING,
        *,
        type: Any = None,
        rev: Position | None = None,
        at: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """The value at a path; where there is none the default, or `NotFound` is raised.

        As of a revision (`rev`) or a moment (`at`, RFC 3339), if given. With `type` it is decoded as that type;
        raises `msgspec.ValidationError` where it is not of it.
        """
        try:
            answer = await self._session.get(pointer(path), rev, at, timeout)
        except NotFound:
            if default is MISSING:
                raise
            return default
        return decoded(answer, type)

    async def read(
        self,
        path: Path = "",
        *,
        type: Any = None,
        rev: Position | None = None,
        at: str | None = None,
        timeout: float | None = None,
    ) -> Read:
        """The value at a path with its etag, and the revision and cursor it was read at; raises `NotFound`."""
        answer = await self._session.get(pointer(path), rev, at, timeout)
        return Read(decoded(answer, type), answer.etag, answer.rev, answer.cursor)

    async def keys(self, path: Path = "", *, timeout: float | None = None) -> list[str]:
        """All keys of the object at a path, in its order; raises `NotFound`. Empty for what is no object."""
        return await self._session.keys_of(pointer(path), timeout)

    def history(
        self,
        path: Path = "",
        *,
        since: Position | None = None,
        until: Position | None = None,
        action: str | None = None,
        user: str | None = None,
        start: str | None = None,
        stop: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Change]:
        """The changes after which the value at a path differs, asked for in pages, `limit` of them at most.

        After `since`, up to `until` (revisions, cursors, RFC 3339 times; by default all that the log holds); `action`
        may be a glob, `start` and `stop` are times. Raises `HistoryGone`, `HistoryDiverged`.
        """
        given = {"since": position_of(since), "until": position_of(until), "order": "desc" if newest_first else "asc"}
        filters, onward = Filters(pointer(path), action, user, start, stop), "until" if newest_first else "since"
        return self._session.changes(filters, onward, limit, timeout, **given)

    async def status(self) -> dict[str, Any]:
        """What the server says of itself: `GET /v1/status`."""
        return dict(await self._session.posting().read("/v1/status"))

    async def ping(self, *, timeout: float | None = None) -> Written:
        """The present revision and cursor."""
        return (await self._session.ping(timeout)).written()

    # -- writing

    async def set(self, path: Path, value: Any, **options: Unpack[Options]) -> Written:
        """Set the value at a path; missing parents become objects, `-` behind an array's path appends.

        Raises `PatchMismatch` where the path runs through a scalar or past an array's end.
        """
        return await self._session.propose(pointer(path), assignment(value), "put", options)

    async def patch(self, path: Path, patch: Any, *, merge: bool = False, **options: Unpack[Options]) -> Written:
        """Apply a patch: jsondiff's syntax (section 4 of the contract), or with `merge` a merge patch (RFC 7396)."""
        if merge:
            kind = "application/merge-patch+json"
            return await self._session.post("PATCH", path, builtins(patch), options, kind)
        return await self._session.propose(pointer(path), builtins(patch), "patch", options)

    async def delete(self, path: Path, **options: Unpack[Options]) -> Written:
        """Remove what is at a path; raises `NotFound`."""
        keys = keys_of(path)
        if not keys:
            raise refusal({"code": "method_not_allowed", "status": 405, "detail": "the root cannot be deleted"})
        above, key = format(keys[:-1]), keys[-1]
        place: Any = escape(key)
        if key.isdecimal() and (await self._session.page(above, 1, None, options.get("timeout"))).type == "array":
            place = int(key)
        given: Options = {
            **options,
            "conditions": [*options.get("conditions", ()), {"path": format(keys), "exists": True}],
        }
        try:
            return await self._session.propose(above, {"$delete": [place]}, "delete", given)
        except PreconditionFailed as failed:
            if [each.get("path") for each in failed.problem.get("failed", ())] != [format(keys)]:
                raise
            problem = {"code": "not_found", "status": 404, "detail": "there is no value at this path"}
            raise refusal({**problem, "path": format(keys)}) from None

    async def add(self, path: Path, value: Any, **options: Unpack[Options]) -> Written:
        """Add a child to the object at a path (it is made if missing), under a new key that sorts by time: `key`.

        Given an idempotency key, the server makes the child's, so that the same call again tells the same one.
        """
        if "key" in options:
            return await self._session.post("POST", path, builtins(value), options)
        key = time_ordered_key(now_micros())
        written = await self._session.propose(pointer((*keys_of(path), key)), assignment(value), "post", options)
        return msgspec.structs.replace(written, key=key)

    async def append(self, path: Path, value: Any, **options: Unpack[Options]) -> Written:
        """Add an element at the end of the array at a path (it is made if missing); `key` is its index."""
        return await append(self._session, path, value, options)

    async def transact(
        self,
        diff: Any,
        *,
        path: Path = "",
        a: str | None = None,
        dry_run: bool = False,
        want_diff: bool = False,
        **options: Unpack[Options],
    ) -> Written:
        """Commit a patch with conditions, all or nothing: the general form of every write.

        `a` is `action`. With `dry_run` everything is checked and nothing done; then, and with `want_diff`, `diff` of
        the answer is the effective patch of the root. Raises `Conflict`, `PreconditionFailed`, `PatchMismatch`.
        """
        if a is not None:
            options["action"] = a
        return await self._session.propose(pointer(path), builtins(diff), "transact", options, dry_run, want_diff)

    async def update(
        self,
        path: Path,
        function: Callable[[Any], Any],
        *,
        default: Any = None,
        type: Any = None,
        attempts: int = 100,
        **options: Unpack[Options],
    ) -> Written:
        """Write what a function makes of the value at a path, and run it again while others are faster.

        The function gets the value (a draft that it may change in place, in which case it returns None), or `default`
        where there is none, and returns the new one; it may be a coroutine function. Raises `Conflict` after
        `attempts`, with jitter between them.
        """
        return await update(self._session, path, function, default, type, attempts, options)

    @overload
    def transaction(
        self, action: str = ..., path: Path = ..., *, type: type[T], **options: Unpack[Unnamed]
    ) -> Transaction[T]: ...
    @overload
    def transaction(
        self, action: str = ..., path: Path = ..., *, type: None = ..., **options: Unpack[Unnamed]
    ) -> Transaction[Any]: ...
    def transaction(
        self, action: str = "transact", path: Path = "", *, type: Any = None, **options: Unpack[Unnamed]
    ) -> Transaction[Any]:
        """`async with db.transaction("sign_up", path="/users") as users:` gives a draft to change, and commits it.

        Raises `Conflict` at the end if what was read or written has changed meanwhile. What the body raises goes
        through, and nothing is sent. Within another transaction of the same task: `NestedTransaction`.
        """
        named: Options = {**options, "action": action}
        return Transaction(self._session, path, type, named)

    async def revert(self, path: Path, rev: Position, **options: Unpack[Options]) -> Written:
        """Bring the value at a path back to what it was at a revision, as a new change; raises `HistoryGone`."""
        return await self._session.revert(pointer(path), rev, options)

    async def snapshot(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Have a snapshot written now; returns its `rev`, `cursor` and `bytes` when it is on the disk.

        That of a large state takes seconds, up to as many as a start.
        """
        return dict(await self._session.posting().read("/v1/snapshot", method="POST", seconds=timeout))

    async def backup(
        self, destination: str | PathLike[str], *, overwrite: bool = False, timeout: float | None = None
    ) -> Backup:
        """Copy the database file here, as of the newest durable revision, while the server goes on.

        The file is there when it is whole and durable (0600), and not before; an error or a cancellation leaves
        nothing. `timeout`, in seconds, is how long is waited for it to begin, and then for anything more of it.
        Raises FileExistsError unless `overwrite`, other OSErrors, and `Unreachable` where the connection is lost.
        """
        from kanta_client.backup import back_up  # with aiohttp, which takes longer to import than all else

        return await back_up(self._session.posting(), fspath(destination), overwrite, timeout)

    # -- following

    def subscribe(
        self,
        path: Path = "",
        *,
        since: Position | None = None,
        value: bool = False,
        type: Any = None,
        action: str | None = None,
        user: str | None = None,
    ) -> Subscription:
        """An iterator over the changes at a path: from now on, or after `since` (a revision, cursor or time).

        It goes on by itself over lost connections and restarts of the server, without a gap and without a repeat;
        raises `HistoryGone`, `HistoryDiverged`, `Unauthorized` where it cannot. With `value` each change has the value
        after it (as `type`, if given), and the first one given out has the present value, where there is no `since`.
        """
        filters = Filters(pointer(path), action, user)
        position = position_of(since)

        async def former() -> Any:
            when: dict[str, Any] = {"rev": position}
            if isinstance(position, str) and ":" in position:
                when = {"at": position}
            try:
                return await self.get(path, **when)
            except NotFound:
                return MISSING

        return Subscription(self._session.channel(), filters, position, value, type, former)

    @overload
    def mirror(self, path: Path = ...) -> Mirror[Any]: ...
    @overload
    def mirror(self, path: Path = ..., *, type: type[T]) -> Mirror[T]: ...
    def mirror(self, path: Path = "", *, type: Any = None) -> Mirror[Any]:
        """A live local copy of what is at a path, as `type`, if given: `async with db.mirror("/users") as users`."""
        return Mirror(self._session.channel(), pointer(path), keys_of(path), type, self._session.mirrors)
