"""Functions of the user's that see the state after a transaction, and raise to refuse it.

They are given a view that cannot change it: objects are Mappings, arrays are Sequences, made as they
are walked, so a look costs what is looked at. `state["users"]["alice"].typed(User)` makes a typed copy of
a part. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, overload

from msgspec import convert

from kantad.values.content import copied
from kantad.values.errors import RAISED, Problem, said, told
from kantad.values.pointer import Path, format, key_in

Validator = Callable[["ReadOnly", tuple[Path, ...]], None]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

MARK: Final = "kantad_validator"


def validator(function: F) -> F:
    """Mark a function of the schema's module: `def check(state, touched)` is called after each transaction.

    `touched` are the paths that differ, as tuples of strings; at the start it is the root alone. What it
    raises refuses the transaction with 422 `validation_failed`, and its text is the reason.
    """
    setattr(function, MARK, True)
    return function


class ReadOnly(Mapping[Any, Any]):
    """An object of the state, to look at."""

    __slots__ = ("_held",)

    def __init__(self, held: dict[Any, Any]) -> None:
        self._held = held

    def typed(self, kind: type[T]) -> T:
        """A copy, as a value of this type."""
        return convert(copied(self._held), kind, str_keys=True)

    def __getitem__(self, key: Any) -> Any:
        return seen(self._held[self._key(key)])

    def _key(self, key: Any) -> Any:
        """The key that this one names: a path has an integer one as text."""
        return key if key in self._held else key_in(self._held, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return self._key(key) in self._held

    def __repr__(self) -> str:
        return repr(self._held)


class ReadOnlyList(Sequence[Any]):
    """An array of the state, to look at."""

    __slots__ = ("_held",)

    def __init__(self, held: list[Any]) -> None:
        self._held = held

    def typed(self, kind: type[T]) -> T:
        """A copy, as a value of this type."""
        return convert(copied(self._held), kind, str_keys=True)

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Any]: ...
    def __getitem__(self, position: int | slice) -> Any:
        return seen(self._held[position])

    def __len__(self) -> int:
        return len(self._held)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __repr__(self) -> str:
        return repr(self._held)


def seen(value: Any) -> Any:
    """A value of the state as a validator sees it."""
    kind = type(value)
    return ReadOnly(value) if kind is dict else ReadOnlyList(value) if kind is list else value


def judge(validators: Iterable[Validator], root: dict[str, Any], touched: Iterable[Path]) -> None:
    """Ask each validator, until one refuses: raises `Problem`, with the path that all touched paths share."""
    state, paths = ReadOnly(root), tuple(touched)
    for ask in validators:
        try:
            ask(state, paths)
        except RAISED as error:
            problem = Problem("validation_failed", reason(error), path=format(_shared(paths)))
            problem.of_state = True
            raise problem from None


def reason(error: BaseException) -> str:
    """What an exception of the user's code says, and of which class it is where it says nothing."""
    return said(error) or told(error) if isinstance(error, ValueError) else told(error)


def _shared(paths: tuple[Path, ...]) -> Path:
    first, last = min(paths, default=()), max(paths, default=())
    length = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[: min(len(first), len(last)) if length is None else length]
