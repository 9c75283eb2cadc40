"""A mirror that ends by itself: everybody who has it is told, and nobody reads what is old without knowing."""

import logging
from typing import Any

import pytest
from kanta_client import Closed, KantaClient, KantaError, SyncKantaClient
from kanta_client.channel import State
from kanta_client.testing import serve, server

from tests.client.feeds import change, follow, mirror, subs


async def test_a_value_that_is_not_of_its_type_is_told_by_state_callback_log_and_every_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    states: list[State] = []
    told: list[KantaError] = []
    async with server(data={"p": {"n": 1}}) as url, KantaClient(url, on_state=states.append) as db:
        async with db.mirror("/p", type=dict[str, int]) as copy:
            copy.on_end(told.append)
            seen: list[int] = []
            copy.on_change(lambda change: seen.append(change.rev))
            assert copy.error is None
            with pytest.raises(KantaError, match="Expected `int`"):
                await copy.at_least(await db.set("/p/n", "text"))
            assert (db.state, copy.live) == ("stale", False)
            assert [str(each) for each in told] == [str(copy.error)]
            assert seen == []
            with pytest.raises(KantaError, match="Expected `int`"):
                copy.on_change(lambda change: None)
            for read in (
                lambda: copy.value,
                lambda: copy["n"],
                lambda: copy.get("n"),
                lambda: "n" in copy,
                lambda: len(copy),
                lambda: list(copy),
                lambda: copy.exists,
                lambda: bool(copy),
            ):
                with pytest.raises(KantaError, match="Expected `int`"):
                    read()
            copy.on_end(told.append)
            assert len(told) == 2
            await db.set("/p/n", 2)  # the rest of the client goes on
        assert db.state == "connected"
        assert states[-2:] == ["stale", "connected"]
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "the mirror of '/p' has ended" in record.getMessage()


async def test_a_mirror_without_a_value_that_ends_is_not_empty_but_dead() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        [(sub, socket)] = await subs(line, log)
        socket.say({"sub": sub, **change(1, diff=None, deleted=True)})
        await copy.at_least(1)
        assert (copy.exists, len(copy), list(copy), "n" in copy) == (False, 0, [], False)
        log.end("history_diverged")
        with pytest.raises(KantaError, match="history_diverged"):
            await copy.at_least(2)
        for read in (lambda: copy.exists, lambda: len(copy), lambda: list(copy), lambda: "n" in copy):
            with pytest.raises(KantaError, match="history_diverged"):
                read()
    await channel.close()


async def test_a_closed_client_is_an_end_and_a_closed_mirror_is_none(caplog: pytest.LogCaptureFixture) -> None:
    told: list[KantaError] = []

    def raising(error: KantaError) -> None:
        told.append(error)
        raise ValueError("of the callback")

    async with server(data={"n": 1}) as url, KantaClient(url) as db:
        async with db.mirror() as first:
            first.on_end(told.append)
        unwanted = db.mirror()
        async with unwanted, db.mirror() as copy:
            unwanted.on_end(told.append)()
            copy.on_end(raising)
            assert told == []
            await db.close()
            assert [type(error) for error in told] == [Closed]
            assert copy.error is None
            assert copy["n"] == 1
    assert "of the callback" in caplog.text


def test_threads_are_told_as_well() -> None:
    told: list[KantaError] = []
    with (
        serve(data={"p": {"n": 1}}) as url,
        SyncKantaClient(url) as db,
        db.mirror("/p", type=dict[str, int]) as copy,
    ):
        copy.on_end(told.append)
        with pytest.raises(KantaError, match="Expected `int`"):
            copy.at_least(db.set("/p/n", "text"))
        assert [str(each) for each in told] == [str(copy.error)]
        with pytest.raises(KantaError, match="Expected `int`"):
            _ = copy.exists


async def test_what_rests_is_not_up_to_date() -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        await subs(line, log)
        assert copy.live
        log.end("unavailable")
        await line.until(lambda: not copy.live)
        assert channel.state == "catching up"
        await subs(line, log)  # subscribed again
        await line.until(lambda: copy.live)
        assert channel.state == "connected"
    await channel.close()


async def test_a_search_that_is_not_over_settles_nothing() -> None:
    """An answer without changes and with a `next` has not searched all of it."""
    log, line, channel = await follow()
    asked: list[dict[str, Any]] = []
    async with mirror(channel) as copy:
        [(sub, socket)] = await subs(line, log)

        def slow(socket: Any, request: dict[str, Any]) -> None:
            answer = {"id": request["id"], "rev": 9, "changes": []}
            if request["op"] != "changes":
                log(socket, request)
                return
            asked.append(request)
            line.rev = 9
            if len(asked) < 3:
                socket.say({**answer, "next": f"{2 * len(asked)}-c"})
                return
            socket.say({"sub": sub, **change(8)}, {**answer, "changes": [change(8)]})
            socket.say({"sub": sub, "event": "heartbeat", "rev": 9, "cursor": "9-c"})

        socket.answering = slow
        await copy.at_least(9)
        assert copy.value == {"n": 8}
        assert [each["since"] for each in asked] == ["0-c", "2-c", "4-c"]
    await channel.close()


async def test_one_subscription_too_many_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    log, line, channel = await follow()
    async with mirror(channel) as copy:
        await subs(line, log)
        log.refuse = "too_many"
        with pytest.raises(KantaError, match="too_many"):
            async with mirror(channel):
                raise AssertionError("entered")
        log.refuse = ""
        log.more(line)
        await copy.at_least(1)
        assert (channel.state, copy.live) == ("connected", True)
    assert "stale" not in line.states
    assert not caplog.records  # who entered it was told
    await channel.close()
