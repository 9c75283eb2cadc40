"""How services use the client, for type checkers: checked by `test_typing`, never run."""

from typing import Any, assert_type
from uuid import UUID

import msgspec
from kanta_client import Change, Conflict, KantaClient, Mirror, Read, State, Subscription, Written


class User(msgspec.Struct):
    name: str
    age: int = 0


def told(state: State) -> None:
    print(state)


async def reads(db: KantaClient, id: UUID) -> None:
    assert_type(await db.get("/users"), Any)
    assert_type(await db.get(("users", id), type=User), User)
    assert_type(await db.get("/users", type=dict[UUID, User]), dict[UUID, User])
    assert_type(await db.get("/limit", 10, type=int), int)
    assert_type(await db.get("/users/alice", None, type=User), User | None)
    assert_type(await db.read("/users"), Read)
    assert_type(await db.keys("/users"), list[str])
    async for change in db.history("/users", since=3, limit=5, newest_first=True):
        assert_type(change, Change)
        assert_type(change.action, str)
    assert_type(await db.status(), dict[str, Any])


async def writes(db: KantaClient) -> None:
    written = await db.set("/users/alice", User("Alice"), action="sign_up", user="alice", ack="durable", timeout=5)
    assert_type(written, Written)
    assert_type(await db.patch("/users/alice", {"age": 3}, base=written, conditions=[{"path": "/open"}]), Written)
    assert_type(await db.delete("/users/alice", etag="x"), Written)
    assert_type((await db.add("/notes", "x")).key, str | None)
    assert_type(await db.append("/list", 1, exists=True), Written)
    assert_type(await db.transact({"a": 1}, a="x", path="/p", dry_run=True, m="2026-01-01T00:00:00Z"), Written)
    assert_type(await db.update("/n", lambda n: n + 1, default=0, type=int, key="k"), Written)
    assert_type(await db.revert("/users", written), Written)


async def transactions(db: KantaClient) -> None:
    async with db.transaction("grow", path="/users", type=dict[UUID, User], user="root") as users:
        assert_type(users, dict[UUID, User])
    try:
        async with db.transaction("grow") as root:
            assert_type(root, Any)
    except Conflict as conflict:
        assert_type(conflict.changes, tuple[Change, ...])


async def feeds(db: KantaClient) -> None:
    assert_type(db.subscribe("/users", since="3-0123456789abcdef", value=True, type=User), Subscription)
    async with db.mirror("/users", type=dict[UUID, User]) as users:
        assert_type(users, Mirror[dict[UUID, User]])
        assert_type(users.value, dict[UUID, User])
        assert_type(users.rev, int)
        async for change in users:
            assert_type(change, Change)
        end = users.on_change(lambda change: print(change.rev))
        end()


async def main() -> None:
    async with KantaClient("http://127.0.0.1:8700", token="x", on_state=told) as db:
        assert_type(db, KantaClient)
        await writes(db)
