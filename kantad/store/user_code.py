"""The user's own code: the type of the root, its validators, the migrations.

What it is named by, `imported` finds. Blocking, at the start only.
"""

import inspect
import re
from types import ModuleType
from typing import Any

import msgspec

from kantad.store.imported import CodeError, attribute, imported
from kantad.store.migrations import Migrations, Step
from kantad.values.kinds import Unsupported
from kantad.values.schema import Schema
from kantad.values.validators import MARK, Validator

_STEP = re.compile(r"migrate_v([1-9][0-9]{0,8})")


def schema_of(name: str) -> Schema:
    """The schema that `module:Type` names; raises `CodeError`."""
    root = attribute(name, "Type")
    if not isinstance(root, type):
        raise CodeError(f"{name} is no type")
    return schema_from(root, name, imported(name.partition(":")[0]))


def schema_from(root: type[Any], name: str, module: ModuleType | None) -> Schema:
    """The schema of a type that is called so, with the validators of a module; raises `CodeError`."""
    if not issubclass(root, msgspec.Struct):
        raise CodeError(f"{name} is no msgspec.Struct")
    if root.__struct_config__.array_like:
        raise CodeError(f"{name} is array_like, but the root is an object")
    try:
        return Schema(root, () if module is None else tuple(_validators(module)))
    except Unsupported as error:
        raise CodeError(f"{name}: {error}") from error


def _validators(module: ModuleType) -> list[Validator]:
    """The marked functions of a module, in the order in which it defines them."""
    found = [value for value in vars(module).values() if callable(value) and getattr(value, MARK, False) is True]
    for function in found:
        if inspect.iscoroutinefunction(function):
            raise CodeError(f"the validator {function.__name__} is async; a validator is a plain def")
        try:
            inspect.signature(function).bind({}, ())
        except TypeError:
            raise CodeError(f"the validator {function.__name__} does not take (state, touched)") from None
    return list(dict.fromkeys(found))


def migrations_of(name: str) -> Migrations:
    """The `migrate_vN` functions of the module of this name; raises `CodeError`."""
    return migrations_in(imported(name), name)


def migrations_in(module: ModuleType, name: str) -> Migrations:
    """The `migrate_vN` functions of a module that is called so; raises `CodeError`."""
    steps: dict[int, Step] = {}
    for title, value in vars(module).items():
        found = _STEP.fullmatch(title)
        if found is not None and not callable(value):
            raise CodeError(f"{name}.{title} is no function")
        if found is not None:
            steps[int(found[1])] = _step(int(found[1]), title, value)
        elif title.startswith("migrate_v") and callable(value):
            raise CodeError(f"{name}.{title}: migrations are called migrate_v1, migrate_v2, and so on")
    return Migrations(name, steps)


def _step(version: int, name: str, function: Any) -> Step:
    if inspect.iscoroutinefunction(function):
        raise CodeError(f"{name} is async; a migration is a plain def")
    takes = [n for n in (1, 2) if _takes(function, n)]
    if not takes:
        raise CodeError(f"{name} takes neither (d) nor (d, ctx)")
    description = (inspect.getdoc(function) or "").strip().partition("\n")[0]
    return Step(version, name, function, takes[-1] == 2, description)


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True
