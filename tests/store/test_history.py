"""Reading the past: changes, chains and states at revisions, the idempotency window."""

import pytest

from kantad.store import history
from kantad.store.recovery import recover
from kantad.values.content import same
from tests.store.logs import FORMATS, SEED, T0, Maker, every_kind


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest) -> Maker:
    made = every_kind(request.param)
    made.snapshot()
    made.change({"last": 1}, id="key-3", q="11111111")
    return made


def start(log: Maker) -> history.Anchor:
    return history.Anchor(0, log.framing.header, None)


def test_changes_after_a_revision(log: Maker) -> None:
    data = bytes(log.data)
    for after in range(log.rev + 1):
        for until in range(after, log.rev + 1):
            found = history.changes_after(data, len(data), log.framing, log.codec, after, until, start(log))
            assert [change.rev for change in found] == list(range(after + 1, until + 1))


def test_the_chain_at_every_revision_from_both_anchors(log: Maker) -> None:
    data = bytes(log.data)
    recovered = recover(data, len(data), log.framing, log.codec)
    near = history.Anchor(recovered.start_rev, recovered.start, recovered.start_chain)
    for point in log.points:
        args = (data, len(data), log.framing, log.codec, point.rev)
        assert history.chain_at(*args, start(log)) == point.chain
        if point.rev >= near.rev:
            assert history.chain_at(*args, near) == point.chain
    with pytest.raises(history.Unreadable):
        history.chain_at(data, len(data), log.framing, log.codec, log.rev + 1, near)


def test_the_state_at_every_revision(log: Maker) -> None:
    data = bytes(log.data)
    for point in log.points:
        replayer = history.state_at(data, len(data), log.framing, log.codec, point.rev)
        assert same(replayer.state, point.state)
        assert (replayer.rev, replayer.chain) == (point.rev, point.chain)


def test_the_idempotency_window(log: Maker) -> None:
    data = bytes(log.data)
    recovered = recover(data, len(data), log.framing, log.codec)
    found = history.keyed(data, len(data), log.framing, log.codec, recovered)
    by_rev = {point.rev: point.chain for point in log.points}
    assert [(each.key, each.q, each.rev, each.chain, each.micros) for each in found] == [
        (key, q, rev, by_rev[rev], T0 + 7 * rev)
        for key, q, rev in (("key-1", "0badcafe", 1), ("key-2", "0badcafe", 6), ("key-3", "11111111", 10))
    ]


def test_an_id_in_user_data_is_no_key(log: Maker) -> None:
    log.change({"fake": {"a": 1, "id": "key-9", "q": "00000000"}})
    log.change({"id": "key-8"})
    data = bytes(log.data)
    recovered = recover(data, len(data), log.framing, log.codec)
    found = history.keyed(data, len(data), log.framing, log.codec, recovered)
    assert [(each.key, each.rev) for each in found] == [("key-1", 1), ("key-2", 6), ("key-3", 10)]


def test_seed_is_no_json() -> None:
    assert SEED[:1] == b"{"  # the tests' seed begins like JSON on purpose
