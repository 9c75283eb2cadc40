"""Writes whose answer was lost, where the server may have forgotten their keys: the log is searched first."""

import asyncio
from typing import Any

import pytest
from kanta_client.channel import Channel
from kanta_client.errors import Unauthorized, UnknownOutcome

from tests.client.sockets import FakeSocket, Line, greeting, names, obliging, write

UNAUTHORIZED = Unauthorized({"code": "unauthorized", "status": 401})


async def window(line: Line, channel: Channel) -> asyncio.Future[Any]:
    """A write whose answer is lost, and more changes since then than the server remembers keys of."""
    await write(channel, "first")
    line.sockets[0].answering = greeting
    future: asyncio.Future[Any] = write(channel, "lost")
    await line.until(lambda: "lost" in names(line.seen))
    line.rev += 20_000
    line.sockets[0].lose()
    return future


def log(line: Line, found: int | None, fail: str = "") -> Any:
    """Answers listings from a log in which the lost write is, or is not."""

    def answering(socket: FakeSocket, request: dict[str, Any]) -> None:
        if request["op"] != "changes":
            return socket.answer(request)
        if fail:
            return socket.refuse(request, fail, 410, oldest=15_000)
        since = int(str(request["since"]).partition("-")[0])
        upto = min(since + request["limit"], request["until"])
        changes = [
            {"rev": rev, "cursor": f"{rev}-c", "ts": "t", "id": "lost" if rev == found else f"k{rev}"}
            for rev in range(since + 1, upto + 1)
        ]
        return socket.say(
            {"id": request["id"], "changes": changes, "next": f"{upto}-c" if upto < request["until"] else None}
        )

    return answering


async def test_beyond_the_window_the_log_is_searched_and_what_it_has_is_the_answer() -> None:
    line = Line(obliging)
    line.script.append(log(line, 4_321))
    channel = line.channel()
    answer = await (await window(line, channel))
    assert (answer.rev, answer.cursor, answer.replayed) == (4_321, "4321-c", True)
    assert names(line.sockets[1].requests) == []
    await channel.close()


async def test_beyond_the_window_what_the_log_does_not_have_is_sent_again() -> None:
    line = Line(obliging)
    line.script.append(log(line, None))
    channel = line.channel()
    assert (await (await window(line, channel))).rev == 20_002
    assert names(line.sockets[1].requests) == ["lost"]
    await channel.close()


@pytest.mark.parametrize("code", ["history_gone", "forbidden"])
async def test_beyond_the_window_where_the_log_does_not_tell_the_outcome_is_unknown(code: str) -> None:
    line = Line(obliging)
    line.script.append(log(line, None, code))
    channel = line.channel()
    with pytest.raises(UnknownOutcome, match=code):
        await (await window(line, channel))
    assert names(line.sockets[1].requests) == []
    assert (await write(channel, "next")).rev == 20_002
    await channel.close()


async def test_the_log_of_another_history_does_not_hold_up_a_write() -> None:
    line = Line(obliging)
    line.script.append(log(line, None, "history_diverged"))
    channel = line.channel()
    assert (await (await window(line, channel))).rev == 20_002
    await channel.close()


async def test_the_log_is_searched_also_when_the_connection_is_lost_again_before_that() -> None:
    line = Line(obliging)
    line.script += [lambda socket, request: socket.lose(), log(line, 4_321)]
    channel = line.channel()
    assert (await (await window(line, channel))).rev == 4_321
    assert line.dialled == 3
    assert names(line.sockets[2].requests) == []
    await channel.close()


async def test_a_write_that_rested_over_the_window_is_searched_for_too() -> None:
    line = Line(obliging)
    searching = log(line, 4_321)

    def broken(socket: FakeSocket, request: dict[str, Any]) -> None:
        if names([request]) == ["rested"]:
            line.rev += 20_000
            socket.refuse(request, "unavailable", outcome="unknown")
            socket.answering = searching
            socket.say({"id": 0, "rev": line.rev})  # somebody else's answer tells how far it is
        else:
            socket.answer(request)

    line = Line(broken)
    searching = log(line, None)
    channel = line.channel()
    assert (await write(channel, "rested")).rev == 20_001
    assert line.asked("changes")
    await channel.close()


async def test_many_lost_writes_are_looked_for_together() -> None:
    line = Line(obliging)
    line.script.append(log(line, 4_321))
    channel = line.channel()
    lost = await window(line, channel)
    line.sockets[0].lose()
    assert (await lost).rev == 4_321
    assert len(line.asked("changes")) <= 21
    await channel.close()
