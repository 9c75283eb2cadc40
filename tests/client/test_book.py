"""The book: order, places, and what is known of each request, held against a plain model."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kanta_client.book import IN_FLIGHT, LENGTH, Asked, Book, forgotten, too_late
from kanta_client.errors import Closed, Invalid, KantaError, NotFound, Refused, UnknownOutcome, Unreachable
from kanta_client.messages import Message
from kanta_client.outcome import REMEMBERED


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Desk:
    """A book and the requests put into it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.book, self.made = loop, Book(), 0

    def put(self, key: str | None = "k", body: bytes = b"{}", deadline: float = 100.0) -> Asked:
        self.made += 1
        asked = Asked(self.made, body, key, self.loop.create_future(), deadline)
        self.book.outbox.append(asked)
        return asked


@pytest.fixture
def desk(loop: asyncio.AbstractEventLoop) -> Desk:
    return Desk(loop)


def refuse(asked: Asked, code: str, **members: object) -> Message:
    return Message(id=asked.id, error={"code": code, "status": 503, **members})


def failure(asked: Asked) -> BaseException:
    error = asked.future.exception()
    assert error is not None
    return error


def test_a_batch_is_what_waits_in_order_without_the_cancelled(desk: Desk) -> None:
    first, second, third = (desk.put() for _ in range(3))
    second.future.cancel()
    assert desk.book.batch(7) == [first, third]
    assert list(desk.book.pending) == [first.id, third.id]
    assert (first.floor, first.unknown, first.doubted) == (7, True, False)
    assert desk.book.batch(7) == []


def test_a_batch_is_bounded_in_bytes_and_one_alone_is_not(desk: Desk) -> None:
    half, large, small = desk.put(body=b"x" * (LENGTH // 2)), desk.put(body=b"x" * (2 * LENGTH)), desk.put()
    assert [desk.book.batch(0) for _ in range(4)] == [[half], [large], [small], []]


def test_a_batch_leaves_room_for_no_more_than_the_server_takes(desk: Desk) -> None:
    asked = [desk.put() for _ in range(IN_FLIGHT + 3)]
    assert desk.book.batch(0) == asked[:IN_FLIGHT]
    assert desk.book.batch(0) == []
    desk.book.answered(Message(id=asked[0].id), 0.0)
    assert desk.book.batch(0) == [asked[IN_FLIGHT]]


def test_answers_settle_what_they_answer_once(desk: Desk) -> None:
    good, bad, gone = desk.put(), desk.put(), desk.put(None)
    desk.book.batch(0)
    gone.future.cancel()
    desk.book.answered(Message(id=good.id, rev=5), 0.0)
    desk.book.answered(refuse(bad, "not_found"), 0.0)
    for answer in (Message(id=gone.id), Message(id=good.id, rev=6), Message(id="text"), Message(id=99)):
        desk.book.answered(answer, 0.0)
    assert good.future.result().rev == 5
    assert isinstance(failure(bad), NotFound)


def test_who_has_a_taker_is_told_at_once_and_dies_with_the_connection(desk: Desk) -> None:
    told: list[Message] = []
    sent, queued = desk.put(None), desk.put(None)
    sent.take = queued.take = told.append
    desk.book.outbox.pop()
    desk.book.batch(0)
    desk.book.answered(refuse(sent, "unavailable"), 0.0)
    assert len(told) == 1
    desk.book.outbox.append(queued)
    desk.book.lost()
    assert not desk.book.outbox


def test_what_was_pending_goes_before_what_waits_in_the_order_of_asking(desk: Desk) -> None:
    first, second = desk.put(), desk.put()
    desk.book.batch(0)
    third, fourth = desk.put(), desk.put()
    desk.book.lost()
    desk.book.lost()
    assert desk.book.batch(0) == [first, second, third, fourth]


@pytest.mark.parametrize("code", ["unavailable", "shutting_down", "too_many"])
def test_what_asks_to_try_again_rests_and_comes_back_first(desk: Desk, code: str) -> None:
    first, second = desk.put(), desk.put()
    desk.book.batch(3)
    third = desk.put()
    for asked in (first, second):
        desk.book.answered(refuse(asked, code), 10.0)
    assert not first.unknown
    assert not desk.book.tick(10.0, "")
    assert desk.book.tick(20.0, "")
    assert desk.book.batch(4) == [first, second, third]
    assert first.floor == 4  # the refused attempt was none


def test_an_outcome_that_the_server_does_not_know_is_not_known(desk: Desk) -> None:
    asked = desk.put(deadline=30.0)
    desk.book.batch(3)
    desk.book.answered(refuse(asked, "unavailable", outcome="unknown"), 10.0)
    assert asked.unknown
    desk.book.tick(20.0, "")
    desk.book.batch(50)
    assert asked.floor == 3
    desk.book.answered(refuse(asked, "unavailable"), 20.0)
    desk.book.tick(30.0, "the disk")
    assert isinstance(failure(asked), UnknownOutcome)


def test_after_a_loss_a_refusal_before_the_key_is_looked_at_settles_nothing(desk: Desk) -> None:
    blind, seen, read = desk.put("b"), desk.put("s"), desk.put(None)
    desk.book.batch(0)
    desk.book.lost()
    assert desk.book.batch(0) == [blind, seen, read]
    desk.book.answered(refuse(blind, "forbidden"), 0.0)
    desk.book.answered(refuse(seen, "conflict"), 0.0)
    desk.book.answered(refuse(read, "forbidden"), 0.0)
    assert isinstance(failure(blind), UnknownOutcome)
    assert isinstance(failure(seen), Refused)
    assert isinstance(failure(read), Refused)


def test_what_may_be_forgotten_is_not_sent_before_it_is_looked_for(desk: Desk) -> None:
    old, other, fresh = desk.put("old"), desk.put(None), desk.put("fresh")
    fresh.future.get_loop()
    desk.book.batch(10)
    desk.book.lost()
    now = 10 + REMEMBERED + 1
    assert desk.book.batch(10 + REMEMBERED) == [old, other, fresh]
    desk.book.lost()
    assert desk.book.batch(now) == []
    assert desk.book.doubtful(now) == [old, fresh]
    old.floor = fresh.floor = now
    assert desk.book.doubtful(now) == []
    assert desk.book.batch(now) == [old, other, fresh]
    assert desk.book.doubtful(now) == []


def test_a_cancelled_write_is_never_looked_for(desk: Desk) -> None:
    asked = desk.put()
    desk.book.batch(0)
    desk.book.lost()
    asked.future.cancel()
    assert not forgotten(asked, 10 * REMEMBERED)
    assert desk.book.batch(10 * REMEMBERED) == []


def test_the_one_that_is_too_large_is_found_and_refused(desk: Desk) -> None:
    asked = [desk.put(body=b"x" * size) for size in (10, 5_000, 10)]
    desk.book.batch(0)
    desk.book.too_large()
    desk.book.lost()
    assert desk.book.batch(0) == [asked[0]]
    assert desk.book.batch(0) == []
    desk.book.answered(Message(id=asked[0].id), 0.0)
    assert desk.book.batch(0) == [asked[1]]
    desk.book.too_large()
    desk.book.lost()
    assert isinstance(failure(asked[1]), Invalid)
    assert desk.book.batch(0) == [asked[2]]
    desk.book.answered(Message(id=asked[2].id), 0.0)
    later = [desk.put(body=b"x" * (LENGTH // 4)) for _ in range(3)]
    assert desk.book.batch(0) == later


def test_messages_get_shorter_where_it_was_the_joining_that_was_too_much(desk: Desk) -> None:
    asked = [desk.put(body=b"x" * (LENGTH // 4)) for _ in range(4)]
    assert desk.book.batch(0) == asked
    desk.book.too_large()
    desk.book.lost()
    for each in asked:
        assert desk.book.batch(0) == [each]
        desk.book.answered(Message(id=each.id), 0.0)
    later = [desk.put(body=b"x" * (LENGTH // 4)) for _ in range(4)]
    assert [desk.book.batch(0) for _ in range(2)] == [later[:2], later[2:]]


def test_a_single_cancelled_culprit_accuses_nobody(desk: Desk) -> None:
    asked = desk.put()
    desk.book.batch(0)
    asked.future.cancel()
    desk.book.too_large()
    assert desk.book.suspects == []


def test_a_tick_fails_what_is_late_wherever_it_is_and_drops_the_dead(desk: Desk) -> None:
    pending, resting, read = desk.put(deadline=5.0), desk.put(deadline=5.0), desk.put(None, deadline=5.0)
    desk.book.batch(0)
    desk.book.answered(refuse(resting, "unavailable"), 4.9)
    queued, patient = desk.put(deadline=5.0), desk.put(deadline=6.0)
    desk.book.tick(5.0, "no cable")
    assert isinstance(failure(pending), UnknownOutcome)
    for asked in (resting, read, queued):
        assert isinstance(failure(asked), Unreachable)
    assert "no cable" in str(failure(queued))
    assert list(desk.book.outbox) == [patient]


def test_fail_fails_everything_that_is_not_settled(desk: Desk) -> None:
    done, pending, resting = desk.put(), desk.put(), desk.put()
    desk.book.batch(0)
    desk.book.answered(refuse(resting, "unavailable"), 0.0)
    queued, own = desk.put(), desk.put(None)
    own.take = [].append
    done.future.cancel()

    def error(asked: Asked) -> KantaError:
        return too_late(asked, "closed") if asked.unknown else Closed("closed")

    desk.book.fail(error)
    assert isinstance(failure(pending), UnknownOutcome)
    assert isinstance(failure(resting), Closed)
    assert isinstance(failure(queued), Closed)
    assert not own.future.done()  # an exception that nobody looks at would be complained about
    assert (len(desk.book.outbox), desk.book.pending, desk.book.resting) == (0, {}, [])


STEPS = ["batch", "lost", "answer", "again", "unknown", "cancel", "tick"]


@given(
    st.lists(
        st.one_of(st.tuples(st.just("put"), st.booleans()), st.tuples(st.sampled_from(STEPS), st.integers(0))),
        max_size=60,
    )
)
def test_no_request_is_in_two_places_or_in_none_and_doubt_never_goes_away(steps: list[tuple[str, int]]) -> None:
    loop = asyncio.new_event_loop()
    try:
        _walk(Desk(loop), steps)
    finally:
        loop.close()


def _walk(desk: Desk, steps: list[tuple[str, int]]) -> None:
    book, made, now = desk.book, [], 0.0
    doubted: set[int] = set()
    for step, number in steps:
        now += 1.0
        pending = list(book.pending.values())
        match step:
            case "put":
                made.append(desk.put("k" if number else None, deadline=1e9))
            case "batch":
                book.batch(number % 100)
            case "lost":
                doubted |= {asked.id for asked in pending if asked.key is not None}
                book.lost()
            case "tick":
                book.tick(now, "")
            case "cancel" if made:
                made[number % len(made)].future.cancel()
            case "answer" if pending:
                book.answered(Message(id=pending[number % len(pending)].id), now)
            case "again" | "unknown" if pending:
                asked = pending[number % len(pending)]
                if step == "unknown":
                    doubted.add(asked.id)
                book.answered(refuse(asked, "unavailable", outcome=step), now)
        places = [*book.outbox, *book.pending.values(), *book.resting]
        assert len({id(asked) for asked in places}) == len(places)
        assert {asked.id for asked in made if not asked.future.done()} <= {asked.id for asked in places}
        for asked in made:
            if asked.id in doubted and asked.key is not None and not asked.future.done():
                assert asked.unknown or asked.id not in {each.id for each in places}
    for asked in made:
        asked.future.cancel()
