"""What `rev` and `at` of a read ask for."""

from kantad.engine.engine import Engine
from kantad.engine.former import Earlier
from kantad.values.errors import Problem
from kantad.values.moment import micros_of, parse_time
from kantad.values.pointer import Path, format
from kantad.values.view import View

PAST = ("rev", "at")  # parameters


async def earlier(engine: Engine, given: dict[str, str], path: Path, view: View) -> Earlier | None:
    """What a path showed at the revision or moment that is asked for; None where the present is.

    Raises `Problem`, `not_found` among them.
    """
    named = [name for name in (*PAST, "wait") if name in given]
    if not named or named == ["wait"]:
        return None
    if len(named) > 1:
        raise Problem("invalid_parameter", f"{named[1]} does not go with {named[0]}", parameter=named[1])
    when: str | int = given.get("rev", "")
    if "at" in given:
        when = await engine.former.revision_at(micros_of(parse_time(given["at"], "at")))
    found = await engine.former.show(when, path, view)
    if found.tag is None:
        detail = f"there was no value at this path at revision {found.rev}"
        raise Problem("not_found", detail, path=format(path), rev=found.rev)
    return found
