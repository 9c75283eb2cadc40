"""Verifying the older part of the file while the server runs.

A start reads from the last snapshot on; what stands before it does not bear on the state, but it
is the history. `kantad check` on that part, in a process of its own at the lowest priority, tells
whether it is whole. Damage is an error in the log and in `status`; it does not stop the service.
"""

import asyncio
import contextlib
import logging
import os
import sys
from typing import Final

from kantad.engine.engine import Engine
from kantad.logs import escaped

logger = logging.getLogger("kantad")

DELAY: Final = 1.0  # seconds after the start, which other work wants more


async def verify_older_part(engine: Engine) -> None:
    """Check the file up to the snapshot that the start began with; sets `engine.history`."""
    end = engine.past.anchor.offset
    if end <= engine.log.framing.header:
        engine.history = "verified"
        return
    await asyncio.sleep(DELAY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kantad", "check", "--end", str(end), engine.log.path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.nice(19),
    )
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        engine.history = "verified"
    else:
        first = errors.decode(errors="replace").partition("\n")[0]
        engine.history = f"damaged: {first}"
        logger.error("the older part of the file is damaged, the state is not: %s", escaped(first))
