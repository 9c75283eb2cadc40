"""kantad as a Python object in other services: reads, writes, transactions, feeds and live mirrors, for asyncio.

async with KantaClient("http://127.0.0.1:8700") as db:
    await db.set("/users/alice", {"name": "Alice"})
    async with db.mirror("/users") as users:
        print(users["alice"])

`SyncKantaClient` is the same for scripts. The guide is docs/client.md.
"""

from kanta_client.channel import Patience, State
from kanta_client.client import KantaClient
from kanta_client.errors import (
    Closed,
    Conflict,
    HistoryDiverged,
    HistoryGone,
    Invalid,
    KantaError,
    NestedTransaction,
    NotFound,
    Overrun,
    PatchMismatch,
    PreconditionFailed,
    Refused,
    Unauthorized,
    UnknownOutcome,
    Unreachable,
)
from kanta_client.mirror import Mirror
from kanta_client.records import Backup, Change, Read, Written
from kanta_client.subscription import Subscription
from kanta_client.sync import SyncKantaClient, SyncTransaction
from kanta_client.sync_following import SyncMirror, SyncSubscription
from kanta_client.transaction import Transaction

__all__ = [
    "Backup",
    "Change",
    "Closed",
    "Conflict",
    "HistoryDiverged",
    "HistoryGone",
    "Invalid",
    "KantaClient",
    "KantaError",
    "Mirror",
    "NestedTransaction",
    "NotFound",
    "Overrun",
    "PatchMismatch",
    "Patience",
    "PreconditionFailed",
    "Read",
    "Refused",
    "State",
    "Subscription",
    "SyncKantaClient",
    "SyncMirror",
    "SyncSubscription",
    "SyncTransaction",
    "Transaction",
    "Unauthorized",
    "UnknownOutcome",
    "Unreachable",
    "Written",
]
