"""Former values: each way leads to what the model says, for both formats, and the loop is shared meanwhile."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from kantad.engine import former as former_module
from kantad.engine.engine import Engine
from kantad.engine.former import Earlier, Former, Remembered
from kantad.engine.retracer import Retracer
from kantad.values.content import MISSING, decode_json, same
from kantad.values.errors import Problem
from kantad.values.etag import etag
from kantad.values.pointer import lookup, parse
from kantad.values.record import cursor
from kantad.values.view import VALUE, View
from tests.engine.engine_kit import START, Database, delete, flushed, proposal, put

PATHS = ("", "/a", "/a/b", "/list", "/list/1", "/list/1/x", "/$replace", "/no/such")


@pytest.fixture
async def formers() -> AsyncIterator[list[Former]]:
    """The formers of a test, ended with it."""
    made: list[Former] = []
    yield made
    for each in made:
        await each.stop()


async def history(engine: Engine, count: int, seed: int = 1) -> list[tuple[dict[str, Any], int, str]]:
    """Random changes; the state, the time and the cursor at every revision."""
    chance = random.Random(seed)
    points = [({}, 0, cursor(0, bytes(8)))]
    while engine.rev < count:
        path = chance.choice(("/a/b", "/a/c", "/list", "/list/-", "/list/0", "/$replace", "/long/way/down"))
        before = engine.rev
        try:
            if chance.random() < 0.2:
                delete(engine, path)
            else:
                put(engine, path, chance.choice((1, True, "$x", None, {"x": chance.random()}, [1, [2], {"x": 3}])))
        except Problem:
            continue
        if engine.rev > before:
            points.append((deepcopy(engine.root), engine.micros, cursor(engine.rev, engine.chain)))
            if engine.rev % 40 == 7:
                await flushed(engine)
                await engine.snapshot()
    await flushed(engine)
    return points


async def shown(former: Former, when: int | str, path: str) -> Any:
    """The value at a path as it was shown, once its etag was compared with that of the value."""
    earlier = await former.show(when, parse(path))
    if earlier.tag is None:
        return MISSING
    value = decode_json(earlier.body)
    assert earlier.tag == etag(value)
    return value


async def refused(former: Former, when: int | str, path: str = "") -> Problem:
    try:
        await former.show(when, parse(path))
    except Problem as problem:
        return problem
    raise AssertionError("it was not refused")


@pytest.mark.parametrize("inline", [0, 1 << 20], ids=["by a process", "here"])
async def test_every_revision_is_what_it_was(either: Database, formers: list[Former], inline: int) -> None:
    engine = either.open()
    points = await history(engine, 200)
    formers.append(former := Former(engine, inline=inline, kept=0))
    order = list(range(len(points)))
    random.Random(2).shuffle(order)
    for rev in order[:100]:
        state, _, mark = points[rev]
        for path in PATHS:
            expected = lookup(state, parse(path))
            got = await shown(former, rev if path else mark, path)
            assert got is expected if expected is MISSING else same(got, expected), (rev, path)
    assert former.retracer.started == (inline == 0)


@pytest.mark.parametrize("inline", [0, 1 << 20], ids=["by a process", "here"])
async def test_a_moment_is_the_last_change_that_is_not_after_it(
    either: Database, formers: list[Former], inline: int
) -> None:
    points = await history(either.open(), 100)
    await either.stop()
    engine = either.open()  # the ring is empty: the file has to tell
    formers.append(former := Former(engine, inline=inline))
    assert await former.revision_at(START - 1) == 0
    for rev, (_, micros, _) in enumerate(points[1:], 1):
        assert await former.revision_at(micros) == rev
        assert await former.revision_at(micros - 1) == rev - 1
    assert await former.revision_at(points[-1][1] + 10**9) == 100


async def test_a_moment_in_memory_needs_no_file(database: Database) -> None:
    engine = database.open()
    points = await history(engine, 100)
    former = Former(engine, inline=0)
    for rev, (_, micros, _) in enumerate(points[1:], 1):
        assert await former.revision_at(micros) == rev
    assert former.retracer.started == 0


async def test_the_present_is_read_without_a_replay(database: Database) -> None:
    engine = database.open()
    put(engine, "/a", 1)
    await flushed(engine)
    database.disk.hold()
    put(engine, "/a", 2)
    former = Former(engine, inline=0)
    assert await shown(former, 1, "/a") == 1
    reading = asyncio.create_task(shown(former, 2, "/a"))
    assert await former.revision_at(engine.micros) == 1
    assert not reading.done()
    database.disk.release()
    await flushed(engine)
    assert await reading == 2
    assert former.retracer.started == 0


async def test_under_applied_what_is_not_written_yet_can_be_read(database: Database) -> None:
    engine = database.open(ack="applied", flush_interval=60.0)
    for value in (1, 2, 3):
        put(engine, "/a", value)
    marks = [cursor(change.rev, change.chain) for change in engine.committer.unsettled()]
    for rev, mark in enumerate(marks, 1):
        assert await shown(engine.former, mark, "/a") == rev
        assert await shown(engine.former, rev, "/b") is MISSING
    assert engine.root == {"a": 3}


async def test_a_value_is_given_with_the_types_of_the_file(tmp_path: Any, formers: list[Former]) -> None:
    database = Database(str(tmp_path / "data.kantadb"), "msgpack")
    engine = database.open()
    for value in ({1: b"bytes"}, 5):
        engine.transact(proposal("put", "/a", value, foreign=True))
    await flushed(engine)
    formers.append(former := Former(engine, inline=0))
    assert await former.value_at(1, ("a",)) == {1: b"bytes"}
    assert await former.value_at(2, ("a",)) == 5
    assert await former.value_at(0, ("a",)) is MISSING
    assert await shown(former, 1, "/a") == {"1": "Ynl0ZXM="}
    await database.stop()


async def test_a_file_that_is_not_small_is_never_replayed_here(database: Database) -> None:
    engine = database.open()
    put(engine, "/big", ["x" * 100] * 2700)
    put(engine, "/a", 1)
    put(engine, "/a", 2)
    await flushed(engine)
    assert engine.log.size > former_module.INLINE
    micros = engine.micros - 1
    assert await shown(engine.former, 2, "/a") == 1
    assert await engine.former.value_at(1, ("a",)) is MISSING
    await database.stop()
    engine = database.open()
    assert await engine.former.revision_at(micros) == 2
    assert (engine.former.answers, engine.former.retracer.started) == (None, 1)


async def test_what_is_not_of_this_history_is_refused(database: Database) -> None:
    engine = database.open()
    points = await history(engine, 50)
    former = engine.former
    for rev in (0, 20, 50):
        assert (await refused(former, f"{rev}-{'0' * 15}1")).code == "history_diverged"
    assert (await refused(former, 51)).code == "unknown_revision"
    assert (await refused(former, f"51-{'0' * 16}")).code == "history_diverged"
    assert (await refused(former, "x")).code == "invalid_parameter"
    assert await shown(former, points[20][2], "") == points[20][0]


async def test_answers_are_remembered_by_revision_path_and_view(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    await history(engine, 50)
    formers.append(former := Former(engine, inline=0))
    first = await former.show(20, ("a",))
    process = former.retracer.worker
    assert process is not None
    process.process.kill()
    for _ in range(3):
        assert await former.show(20, ("a",)) is first
    await former.show(20, ("a",), View(msgpack=True))
    assert former.retracer.started == 2


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    remembered = Remembered(10_000)
    for rev in range(100):
        remembered.keep((rev, ("a",), VALUE), Earlier(rev, b"", "", bytes(600)))
        remembered.find((0, ("a",), VALUE))
        assert remembered.bytes <= 10_000
    assert remembered.find((0, ("a",), VALUE)) is not None
    assert remembered.find((1, ("a",), VALUE)) is None
    assert remembered.find((99, ("a",), VALUE)) is not None
    before = remembered.bytes
    remembered.keep((100, (), VALUE), Earlier(100, b"", "", bytes(5000)))
    assert remembered.find((100, (), VALUE)) is None
    assert remembered.bytes == before


async def test_a_replay_here_gives_way_after_every_slice(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.open()
    await history(engine, 60)
    monkeypatch.setattr(former_module, "SLICE", 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await engine.former.show(46, ())
    counting.cancel()
    assert turns >= 30  # the records between the snapshot at 7 and this one


async def test_one_process_answers_all_and_goes_round_by_revisions(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    points = await history(engine, 100)
    formers.append(former := Former(engine, inline=0, kept=0))
    asked = [50, 10, 90, 30, 70, 20]
    done: list[int] = []

    async def ask(rev: int) -> None:
        assert await shown(former, rev, "") == points[rev][0]
        done.append(rev)

    await asyncio.gather(*map(ask, asked))
    assert (done, former.retracer.started) == (sorted(asked), 1)


async def test_a_killed_process_is_replaced(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    points = await history(engine, 50)
    formers.append(former := Former(engine, inline=0, kept=0))
    assert await shown(former, 20, "") == points[20][0]
    assert former.retracer.worker is not None
    former.retracer.worker.process.kill()
    assert await shown(former, 30, "") == points[30][0]
    assert former.retracer.started == 2


async def test_a_process_that_cannot_start_or_hangs_is_unavailable(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    await history(engine, 50)
    for command, timeout in ((["/no/such/command"], 60.0), (["true"], 60.0), (["sleep", "60"], 0.05)):
        formers.append(former := Former(engine, inline=0, retracer=Retracer(command=command, timeout=timeout)))
        problem = await refused(former, 20)
        assert (problem.code, problem.more["retry_after"]) == ("unavailable", 1)
        assert former.retracer.worker is None


async def test_a_process_that_answers_nonsense_is_unavailable_each_time(
    database: Database, formers: list[Former]
) -> None:
    engine = database.open()
    await history(engine, 50)
    for reply in (b"\xc1nonsense", b"\x81\xa3rev\xa1x", b"\x81\xa4code\xa1\xff"):
        program = f"import os; os.write(0, {len(reply).to_bytes(8, 'little') + reply!r})"
        command = [sys.executable, "-c", program]
        formers.append(former := Former(engine, inline=0, retracer=Retracer(command=command)))
        for _ in range(2):
            assert (await asyncio.wait_for(refused(former, 20), 10)).code == "unavailable"


async def test_an_idle_process_ends_and_the_next_question_starts_one(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    points = await history(engine, 50)
    formers.append(former := Former(engine, inline=0, retracer=Retracer(idle=0.01)))
    assert await shown(former, 20, "") == points[20][0]
    worker = former.retracer.worker
    async with asyncio.timeout(10):
        while former.retracer.worker is not None:
            worker = former.retracer.worker
            await asyncio.sleep(0.01)
        while worker is not None and worker.process.returncode is None:
            await asyncio.sleep(0.01)
    assert await shown(former, 21, "") == points[21][0]
    assert former.retracer.started == 2


async def test_a_stop_ends_the_process_and_refuses_who_waits(database: Database) -> None:
    engine = database.open()
    await history(engine, 50)
    former = Former(engine, inline=0, retracer=Retracer(command=["sleep", "60"]))
    waiting = [asyncio.create_task(refused(former, rev)) for rev in (20, 30)]
    async with asyncio.timeout(10):
        while former.retracer.worker is None:
            await asyncio.sleep(0.001)
    process = former.retracer.worker.process
    await former.stop()
    assert [problem.code for problem in await asyncio.gather(*waiting)] == ["shutting_down"] * 2
    assert process.returncode == -9
    assert (await refused(former, 20)).code == "shutting_down"


async def test_who_gives_up_leaves_the_process_to_the_others(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    points = await history(engine, 50)
    formers.append(former := Former(engine, inline=0))
    gone = asyncio.create_task(former.show(20, ()))
    stays = asyncio.create_task(shown(former, 30, ""))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == points[30][0]
    assert former.retracer.started == 1


async def test_too_many_waiting_are_refused(
    database: Database, formers: list[Former], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    await history(engine, 50)
    monkeypatch.setattr("kantad.engine.retracer.MOST_WAITING", 0)
    formers.append(former := Former(engine, inline=0))
    assert (await refused(former, 20)).code == "unavailable"


@pytest.mark.parametrize("inline", [0, 1 << 20], ids=["by a process", "here"])
async def test_what_lies_behind_damage_is_gone_and_the_rest_is_not(
    database: Database, formers: list[Former], inline: int
) -> None:
    engine = database.open()
    points = await history(engine, 100)
    await database.stop()
    with open(database.path, "r+b") as file:
        data = file.read()
        file.seek(data.index(b"\n", len(data) // 3) + 30)
        file.write(b"#")
    engine = database.open()
    formers.append(former := Former(engine, inline=inline))
    gone = 0
    for rev in range(0, 101, 5):
        try:
            assert await shown(former, rev, "") == points[rev][0]
        except Problem as problem:
            assert (problem.code, problem.more["reason"]) == ("history_gone", "damaged")
            assert problem.more["oldest"] == engine.snapshots.rev
            gone += 1
    assert 0 < gone < 15


async def test_a_file_that_was_replaced_is_not_answered_from(database: Database, formers: list[Former]) -> None:
    engine = database.open()
    await history(engine, 50)
    formers.append(former := Former(engine, inline=0))
    engine.log.path += "-elsewhere"
    assert (await refused(former, 20)).code == "unavailable"
    engine.log.path = database.path
