"""Mirrors over scripted sockets: filled, followed, waited for, and dead where they cannot go on."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from kanta_client.errors import KantaError, Overrun, Unreachable
from kanta_client.link import Lost

from tests.client.feeds import change, follow, mirror, subs
from tests.client.sockets import FakeSocket, Line, obliging, write


async def test_the_state_tells_of_catching_up() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        await line.until(lambda: copy.live)
        assert line.states == ["catching up", "connected"]
        line.rev = 10
        log.subs.clear()
        line.sockets[0].lose()
        await copy.at_least(10)
        await line.until(lambda: copy.live)
        assert line.states == ["catching up", "connected", "stale", "catching up", "connected"]
    await channel.close()


async def test_what_has_ended_does_not_catch_up() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        await line.until(lambda: copy.live)
        line.rev = 10
        log.refuse = "history_diverged"
        line.sockets[0].lose()
        await line.until(lambda: not channel.followers)
        await asyncio.sleep(0.01)
        assert line.states[-2:] == ["catching up", "stale"]
    assert line.states[-1] == "connected"  # when it is closed
    await channel.close()


async def test_a_mirror_is_filled_follows_and_tells() -> None:
    log, line, channel = await follow()
    line.rev = 4
    told: list[Any] = []
    async with mirror(channel) as copy:
        assert (copy.value, copy.rev, copy.cursor) == ({"n": 4}, 4, "4-c")
        same = copy.value
        forget = copy.on_change(lambda change: told.append((change.rev, copy["n"])))
        iteration = aiter(copy)
        log.more(line, 2)
        await copy.at_least(6)
        assert same is copy.value  # in place
        forget()
        log.more(line)
        await copy.at_least(7)
        assert told == [(5, 5), (6, 6)]
        assert [(await anext(iteration)).rev for _ in range(3)] == [5, 6, 7]
    assert copy.value == {"n": 7}
    assert [change async for change in copy] == []
    await channel.close()


async def test_what_a_change_tells_stays_as_it_was_told() -> None:
    log, line, channel = await follow()
    told: list[Any] = []
    async with mirror(channel) as copy:
        copy.on_change(told.append)
        [(sub, socket)] = await subs(line, log)
        socket.say({"sub": sub, **change(1, diff={"o": {"a": 1}})})
        socket.say({"sub": sub, **change(2, diff={"o": {"b": [2]}})})
        socket.say({"sub": sub, **change(3, diff={"o": {"b": {"$insert": [[1, 3]]}}})})
        await line.until(lambda: len(told) == 3)
        assert copy.value == {"n": 0, "o": {"a": 1, "b": [2, 3]}}
        assert [each.patch for each in told[:2]] == [{"o": {"a": 1}}, {"o": {"b": [2]}}]
    await channel.close()


async def test_a_mirror_that_is_reset_says_so() -> None:
    log, line, channel = await follow()
    kinds: list[str] = []
    async with mirror(channel) as copy:
        copy.on_change(lambda change: kinds.append(change.kind))
        log.whole_again, line.rev = True, 50
        line.sockets[0].lose()
        await copy.at_least(50)
        assert (kinds, copy.value) == (["reset"], {"n": 50})
    await channel.close()


async def test_what_a_callback_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    log, line, channel = await follow()
    told: list[int] = []

    def raising(change: Any) -> None:
        raise RuntimeError("of a callback")

    async with mirror(channel) as copy:
        copy.on_change(raising)
        copy.on_change(lambda change: told.append(change.rev))
        log.more(line)
        await copy.at_least(1)
        assert told == [1]
    assert "of a callback" in caplog.text
    await channel.close()


async def test_a_mirror_that_cannot_take_a_change_is_dead_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        iteration = aiter(copy)
        [(sub, socket)] = await subs(line, log)
        socket.say({"sub": sub, **change(1, diff={"n": {"$insert": [[9, 9]]}})})
        with pytest.raises(KantaError, match="revision 1"):
            await copy.at_least(2)
        with pytest.raises(KantaError, match="revision 1"):
            _ = copy.value
        with pytest.raises(KantaError, match="revision 1"):
            await anext(iteration)
    assert not channel.followers
    assert line.dialled == 1
    await channel.close()


async def test_a_revision_elsewhere_is_waited_for_by_asking_also_over_a_lost_connection() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        log.subs.clear()  # nothing is told any more

        def quiet(socket: FakeSocket, request: dict[str, Any]) -> None:
            if request["op"] == "changes":
                if socket is line.sockets[0]:
                    socket.lose()
                else:
                    socket.say({"id": request["id"], "rev": line.rev, "changes": []})
            elif request["op"] == "subscribe":
                socket.say({"id": request["id"], "sub": request["id"], "rev": 0, "cursor": "0-c"})
            else:
                socket.answer(request)

        line.script = [quiet]
        line.sockets[0].answering = quiet
        line.rev = 9
        await copy.at_least(9, 4.0)
        assert copy.rev == 9
    await channel.close()


async def test_an_answer_that_comes_after_the_mirror_was_left_is_not_heard() -> None:
    def slow(socket: FakeSocket, request: dict[str, Any]) -> None:
        if request["op"] != "subscribe":
            socket.answer(request)

    line = Line(slow)
    channel = line.channel()
    copy = mirror(channel)
    entering = asyncio.create_task(copy.__aenter__())
    await line.until(lambda: line.asked("subscribe"))
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    [asked] = line.asked("subscribe")
    line.sockets[0].say({"id": asked["id"], "sub": asked["id"], "rev": 5, "cursor": "5-c", "value": {"n": 5}})
    await write(channel, "w")
    assert (copy.exists, copy.rev) == (False, -1)
    await channel.close()


async def test_a_revision_that_never_comes_is_waited_for_so_long_and_no_longer() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        with pytest.raises(Unreachable):
            await copy.at_least(5, 0.3)
        task = asyncio.create_task(copy.at_least(6))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        log.more(line)
        await copy.at_least(1)
    await channel.close()


async def test_a_mirror_that_cannot_be_filled_in_time_is_not_followed() -> None:
    line = Line(Lost("no"))
    channel = line.channel()
    channel.patience = type(channel.patience)(answer=0.2)
    copy = mirror(channel)
    with pytest.raises(Unreachable):
        await copy.__aenter__()
    assert not channel.followers
    await channel.close()


async def test_who_is_too_late_with_a_mirrors_changes_is_told() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        late = aiter(copy)
        log.more(line, 10_002)
        await copy.at_least(10_002)
        with pytest.raises(Overrun):
            await anext(late)
        assert copy.value == {"n": 10_002}
    await channel.close()


async def test_who_is_too_many_bytes_late_with_a_mirrors_changes_is_told() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        late = aiter(copy)
        [(sub, socket)] = await subs(line, log)
        for rev in range(1, 10):
            line.rev = rev
            socket.say({"sub": sub, **change(rev, diff={"n": "x" * (10 << 20)})})
        await copy.at_least(9)
        with pytest.raises(Overrun):
            await anext(late)
    await channel.close()


async def test_who_stops_iterating_over_a_mirror_costs_nothing_more() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        await subs(line, log)
        log.more(line)
        iteration = aiter(copy)
        seen = weakref.ref(iteration)
        await copy.at_least(1)
        del iteration
        gc.collect()
        assert seen() is None
    await channel.close()


async def test_a_mirror_that_was_never_entered_says_so_and_not_that_nothing_is_there() -> None:
    channel = Line(obliging).channel()
    unfilled = mirror(channel)
    for ask in (lambda: unfilled.value, lambda: unfilled["a"], lambda: unfilled.get("a")):
        with pytest.raises(KantaError, match="enter it"):
            ask()
    await channel.close()


async def test_a_server_that_is_slow_to_tell_of_a_revision_is_asked_once_by_all_who_wait() -> None:
    log, line, channel = await follow()

    def slow(socket: FakeSocket, request: dict[str, Any]) -> None:
        if request["op"] != "changes":
            log(socket, request)

    line.script = [slow]
    async with mirror(channel) as copy:
        waiting = [copy.at_least(9, 0.7) for _ in range(3)]
        assert {type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)} == {Unreachable}
        assert len(line.asked("changes")) == 1
        line.sockets[0].lose()  # and with it the question
        with pytest.raises(Unreachable):
            await copy.at_least(9, 0.7)
        assert len(line.asked("changes")) == 2
    await channel.close()
