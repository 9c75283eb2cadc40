"""A client for kantad, for asyncio: read, write, transact; refusals as exceptions that say what and why.

async with KantaClient("http://127.0.0.1:8700") as kanta:
    await kanta.set("/users/alice", {"name": "Alice"})
    user = await kanta.get("/users/alice")
"""

from kanta_client.client import KantaClient, Read, Written
from kanta_client.errors import ConflictError, KantaError, NotFoundError, PreconditionError, UnknownOutcomeError

__all__ = [
    "ConflictError",
    "KantaClient",
    "KantaError",
    "NotFoundError",
    "PreconditionError",
    "Read",
    "UnknownOutcomeError",
    "Written",
]
