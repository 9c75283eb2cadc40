"""The channel over scripted sockets: silence, garbage, closing, cancelling."""

import asyncio
import logging
from typing import Any

import pytest
from kanta_client.channel import Channel
from kanta_client.errors import Closed, Refused, Unauthorized, UnknownOutcome, Unreachable
from kanta_client.link import Lost

from tests.client.sockets import QUICK, FakeSocket, Line, greeting, names, obliging, read, write

UNAUTHORIZED = Unauthorized({"code": "unauthorized", "status": 401})


async def test_silence_is_shown_as_stale_and_ends_the_connection() -> None:
    def once(socket: FakeSocket, request: dict[str, Any]) -> None:
        socket.answer(request)
        socket.answering = lambda socket, request: None

    line = Line(once, obliging)
    channel = line.channel()
    future = write(channel, "w")
    await line.until(lambda: "stale" in line.states)
    assert line.states == ["connected", "stale"]
    assert len(line.asked("ping")) == 2  # it was asked whether it is there
    assert (await future).rev == 1
    assert line.states == ["connected", "stale", "connected"]
    assert line.sockets[0].closed
    await channel.close()


async def test_a_handshake_that_is_never_greeted_back_is_given_up() -> None:
    line = Line(lambda socket, request: None, obliging)
    channel = line.channel()
    assert (await write(channel, "w")).rev == 1
    assert line.dialled == 2
    await channel.close()


async def test_a_long_message_on_its_way_is_no_silence() -> None:
    line = Line(obliging)
    channel = line.channel()
    await write(channel, "w")
    [socket] = line.sockets
    socket.answering = lambda socket, request: None
    for _ in range(25):  # 2.5 s, where 1 s of silence would end it
        await asyncio.sleep(0.1)
        socket.bytes += 1000
    assert line.dialled == 1
    assert "stale" not in line.states
    await channel.close()


async def test_a_peer_that_takes_nothing_is_given_up_and_closing_does_not_wait_for_it() -> None:
    line = Line(obliging)
    channel = line.channel()
    await write(channel, "w")
    line.sockets[0].taking.clear()
    future = write(channel, "held")
    assert (await future).rev == 2
    assert line.dialled == 2
    line.sockets[1].taking.clear()
    future = write(channel, "again")
    await asyncio.wait_for(channel.close(), 1)
    with pytest.raises(UnknownOutcome):
        await future


async def test_garbage_ends_the_connection_and_not_the_client(caplog: pytest.LogCaptureFixture) -> None:
    garbage = [b"\xff\xfe", b"[1,2", b'"text"', b'{"id":[]}', b"", b'{"id":null,"error":{"code":"invalid_json"}}']
    line = Line(greeting)
    channel = line.channel()
    for number, piece in enumerate(garbage):
        future = write(channel, f"w{number}")
        await line.until(
            lambda number=number: f"w{number}" in names(line.sockets[-1].requests) if line.sockets else False
        )
        socket = line.sockets[-1]
        socket.inbox.put_nowait(piece)
        await line.until(lambda socket=socket: line.sockets[-1] is not socket)
        await line.until(lambda number=number: f"w{number}" in names(line.sockets[-1].requests))
        line.sockets[-1].answer(line.sockets[-1].requests[-1])
        assert (await future).rev == number + 1
    await channel.close()
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_answers_to_nothing_and_events_of_nobody_are_ignored() -> None:
    line = Line(obliging)
    channel = line.channel()
    await write(channel, "w")
    line.sockets[0].say({"id": 999, "rev": 3}, {"id": "text", "rev": 4}, {"sub": 77, "event": "change", "rev": 5})
    assert (await write(channel, "w2")).rev == 2
    assert channel.rev == 5
    assert line.dialled == 1
    await channel.close()


async def test_a_fault_of_ours_is_logged_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    line = Line(RuntimeError("a fault"), obliging)
    channel = line.channel()
    assert (await write(channel, "w")).rev == 1
    assert "a fault of the client" in caplog.text
    await channel.close()


async def test_close_fails_what_waits_and_is_final() -> None:
    line = Line(greeting)
    channel = line.channel()
    sent, asked = write(channel, "sent"), read(channel)
    await line.until(lambda: len(line.seen) == 3)
    queued = read(channel)
    await asyncio.gather(channel.close(), channel.close())
    with pytest.raises(UnknownOutcome):
        await sent
    for future in (asked, queued):
        with pytest.raises(Closed):
            await future
    with pytest.raises(Closed):
        write(channel, "later")
    await channel.close()
    assert line.states[-1] == "closed"
    assert line.sockets[0].closed


async def test_close_while_it_is_dialling_or_waiting_to() -> None:
    hanging = asyncio.Event()

    async def dial() -> Any:
        await hanging.wait()

    for channel in (Channel(dial, QUICK, None), Line(Lost("no")).channel()):
        future = write(channel, "w")
        await asyncio.sleep(0.05)
        await asyncio.wait_for(channel.close(), 1)
        with pytest.raises(Closed):
            await future


@pytest.mark.parametrize("steps", range(12))
async def test_a_caller_cancelled_at_any_step_leaves_the_channel_usable(steps: int) -> None:
    line = Line(obliging)
    channel = line.channel()

    async def caller() -> None:
        await write(channel, "cancelled")

    task = asyncio.create_task(caller())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    answers = await asyncio.gather(*[write(channel, f"w{number}") for number in range(3)])
    assert [answer.rev for answer in answers] == sorted(answer.rev for answer in answers)
    assert line.dialled == 1
    await channel.close()


async def test_requests_without_a_server_are_not_kept_longer_than_they_wait() -> None:
    line = Line(greeting, Lost("gone"))
    channel = line.channel()
    await line.until(lambda: True)
    futures = [write(channel, f"w{number}", seconds=0.1) for number in range(100)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(result, Unreachable | UnknownOutcome) for result in results)
    await channel.close()


async def test_a_state_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def raising(state: str) -> None:
        raise RuntimeError("of the callback")

    channel = Channel(Line(obliging).dial, QUICK, raising)
    assert (await write(channel, "w")).rev == 1
    await channel.close()
    assert "of the callback" in caplog.text


async def test_a_loop_that_stood_still_hears_what_came_before_it_gives_up() -> None:
    import time

    line = Line(greeting)
    channel = line.channel()
    future = write(channel, "w", seconds=1.2)
    await line.until(lambda: line.asked("transact"))
    asyncio.get_running_loop().call_soon(time.sleep, 1.5)
    line.sockets[0].answer(line.asked("transact")[0])
    assert (await future).rev == 1
    assert line.dialled == 1
    await channel.close()


async def test_no_more_than_the_server_takes_is_under_way() -> None:
    line = Line(greeting)
    channel = line.channel()
    futures = [write(channel, f"w{number}") for number in range(1_500)]
    await line.until(lambda: len(line.asked("transact")) == 1_000)
    await asyncio.sleep(0.05)
    assert len(line.asked("transact")) == 1_000
    line.sockets[0].answering = obliging
    for request in line.asked("transact")[:1_000]:
        line.sockets[0].answer(request)
    await asyncio.gather(*futures)
    await channel.close()


async def test_the_handshake_may_be_refused_before_anything_was_connected() -> None:
    line = Line(UNAUTHORIZED)
    channel = line.channel()
    with pytest.raises(Refused):
        await write(channel, "w")
    assert line.dialled == 1
    await channel.close()


@pytest.mark.parametrize("steps", range(4))
async def test_a_close_that_is_cancelled_fails_what_waits_all_the_same(steps: int) -> None:
    line = Line(greeting)
    channel = line.channel()
    asked = read(channel)
    await line.until(lambda: len(line.seen) == 2)
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    with pytest.raises(Closed):
        await asyncio.wait_for(asked, 2)
    await channel.close()


async def test_who_cancels_all_tasks_does_not_end_the_connection_for_good() -> None:
    line = Line(obliging)
    channel = line.channel()
    await write(channel, "w")
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(write(channel, "again"), 3)).rev == 2
    assert line.states[-2:] == ["stale", "connected"]
    await channel.close()
