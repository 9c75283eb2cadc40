"""The servers for other people's tests: there, apart from each other, and gone; and the pytest fixtures."""

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvloop
from kanta_client import KantaClient, SyncKantaClient, Unreachable
from kanta_client.testing import serve, server


async def test_a_server_is_there_and_gone() -> None:
    async with server(data={"a": 1}) as url, KantaClient(url, timeout=0.3) as db:
        assert await db.get() == {"a": 1}
        assert (await db.set("/b", 2)).rev == 2
    async with KantaClient(url, timeout=0.3) as db:
        with pytest.raises(Unreachable):
            await db.ping()


async def test_several_servers_are_apart() -> None:
    async with server() as one, server(data={"x": 1}) as other, KantaClient(one) as db, KantaClient(other) as there:
        await db.set("/n", 1)
        assert (await db.get(), await there.get()) == ({"n": 1}, {"x": 1})


async def test_a_server_on_a_file_and_a_port_can_be_started_again(tmp_path: Path) -> None:
    async with server(path=tmp_path / "data.kantadb") as url:
        port = int(url.rpartition(":")[2])
        db = KantaClient(url)
        await db.set("/n", 1)
    async with server(path=tmp_path / "data.kantadb", port=port) as again:
        assert (again, await db.get()) == (url, {"n": 1})
    await db.close()


def test_it_works_under_uvloop() -> None:
    async def use() -> int:
        async with server() as url, KantaClient(url) as db:
            return (await db.set("/x", 1)).rev

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use()) == 1


def test_the_collector_is_left_as_it_was() -> None:
    gc.unfreeze()  # what other tests have frozen is theirs, and would stay
    before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
    with serve():
        pass
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before


def test_nothing_is_left_of_a_server_in_a_thread() -> None:
    with serve(data={"n": 1}) as url, SyncKantaClient(url) as db:
        assert db.get("/n") == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "kantad-writer"]


TESTS = """
import asyncio, pytest
from kanta_client import KantaClient

def test_a_url_is_an_empty_database(kanta_url):
    async def use():
        async with KantaClient(kanta_url) as db:
            return await db.get()
    assert asyncio.run(use()) == {}

class TestWithData:
    @pytest.fixture
    def kanta_data(self):
        return {"users": {"alice": {}}}

    def test_it_is_there(self, kanta):
        assert kanta.keys("/users") == ["alice"]
        kanta.set("/users/bob", {})

    def test_each_has_its_own(self, kanta):
        assert kanta.keys("/users") == ["alice"]
"""


def test_the_fixtures_work_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    alone = ["-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:aiohttp", "-W", "error"]
    command = [sys.executable, "-m", "pytest", "-q", *alone, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_costs_a_project_nothing_that_does_not_use_it() -> None:
    script = "import sys, pytest, kanta_pytest; print([each for each in sys.modules if each.startswith('kanta')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['kanta_pytest']\n"
