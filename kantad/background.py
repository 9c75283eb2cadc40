"""Verifying the older part of the file while the server runs.

A start reads from the last snapshot on; what stands before it does not bear on the state, but it
is the history. `kantad check` on that part, in a process of its own at the lowest priority, tells
whether it is whole. Damage is an error in the log and in `status`; it does not stop the service. Nor
does a check that cannot be made, which is not called damage.
"""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from typing import Final

from kantad.engine.engine import Engine
from kantad.logs import escaped
from kantad.store.formats import is_own

logger = logging.getLogger("kantad")

DELAY: Final = 1.0  # seconds after the start, which other work wants more
DAMAGED: Final = 65


async def verify_older_part(engine: Engine, python: str = sys.executable, delay: float = DELAY) -> None:
    """Check the file up to the snapshot that the start began with, `delay` seconds from now; sets `engine.history`."""
    end = engine.past.anchor.offset
    if end <= engine.log.framing.header:
        engine.history = "verified"
        return
    await asyncio.sleep(delay)
    file = engine.log.identity
    end = engine.past.anchor.offset
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "kantad", "check", "--end", str(end), *own_format(engine), engine.log.path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: os.nice(19),
        )
    except (OSError, subprocess.SubprocessError) as error:
        _not_verified(engine, str(error))
        return
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if engine.log.identity != file:
        return  # it was compacted meanwhile, and the new file was read from its start to its end
    if process.returncode == 0:
        engine.history = "verified"
    elif process.returncode != DAMAGED:
        _not_verified(engine, f"the check ended with status {process.returncode}")
    else:
        first = errors.decode(errors="replace").partition("\n")[0]
        engine.history = f"damaged: {first}"
        if first.startswith(f"{escaped(engine.log.path)}.snapshot "):
            logger.error("%s. The state is wrong: stop the server, delete that file, start again", escaped(first))
        else:
            logger.error("the older part of the file is damaged, the state is not: %s", escaped(first))


def own_format(engine: Engine) -> tuple[str, ...]:
    """What tells another process the format, where the file does not."""
    name = engine.log.codec.name
    return ("--format", name) if is_own(name) else ()


def _not_verified(engine: Engine, why: str) -> None:
    engine.history = f"not verified: {why}"
    logger.warning("the older part of the file could not be verified: %s", escaped(why))
