"""Subscriptions over scripted sockets: in order, once each, over lost connections, bounded, and never silent."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from kanta_client.errors import Closed, HistoryDiverged, HistoryGone, Invalid, KantaError, Unauthorized
from kanta_client.subscription import MOST

from tests.client.feeds import Log, change, follow, mirror, subs, subscription
from tests.client.sockets import Line, read, write


async def test_events_in_the_same_message_as_the_answer_are_heard() -> None:
    _, line, channel = await follow()
    line.rev = 5
    async with subscription(channel, since=2) as changes:
        assert [(await anext(changes)).rev for _ in range(3)] == [3, 4, 5]
    await channel.close()


async def test_a_subscription_goes_on_behind_its_last_event_whatever_becomes_of_connections() -> None:
    log, line, channel = await follow()
    async with subscription(channel, since=0) as changes:
        for rev in range(1, 20):
            log.more(line)
            if rev % 3 == 0:
                line.sockets[-1].lose() if line.sockets else None
            assert (await anext(changes)).rev == rev
            assert (changes.rev, changes.cursor) == (rev, f"{rev}-c")
    assert len(line.sockets) > 3
    await channel.close()


async def test_a_position_that_was_given_is_resumed_from_before_any_event_came() -> None:
    log, line, channel = await follow()
    line.rev = 5
    async with subscription(channel, since="5-c") as changes:
        await line.until(lambda: log.subs)
        line.sockets[0].lose()
        line.rev = 7
        assert (await anext(changes)).rev == 6
    await channel.close()


async def test_an_event_told_twice_is_given_out_once() -> None:
    log, line, channel = await follow()
    async with subscription(channel, since=0) as changes:
        log.more(line)
        [(sub, socket)] = await subs(line, log)
        socket.say({"sub": sub, **change(1)}, {"sub": sub, **change(1)}, {"sub": sub, **change(2)})
        assert [(await anext(changes)).rev for _ in range(2)] == [1, 2]
    await channel.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [("history_gone", HistoryGone), ("history_diverged", HistoryDiverged), ("unauthorized", Unauthorized)],
)
async def test_what_cannot_be_papered_over_is_raised(code: str, error: type[KantaError]) -> None:
    log, line, channel = await follow()
    ended, refused = subscription(channel), subscription(channel)
    async with ended:
        await subs(line, log)
        log.more(line)
        log.end(code)
        assert (await anext(ended)).rev == 1  # what came before it first
        for _ in range(2):
            with pytest.raises(error):
                await anext(ended)
    log.refuse = code
    with pytest.raises(error):
        await anext(refused)
    dead = mirror(channel)
    with pytest.raises(error):
        await dead.__aenter__()
    assert not channel.followers
    await channel.close()


async def test_a_refused_handshake_ends_all_feeds_with_why() -> None:
    log = Log()
    line = Line(log, Unauthorized({"code": "unauthorized"}), log)
    channel = line.channel()
    async with subscription(channel) as changes, mirror(channel) as copy:
        await line.until(lambda: len(log.subs) == 2)
        line.sockets[0].lose()
        with pytest.raises(Unauthorized):
            await anext(changes)
        with pytest.raises(Unauthorized):
            _ = copy.value
        with pytest.raises(Unauthorized):
            await copy.at_least(1)
    assert (await write(channel, "w")).rev == 1
    await channel.close()


async def test_a_feed_that_the_server_cannot_serve_now_is_taken_up_again_once(caplog: pytest.LogCaptureFixture) -> None:
    log, line, channel = await follow()
    async with subscription(channel) as changes:
        await subs(line, log)
        log.end("shutting_down")
        line.sockets[0].lose()  # and the next connection subscribes it before its rest is over
        await subs(line, log)
        await asyncio.sleep(1.2)
        assert len(line.asked("subscribe")) == 2
        log.end("unavailable")
        log.more(line)
        assert (await anext(changes)).rev == 1
        assert len(line.asked("subscribe")) == 3
    assert "subscribed again" in caplog.text
    await channel.close()


async def test_a_full_buffer_leaves_the_feed_and_takes_it_up_again_without_gap_or_repeat() -> None:
    log, line, channel = await follow()
    async with subscription(channel, since=0) as changes:
        await subs(line, log)
        log.more(line, 3 * MOST)
        await line.until(lambda: line.asked("unsubscribe"))
        assert not channel.followers
        assert [(await anext(changes)).rev for _ in range(3 * MOST)] == list(range(1, 3 * MOST + 1))
        assert len(line.asked("subscribe")) >= 3
    await channel.close()


async def test_large_events_fill_a_buffer_by_their_bytes() -> None:
    log, line, channel = await follow()
    async with subscription(channel, since=0) as changes:
        [(sub, socket)] = await subs(line, log)
        line.rev = 3
        socket.say({"sub": sub, **change(1, diff="x" * (5 << 20))})
        await line.until(lambda: line.asked("unsubscribe"))
        assert [(await anext(changes)).rev for _ in range(3)] == [1, 2, 3]
    await channel.close()


async def test_a_subscription_that_nobody_has_any_more_is_not_followed() -> None:
    log, line, channel = await follow()
    changes = subscription(channel)
    buffer = weakref.ref(changes)
    task = asyncio.create_task(anext(changes))  # type: ignore[arg-type]
    await subs(line, log)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del changes, task
    await asyncio.sleep(0)  # the loop lets go of what it ran last
    gc.collect()
    assert buffer() is None
    await asyncio.sleep(0)  # it is left on the loop, whichever thread collects it
    assert not channel.followers
    await line.until(lambda: line.asked("unsubscribe"))
    await channel.close()


async def test_a_closed_subscription_gives_out_what_it_has_and_ends() -> None:
    _, line, channel = await follow()
    line.rev = 3
    changes = subscription(channel, since=0)
    assert (await anext(changes)).rev == 1
    changes.close()
    assert [change.rev async for change in changes] == [2, 3]
    assert [change.rev async for change in changes] == []
    await channel.close()


async def test_feeds_of_a_closed_client_say_so_and_never_hang() -> None:
    log, line, channel = await follow()
    fresh, followed, late = subscription(channel), subscription(channel, since=0), mirror(channel)
    async with followed, mirror(channel) as copy:
        await line.until(lambda: len(log.subs) == 2)
        iteration = aiter(copy)
        await channel.close()
        for _ in range(2):
            with pytest.raises(Closed):
                await anext(followed)
            with pytest.raises(Closed):
                await anext(fresh)
        with pytest.raises(StopAsyncIteration):
            await anext(iteration)
        with pytest.raises(Closed):
            await late.__aenter__()
        with pytest.raises(Closed):
            await copy.at_least(10)
        assert copy.value == {"n": 0}  # what it had is still there


@pytest.mark.parametrize("steps", range(10))
async def test_a_reader_cancelled_at_any_step_loses_no_event(steps: int) -> None:
    _, line, channel = await follow()
    line.rev = 3
    async with subscription(channel, since=0) as changes:
        task = asyncio.ensure_future(anext(changes))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        [first] = await asyncio.gather(task, return_exceptions=True)
        found = [] if isinstance(first, BaseException) else [first.rev]
        while found[-1:] != [3]:
            found.append((await anext(changes)).rev)
        assert found == [1, 2, 3]
    await channel.close()


async def test_the_former_value_is_asked_for_again_by_who_was_cancelled_meanwhile() -> None:
    _, line, channel = await follow()
    line.rev = 2
    hanging = asyncio.Event()

    async def former() -> Any:
        await hanging.wait()
        return {"m": 1}

    async with subscription(channel, since=0, whole=True, former=former) as changes:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.1)
        hanging.set()
        first = await anext(changes)
        assert (first.rev, first.value) == (1, {"m": 1, "n": 1})
        second = await anext(changes)
        assert (second.rev, second.value) == (2, {"m": 1, "n": 2})
    await channel.close()


async def test_the_values_of_a_subscription_stay_as_they_were_given_out() -> None:
    log, line, channel = await follow()
    async with subscription(channel, whole=True) as changes:
        [(sub, socket)] = await subs(line, log)
        socket.say({"sub": sub, **change(1, diff={"o": {"a": 1}})})
        socket.say({"sub": sub, **change(2, diff={"o": {"b": [2]}})})
        socket.say({"sub": sub, **change(3, diff={"o": {"b": {"$insert": [[1, 3]]}}})})
        got = [await anext(changes) for _ in range(4)]
    assert [each.value.get("o") for each in got] == [None, {"a": 1}, {"a": 1, "b": [2]}, {"a": 1, "b": [2, 3]}]
    assert [each.patch for each in got[1:3]] == [{"o": {"a": 1}}, {"o": {"b": [2]}}]
    await channel.close()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("wrong", ["\ud800", object()])
async def test_a_subscription_that_cannot_be_asked_for_ends_alone(wrong: Any, live: bool) -> None:
    line = Line(Log())
    channel = line.channel()
    if live:
        await read(channel)
    async with subscription(channel, wrong) as feed:
        with pytest.raises(Invalid):
            await asyncio.wait_for(anext(feed), 3)
    line.sockets[-1].lose()
    assert (await read(channel)).rev == 0
    assert line.dialled == 2
    await channel.close()
