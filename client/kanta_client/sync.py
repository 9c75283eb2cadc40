"""`SyncKantaClient`: the same methods for scripts, Flask and Django. Each waits for `KantaClient`'s own.

There is no second implementation: a method is run on the background loop (`background`), and `blocking`
gives it the signature of the one it runs. May be used by many threads at once. In a process that was
forked it connects anew; what was begun before (feeds, mirrors, transactions) is the parent's and is
refused there.
"""

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

from kanta_client.background import Background, background, leave
from kanta_client.channel import Patience, State
from kanta_client.client import KantaClient
from kanta_client.errors import NestedTransaction
from kanta_client.options import Options, Unnamed
from kanta_client.paths import Path
from kanta_client.records import Written
from kanta_client.session import Position
from kanta_client.subscription import Subscription
from kanta_client.sync_following import SyncMirror, SyncSubscription, drained, made
from kanta_client.transaction import Transaction
from kantad.values.content import MISSING

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


def blocking(
    method: Callable[Concatenate[KantaClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncKantaClient", P], T]:
    """The method that waits for this one."""

    @wraps(method)
    def wait(self: "SyncKantaClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        background, client = self.here()
        return background.run(method(client, *args, **kwargs))

    return wait


def iterating(
    method: Callable[Concatenate[KantaClient, P], AsyncIterator[T]],
) -> Callable[Concatenate["SyncKantaClient", P], Iterator[T]]:
    """The generator of what this one gives."""

    @wraps(method)
    def iterate(self: "SyncKantaClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        background, client = self.here()
        return drained(background, made(partial(method, client, *args, **kwargs)))

    return iterate


def subscribing(
    method: Callable[Concatenate[KantaClient, P], Subscription],
) -> Callable[Concatenate["SyncKantaClient", P], SyncSubscription]:
    """The method that gives the subscription of this one."""

    @wraps(method)
    def subscribe(self: "SyncKantaClient", /, *args: P.args, **kwargs: P.kwargs) -> SyncSubscription:
        background, client = self.here()
        return SyncSubscription(background, background.run(made(partial(method, client, *args, **kwargs))))

    return subscribe


class SyncTransaction(Generic[T]):
    """A context manager: gives the draft, commits it at the end, sends nothing if the body raises.

    `written` is what the commit came to; None where nothing was changed.
    """

    def __init__(self, background: Background, transaction: Transaction[T], within: threading.local) -> None:
        self._background, self._transaction, self._within = background, transaction, within

    @property
    def written(self) -> Written | None:
        """See the class."""
        return self._transaction.written

    def __enter__(self) -> T:
        if getattr(self._within, "transaction", None) is not None:
            raise NestedTransaction("a transaction within a transaction: finish the one, or use another thread")
        draft = self._background.run(_entered(self._transaction))
        self._within.transaction = self
        return draft

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._within.transaction = None
        self._background.run(self._transaction.__aexit__(kind, error, trace))


async def _entered(transaction: Transaction[T]) -> T:
    return await transaction.__aenter__()


class SyncKantaClient:
    """A client of the server at `url`, whose methods wait; see `KantaClient`, which has all of them.

    `on_state` is called in the background's thread.
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
        self._make = partial(
            KantaClient, url, token=token, timeout=timeout, on_state=on_state, ssl=ssl, patience=patience
        )
        self._open: tuple[Background | None, KantaClient] = (None, self._make())
        self._within = threading.local()

    def here(self) -> tuple[Background, KantaClient]:
        """The loop of this process, and the client that lives there: what all methods run on."""
        there = background()
        with there.lock:
            before, client = self._open
            if before is not None and before is not there and client.state != "closed":
                leave(client)
                client = self._make()
            self._open = (there, client)
        return there, client

    def __enter__(self) -> Self:
        background, client = self.here()
        background.run(client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    close = blocking(KantaClient.close)

    @property
    def state(self) -> State:
        """Of the connection, as `KantaClient.state` tells it."""
        return self.here()[1].state

    @property
    def rev(self) -> int:
        """The newest revision that was heard of."""
        return self.here()[1].rev

    # -- reading

    @overload
    def get(
        self, path: Path = ..., *, rev: Position | None = ..., at: str | None = ..., timeout: float | None = ...
    ) -> Any: ...
    @overload
    def get(
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
    def get(
        self,
        path: Path = ...,
        *,
        type: type[T],
        rev: Position | None = ...,
        at: str | None = ...,
        timeout: float | None = ...,
    ) -> T: ...
    @overload
    def get(
        self,
        path: Path,
        default: D,
        *,
        rev: Position | None = ...,
        at: str | None = ...,
        timeout: float | None = ...,
    ) -> Any | D: ...
    def get(self, path: Path = "", default: Any = MISSING, **asked: Any) -> Any:
        """The value at a path; see `KantaClient.get`."""
        background, client = self.here()
        return background.run(client.get(path, default, **asked))

    read = blocking(KantaClient.read)
    keys = blocking(KantaClient.keys)
    history = iterating(KantaClient.history)
    status = blocking(KantaClient.status)
    ping = blocking(KantaClient.ping)

    # -- writing

    set = blocking(KantaClient.set)
    patch = blocking(KantaClient.patch)
    delete = blocking(KantaClient.delete)
    add = blocking(KantaClient.add)
    append = blocking(KantaClient.append)
    transact = blocking(KantaClient.transact)
    revert = blocking(KantaClient.revert)
    snapshot = blocking(KantaClient.snapshot)
    backup = blocking(KantaClient.backup)

    def update(
        self,
        path: Path,
        function: Callable[[Any], Any],
        *,
        default: Any = None,
        type: Any = None,
        attempts: int = 100,
        **options: Unpack[Options],
    ) -> Written:
        """Write what a function makes of the value at a path; see `KantaClient.update`.

        The function is called in the thread that waits; what it raises is raised here, and nothing is written.
        """
        background, client = self.here()
        given = {"default": default, "type": type, "attempts": attempts}
        return background.run_calling(lambda call: client.update(path, partial(call, function), **given, **options))

    @overload
    def transaction(
        self, action: str = ..., path: Path = ..., *, type: type[T], **options: Unpack[Unnamed]
    ) -> SyncTransaction[T]: ...
    @overload
    def transaction(
        self, action: str = ..., path: Path = ..., *, type: None = ..., **options: Unpack[Unnamed]
    ) -> SyncTransaction[Any]: ...
    def transaction(
        self, action: str = "transact", path: Path = "", *, type: Any = None, **options: Unpack[Unnamed]
    ) -> SyncTransaction[Any]:
        """`with db.transaction("sign_up", path="/users") as users:` gives a draft; see `KantaClient.transaction`."""
        background, client = self.here()
        return SyncTransaction(background, client.transaction(action, path, type=type, **options), self._within)

    # -- following

    subscribe = subscribing(KantaClient.subscribe)

    @overload
    def mirror(self, path: Path = ...) -> SyncMirror[Any]: ...
    @overload
    def mirror(self, path: Path = ..., *, type: type[T]) -> SyncMirror[T]: ...
    def mirror(self, path: Path = "", *, type: Any = None) -> SyncMirror[Any]:
        """A live local copy of what is at a path: `with db.mirror("/users") as users`; see `KantaClient.mirror`."""
        background, client = self.here()
        return SyncMirror(background, background.run(made(partial(client.mirror, path, type=type))))
