"""A transaction over a draft: read, change, write, and nothing is written if what was read is not so any more.

What the draft was read at is the base of the write, and what was read of it is a condition. So a commit
means that everything the code looked at was still so when it was written.
"""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from kanta_client.errors import Conflict, KantaError, NestedTransaction, PreconditionFailed, Refused
from kanta_client.feed import Filters
from kanta_client.mirror import Mirror
from kanta_client.options import Options, known
from kanta_client.paths import Path, keys_of, refused
from kanta_client.records import Change, Written
from kantad.values.diff import SAME
from kantad.values.draft import Draft
from kantad.values.errors import Problem
from kantad.values.pointer import Path as Keys
from kantad.values.pointer import format
from kantad.values.touch import touched

if TYPE_CHECKING:
    from kanta_client.session import Session

T = TypeVar("T")

MOST_CHANGES: Final = 100  # in the way, that a `Conflict` lists


class Transaction(Generic[T]):
    """An asynchronous context manager: gives the draft, commits it at the end, sends nothing if the body raises.

    `written` is what the commit came to; None where nothing was changed, and nothing had to be asked. A draft of a
    mirror may show later revisions as one goes down into it: then the end finds out whether it belongs together.
    """

    def __init__(self, session: "Session", path: Path, type: Any, options: Options) -> None:
        known(options)
        self.session, self.keys, self.type, self.options = session, keys_of(path), type, options
        self.base = ""
        self.written: Written | None = None
        self._draft: Draft
        self._mirror: Mirror[Any] | None = None
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> T:
        task = asyncio.current_task()
        if task is None or task in self.session.transacting:
            raise NestedTransaction("a transaction within a transaction: finish the one, or use another task")
        self.session.transacting.add(task)
        self.written = None
        try:
            self._mirror = self.session.mirrored(self.keys)
            value, self.base = await self.session.present(self.keys, self.type)
            self._draft = Draft(value, self.type)
        except BaseException:
            self.session.transacting.discard(task)
            raise
        self._task = task
        return cast(T, self._draft.value)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._commit()
        finally:
            self.session.transacting.discard(cast("asyncio.Task[Any]", self._task))

    async def _commit(self) -> None:
        try:
            patch = self._draft.patch()
        except Problem as problem:
            raise refused(problem) from None
        if patch is SAME and not self._moved():
            return
        patch = {} if patch is SAME else patch
        options = self.options.copy()
        if "base" in options:  # another one, and there is one: what is read and written is a condition, as a whole
            own = [{"path": format(self.keys), "unchanged_since": self.base}]
        else:
            own = conditions_of(self.keys, self.base, self._draft.reads(), patch)
            options["base"] = self.base
        options["conditions"] = [*options.get("conditions", ()), *own]
        try:
            self.written = await self.session.propose(format(self.keys), patch, "transact", options)
        except PreconditionFailed as failed:
            if conflicting(failed, own):
                raise await conflict(self.session, failed, self.base) from None
            raise

    def _moved(self) -> bool:
        """Whether the draft was made of a mirror that has changed since: then what was read may not belong together."""
        return self._mirror is not None and self._mirror.cursor != self.base


def conditions_of(keys: Keys, base: str, reads: list[Keys], patch: Any) -> list[dict[str, Any]]:
    """What was read, as conditions; left out is what lies at or below a path that is written: the base covers it."""
    written = set(touched(patch))
    covered = [read for read in reads if any(read[: len(path)] == path for path in written)]
    return [{"path": format((*keys, *read)), "unchanged_since": base} for read in reads if read not in covered]


def conflicting(failed: PreconditionFailed, own: list[dict[str, Any]]) -> bool:
    """Whether all that failed are conditions of the transaction's own."""
    paths = {each["path"] for each in own}
    return all(each.get("path") in paths for each in failed.problem.get("failed", ()))


async def conflict(session: "Session", failed: PreconditionFailed, base: str) -> Conflict:
    """The conflict that failed conditions are, with the changes that are in the way, as far as they can be told."""
    found: dict[int, Change] = {}
    for each in failed.problem.get("failed", ()):
        try:
            async for change in session.changes(Filters(each["path"]), "since", MOST_CHANGES, None, since=base):
                found[change.rev] = change
        except Refused:
            continue  # the refusal stands without them
        except KantaError:
            break  # nor would the others be told, each after so long
    changes = tuple(found[rev] for rev in sorted(found))[:MOST_CHANGES]
    return Conflict({**failed.problem, "code": "conflict", "status": 409}, changes)
