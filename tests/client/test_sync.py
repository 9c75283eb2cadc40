"""The synchronous client against a real server: threads, forks, interruptions, and what must not be waited for."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from kanta_client import (
    Closed,
    Conflict,
    KantaClient,
    KantaError,
    NestedTransaction,
    NotFound,
    Refused,
    SyncKantaClient,
    Unreachable,
)
from kanta_client.background import background
from kanta_client.testing import serve


class User(msgspec.Struct):
    name: str
    tags: dict[str, int] = {}


@pytest.fixture
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def db(url: str) -> Iterator[SyncKantaClient]:
    with KantaClient(url).sync() as client:
        yield client


def test_the_methods_are_those_of_the_asynchronous_client() -> None:
    def public(of: type) -> set[str]:
        return {name for name in vars(of) if not name.startswith("_")}

    assert public(SyncKantaClient) - {"here"} == public(KantaClient) - {"sync"}
    assert SyncKantaClient.set.__doc__ == KantaClient.set.__doc__


def test_what_is_written_is_read(db: SyncKantaClient) -> None:
    written = db.set("/users/alice", User("Alice"), action="sign_up", user="me")
    assert (written.rev, written.changed) == (1, True)
    assert db.get("/users/alice", type=User) == User("Alice")
    assert db.get("/users/bob", None) is None
    with pytest.raises(NotFound):
        db.get("/users/bob")
    db.patch("/users/alice", {"name": "A."})
    db.patch("/users/alice", {"name": "B."}, merge=True)
    added = db.append("/list", 1)
    assert (added.key, db.add("/notes", 1).rev, db.keys()) == ("0", 5, ["users", "list", "notes"])
    read = db.read("/list")
    assert db.set("/list", [], etag=read.etag).rev == db.ping().rev == db.rev == db.status()["rev"] == 6
    assert db.delete("/list").rev == db.transact({"n": 1}, a="x").rev - 1
    assert db.get("/users/alice/name", rev=1) == "Alice"
    assert db.revert("/users", 1).changed
    assert db.snapshot()["rev"] == 9
    assert db.state == "connected"


def test_settings_are_those_of_the_client_it_is_of(url: str) -> None:
    states: list[str] = []
    with KantaClient(url, on_state=states.append).sync() as db:
        assert db.url == url
        db.ping()
    assert states == ["connected", "closed"]
    with pytest.raises(ValueError, match="http"):
        SyncKantaClient("ftp://x")
    with SyncKantaClient("http://127.0.0.1:1", timeout=0.3) as lonely, pytest.raises(Unreachable):
        lonely.ping()


def test_many_threads_write_at_once_and_nothing_is_lost(db: SyncKantaClient) -> None:
    db.set("/n", 0)
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(db.update, "/n", lambda n: n + 1) for _ in range(48)]:
            done.result()
    assert db.get("/n") == 48


def test_an_update_is_called_in_the_thread_that_waits(db: SyncKantaClient) -> None:
    seen: list[Any] = []

    def count(value: Any) -> Any:
        seen.append((threading.get_ident(), db.get("/other", "none")))  # it may even ask
        return (value or 0) + 1

    assert db.update("/n", count).changed
    assert seen == [(threading.get_ident(), "none")]
    with pytest.raises(ZeroDivisionError):
        db.update("/n", lambda n: n / 0)
    assert db.get("/n") == 1


def test_a_transaction_is_committed_or_refused(db: SyncKantaClient) -> None:
    db.set("/users", {"alice": {"n": 1}})
    transaction = db.transaction("count", "/users", user="me")
    with transaction as users:
        users["alice"]["n"] += 1
        users["bob"] = {}
    assert transaction.written is not None
    assert (transaction.written.rev, db.get("/users")) == (2, {"alice": {"n": 2}, "bob": {}})
    with pytest.raises(Conflict), db.transaction(path="/users", type=dict[str, dict[str, int]]) as typed:
        typed["alice"]["n"] += db.set("/users/alice/n", 7).rev
    with pytest.raises(ZeroDivisionError), db.transaction() as root:
        root["users"] = 1 / 0
    with db.transaction(), pytest.raises(NestedTransaction), db.transaction():
        pass
    with db.transaction() as root:  # the one before is over
        root["n"] = root["users"]["alice"]["n"]
    assert db.get("/n") == 7


def test_transactions_of_threads_are_none_within_another(db: SyncKantaClient) -> None:
    db.set("/n", {str(n): {"count": 0} for n in range(8)})

    def count(n: int) -> None:
        with db.transaction("count", ("n", str(n))) as draft:
            time.sleep(0.01)
            draft["count"] += 1

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count, range(8))) == [None] * 8
    assert db.get("/n") == {str(n): {"count": 1} for n in range(8)}


def test_the_history_comes_page_by_page_and_may_be_left(db: SyncKantaClient) -> None:
    for n in range(40):
        db.set("/n", n)
    assert [change.rev for change in db.history("/n")] == list(range(1, 41))
    assert [change.rev for change in db.history(newest_first=True, limit=2)] == [40, 39]
    for change in db.history(since=7):
        assert change.patch == {"n": 7}
        break
    with pytest.raises(Refused):
        list(db.history(since=99))
    with pytest.raises(Refused):
        list(db.history("no pointer"))


def test_a_subscription_waits_for_changes(db: SyncKantaClient) -> None:
    with db.subscribe("/users", value=True) as feed:
        assert next(feed).kind == "snapshot"
        assert feed.next(0.05) is None
        timer = threading.Timer(0.1, db.set, ("/users/a", 1))
        timer.start()
        change = next(feed)
        timer.join()
        assert (change.value, feed.rev, feed.cursor) == ({"a": 1}, 1, change.cursor)
        db.set("/users/b", 1)
        assert feed.next(5.0) is not None
    assert list(feed) == []
    assert [change.rev for _, change in zip(range(2), db.subscribe(since=0), strict=False)] == [1, 2]


def test_a_mirror_gives_copies_of_one_moment(db: SyncKantaClient) -> None:
    db.set("/users/alice", User("Alice", {"x": 1}))
    with db.mirror("/users") as raw, db.mirror("/users", type=dict[str, User]) as users:
        held = users.value
        held["alice"].tags["x"] = 7
        raw["alice"]["name"] = "?"
        users.at_least(db.set("/users/bob", User("Bob")))
        raw.at_least(2)
        assert (list(users), len(users), "bob" in users, bool(users)) == (["alice", "bob"], 2, True, True)
        assert users["alice"] == User("Alice", {"x": 1})
        assert (raw["alice"]["name"], "bob" in held) == ("Alice", False)
        assert (users.get("nobody"), users.rev, users.live, users.exists) == (None, 2, True, True)
        assert users.cursor == db.ping().cursor
        with pytest.raises(KeyError):
            users["nobody"]


def test_a_mirror_is_never_seen_in_the_middle_of_a_transaction(db: SyncKantaClient) -> None:
    db.set("/pair", {str(n): 0 for n in range(200)})
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            db.patch("/pair", {str(each): n for each in range(200)}, ack="applied")

    with db.mirror("/pair") as pair:
        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(2000):
                assert len(set(pair.value.values())) == 1
        finally:
            stop.set()
            thread.join()


def test_a_mirror_tells_its_changes(db: SyncKantaClient) -> None:
    refused: list[Exception] = []

    def ask(change: object) -> None:
        try:
            db.ping()
        except RuntimeError as error:
            refused.append(error)

    with db.mirror("/n") as mirror:
        end = mirror.on_change(ask)
        changes = mirror.changes()
        for n in range(3):
            db.set("/n", n)
        assert [next(changes).rev for _ in range(3)] == [1, 2, 3]
        end()
    assert list(changes) == []
    assert len(refused) == 3
    assert "must not wait" in str(refused[0])


def test_an_interruption_cancels_what_was_waited_for(db: SyncKantaClient) -> None:
    def interrupt() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    with db.subscribe() as feed:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(feed)
        thread.join()
        db.set("/x", 1)
        assert next(feed).rev == 1  # nothing is lost, and the client goes on


def test_a_closed_client_stays_closed(db: SyncKantaClient) -> None:
    db.close()
    db.close()
    assert db.state == "closed"
    with pytest.raises(Closed):
        db.get()
    with pytest.raises(Closed):
        db.subscribe()


def test_the_thread_is_one_for_all_clients(url: str) -> None:
    with SyncKantaClient(url) as one, SyncKantaClient(url) as other:
        assert one.here()[0] is other.here()[0] is background()


FORKED = """
import os, sys
from kanta_client import KantaError, SyncKantaClient
db = SyncKantaClient(sys.argv[1])
db.set("/parent", 1)
feed = db.subscribe(since=0)
mirror = db.mirror()
mirror.__enter__()
if (child := os.fork()) == 0:
    db.set("/child", db.get("/parent") + 1)  # connects anew
    refused = 0
    of_mirror = (lambda: mirror.value, lambda: mirror.rev, lambda: mirror.live, lambda: bool(mirror))
    for begun in (lambda: next(feed), *of_mirror):
        try:
            begun()
        except KantaError:
            refused += 1
    os._exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
mirror.at_least(2)  # the parent goes on as if nothing had been
print(db.get(), [next(feed).rev for _ in range(2)], mirror["child"])
"""


def test_a_forked_process_connects_anew_and_leaves_its_parent_alone(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, url], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{'parent': 1, 'child': 2} [1, 2] 2\n", "")


def test_a_script_that_closes_nothing_ends_and_says_nothing(url: str) -> None:
    script = """
import sys
from kanta_client import SyncKantaClient
db = SyncKantaClient(sys.argv[1])
db.mirror().__enter__()
print(db.set("/x", 1).rev, next(db.subscribe(since=0)).rev)
"""
    flags = [sys.executable, "-W", "error", "-c", script, url]
    done = subprocess.run(flags, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1\n", "")


def test_what_another_process_began_is_told() -> None:
    here = background()
    here.pid += 1
    try:
        with pytest.raises(KantaError, match="forked"):
            here.check_process()
    finally:
        here.pid -= 1
