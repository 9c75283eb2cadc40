"""The database in one's own process, without HTTP: `from kantad.engine import Engine`.

The same core as the server's (`kantad.engine.engine`), over the same file, on the host's event loop,
with a typed live value beside the state. It changes nothing that belongs to the whole process: no
signals, no collector, no umask. Used from the thread of its loop only.
"""

import asyncio
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Generic, Literal, Self, TypedDict, TypeVar, Unpack, cast, overload

from kantad.engine.changes import Changes
from kantad.engine.compacting import Compacted
from kantad.engine.engine import Engine as Core
from kantad.engine.live import ConsistencyViolation, Live
from kantad.engine.opening import open_engine
from kantad.engine.proposal import ACKS, Ack, Proposal
from kantad.engine.transaction import NestedTransaction, Transaction
from kantad.store.disk import Disk
from kantad.store.log import Broken, NotOurs
from kantad.store.migrations import Migrations
from kantad.store.user_code import migrations_in, schema_from
from kantad.values.content import MISSING
from kantad.values.draft import Draft
from kantad.values.errors import Problem
from kantad.values.pointer import parse
from kantad.values.retention import Retention, retention
from kantad.values.schema import Schema

T = TypeVar("T")

MOST_SECONDS: Final = 3600


class Options(TypedDict, total=False):
    """How a database is opened; all may be left out.

    `migrations` is a module with `migrate_vN` functions, or its name. `format` is `json` or `msgpack`, of a new
    file, or `module:Class` of one's own, of any file.
    `ack` says what `async with` and `flush` wait for, `flush_interval` (seconds) how long what is not `durable` may be
    unwritten. `consistency` is what of the live value a transaction is checked for: what it `touched`, or the `whole`.
    `readonly` neither creates, locks nor changes the file. `retain` says how much history is kept, by compacting now
    and then: `30d`, `12h`, `100000r` or `none`. `fatal_error` is called when the disk can no longer be trusted.
    `disk` and `clock` (microseconds) are for tests.
    """

    migrations: ModuleType | str | None
    format: str | None
    ack: Ack
    flush_interval: float
    readonly: bool
    retain: str | None
    consistency: Literal["touched", "whole"]
    fatal_error: Callable[[Broken], object] | None
    disk: Disk
    clock: Callable[[], int]


CHOICES: Final = {"ack": ACKS, "consistency": ("touched", "whole")}


def _check(options: Options) -> None:
    """Look at what would go unnoticed: an option that is misspelled is one that is not set."""
    for name in options.keys() - Options.__annotations__.keys():
        raise TypeError(f"there is no option {name!r}")
    for name, choices in CHOICES.items():
        if options.get(name, choices[0]) not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}")
    if not 0 <= options.get("flush_interval", 0.0) <= MOST_SECONDS:
        raise ValueError(f"flush_interval is a number of seconds, 0 to {MOST_SECONDS}")
    if options.get("retain") is not None and options.get("readonly"):
        raise ValueError("retain drops history from the file, and readonly leaves it as it is")


class Engine(Generic[T]):
    """A database of one's own. `data` is a Struct type, an instance of one that a new file begins with, or nothing.

    `async with Engine(...) as engine:` opens and closes it, or `await engine.open()` and `await engine.close()` do.
    """

    @overload
    def __init__(
        self: "Engine[dict[str, Any]]", filename: str | os.PathLike[str], **options: Unpack[Options]
    ) -> None: ...
    @overload
    def __init__(
        self: "Engine[T]", filename: str | os.PathLike[str], data: type[T] | T, **options: Unpack[Options]
    ) -> None: ...
    def __init__(self, filename: str | os.PathLike[str], data: Any = None, **options: Unpack[Options]) -> None:
        """Raises `CodeError` for a type or migrations that cannot be used, ImportError, TypeError for an option that
        there is not, and ValueError for one that cannot be so."""
        _check(options)
        self._filename, self._options = os.fspath(filename), options
        self._own = None if data is None or isinstance(data, type) else data
        self._schema = None if data is None else _schema(data if isinstance(data, type) else type(data))
        self._migrations = _migrations(options.get("migrations"))
        self._whole = options.get("consistency", "touched") == "whole"
        kept = options.get("retain")
        self._retain = None if kept is None else _retention(kept)
        self._core: Core | None = None
        self._live: Live[T] | None = None
        self._open: Transaction[T] | None = None
        self._violation: ConsistencyViolation | None = None

    # -- its life

    async def open(self) -> None:
        """Open the file, or make it; reading it holds up the loop.

        Raises `Locked`, `NotOurs`, `Damaged`, `CodeError` (the format's class), `Failed` (a migration, or a state that
        does not fit), `NoRoom`, `Broken`, OSError; RuntimeError if it is open.
        """
        if self._core is not None:
            raise RuntimeError(f"{self._filename} is open already")
        own, passed = self._own, ("format", "ack", "flush_interval", "readonly", "disk", "clock")
        more: dict[str, Any] = {name: value for name, value in self._options.items() if name in passed}
        initial = None if own is None or self._schema is None else self._schema.form.stored(self._schema.kind, own)
        more |= {"schema": self._schema, "migrations": self._migrations, "initial": initial, "typed": True}
        try:
            core = open_engine(self._filename, called="format", **more)
        except NotOurs as error:
            raise NotOurs(f"{self._filename}: {error}") from None
        try:
            self._live = Live(core, own)
        except BaseException:
            await core.stop()
            raise
        self._core, self._violation = core, None
        if self._retain is not None:
            core.compaction.keep_to(self._retain)
        if (told := self._options.get("fatal_error")) is not None:
            core.broken.add_done_callback(lambda broken: told(broken.result()))

    async def close(self) -> None:
        """Write what is queued and release the file; a snapshot is written if the next start is worth it."""
        core, self._core = self._core, None
        if core is not None:
            await core.stop()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- reading

    @property
    def data(self) -> T:
        """The value now, with all that was committed; within a transaction what that has made of it.

        Only a transaction may change it. What is held of it may be out of date after the next one: look again.
        """
        transaction = self._open
        if transaction is not None and transaction.task is asyncio.current_task():
            return transaction.value
        if self._live is None:
            if self._own is None:
                raise self._closed()
            return cast(T, self._own)
        return self._live.value

    @data.setter
    def data(self, value: T) -> None:
        if self._open is None:
            raise RuntimeError("data can be replaced within a transaction only")
        self._open.replace(value)

    @property
    def filename(self) -> Path:
        """The file's path."""
        return Path(self._filename)

    @property
    def rev(self) -> int:
        """The revision of `data`."""
        return self._running().rev

    @property
    def version(self) -> int:
        """The version of the schema: of the last migration."""
        return self._running().v

    async def value(self, path: str = "", *, rev: int | str) -> Any:
        """The plain value at a pointer as of a revision or cursor, a copy; raises `Problem`."""
        core = self._running()
        await core.settled(None, core.rev)
        found = await core.former.value_at(rev, parse(path))
        if found is MISSING:
            raise Problem("not_found", "there was no value at this path", path=path)
        return found

    def changes(self, since: int | str | None = None) -> Changes:
        """An asynchronous iterator of the changes behind a revision, cursor or RFC 3339 time, or from now on.

        Each is told when it is as safe as `ack` says. It ends when the database is closed.
        """
        return Changes(self._running(), since)

    # -- writing

    def transaction(self, action: str, *, user: str | None = None) -> Transaction[T]:
        """A context manager that gives `data` to change; see `Transaction`. Raises `Problem` for a wrong label.

        Entering raises `NestedTransaction`, and `ConsistencyViolation` where one was found. Leaving raises `Problem`
        where the value does not fit the type, a validator refuses it or too much waits for the disk, and
        `ConsistencyViolation`; then nothing is changed.
        """
        return Transaction(self, action, user)

    async def flush(self) -> None:
        """Wait until all that was committed is on the disk; raises `Problem` where it was lost, and is taken back."""
        core = self._running()
        await core.settled("durable", core.rev)

    async def snapshot(self) -> int:
        """Write a snapshot now, which makes the next start faster; returns its revision. Raises `Problem`."""
        return (await self._running().snapshot())[0].rev

    async def compact(self, retain: str, *, archive: bool = True) -> Compacted:
        """Drop history older than `retain` keeps (`30d`, `12h`, `100000r`, `none`); returns when that is on the disk.

        What is dropped is kept beside the file as a database of its own, unless `archive` is false. Another process
        does the work; transactions go on. Raises ValueError, and `Problem` where it could not be done.
        """
        kept = _retention(retain)
        await self.flush()  # the newest revisions are those that were committed, whether they were written or not
        return await self._running().compaction.compact(kept, archive)

    # -- what a transaction asks for

    def begin(self, transaction: Transaction[T]) -> Draft:
        """The draft for a transaction, which is the only one until `ended`."""
        core = self._running()
        if core.broken.done():
            raise core.broken.result()
        if self._violation is not None:
            raise self._violation
        if self._open is not None:
            raise NestedTransaction("a transaction within a transaction; await nothing inside of one")
        assert self._live is not None
        if self._whole:
            self._checked(lambda live: live.check_whole(transaction.action))
        self._open = transaction
        return self._live.draft()

    def ended(self) -> None:
        """The transaction is over."""
        self._open = None

    def check(self, draft: Draft, action: str) -> None:
        """Raise `ConsistencyViolation` if the live value is not what is stored."""
        self._checked(lambda live: live.check_whole(action) if self._whole else live.check_touched(draft, action))

    def commit(self, patch: Any, action: str, user: str | None) -> int | None:
        """Apply a draft's patch and put it in line for the disk; the revision, if it made one. Raises `Problem`."""
        core = self._running()
        outcome = core.transact(Proposal((), "patch", patch, action, user, foreign=core.foreign))
        if not outcome.changed:
            return None
        assert self._live is not None
        self._live.follow(outcome.diff)
        return outcome.rev

    async def settled(self, rev: int) -> None:
        """Wait until a revision is as safe as `ack` says; raises `Problem` if it was lost."""
        await self._running().settled(None, rev)

    def _checked(self, check: Callable[[Live[T]], None]) -> None:
        assert self._live is not None
        try:
            check(self._live)
        except ConsistencyViolation as violation:
            self._violation = violation
            raise

    def _running(self) -> Core:
        if self._core is None:
            raise self._closed()
        return self._core

    def _closed(self) -> RuntimeError:
        return RuntimeError(f"{self._filename} is not open")


def _retention(text: object) -> Retention:
    try:
        return retention(text)
    except ValueError as error:
        raise ValueError(f"retain is {text!r}, which is not {error}") from None


def _schema(root: type[Any]) -> Schema:
    name = f"{root.__module__}:{root.__qualname__}"
    return schema_from(root, name, sys.modules.get(root.__module__))


def _migrations(given: ModuleType | str | None) -> Migrations | None:
    if given is None:
        return None
    module = importlib.import_module(given) if isinstance(given, str) else given
    if not isinstance(module, ModuleType):
        raise TypeError(f"migrations is a module, or its name, not {given!r}")
    return migrations_in(module, module.__name__)
