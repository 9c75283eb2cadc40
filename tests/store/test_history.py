"""Reading the past: changes, chains and states at revisions, the idempotency window."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantad.store import history
from kantad.store.disk import RealDisk
from kantad.store.index import Index
from kantad.store.log import open_log
from kantad.store.recovery import recover
from kantad.values.errors import Damaged
from tests.store.logs import ALL, SEED, T0, Maker, every_kind


@pytest.fixture(params=ALL)
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


def flips(log: Maker, end: int, step: int = 1) -> Iterator[bytes]:
    """The log with each byte up to `end` altered in some ways, and a start still possible."""
    data = bytearray(log.data)
    for offset in range(log.framing.header + (8 if log.binary else 10), end, step):
        byte = data[offset]
        for value in {byte ^ 1, byte ^ 0x20, ord("g"), 0, 0xFF, ord('"'), ord("\n")} - {byte}:
            data[offset] = value
            yield bytes(data)
        data[offset] = byte


def test_damage_in_the_older_part_takes_no_later_key_from_the_window(log: Maker) -> None:
    snapshots = [point for point in log.points if point.kind == "snapshot"]
    for data in flips(log, snapshots[-1].end):
        try:
            recovered = recover(data, len(data), log.framing, log.codec)
        except Damaged:
            continue
        found = history.keyed(data, len(data), log.framing, log.codec, recovered)
        assert (found[-1].key, found[-1].rev) == ("key-3", 10)


def test_blank_lines_do_not_count_in_the_window() -> None:
    log = every_kind("json")
    data = bytes(log.data).replace(b"\n", b"\n\n")
    recovered = recover(data, len(data), log.framing, log.codec)
    found = history.keyed(data, len(data), log.framing, log.codec, recovered)
    assert [(each.key, each.rev) for each in found] == [("key-1", 1), ("key-2", 6)]


def test_the_window_ends_where_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEYS_KEPT", 5)
    log = Maker("msgpack", tick=history.DAY // 4)
    for turn in range(40):
        log.change({"n": turn}, id=f"k{turn}", q="00000000")
        if turn % 3 == 0:
            log.snapshot()
    data = bytes(log.data)
    recovered = recover(data, len(data), log.framing, log.codec)
    found = history.keyed(data, len(data), log.framing, log.codec, recovered)
    assert [(each.key, each.rev) for each in found] == [(f"k{turn}", turn + 1) for turn in range(35, 40)]
    monkeypatch.setattr(history, "KEYS_MOST", 3)
    assert len(history.keyed(data, len(data), log.framing, log.codec, recovered)) == 3


def test_no_damage_in_the_older_part_is_a_fault_of_who_reads_it(log: Maker, tmp_path: Path) -> None:
    snapshots = [point for point in log.points if point.kind == "snapshot"]
    path = tmp_path / "data.kantadb"
    for data in flips(log, snapshots[-1].end, 5):
        path.write_bytes(data)
        try:
            opened, found = open_log(str(path), log.format, RealDisk(), T0)
        except Damaged:
            continue
        index = Index.at_start(opened, found)
        with contextlib.suppress(history.Unreadable):
            for part in index.parts:
                while not part.scanned and index.scan(part, index.read(*index.next_step(part))):
                    pass
        with contextlib.suppress(history.Unreadable):
            list(history.chained(data, found.end, log.framing, log.codec, start(log)))
        opened.close()


def test_seed_is_no_json() -> None:
    assert SEED[:1] == b"{"  # the tests' seed begins like JSON on purpose
