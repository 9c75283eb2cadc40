"""`append`: over HTTP at the end of an array that is there, and by a transaction where the array is made by it.

These are two requests, and an idempotency key is of one. Whoever sends the same `append` again, with its key,
must be told what became of the first, which may have made the array: so with a key making it is tried first.
`client` calls it.
"""

from typing import TYPE_CHECKING

import msgspec

from kanta_client.errors import NotFound, PatchMismatch, PreconditionFailed, Refused
from kanta_client.options import Options
from kanta_client.outgoing import assignment, builtins
from kanta_client.paths import Path, pointer
from kanta_client.records import Written

if TYPE_CHECKING:
    from kanta_client.session import Session


async def append(session: "Session", path: Path, value: object, options: Options) -> Written:
    """See `KantaClient.append`."""
    at, element = pointer(path), builtins(value)
    making = "key" in options
    while True:
        if making:
            try:
                made = await session.propose(at, assignment([element]), "post", {**options, "exists": False})
                return msgspec.structs.replace(made, key="0")
            except PreconditionFailed:
                pass  # there is something already, or somebody was faster
            except Refused as refused:
                if refused.code != "key_reused":
                    raise
                break  # it may be that of the other request
        try:
            found = (await session.page(at, 1, None, options.get("timeout"))).type
        except NotFound:
            making = True
            continue
        if found == "array":
            break
        detail = f"there is no array to append to, but a value of the type {found}"
        raise PatchMismatch({"code": "patch_mismatch", "status": 409, "detail": detail, "path": at})
    return await session.post("POST", path, element, options)
