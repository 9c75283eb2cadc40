"""The methods of a client against a real server: each does what it says, and reads what it wrote."""

import asyncio
from typing import Any

import msgspec
import pytest
from kanta_client import (
    Conflict,
    Invalid,
    KantaClient,
    NotFound,
    PatchMismatch,
    PreconditionFailed,
    Refused,
)
from kanta_client.address import address_of
from kanta_client.channel import Patience
from kanta_client.session import Session

from tests.serving import Serving


class User(msgspec.Struct):
    name: str
    age: int = 0


@pytest.fixture
async def db(serving: Serving) -> Any:
    async with KantaClient(f"http://127.0.0.1:{serving.port}", timeout=10) as db:
        yield db


async def test_values_are_read_as_they_were_written(db: KantaClient) -> None:
    written = await db.set("/users/a", User("A", 1))
    assert await db.get("/users/a") == {"name": "A", "age": 1}
    assert await db.get(("users", "a"), type=User) == User("A", 1)
    assert await db.get("/users/b", None) is None
    with pytest.raises(NotFound, match=r"not_found: there is no value at this path \(/users/b\)"):
        await db.get("/users/b")
    with pytest.raises(msgspec.ValidationError):
        await db.get("/users", type=User)
    read = await db.read("/users/a", type=User)
    assert (read.value, read.rev, read.cursor) == (User("A", 1), written.rev, written.cursor)
    await db.set("/users/a", {"name": "B"}, etag=read.etag)
    assert await db.get("/users/a", rev=written, type=User) == User("A", 1)
    assert await db.get("/users/a", at=written.ts, type=User) == User("A", 1)
    with pytest.raises(PreconditionFailed):
        await db.set("/users/a", {"name": "C"}, etag=read.etag)
    assert db.rev == 2


async def test_keys_are_all_of_them(db: KantaClient) -> None:
    await db.set("/many", {f"k{number}": number for number in range(2_500)})
    assert await db.keys("/many") == [f"k{number}" for number in range(2_500)]
    assert await db.keys("/many/k1") == []
    with pytest.raises(NotFound):
        await db.keys("/few")


async def test_keys_that_do_not_fit_one_answer_are_those_of_one_moment(db: KantaClient, serving: Serving) -> None:
    await db.set("/many", dict.fromkeys("abcdefg", 0))
    session = Session(address_of(f"http://127.0.0.1:{serving.port}"), Patience(), None, True)
    reading = asyncio.create_task(session.keys_of("/many", None, page=2))
    while not reading.done():
        for key in await db.keys("/many"):
            await db.delete(("many", key))
        await db.set("/many", dict.fromkeys("abcdefg", 0))
    assert "abcdefg".endswith("".join(await reading))  # as they go one by one
    await session.close()


async def test_what_is_removed_is_gone_and_what_is_not_there_is_not_found(db: KantaClient) -> None:
    await db.set("/a", {"list": [1, 2, 3], "1": "one", "~/": 0})
    await db.delete("/a/list/1")
    await db.delete("/a/1")
    await db.delete(("a", "~/"))
    assert await db.get("/a") == {"list": [1, 3]}
    for path in ("/a/1", "/a/list/2", "/b"):
        with pytest.raises(NotFound):
            await db.delete(path)
    with pytest.raises(Refused, match="root"):
        await db.delete("")
    with pytest.raises(PreconditionFailed):
        await db.delete("/a", conditions=[{"path": "/a/list", "equals": []}])


async def test_children_are_added_under_keys_that_sort_and_elements_at_the_end(db: KantaClient) -> None:
    keys = [(await db.add("/log", number)).key for number in range(5)]
    assert keys == sorted(await db.keys("/log"))
    assert [(await db.append("/list", number)).key for number in range(3)] == ["0", "1", "2"]
    with pytest.raises(PatchMismatch):
        await db.append("/log", 1)
    with pytest.raises(TypeError, match="conditions"):
        await db.append("/list", 1, exists=True)


async def test_transactions_are_all_or_nothing(db: KantaClient) -> None:
    base = await db.set("/a", {"x": 1, "y": 1})
    tried = await db.transact({"x": 2, "y": 0}, path="/a", a="move", dry_run=True)
    assert (tried.changed, await db.get("/a")) == (True, {"x": 1, "y": 1})
    done = await db.transact({"x": 2, "y": 0}, path="/a", a="move", base=base, want_diff=True)
    assert done.diff == {"a": {"x": 2, "y": 0}}
    with pytest.raises(Conflict):
        await db.transact({"x": 3}, path="/a", base=base)
    [change] = [change async for change in db.history("/a", action="move")]
    assert (change.rev, change.patch) == (done.rev, {"x": 2, "y": 0})
    assert (await db.revert("/a", base)).changed
    assert await db.get("/a") == {"x": 1, "y": 1}


async def test_an_update_is_run_on_the_present_value_until_nobody_was_faster(db: KantaClient) -> None:
    await db.set("/n", 1)
    runs: list[int] = []

    async def slow(value: int) -> int:
        runs.append(value)
        if len(runs) == 1:
            await db.set("/n", 10)
        return value + 1

    await db.update("/n", slow)
    assert (runs, await db.get("/n")) == ([1, 10], 11)
    assert not (await db.update("/n", lambda value: value)).changed
    assert (await db.update("/new", lambda value: value + 1, default=4)).changed
    assert await db.get("/new") == 5

    async def meddling(value: int) -> int:
        await db.set("/n", value + 5)
        return value

    with pytest.raises(Conflict):
        await db.update("/n", lambda value: meddling(value + 1), attempts=2)
    with pytest.raises(PreconditionFailed):
        await db.update("/n", lambda value: value + 1, conditions=[{"path": "/new", "equals": 6}])
    with pytest.raises(Invalid):
        await db.update("/n", lambda value: float("nan"))


async def test_an_update_under_a_mirror_uses_it_and_is_not_misled_by_it(db: KantaClient) -> None:
    async with db.mirror("") as copy:
        for number in range(20):
            await db.set("/n", number * 10)  # the mirror may not have heard of it
            written = await db.update("/n", lambda value: value + 1)
            assert await db.get("/n") == number * 10 + 1
            await copy.at_least(written)
            assert copy["n"] == number * 10 + 1


async def test_histories_are_read_from_either_end(db: KantaClient) -> None:
    for number in range(30):
        await db.set("/n", number, action=f"even{number}" if number % 2 == 0 else "odd")
    assert [change.rev async for change in db.history("/n", since=10, until=15)] == [11, 12, 13, 14, 15]
    assert [change.rev async for change in db.history(newest_first=True, limit=3)] == [30, 29, 28]
    assert len([change async for change in db.history(action="even*")]) == 15
    assert len([change async for change in db.history(limit=7)]) == 7


@pytest.mark.parametrize("when", ["rev", "cursor", "time"])
async def test_a_subscription_with_values_begins_at_any_position(db: KantaClient, when: str) -> None:
    await db.set("/a", {"n": 0, "same": 1})
    begin = await db.patch("/a", {"n": 1})
    for number in (2, 3):
        await db.patch("/a", {"n": number})
    await db.delete("/a")
    since = {"rev": begin.rev, "cursor": begin.cursor, "time": begin.ts}[when]
    async with db.subscribe("/a", since=since, value=True) as changes:
        got = [await anext(changes) for _ in range(3)]
    assert [change.value for change in got] == [{"n": 2, "same": 1}, {"n": 3, "same": 1}, None]
    assert got[-1].deleted


async def test_a_mirror_reads_like_what_it_mirrors(db: KantaClient) -> None:
    async with db.mirror("/users", type=dict[str, User]) as users:
        assert (len(users), list(users), "a" in users, bool(users)) == (0, [], False, False)
        assert users.get("a") is None
        with pytest.raises(KeyError):
            _ = users["a"]
        with pytest.raises(NotFound):
            _ = users.value
        await users.at_least(await db.set("/users", {"a": User("A")}))
        assert (len(users), list(users), "a" in users, bool(users)) == (1, ["a"], True, True)
        assert users["a"] == User("A")
        await users.at_least(await db.set("/elsewhere", 1))  # of which it is not told
        await users.at_least(await db.delete("/users"))
        assert not users.exists


async def test_the_server_tells_of_itself(db: KantaClient) -> None:
    pinged = await db.ping()
    status = await db.status()
    assert (status["rev"], status["cursor"]) == (pinged.rev, pinged.cursor)
    assert (await db.snapshot())["rev"] == 0


async def test_a_child_that_is_added_again_with_its_idempotency_key_is_the_same(serving: Serving) -> None:
    async with KantaClient(f"http://127.0.0.1:{serving.port}") as db:
        first = await db.add("/notes", "x", key="once")
        again = await db.add("/notes", "x", key="once")
        assert (again.key, again.rev, again.replayed) == (first.key, first.rev, True)
        assert await db.keys("/notes") == [first.key]


async def test_a_draft_of_a_mirror_that_moved_is_looked_at_in_the_end_also_where_it_changed_nothing(
    serving: Serving,
) -> None:
    async with KantaClient(f"http://127.0.0.1:{serving.port}") as db:
        await db.set("/a", {"one": {"n": 1}, "two": {"n": 1}})
        async with db.mirror("/a") as a:

            async def torn() -> None:
                async with db.transaction("look", "/a") as draft:
                    assert draft["one"]["n"] == 1
                    await a.at_least(await db.set("/a", {"one": {"n": 2}, "two": {"n": 2}}))
                    assert draft["two"]["n"] in (1, 2)

            with pytest.raises(Conflict):
                await torn()
            async with db.transaction("look", "/a") as draft:
                assert draft["one"]["n"] == 2
                await a.at_least(await db.set("/elsewhere", 1))


async def test_an_element_that_is_appended_again_with_its_idempotency_key_is_the_same(db: KantaClient) -> None:
    for key, index in (("first", "0"), ("second", "1")):  # the first one makes the array
        first = await db.append("/list", key, key=key)
        again = await db.append("/list", key, key=key)
        assert (first.key, first.replayed) == (index, False)
        assert (again.key, again.rev, again.replayed) == (index, first.rev, True)
    assert (await db.append("/list", "first", key="first")).key == "0"
    assert await db.get("/list") == ["first", "second"]
    await db.delete("/list")
    assert (await db.append("/list", "second", key="second")).replayed
    with pytest.raises(Refused, match="key_reused"):
        await db.append("/list", "third", key="second")
    await db.set("/scalar", 1)
    for options in ({}, {"key": "third"}):
        with pytest.raises(PatchMismatch):
            await db.append("/scalar", 1, **options)


async def test_a_transaction_that_is_entered_again_tells_of_its_last_commit(db: KantaClient) -> None:
    transaction = db.transaction("count")
    async with transaction as root:
        root["n"] = 1
    assert transaction.written is not None
    async with transaction as root:
        assert root["n"] == 1
    assert transaction.written is None


@pytest.mark.parametrize("by_time", [False, True])
async def test_a_subscription_with_values_may_begin_before_there_was_one(db: KantaClient, by_time: bool) -> None:
    first = await db.set("/elsewhere", 1)
    await db.set("/a", {"n": 1})
    since = first.ts if by_time else first
    async with db.subscribe("/a", since=since, value=True) as changes:
        assert (await anext(changes)).value == {"n": 1}
        await db.patch("/a", {"n": 2})
        assert (await anext(changes)).value == {"n": 2}


async def test_what_a_mirror_has_anew_is_not_lost_on_a_draft_that_began_before(db: KantaClient) -> None:
    await db.set("/users", {"bob": {"name": "Bob", "age": 1}})

    async def late() -> None:
        async with db.transaction("grow", "/users", type=dict[str, User]) as draft:
            await users.at_least(await db.patch("/users/bob", {"age": 5}))  # the mirror has another User then
            draft["bob"].age += 1
            draft["carol"] = User("Carol")

    async with db.mirror("/users", type=dict[str, User]) as users:
        with pytest.raises(Conflict):
            await late()
        assert await db.get("/users") == {"bob": {"name": "Bob", "age": 5}}


async def test_a_base_that_a_transaction_is_given_is_held_against_what_it_writes(db: KantaClient) -> None:
    old = await db.set("/users", {"alice": {"name": "Alice"}})
    await db.set("/users/alice/age", 1)

    async def grow(name: str, age: int, meanwhile: int | None = None) -> None:
        async with db.transaction("grow", "/users", base=old) as users:
            if meanwhile is not None:
                await db.set("/users/alice/age", meanwhile)
            users[name] = {**users["alice"], "age": age}

    with pytest.raises(Conflict):
        await grow("alice", 2)
    await grow("bob", 2)
    with pytest.raises(Conflict):
        await grow("carol", 2, meanwhile=3)
    ages = {name: user["age"] for name, user in (await db.get("/users")).items()}
    assert ages == {"alice": 3, "bob": 2}
