"""Bringing a file's state to the version and the type of the code, at the start.

Migrations run in order on plain values, then the state is normalised through the schema. Each step
is one change (`migrate:vN`, `migrate:msgspec`, in a new file `bootstrap`), logged also where it changes
nothing, because it brings the version. Nothing is written before all have succeeded and the
validators have seen the result; then all are written at once, so that the file has all or none
(`Log.append_together`). Blocking; called before anything is served, and by `kantad migrate`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import msgspec

from kantad.store.beside import recover_from
from kantad.store.log import Broken, Log
from kantad.store.recovery import Recovered
from kantad.values.codec import Codec
from kantad.values.content import check, copied
from kantad.values.diff import SAME, difference
from kantad.values.errors import RAISED, Problem, told
from kantad.values.kinds import Unsupported
from kantad.values.moment import datetime_of
from kantad.values.normal import plain
from kantad.values.pointer import format
from kantad.values.schema import Schema
from kantad.values.validators import judge

logger = logging.getLogger("kantad")

DEEPEST: Final = 256


class Failed(Exception):
    """A step could not be done, or is missing; nothing was written (exit status 2)."""


class Step(NamedTuple):
    """A `migrate_vN`."""

    version: int
    name: str
    run: Callable[..., Any]
    takes_context: bool
    description: str


@dataclass(frozen=True)
class Migrations:
    """The steps of a module, by version."""

    module: str
    steps: dict[int, Step]

    @property
    def newest(self) -> int:
        """The version that the code is for."""
        return max(self.steps, default=0)

    def after(self, version: int) -> list[Step]:
        """The steps that a file of this version needs; raises `Failed`."""
        if version > self.newest:
            last = f"its last step is migrate_v{self.newest}" if self.steps else "it has no migrate_vN"
            raise Failed(
                f"the file is of version {version}, which is newer than the code: {self.module} knows no "
                f"migrate_v{version}, {last}"
            )
        needed = range(version + 1, self.newest + 1)
        for number in needed:
            if number not in self.steps:
                raise Failed(f"the file is of version {version}, and {self.module} has no migrate_v{number}")
        return [self.steps[number] for number in needed]


@dataclass
class Context:
    """What a migration with a second parameter is given.

    `version` is the step's, `path` the file's (`filename` the same as a Path), `clock` gives the time of the
    migration, `ctx` is for what one step wants to tell a later one.
    """

    version: int
    path: str
    clock: Callable[[], datetime]
    ctx: SimpleNamespace = field(default_factory=SimpleNamespace)

    @property
    def filename(self) -> Path:
        """The file's path."""
        return Path(self.path)


class Done(NamedTuple):
    """A change that brings the file on: its action, the version after it, its canonical patch."""

    action: str
    version: int
    description: str
    diff: Any


Watch = Callable[[Done, Any], None]  # is told of each change, with the state before it


class Upgrade:
    """What a file needs to be of the code's version and type; made without changing anything.

    Raises `Failed`.
    """

    def __init__(
        self,
        found: Recovered,
        codec: Codec,
        path: str,
        micros: int,
        schema: Schema | None,
        steps: Migrations | None,
        watch: Watch | None = None,
        initial: dict[str, Any] | None = None,
    ) -> None:
        self.state, self.version = found.state, found.v
        self.native, self.encode, self.watch = codec.foreign, codec.encode, watch
        self.micros = max(micros, found.micros)
        self.done: list[Done] = []
        if schema is not None:
            try:
                schema.bind(codec.foreign)
            except Unsupported as error:
                raise Failed(str(error)) from None
        new = found.rev == 0 and not found.state
        if steps is not None and new and not found.v:
            self.version = steps.newest
        elif steps is not None:
            context = Context(0, path, lambda: datetime_of(self.micros))
            for step in steps.after(found.v):
                self._migrate(step, context)
        if schema is not None:
            self._normalise(schema, "bootstrap" if new else "migrate:msgspec", initial if new else None)
            self._judge(schema)

    def _migrate(self, step: Step, context: Context) -> None:
        before, after = self.state, copied(self.state)
        context.version = step.version
        try:
            result = step.run(after, context) if step.takes_context else step.run(after)
            if result is not None and result is not after:
                raise TypeError("it returns something; a migration changes the given dict in place")
            after = self._plain(after)
            check(after, DEEPEST, self.native)
            self.encode(after)  # text may hold what UTF-8 has no form for
        except Problem as problem:
            raise Failed(f"{_title(step)} made what cannot be stored{_where(problem)}: {problem.detail}") from problem
        except RAISED as error:
            raise Failed(f"{_title(step)} failed: {told(error)}") from error
        diff = difference(before, after)
        diff = {} if diff is SAME else diff
        self._add(Done(f"migrate:v{step.version}", step.version, step.description, diff), after)

    def _plain(self, value: Any) -> Any:
        """What is stored of what a step left behind, which may hold UUIDs, times, tuples, Structs."""
        if not self.native:
            return plain(msgspec.to_builtins(value, str_keys=True))
        return plain(msgspec.to_builtins(value, builtin_types=(bytes, datetime)))

    def _normalise(self, schema: Schema, action: str, initial: dict[str, Any] | None) -> None:
        try:
            made, diff = schema.normalised(self.state if initial is None else initial)
        except Problem as problem:
            raise Failed(f"{action}: the state does not fit {schema.name}{_where(problem)}: {problem.detail}") from None
        if initial is not None:
            diff = difference(self.state, made)
        if diff is not SAME:
            self._add(Done(action, self.version, schema.name, diff), made)

    def _add(self, change: Done, after: Any) -> None:
        if self.watch is not None:
            self.watch(change, self.state)
        self.state, self.version = after, change.version
        self.done.append(change)

    def _judge(self, schema: Schema) -> None:
        try:
            judge(schema.validators, self.state, [()])
        except Problem as problem:
            raise Failed(f"the validators of {schema.name} refuse the state: {problem.detail}") from None

    def payloads(self, codec: Codec, rev: int, chain: bytes, read_as: str) -> Iterator[bytes]:
        """The records, behind this revision; each but the first names it as what it is written with.

        `read_as` as `recovery` has it.
        """
        first, kanta = 0, read_as or None
        for change in self.done:
            about = change.description or None
            payload, chain = codec.change(
                self.micros, change.action, change.diff, chain, v=change.version, b=first, about=about, kanta=kanta
            )
            first, kanta = first or rev + 1, None
            yield payload


def behind(
    found: Recovered, codec: Codec, path: str, micros: int, schema: Schema | None, steps: Migrations | None
) -> str:
    """Why a file that is only read, so that nothing brings it on, is not what the code is for; empty where it is.

    Defaults that it lacks and members that the type does not have do not matter.
    """
    if found.rev == 0 and not found.state:
        return ""
    try:
        if steps is not None and steps.after(found.v):
            return (
                f"the file is of version {found.v}, the code of {steps.newest}, and what is only read is not migrated"
            )
        Upgrade(found, codec, path, micros, schema, None)
    except Failed as error:
        return str(error)
    return ""


def upgrade(
    log: Log,
    found: Recovered,
    micros: int,
    schema: Schema | None,
    steps: Migrations | None,
    watch: Watch | None = None,
    initial: dict[str, Any] | None = None,
) -> list[Done]:
    """Bring an open file up to the code, durably; returns what was done.

    `initial` is what a new file begins with, where it is more than the type's defaults. `found` becomes what the
    file holds then. Raises `Failed`, `NoRoom` and `Broken`, and the log is closed then.
    """
    if schema is None and steps is None:
        return []
    try:
        done = _upgrade(log, found, micros, schema, steps, watch, initial)
    except BaseException:
        log.close()
        raise
    for change in done:
        logger.info("%s: %s%s", log.path, change.action, f" ({change.description})" if change.description else "")
    return done


def _upgrade(
    log: Log,
    found: Recovered,
    micros: int,
    schema: Schema | None,
    steps: Migrations | None,
    watch: Watch | None,
    initial: dict[str, Any] | None,
) -> list[Done]:
    needed = Upgrade(found, log.codec, log.path, micros, schema, steps, watch, initial)
    if needed.done:
        try:
            payloads = list(needed.payloads(log.codec, found.rev, found.chain, found.read_as))
        except Problem as problem:  # a format of one's own
            raise Failed(problem.detail) from None
        log.append_together(payloads)
        try:
            with log.buffer() as buffer:  # the log is the only truth
                now = recover_from(log.path, buffer, log.size, log.framing, log.codec)
        except OSError as error:
            raise Broken(f"{log.path} was migrated, but could not be read back: {error.strerror}") from error
        now.warnings = list(dict.fromkeys(found.warnings + now.warnings))
        vars(found).update(vars(now))
    found.v = needed.version
    return needed.done


def _title(step: Step) -> str:
    return f"{step.name} ({step.description})" if step.description else step.name


def _where(problem: Problem) -> str:
    path = problem.more.get("path") or format(problem.keys)
    return f" at {path}" if path else ""
