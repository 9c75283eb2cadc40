"""The live value of an embedded database: typed or plain, read without waiting, and following the state.

It is made of the state once and then follows each change by what the change touches; nothing of it is
shared with the state. Where changes were taken back (the disk was full) it is made anew. It is the
host's, who may change it by hand, which is a mistake: `touched` and `whole` find that out.
"""

from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from kantad.engine.engine import Engine as Core
from kantad.values.agreement import Agreement
from kantad.values.content import copied
from kantad.values.diff import SAME
from kantad.values.draft import Draft
from kantad.values.patch import apply
from kantad.values.pointer import Path, format
from kantad.values.shape import Shape, shape_of

T = TypeVar("T")

WHOLE: Final = "the value was changed outside of a transaction"


class ConsistencyViolation(RuntimeError):
    """The live value was changed outside of a transaction: it is not what is stored, and nothing more is written.

    `path` says where, as a pointer, if it is known; `diff` is the patch from what is stored to what is live where the
    whole was compared. Close the database and open it again: the file has what was committed.
    """

    def __init__(self, path: str | None, diff: Any = None, action: str = "") -> None:
        where = "" if path is None else f" at {path or 'the root'}"
        found = "" if diff is None else f": {diff!r}"
        during = f" (found by the transaction {action!r})" if action else ""
        super().__init__(f"{WHOLE}{where}{during}{found[:500]}")
        self.path, self.diff, self.action = path, diff, action


class Live(Generic[T]):
    """See the module. `own` is an object of the host's that is to be the value, if it can be."""

    def __init__(self, core: Core, own: Any = None) -> None:
        self.core, schema = core, core.schema
        if schema is not None:
            schema.bind(core.foreign)
        self.type: Any = None if schema is None else schema.type
        self.shape: Shape | None = None if schema is None else shape_of(schema.type)
        self.agreement = Agreement() if schema is None else Agreement(schema.kind, schema.form)
        self.chain = b""
        self._value: Any = own
        self._make()
        core.taken_back = self._make

    @property
    def value(self) -> T:
        """The value now, which nobody may change."""
        if self.chain != self.core.chain:
            self._make()
        return cast(T, self._value)

    def draft(self) -> Draft:
        """A draft of the value now."""
        return Draft(self.value, self.type)

    def follow(self, diff: Any) -> None:
        """Become what the state is after a change, the only one since `value` was looked at."""
        if self.shape is None:
            self._value = apply(self._value, copied(diff))
        else:
            try:
                self._keep(self.shape.follow(self._value, self.core.root, diff))
            except msgspec.ValidationError:  # a `__post_init__` that takes the whole, but not the change
                self._make()
        self.chain = self.core.chain

    def check_touched(self, draft: Draft, action: str) -> None:
        """Compare with the state what a draft of the value reached; raises `ConsistencyViolation`."""
        stray: Path | None = self.agreement.stray(draft.base, draft.value, self.core.root)
        if stray is not None:
            raise ConsistencyViolation(format(stray), None, action)

    def check_whole(self, action: str = "") -> None:
        """Compare all of it, which costs what the state holds; raises `ConsistencyViolation`."""
        diff = self.agreement.strays(self.value, self.core.root)
        if diff is not SAME:
            raise ConsistencyViolation(None, diff, action)

    def _make(self) -> None:
        self._keep(copied(self.core.root) if self.shape is None else self.shape.convert(self.core.root))
        self.chain = self.core.chain

    def _keep(self, made: Any) -> None:
        """Take a value, as the object that there is where it can be changed: so it stays the present one."""
        own = self._value
        if made is own:
            return
        if not isinstance(own, msgspec.Struct) or type(own) is not type(made) or own.__struct_config__.frozen:
            self._value = made
            return
        for name in own.__struct_fields__:
            setattr(own, name, getattr(made, name))
