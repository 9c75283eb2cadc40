"""A function that makes a new value of the present one, run again until nobody was faster."""

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kanta_client.backoff import Backoff
from kanta_client.errors import Conflict, PreconditionFailed
from kanta_client.options import Options
from kanta_client.outgoing import assignment, builtins
from kanta_client.paths import Path, keys_of, refused
from kanta_client.records import Written
from kanta_client.subscription import converted
from kantad.values.content import MISSING, decode_json, encode_json
from kantad.values.diff import SAME, difference
from kantad.values.draft import Draft
from kantad.values.errors import Problem
from kantad.values.pointer import format

if TYPE_CHECKING:
    from kanta_client.session import Session


async def update(
    session: "Session",
    path: Path,
    function: Callable[[Any], Any],
    default: Any,
    type: Any,
    attempts: int,
    options: Options,
) -> Written:
    """See `KantaClient.update`."""
    keys, at = keys_of(path), format(keys_of(path))
    backoff = Backoff(0.002, 0.25)
    raw, base = await session.present(keys, None)
    while True:
        patch = await _made(function, raw, default, type)
        condition = {"path": at, "unchanged_since": base}
        mine: Options = {**options, "conditions": [*options.get("conditions", ()), condition]}
        try:
            return await session.propose(at, {} if patch is SAME else patch, "update", mine)
        except PreconditionFailed as failed:
            problem = failed.problem
            if any(each.get("path") != at for each in problem.get("failed", ())):
                raise
            attempts -= 1
            if attempts <= 0:
                raise Conflict({**problem, "code": "conflict", "status": 409}) from failed
        await asyncio.sleep(backoff.next())
        if "cursor" in problem and ("value" in problem or not problem.get("exists", True)):
            raw, base = problem.get("value", MISSING), problem["cursor"]
        else:
            raw, base = await session.present(keys, None)


async def _made(function: Callable[[Any], Any], raw: Any, default: Any, type: Any) -> Any:
    """The patch that the function amounts to; SAME where it changes nothing."""
    if raw is MISSING and default is not None:
        given, draft = decode_json(encode_json(builtins(default))), None
        given = given if type is None else converted(given, type)
    elif raw is MISSING and type is None:
        given, draft = None, None
    elif raw is MISSING or isinstance(raw, dict | list):
        draft = Draft(raw if raw is MISSING or type is None else converted(raw, type), type)
        given = draft.value
    else:
        given, draft = raw if type is None else converted(raw, type), None
    made = function(given)
    if inspect.isawaitable(made):
        made = await made
    if made is None:
        made = given
    if draft is not None and made is draft.value:
        try:
            return draft.patch()
        except Problem as problem:
            raise refused(problem) from None
    if raw is MISSING:
        return SAME if made is None else assignment(made)
    return difference(raw, builtins(made))
