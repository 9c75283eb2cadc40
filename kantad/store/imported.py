"""What names of the user's mean: modules, and what is in them.

Modules are looked for in the current folder first, as `python -m` does. Blocking, at the start only.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from kantad.values.errors import told


class CodeError(Exception):
    """The user's code cannot be used (exit status 2)."""


def imported(name: str) -> ModuleType:
    """The module of this name; raises `CodeError`."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise CodeError(f"there is no module {name} in {here} or on Python's path") from error
        raise CodeError(f"{name} could not be imported: {error}") from error
    except Exception as error:
        raise CodeError(f"{name} could not be imported: {told(error)}{_place(error)}") from error
    except SystemExit as error:
        raise CodeError(f"{name} could not be imported: it ends the process") from error


def _place(error: Exception) -> str:
    """Where in the user's code it was raised."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith("<frozen"):
            place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def attribute(name: str, kind: str = "name") -> Any:
    """What `module:name` names, a thing of this kind; raises `CodeError`."""
    where, _, inside = name.partition(":")
    if not where or not inside:
        raise CodeError(f"{name!r} is not module:{kind}")
    found: Any = imported(where)
    for part in inside.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CodeError(f"{where} has no {inside}") from None
    return found


def resolver(name: str) -> Any:
    """The function that `module:function` names; raises `CodeError`."""
    found = attribute(name)
    if not callable(found):
        raise CodeError(f"{name} is no function")
    return found
