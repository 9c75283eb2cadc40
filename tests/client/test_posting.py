"""Writes over HTTP, with scripted answers: done once, and never one outcome told for another."""

import asyncio
from typing import Any

import pytest
from kanta_client.channel import Channel
from kanta_client.errors import Closed, PatchMismatch, Refused, Unauthorized, UnknownOutcome, Unreachable
from kanta_client.link import Lost
from kanta_client.posting import Posting

from tests.client.sockets import Line, obliging
from tests.client.test_outcome import log

DONE = (200, {"rev": 7, "cursor": "7-c", "ts": "t", "changed": True})
LOST = Lost("the cable")


def problem(status: int, code: str, **members: Any) -> tuple[int, Any]:
    return status, {"status": status, "code": code, "detail": code, **members}


class Scripted:
    """Answers HTTP requests in turn, the last answer again and again; an exception is raised."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, str, bytes | None, dict[str, str]]] = []
        self.asking = asyncio.Event()

    async def ask(self, method: str, target: str, body: bytes | None, headers: dict[str, str], seconds: float) -> Any:
        self.asked.append((method, target, body, headers))
        self.asking.set()
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(step):
            step = await step()
        if isinstance(step, Exception):
            raise step
        return step


def posting(*script: Any, line: Line | None = None) -> tuple[Posting, Scripted, Channel]:
    http, channel = Scripted(*script), (line or Line(obliging)).channel()
    return Posting(channel, http, 5.0), http, channel  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "first",
    [LOST, (502, None), (504, None), (503, None), (500, {"oops": 1}), (200, None), (200, [1]), (408, None), (429, None)]
    + [problem(503, "unavailable"), problem(503, "shutting_down"), problem(408, "too_slow"), problem(429, "too_many")],
)
async def test_what_is_no_answer_is_asked_again_with_the_same_key(first: Any) -> None:
    posts, http, channel = posting(first, first, DONE)
    assert await posts.write("POST", "/t", {"a": 1}, "key") == DONE[1]
    assert len(http.asked) == 3
    assert {headers["Idempotency-Key"] for *_, headers in http.asked} == {"key"}
    assert {body for _, _, body, _ in http.asked} == {b'{"a":1}'}
    await channel.close()


async def test_a_refusal_is_raised_at_once() -> None:
    posts, http, channel = posting(problem(409, "patch_mismatch"))
    with pytest.raises(PatchMismatch):
        await posts.write("POST", "/t", None, "key")
    assert len(http.asked) == 1
    await channel.close()


@pytest.mark.parametrize(
    ("status", "code"), [(401, "unauthorized"), (403, "forbidden"), (413, "too_large"), (404, "no_route")]
)
async def test_a_gateways_refusal_is_one(status: int, code: str) -> None:
    posts, _, channel = posting((status, None))
    with pytest.raises(Refused, match="before kantad") as refused:
        await posts.write("POST", "/t", None, "key")
    assert refused.value.code == code
    await channel.close()


@pytest.mark.parametrize("first", [LOST, (502, None), problem(503, "unavailable", outcome="unknown")])
@pytest.mark.parametrize("then", [problem(403, "forbidden"), problem(403, "read_only"), problem(503, "shutting_down")])
async def test_an_attempt_in_doubt_stays_in_doubt(first: Any, then: Any) -> None:
    posts, _, channel = posting(first, then)
    with pytest.raises(UnknownOutcome) as unknown:
        await posts.write("POST", "/t", None, "key", seconds=0.7)
    assert unknown.value.key == "key"
    await channel.close()


async def test_an_attempt_in_doubt_is_settled_by_who_looked_at_the_key() -> None:
    posts, _, channel = posting(LOST, problem(412, "precondition_failed"))
    with pytest.raises(Refused):
        await posts.write("POST", "/t", None, "key")
    await channel.close()


@pytest.mark.parametrize("refused", [problem(503, "unavailable"), problem(503, "shutting_down")])
async def test_what_was_only_ever_refused_was_not_done(refused: Any) -> None:
    posts, _, channel = posting(refused)
    with pytest.raises(Unreachable, match="nothing was done"):
        await posts.write("POST", "/t", None, "key", seconds=0.4)
    await channel.close()


async def test_a_question_that_fails_does_not_settle_the_attempt_that_it_was_about() -> None:
    line = Line(obliging, Unauthorized({"code": "unauthorized", "status": 401}))

    async def lose_all() -> Any:
        line.sockets[0].lose()
        return LOST

    posts, _, channel = posting(lose_all, DONE, line=line)
    with pytest.raises(UnknownOutcome, match="unauthorized"):
        await posts.write("POST", "/t", None, "key")
    await channel.close()


async def test_a_write_that_could_not_be_begun_was_not_done() -> None:
    posts, http, channel = posting(DONE, line=Line(Lost("no server")))
    with pytest.raises(Unreachable):
        await posts.write("POST", "/t", None, "key", seconds=0.3)
    assert http.asked == []
    await channel.close()


@pytest.mark.parametrize("found", [4_321, None])
async def test_beyond_the_window_the_log_is_searched_before_it_is_sent_again(found: int | None) -> None:
    line = Line(obliging)

    async def forget() -> Any:
        line.rev = 20_000
        line.sockets[0].answering = log(line, found)
        return LOST

    posts, http, channel = posting(forget, DONE, line=line)
    answer = await posts.write("POST", "/t", None, "lost")
    assert answer["rev"] == (found or 7)
    assert len(http.asked) == (1 if found else 2)
    await channel.close()


async def test_where_the_log_does_not_tell_the_outcome_is_unknown() -> None:
    line = Line(obliging)

    async def forget() -> Any:
        line.rev = 20_000
        line.sockets[0].answering = log(line, None, "history_gone")
        return LOST

    posts, _, channel = posting(forget, DONE, line=line)
    with pytest.raises(UnknownOutcome, match="history_gone"):
        await posts.write("POST", "/t", None, "lost")
    await channel.close()


@pytest.mark.parametrize(("first", "error"), [(problem(503, "unavailable"), Closed), (LOST, UnknownOutcome)])
async def test_closing_ends_the_attempts(first: Any, error: type[Exception]) -> None:
    posts, http, channel = posting(first)
    task = asyncio.create_task(posts.write("POST", "/t", None, "key", seconds=30))
    await http.asking.wait()
    await channel.close()
    with pytest.raises(error):
        await asyncio.wait_for(task, 5)
    with pytest.raises(Closed):
        await posts.read("/v1/status")


async def test_a_read_is_repeated_until_it_is_answered() -> None:
    posts, http, channel = posting(LOST, (502, None), (200, None), problem(503, "unavailable"), (200, {"rev": 1}))
    assert await posts.read("/v1/status") == {"rev": 1}
    assert len(http.asked) == 5
    posts, _, other = posting(problem(403, "forbidden"))
    with pytest.raises(Unauthorized):
        await posts.read("/v1/status")
    posts, _, third = posting(LOST)
    with pytest.raises(Unreachable, match="cable"):
        await posts.read("/v1/status", seconds=0.3)
    for each in (channel, other, third):
        await each.close()
