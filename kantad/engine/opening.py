"""Opening a database file: recover it, bring it to where its schema and migrations want it, and make its engine.

For the process, for tests, and for who embeds the engine. Nothing is served before it returns.
"""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from kantad.engine.engine import Engine
from kantad.engine.memory import loading
from kantad.engine.proposal import Ack
from kantad.engine.ring import RING_BYTES
from kantad.store.disk import Disk, RealDisk
from kantad.store.formats import new_file
from kantad.store.log import Log, open_log, open_readonly
from kantad.store.migrations import Failed, Migrations, Upgrade, behind, upgrade
from kantad.store.recovery import Recovered
from kantad.values.moment import now_micros
from kantad.values.schema import Schema

logger = logging.getLogger("kantad")


def open_engine(
    path: str,
    *,
    format: str | None = None,
    ack: Ack = "durable",
    flush_interval: float = 0.1,
    max_depth: int = 128,
    disk: Disk | None = None,
    clock: Callable[[], int] = now_micros,
    ring_bytes: int = RING_BYTES,
    schema: Schema | None = None,
    migrations: Migrations | None = None,
    initial: dict[str, Any] | None = None,
    readonly: bool = False,
    typed: bool = False,
    own_process: bool = False,
    called: str = "--format",
) -> Engine:
    """Open (or create) a database file, and bring it to the schema's type and the migrations' version.

    A new file begins with `initial`, where it is given. With `readonly` it is neither created, nor locked, nor
    changed; what is not of the type or the version is refused with `typed`, and shown as it is, with a warning,
    without. With `own_process` the collector is set up for it, which belongs to the whole process. Errors call `format`
    what it is `called` where it is given. Raises `Locked`, `NotOurs`, `CodeError` (a format of one's own), `Damaged`,
    `Failed`, `NoRoom`, `Broken` and OSError.
    """
    with loading() if own_process else nullcontext():
        if readonly:
            log, found = open_readonly(path, format, disk or RealDisk(), called)
            _look_at(log, found, behind(found, log.codec, log.path, clock(), schema, migrations), typed)
        else:
            if not os.path.exists(path):  # none is made that could not begin as the type has it
                Upgrade(Recovered(), new_file(format, bytes(4))[1], path, clock(), schema, migrations, initial=initial)
            log, found = open_log(path, format, disk or RealDisk(), clock(), called)
            upgrade(log, found, clock(), schema, migrations, initial=initial)
        for warning in found.warnings:
            logger.warning("%s: %s", path, warning)
        return Engine(
            log,
            found,
            ack=ack,
            flush_interval=flush_interval,
            max_depth=max_depth,
            clock=clock,
            ring_bytes=ring_bytes,
            schema=schema,
            readonly=readonly,
        )


def _look_at(log: Log, found: Recovered, behind_why: str, typed: bool) -> None:
    """Refuse a file that is not what the code is for, or warn of it; raises `Failed`."""
    if behind_why and typed:
        log.close()
        raise Failed(behind_why)
    if behind_why:
        found.warnings.append(f"{behind_why}: it is served as it is")
