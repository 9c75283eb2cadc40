"""`KantaClient`: one server, over HTTP. Paths are JSON Pointers (RFC 6901), values are JSON values.

Every write carries an idempotency key, made here where none is given: aiohttp repeats a `PUT` or
`DELETE` whose kept-alive connection was lost, and so may the caller with a `key` of its own. A write
whose answer did not come raises `UnknownOutcomeError`.
"""

from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import msgspec
from yarl import URL

from kanta_client.errors import UnknownOutcomeError, refusal
from kantad.values.errors import Problem
from kantad.values.pointer import format_url, parse

MERGE = "application/merge-patch+json"
JSON = "application/json"


class Read(NamedTuple):
    """A value as read: with its etag (to write back conditionally), and the revision and cursor it was read at."""

    value: Any
    etag: str
    rev: int
    cursor: str


class Written(NamedTuple):
    """What a write came to. `key` is the new child's of an `add`; `diff` is there where it was asked for."""

    rev: int
    cursor: str
    changed: bool
    replayed: bool
    key: str | None
    diff: Any


class KantaClient:
    """A client of the server at `url`. Use it as an async context manager, or `close` it."""

    def __init__(self, url: str, *, timeout: float = 60.0, session: aiohttp.ClientSession | None = None) -> None:
        self.url = url.rstrip("/")
        self.timeout = aiohttp.ClientTimeout(total=timeout)
        self.session, self.own = session, session is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless the session was given."""
        if self.own and self.session is not None:
            await self.session.close()
            self.session = None

    # -- reading

    async def get(self, path: str = "") -> Any:
        """The value at a path; raises `NotFoundError`."""
        return (await self.read(path)).value

    async def read(self, path: str = "") -> Read:
        """The value at a path with its etag and revision; raises `NotFoundError`."""
        headers, value = await self._ask("GET", _data(path))
        return Read(value, headers["ETag"].strip('"'), int(headers["Kanta-Revision"]), headers["Kanta-Cursor"])

    async def keys(self, path: str = "", *, page: int = 1000) -> list[str]:
        """All keys of the object at a path, in order; raises `NotFoundError`."""
        found: list[str] = []
        after = ""
        while True:
            _, answer = await self._ask("GET", f"/v1/keys{_url(path)}?limit={page}{after}")
            found += answer.get("keys", ())
            if answer.get("next") is None:
                return found
            after = f"&after={quote(answer['next'], safe='')}"

    async def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        _, answer = await self._ask("GET", "/v1/status")
        return dict(answer)

    # -- writing

    async def set(self, path: str, value: Any, **options: Any) -> Written:
        """Set the value at a path. Options of all writes: `action`, `user`, `m`, `ack`, `base`, `etag`, `key`."""
        return await self._write("PUT", path, value, JSON, **options)

    async def patch(self, path: str, patch: Any, *, merge: bool = False, **options: Any) -> Written:
        """Apply a patch to the value at a path: jsondiff's syntax, or a merge patch (RFC 7396)."""
        return await self._write("PATCH", path, patch, MERGE if merge else JSON, **options)

    async def delete(self, path: str, **options: Any) -> Written:
        """Remove the value at a path; raises `NotFoundError`."""
        return await self._write("DELETE", path, None, JSON, **options)

    async def add(self, path: str, value: Any, **options: Any) -> Written:
        """Add a child to the object or array at a path; its key is in the answer."""
        return await self._write("POST", path, value, JSON, **options)

    async def transact(self, diff: Any, **members: Any) -> Written:
        """Commit a patch with conditions; `members` are those of `POST /v1/transaction`, `when` being its `if`.

        `want="diff"` is its `return`.
        """
        renamed = {"when": "if", "want": "return"}
        body = {"diff": diff, "id": _new_key(), **{renamed.get(name, name): value for name, value in members.items()}}
        _, answer = await self._ask("POST", "/v1/transaction", msgspec.json.encode(body))
        return _written(answer)

    async def _write(
        self,
        method: str,
        path: str,
        value: Any,
        kind: str,
        *,
        etag: str | None = None,
        key: str | None = None,
        **parameters: str | int,
    ) -> Written:
        headers = {"Content-Type": kind}
        if etag is not None:
            headers["If-Match"] = "*" if etag == "*" else f'"{etag}"'
        headers["Idempotency-Key"] = key or _new_key()
        query = "&".join(f"{name}={quote(str(given), safe='')}" for name, given in parameters.items())
        body = None if method == "DELETE" else msgspec.json.encode(value)
        _, answer = await self._ask(method, f"{_data(path)}?{query}" if query else _data(path), body, headers)
        return _written(answer)

    async def _ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[Any, Any]:
        """The headers and the decoded body of an answer; raises `KantaError` and `UnknownOutcomeError`."""
        if self.session is None:
            self.session = aiohttp.ClientSession()
        url = URL(self.url + target, encoded=True)  # nothing is normalised: `..` is a key
        try:
            async with self.session.request(method, url, data=body, headers=headers, timeout=self.timeout) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            if method == "GET" or isinstance(error, aiohttp.ClientConnectorError):
                raise
            raise UnknownOutcomeError(f"{method} {target}: {error or type(error).__name__}") from error
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError:
            value = None
        if answer.status >= 300:
            raise refusal(answer.status, value)
        return answer.headers, value


def _new_key() -> str:
    return uuid4().hex


def _data(path: str) -> str:
    return f"/v1/data{_url(path)}"


def _url(path: str) -> str:
    """The URL path of a pointer; raises `KantaError` as the server would, where it is none."""
    try:
        return format_url(parse(path))
    except Problem as problem:
        raise refusal(problem.status, problem.body()) from None
    except UnicodeEncodeError:
        raise refusal(400, Problem("invalid_path", "a path is text that UTF-8 can hold").body()) from None


def _written(answer: dict[str, Any]) -> Written:
    return Written(
        answer["rev"],
        answer["cursor"],
        answer["changed"],
        answer.get("replayed", False),
        answer.get("key"),
        answer.get("diff"),
    )
