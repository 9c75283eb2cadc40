"""The engine: asyncio; the one writer, group commit, deduplication. No HTTP.

`Engine` is what a program takes to have the database in its own process; see docs/embedding.md.
"""

from kantad.engine.changes import Change, Changes
from kantad.engine.compacting import Compacted
from kantad.engine.embedded import Engine
from kantad.engine.live import ConsistencyViolation
from kantad.engine.transaction import NestedTransaction, Transaction
from kantad.store.imported import CodeError
from kantad.store.log import Broken, Locked, NoRoom, NotOurs
from kantad.store.migrations import Failed
from kantad.values.errors import Damaged, Problem

__all__ = [
    "Broken",
    "Change",
    "Changes",
    "CodeError",
    "Compacted",
    "ConsistencyViolation",
    "Damaged",
    "Engine",
    "Failed",
    "Locked",
    "NestedTransaction",
    "NoRoom",
    "NotOurs",
    "Problem",
    "Transaction",
]
