"""The channel over scripted sockets: what is sent when, sent again when, and what a caller is told."""

import asyncio
from typing import Any

import pytest
from kanta_client.errors import Invalid, PatchMismatch, Unauthorized, UnknownOutcome, Unreachable
from kanta_client.link import Lost

from tests.client.sockets import FakeSocket, Line, greeting, names, obliging, read, write

UNAUTHORIZED = Unauthorized({"code": "unauthorized", "status": 401})


async def test_what_is_asked_for_in_one_tick_leaves_in_one_message_in_order() -> None:
    line = Line(obliging)
    channel = line.channel()
    answers = await asyncio.gather(*[write(channel, f"w{number}") for number in range(50)])
    assert [answer.rev for answer in answers] == list(range(1, 51))
    assert names(line.seen) == [f"w{number}" for number in range(50)]
    assert len(line.sockets[0].messages) == 2  # the greeting, and all of them
    await channel.close()


async def test_nothing_is_sent_before_the_greeting_is_answered() -> None:
    line = Line(lambda socket, request: None)
    channel = line.channel()
    future = write(channel, "w")
    await line.until(lambda: line.seen)
    assert [request["op"] for request in line.seen] == ["ping"]
    line.sockets[0].answer(line.seen[0])
    line.sockets[0].answering = obliging
    assert (await future).rev == 1
    await channel.close()


async def test_what_has_no_answer_is_sent_again_first_and_in_its_order() -> None:
    line = Line(greeting, obliging)
    channel = line.channel()
    early = [write(channel, f"early{number}") for number in range(5)]
    await line.until(lambda: len(line.asked("transact")) == 5)
    line.sockets[0].answer(line.asked("transact")[1])  # the second is through
    await early[1]
    line.sockets[0].lose()
    late = [write(channel, f"late{number}") for number in range(3)]
    await asyncio.gather(*early, *late)
    assert names(line.sockets[1].requests) == ["early0", "early2", "early3", "early4", "late0", "late1", "late2"]
    await channel.close()


async def test_a_cancelled_request_is_not_sent_and_not_sent_again() -> None:
    line = Line(greeting, obliging)
    channel = line.channel()
    sent = write(channel, "sent")
    await line.until(lambda: line.asked("transact"))
    queued = write(channel, "queued")
    sent.cancel()
    queued.cancel()
    line.sockets[0].lose()
    assert (await write(channel, "third")).rev == 1
    assert names(line.sockets[1].requests) == ["third"]
    await channel.close()


async def test_try_again_is_tried_again_without_a_reconnection() -> None:
    refusals = iter(["unavailable", "shutting_down", "too_many"])

    def busy(socket: FakeSocket, request: dict[str, Any]) -> None:
        code = next(refusals, None) if request["op"] == "transact" else None
        if code is None:
            socket.answer(request)
        else:
            socket.refuse(request, code)

    line = Line(busy)
    channel = line.channel()
    assert (await write(channel, "w")).rev == 1
    assert names(line.seen) == ["w"] * 4
    assert line.dialled == 1
    await channel.close()


async def test_a_refusal_reaches_its_caller_and_nobody_else() -> None:
    def picky(socket: FakeSocket, request: dict[str, Any]) -> None:
        if request.get("a") == "bad":
            socket.refuse(request, "patch_mismatch", 409)
        else:
            socket.answer(request)

    line = Line(picky)
    channel = line.channel()
    good, bad, other = await asyncio.gather(
        *[write(channel, a) for a in ("good", "bad", "other")], return_exceptions=True
    )
    assert (good.rev, other.rev) == (1, 2)
    assert isinstance(bad, PatchMismatch)
    await channel.close()


async def test_a_write_that_was_sent_and_never_answered_is_unknown_and_a_read_is_unreachable() -> None:
    line = Line(greeting)
    channel = line.channel()
    sent, asked = write(channel, "w", seconds=0.5), read(channel, seconds=0.5)
    with pytest.raises(UnknownOutcome) as unknown:
        await sent
    assert unknown.value.key == "w"
    with pytest.raises(Unreachable, match="nothing was done"):
        await asked
    await channel.close()


async def test_a_write_that_was_never_sent_is_unreachable_and_says_why() -> None:
    line = Line(Lost("nobody listens there"))
    channel = line.channel()
    with pytest.raises(Unreachable, match="nobody listens there"):
        await write(channel, "w", seconds=0.5)
    assert line.dialled > 3
    assert line.states == []  # it is connecting still
    await channel.close()
    assert line.states == ["closed"]


async def test_a_write_refused_with_try_again_until_the_deadline_is_unreachable() -> None:
    def busy(socket: FakeSocket, request: dict[str, Any]) -> None:
        socket.answer(request) if request["op"] == "ping" else socket.refuse(request, "unavailable")

    line = Line(busy)
    channel = line.channel()
    with pytest.raises(Unreachable):
        await write(channel, "w", seconds=0.6)
    await channel.close()


async def test_a_refusal_that_says_that_the_outcome_is_unknown_makes_it_so() -> None:
    def broken(socket: FakeSocket, request: dict[str, Any]) -> None:
        socket.answer(request) if request["op"] == "ping" else socket.refuse(request, "unavailable", outcome="unknown")

    line = Line(broken)
    channel = line.channel()
    with pytest.raises(UnknownOutcome):
        await write(channel, "w", seconds=0.6)
    await channel.close()


async def test_a_refusal_to_look_does_not_settle_an_attempt_whose_answer_was_lost() -> None:
    def stopping(socket: FakeSocket, request: dict[str, Any]) -> None:
        socket.answer(request) if request["op"] == "ping" else socket.refuse(request, "shutting_down")

    line = Line(greeting, stopping)
    channel = line.channel()
    future = write(channel, "w", seconds=0.8)
    await line.until(lambda: line.asked("transact"))
    line.sockets[0].lose()
    with pytest.raises(UnknownOutcome):
        await future
    await channel.close()


@pytest.mark.parametrize("code", ["forbidden", "read_only", "unauthorized"])
async def test_a_refusal_before_the_key_is_looked_at_leaves_a_lost_attempt_unknown(code: str) -> None:
    def locked(socket: FakeSocket, request: dict[str, Any]) -> None:
        socket.answer(request) if request["op"] == "ping" else socket.refuse(request, code, 403)

    line = Line(greeting, locked)
    channel = line.channel()
    future = write(channel, "w")
    await line.until(lambda: line.asked("transact"))
    line.sockets[0].lose()
    with pytest.raises(UnknownOutcome, match=code):
        await future
    with pytest.raises(Unauthorized):
        await write(channel, "another")
    await channel.close()


async def test_a_refused_handshake_fails_what_waits_and_what_was_sent_is_unknown() -> None:
    line = Line(greeting, Lost("not yet"), UNAUTHORIZED, obliging)
    channel = line.channel()
    sent = write(channel, "sent")
    await line.until(lambda: line.asked("transact"))
    line.sockets[0].lose()
    await line.until(lambda: line.dialled == 2)
    queued = write(channel, "queued")
    with pytest.raises(UnknownOutcome, match="unauthorized"):
        await sent
    with pytest.raises(Unauthorized):
        await queued
    assert channel.state == "stale"
    assert (await write(channel, "later")).rev == 1  # whoever asks again has it tried again
    assert channel.state == "connected"
    await channel.close()


async def test_a_message_that_is_too_long_is_split_until_the_culprit_is_known() -> None:
    def narrow(socket: FakeSocket, request: dict[str, Any]) -> None:
        if len(socket.messages[-1]) > 300:
            socket.lose(1009)
        elif not socket.closed:
            socket.answer(request)

    line = Line(narrow)
    channel = line.channel()
    long = "x" * 400
    results = await asyncio.gather(*[write(channel, a) for a in ("a", "b", long, "c")], return_exceptions=True)
    assert [getattr(result, "code", "done") for result in results] == ["done", "done", "too_large", "done"]
    assert isinstance(results[2], Invalid)
    sent = len(line.sockets[-1].messages)
    await asyncio.gather(*[write(channel, f"later{number}") for number in range(3)])
    assert len(line.sockets[-1].messages) == sent + 1  # and then they are joined again
    await channel.close()


async def test_a_cancelled_long_request_is_not_laid_to_anothers_charge() -> None:
    line = Line(greeting, obliging)
    channel = line.channel()
    long, short = write(channel, "x" * 400), write(channel, "short")
    await line.until(lambda: len(line.asked("transact")) == 2)
    long.cancel()
    line.sockets[0].lose(1009)
    assert (await short).rev == 1
    await channel.close()


async def test_a_long_message_that_the_peer_does_not_take_does_not_hide_why_it_closed() -> None:
    def closing(socket: FakeSocket, request: dict[str, Any]) -> None:
        if request["op"] == "transact":
            asyncio.get_running_loop().call_later(0.05, socket.lose, 1009)
            raise Lost("cannot write")
        socket.answer(request)

    line = Line(closing)
    channel = line.channel()
    with pytest.raises(Invalid, match="too_large"):
        await write(channel, "w")
    await channel.close()
