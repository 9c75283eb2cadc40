"""A transaction of an embedded database: a draft of the live value, committed at the end of the block.

Plain and synchronous: nothing else runs between the beginning and the end, so nothing can be half
visible and there is nothing to conflict with. What is committed is queued for the disk; `async with`
waits until the acknowledgement that the database was opened with.
"""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from kantad.values.diff import SAME
from kantad.values.draft import Draft
from kantad.values.errors import Problem, pointer_text
from kantad.values.record import label

if TYPE_CHECKING:
    from kantad.engine.embedded import Engine

T = TypeVar("T")


class NestedTransaction(RuntimeError):
    """A transaction within a transaction, or while another task waits inside of one."""


class Transaction(Generic[T]):
    """A context manager that gives the value to change; an exception in its block leaves everything as it was.

    Afterwards `rev` is the revision that it made, None where nothing was changed.
    """

    def __init__(self, engine: "Engine[T]", action: str, user: str | None) -> None:
        self.engine, self.action = engine, label(action, "action")
        self.user = None if user is None else label(user, "user")
        self.rev: int | None = None
        self.task: asyncio.Task[Any] | None = None
        self._draft: Draft

    def __enter__(self) -> T:
        self.task = asyncio.current_task()
        self._draft = self.engine.begin(self)
        return self.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        finally:
            self.engine.ended()

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
        if self.rev is not None:
            await self.engine.settled(self.rev)

    @property
    def value(self) -> T:
        """The draft."""
        return cast(T, self._draft.value)

    def replace(self, value: T) -> None:
        """Put another value in the place of all that is there."""
        self._draft.handed = value

    def _commit(self) -> None:
        try:
            self.engine.check(self._draft, self.action)
            patch = self._draft.patch()
            if patch is not SAME:
                self.rev = self.engine.commit(patch, self.action, self.user)
        except Problem as problem:
            path = problem.more.get("path") or pointer_text(problem.keys)
            if path:
                problem.add_note(f"at {path}")
            raise
