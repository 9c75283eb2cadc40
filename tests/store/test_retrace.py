"""One state after another out of a log: every revision in any order, moments, dialects, damage."""

import random
from pathlib import Path
from typing import Any

import pytest

from kantad.store.answers import Answers
from kantad.store.history import Unreadable
from kantad.store.question import Answer, Question, Reply
from kantad.store.recovery import recover
from kantad.store.retrace import Gone, Retrace
from kantad.values.codec import JsonCodec
from kantad.values.content import encode_json, same
from kantad.values.moment import time_text
from kantad.values.view import VALUE, View
from tests.store.logs import ALL, T0, Maker, every_kind


def long_log(format: str) -> Maker:
    """Several of every kind, snapshots between."""
    log = every_kind(format)
    for number in range(60):
        log.change({"n": number, "deep": {"er": {str(number % 7): number}}})
        if number % 17 == 5:
            log.snapshot()
    return log


def pruned(format: str) -> Maker:
    """A log that begins with a snapshot of revision 20."""
    log = Maker(format)
    for number in range(20):
        log.change({"n": number})
    made = Maker(format)
    made.data[:] = made.data[: made.framing.header]
    made.rev, made.chain, made.state, made.micros = log.rev, log.chain, log.state, log.micros
    made.points.clear()
    made.snapshot()
    for number in range(20, 40):
        made.change({"n": number})
    return made


def retrace_of(log: Maker, data: bytes | None = None) -> Retrace:
    data = bytes(log.data) if data is None else data
    return Retrace(data, len(data), log.framing, log.codec, log.points[0].rev)


def brought(retrace: Retrace, rev: int) -> Any:
    for _ in retrace.steps(rev):
        pass
    return retrace.state


def moment(retrace: Retrace, micros: int) -> int:
    return [retrace.oldest, *retrace.moments(micros)][-1]


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("order", ["rising", "falling", "random"])
@pytest.mark.parametrize("make", [long_log, pruned])
def test_every_revision_in_any_order(format: str, order: str, make: Any) -> None:
    log = make(format)
    points = {point.rev: point for point in log.points}
    revs = sorted(points, reverse=order == "falling")
    if order == "random":
        random.Random(5).shuffle(revs)
    retrace = retrace_of(log)
    for rev in revs:
        assert same(brought(retrace, rev), points[rev].state), rev
        assert retrace.chain == points[rev].chain


@pytest.mark.parametrize("format", ALL)
def test_going_on_passes_only_the_records_between(format: str) -> None:
    log = long_log(format)
    retrace = retrace_of(log)
    brought(retrace, log.rev - 8)
    assert len(list(retrace.steps(log.rev - 5))) == 3
    assert len(list(retrace.steps(log.rev - 5))) == 0


@pytest.mark.parametrize("format", ALL)
def test_a_file_that_grew_is_followed(format: str) -> None:
    log = every_kind(format)
    retrace = retrace_of(log)
    brought(retrace, log.rev)
    for round in range(4):
        log.change({"round": round})
        if round == 2:
            log.snapshot()
        retrace.grow(bytes(log.data), len(log.data))
        assert same(brought(retrace, log.rev), log.state)
    assert brought(retrace, 0) == {}
    assert [known.rev for known in retrace.known][-1] == log.rev - 1


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("make", [long_log, pruned])
def test_a_moment_is_the_last_revision_not_after_it(format: str, make: Any) -> None:
    log = make(format)
    retrace = retrace_of(log)
    micros = log.micros - 7 * (log.rev - log.points[0].rev)
    for rev in range(log.points[0].rev + 1, log.rev + 1):
        micros += 7
        assert (moment(retrace, micros - 1), moment(retrace, micros), moment(retrace, micros + 6)) == (
            rev - 1,
            rev,
            rev,
        )


def test_before_the_first_change_is_revision_0_or_gone() -> None:
    assert moment(retrace_of(long_log("json")), T0 - 1) == 0
    with pytest.raises(Gone):
        moment(retrace_of(pruned("json")), T0)


def test_another_programs_times_may_be_in_any_order() -> None:
    log = Maker("json")
    for micros in (T0 + 100, T0 + 50, T0 + 200, T0 + 20):
        log.micros = micros - log.tick
        log.foreign({"n": micros})
    retrace = retrace_of(log, bytes(log.data) + b"\n\n")
    assert [moment(retrace, T0 + tick) for tick in (10, 20, 60, 150, 250)] == [0, 4, 4, 4, 4]


@pytest.mark.parametrize("sign", ["$one", "$$two", None], ids=["kanta 0.9", "nothing", "kanta 0.1"])
@pytest.mark.parametrize("hashed", [False, True], ids=["", "kantad behind"])
def test_what_reads_in_two_ways_is_read_as_a_start_reads_it(sign: str | None, hashed: bool) -> None:
    diffs: list[dict[str, Any]] = [{"unclear": "$$two"}, {"n": 1}, {"unclear": {"$replace": 1}} if sign is None else {}]
    if sign is not None:
        diffs[2] = {"sign": sign}
    diffs[:0] = [{"n": 0}]
    log = Maker("json")
    for number, diff in enumerate(diffs):
        text = time_text(T0 + number)
        log.data += encode_json({"ts": text, "a": "x", "diff": diff}) + b"\n"
    found = recover(bytes(log.data), len(log.data), log.framing, log.codec)
    expected = {"$one": "$$two", "$$two": "$two", None: "$two"}[sign]
    assert sign is None or found.state["unclear"] == expected
    if hashed:
        payload, _ = JsonCodec().change(T0 + 9, "x", {"m": 1}, found.chain)
        log.data += payload + b"\n"
    retrace = retrace_of(log)
    for rev in (3, 2, 3, 2, 1, 3):
        state = brought(retrace, rev)
        assert state.get("unclear") == (None if rev == 1 else expected), rev


@pytest.mark.parametrize("format", ALL)
def test_no_flipped_bit_gives_a_wrong_value(format: str) -> None:
    log = long_log(format)
    points = {point.rev: point for point in log.points}
    whole = bytes(log.data)
    chance = random.Random(7)
    refused = 0
    for _ in range(150):
        place = chance.randrange(log.framing.header, len(whole))
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        retrace = retrace_of(log, bytes(data))
        for rev in chance.sample(sorted(points), 6):
            try:
                assert same(brought(retrace, rev), points[rev].state)
            except Unreadable:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize("format", ALL)
def test_a_damaged_snapshot_is_not_begun_at(format: str) -> None:
    log = long_log(format)
    snapshots = [point for point in log.points if point.kind == "snapshot"]
    data = bytearray(log.data)
    data[snapshots[-1].end - 60] ^= 1
    retrace = retrace_of(log, bytes(data))
    assert same(brought(retrace, snapshots[-1].rev - 1), log.points[log.points.index(snapshots[-1]) - 2].state)
    with pytest.raises(Unreadable):
        brought(retrace, log.rev)
    with pytest.raises(Unreadable):
        brought(retrace, log.rev + 1)


# -- questions


def answer(answers: Answers, question: Question) -> Answer:
    steps = answers.answer(question)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            reply: Answer = done.value
            return reply


@pytest.fixture
def asked(tmp_path: Path) -> Question:
    """A question about a file."""
    log = pruned("json")
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    status = path.stat()
    return Question(str(path), (status.st_dev, status.st_ino), len(log.data), 20, 25, None, ("n",), VALUE)


def test_an_answer_is_the_value_with_etag_and_chain(asked: Question) -> None:
    reply, body = answer(Answers(), asked)
    point = next(point for point in pruned("json").points if point.rev == 25)
    assert (reply.rev, reply.chain, reply.size, body) == (25, point.chain, 2, b"24")
    asked.path = ("none",)
    reply, body = answer(Answers(), asked)
    assert (reply.tag, body) == (None, b"")


def test_an_answer_to_a_moment_is_a_revision(asked: Question) -> None:
    asked.micros = T0 + 7 * 30
    assert answer(Answers(), asked) == (Reply(rev=30), b"")
    asked.micros = T0
    assert answer(Answers(), asked)[0].code == "gone"


def test_the_state_is_kept_between_answers_about_one_file(asked: Question) -> None:
    answers = Answers()
    answer(answers, asked)
    kept = answers.retrace
    asked.rev = 30
    answer(answers, asked)
    assert answers.retrace is kept
    asked.oldest = 21
    answer(answers, asked)
    assert answers.retrace is not kept


def test_what_goes_wrong_is_in_the_answer(asked: Question, tmp_path: Path) -> None:
    answers = Answers()
    asked.rev = 99
    assert answer(answers, asked)[0].code == "damaged"
    asked.rev, asked.path, asked.view = 25, (), View("keys", False, 1, "none")
    reply, _ = answer(answers, asked)
    assert (reply.code, reply.more) == ("invalid_parameter", {"parameter": "after"})
    asked.identity = (0, 0)
    assert "another file" in answer(answers, asked)[0].fault
    asked.file = str(tmp_path / "none")
    assert "No such file" in answer(answers, asked)[0].fault


def test_a_file_that_is_shorter_than_was_said_is_another_file(asked: Question) -> None:
    asked.end += 1
    assert "another file" in answer(Answers(), asked)[0].fault
