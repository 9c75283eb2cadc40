"""Reads of the past: `rev` and `at`."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from kantad.values.content import MISSING, decode_json, encode_json, same
from kantad.values.moment import time_text
from kantad.values.pointer import format_url, lookup
from tests.engine.engine_kit import START
from tests.serving import Got, Serving
from tests.store.logs import Maker
from tests.web.history_kit import KEYS, History

both = pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])


@pytest.mark.parametrize("how", ["json here", "msgpack here", "json by a process"])
async def test_each_of_a_thousand_random_revisions_is_what_the_model_says(unstarted: Serving, how: str) -> None:
    await unstarted.start(format=how.partition(" ")[0], ack="written")
    history = History(unstarted)
    await history.run(1000, snapshot=150)
    await unstarted.restart(ack="written")
    if how.endswith("process"):
        unstarted.engine.former.inline = 0
    for turn in range(1000):
        rev = history.chance.randrange(1001)
        path = tuple(history.chance.choice(KEYS) for _ in range(turn % 3))
        when = history.marks[rev] if turn % 2 else str(rev)
        got = await unstarted.ask("GET", f"/v1/data{format_url(path)}?rev={when}")
        expected = lookup(history.states[rev], path)
        if expected is MISSING:
            assert (got.status, got.code) == (404, "not_found")
            continue
        assert got.status == 200, got
        assert same(got.json, expected)
        assert (got.headers["kanta-revision"], got.headers["kanta-cursor"]) == (str(rev), history.marks[rev])
    assert unstarted.engine.former.retracer.started == how.endswith("process")


@both
async def test_a_read_of_the_past_has_the_validators_of_that_revision(serving: Serving) -> None:
    first = await serving.put("/x", {"a": 1})
    etag = (await serving.ask("GET", "/v1/data/x")).etag
    await serving.put("/x", 2)
    got = await serving.ask("GET", "/v1/data/x?rev=1")
    assert (got.status, got.json, got.etag) == (200, {"a": 1}, etag)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["kanta-revision"] == "1"
    assert got.headers["kanta-cursor"] == first.json["cursor"]
    assert got.headers["vary"] == "Accept"
    again = await serving.ask("GET", "/v1/data/x?rev=1", None, f"If-None-Match: {etag}")
    assert (again.status, again.body, again.etag, again.headers["kanta-revision"]) == (304, b"", etag, "1")
    head = await serving.ask("HEAD", "/v1/data/x?rev=1")
    assert (head.status, head.body, head.etag) == (200, b"", etag)
    assert head.headers["content-length"] == got.headers["content-length"]
    packed = await serving.ask("GET", "/v1/data/x?rev=1", None, "Accept: application/msgpack")
    assert packed.headers["content-type"] == "application/msgpack"
    assert (msgspec.msgpack.decode(packed.body), packed.etag) == ({"a": 1}, etag)
    assert (await serving.ask("GET", "/v1/data/x")).json == 2


@both
async def test_the_order_of_keys_is_that_of_the_time(serving: Serving) -> None:
    await serving.ask("PUT", "/v1/data", body=b'{"z":1,"a":{"y":1,"b":2}}')
    await serving.put("/last", 1)
    assert (await serving.ask("GET", "/v1/data?rev=1")).body == b'{"z":1,"a":{"y":1,"b":2}}'
    assert (await serving.ask("GET", "/v1/data?rev=0")).body == b"{}"


@both
async def test_the_present_revision_may_be_named(serving: Serving) -> None:
    mark = (await serving.put("/x", 1)).json["cursor"]
    plain = await serving.ask("GET", "/v1/data/x")
    for when in ("1", mark):
        got = await serving.ask("GET", f"/v1/data/x?rev={when}")
        assert (got.status, got.body, got.headers["etag"]) == (200, plain.body, plain.etag)
        assert got.headers["kanta-cursor"] == mark


@both
async def test_what_was_not_there_is_missing(serving: Serving) -> None:
    await serving.put("/x", 1)
    await serving.put("/y", 1)
    for target in ("/v1/data/y?rev=1", "/v1/keys/y?rev=1", "/v1/data/x/z?rev=0"):
        got = await serving.ask("GET", target)
        assert (got.status, got.code) == (404, "not_found"), target


@both
async def test_what_is_asked_wrongly_is_refused(serving: Serving) -> None:
    mark = (await serving.put("/x", 1)).json["cursor"]
    await serving.put("/x", 2)
    at = quote(time_text(START))
    for base in ("/v1/data/x", "/v1/keys/x"):
        for query, status, code in (
            ("rev=3", 404, "unknown_revision"),
            (f"rev=1{'0' * 18}", 404, "unknown_revision"),
            ("rev=99999999999999999999", 404, "unknown_revision"),
            ("rev=3-0000000000000000", 409, "history_diverged"),
            ("rev=1-0000000000000000", 409, "history_diverged"),
            ("rev=2-0000000000000000", 409, "history_diverged"),
            ("rev=0-0000000000000001", 409, "history_diverged"),
            ("rev=", 400, "invalid_parameter"),
            ("rev=-1", 400, "invalid_parameter"),
            ("rev=%D9%A1", 400, "invalid_parameter"),
            ("rev=1&rev=1", 400, "invalid_parameter"),
            (f"rev=1&at={at}", 400, "invalid_parameter"),
            ("at=yesterday", 400, "invalid_parameter"),
            ("at=2026-06-10T02:55:00", 400, "invalid_parameter"),
        ):
            got = await serving.ask("GET", f"{base}?{query}")
            assert (got.status, got.code) == (status, code), query
    for query in (f"rev={mark}&wait=1", f"at={at}&wait=1", "rev=1&wait=0"):
        got = await serving.ask("GET", f"/v1/data/x?{query}", None, 'If-None-Match: "x"')
        assert (got.status, got.code) == (400, "invalid_parameter"), query
    assert (await serving.ask("PUT", "/v1/data/x?rev=1", 1)).code == "invalid_parameter"


@both
async def test_a_moment_shows_the_last_change_that_is_not_after_it(serving: Serving) -> None:
    history = History(serving)
    await history.run(30)
    assert (await serving.ask("GET", "/v1/data?at=2000-01-01T00:00:00Z")).json == {}
    for restarted in (False, True):
        if restarted:
            await serving.restart()
        for rev in range(1, 31):
            got = await serving.ask("GET", f"/v1/data?at={history.times[rev]}")
            assert (got.headers["kanta-cursor"], got.json) == (history.marks[rev], history.states[rev])
    got = await serving.ask("GET", "/v1/data?at=2100-01-01T05:00:00%2B05:00")
    assert got.headers["kanta-revision"] == "30"


@both
async def test_keys_of_the_past_come_in_pages(serving: Serving) -> None:
    await serving.put("", {"c": 1, "a": [1, 2], "b": "x"})
    await serving.put("", {"d": 1})
    got = await serving.ask("GET", "/v1/keys?rev=1&limit=2")
    assert got.json == {"type": "object", "size": 3, "keys": ["c", "a"], "next": "a"}
    assert got.headers["kanta-revision"] == "1"
    assert "etag" not in got.headers
    assert (await serving.ask("GET", "/v1/keys?rev=1&after=a")).json["keys"] == ["b"]
    assert (await serving.ask("GET", "/v1/keys/a?rev=1")).json == {"type": "array", "size": 2}
    assert (await serving.ask("GET", "/v1/keys/b?rev=1")).json == {"type": "string"}
    assert (await serving.ask("GET", "/v1/keys?rev=1&after=d")).code == "invalid_parameter"
    packed = await serving.ask("GET", "/v1/keys/a?rev=1", None, "Accept: application/msgpack")
    assert msgspec.msgpack.decode(packed.body) == {"type": "array", "size": 2}


async def apart(serving: Serving, target: str) -> Got:
    """What a read gets, over a connection of its own."""
    wire = await serving.connect()
    wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    got = await wire.answer()
    await wire.close()
    return got


async def test_under_durable_a_revision_is_waited_for_until_it_is_synced(serving: Serving) -> None:
    await serving.put("/x", 1)
    serving.disk.hold()
    wire = await serving.connect()
    wire.send(b"PUT /v1/data/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n2")
    await serving.disk.until_syncing()
    reads = [asyncio.create_task(apart(serving, f"/v1/{kind}/x?rev=2")) for kind in ("data", "keys")]
    assert (await serving.ask("GET", "/v1/data/x?rev=1")).json == 1
    assert (await serving.ask("GET", "/v1/data/x?rev=3")).code == "unknown_revision"
    assert not any(read.done() for read in reads)
    serving.disk.release()
    assert (await wire.answer()).status == 200
    assert [(await read).json for read in reads] == [2, {"type": "number"}]


async def test_a_revision_that_was_told_before_it_was_safe_can_be_read_at_once(serving: Serving) -> None:
    for number in range(20):
        told = (await serving.ask("PUT", "/v1/data/x?ack=applied", number)).json
        assert (await serving.ask("GET", f"/v1/data/x?rev={told['cursor']}")).json == number


async def test_a_revision_that_is_taken_back_is_never_shown(serving: Serving) -> None:
    await serving.put("/x", 1)
    serving.disk.hold()
    told = (await serving.ask("PUT", "/v1/data/x?ack=applied", 2)).json
    await serving.disk.until_syncing()
    behind = (await serving.ask("PUT", "/v1/data/x?ack=applied", 3)).json
    serving.disk.room = 10
    read = asyncio.create_task(apart(serving, f"/v1/data/x?rev={behind['rev']}"))
    assert (await serving.ask("GET", "/v1/data/x")).json == 1
    serving.disk.release()
    assert (await read).code == "storage_full"
    assert (await serving.ask("GET", f"/v1/data/x?rev={told['rev']}")).json == 2


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_history_that_begins_with_a_snapshot_is_gone_before_it(unstarted: Serving, format: str) -> None:
    log = Maker(format)
    for number in range(20):
        log.change({"n": number})
    states = {point.rev: point.state for point in log.points}
    pruned = Maker(format)
    pruned.data[:] = pruned.data[: pruned.framing.header]
    pruned.rev, pruned.chain, pruned.state, pruned.micros = log.rev, log.chain, log.state, log.micros
    pruned.snapshot()
    for number in range(20, 40):
        pruned.change({"n": number})
    states |= {point.rev: point.state for point in pruned.points}
    Path(unstarted.path).write_bytes(pruned.data)
    await unstarted.start()
    for rev in (0, 19):
        got = await unstarted.ask("GET", f"/v1/data?rev={rev}")
        assert (got.status, got.code, got.json["reason"], got.json["oldest"]) == (410, "history_gone", "compacted", 20)
    for rev in (20, 21, 39, 40):
        assert (await unstarted.ask("GET", f"/v1/data?rev={rev}")).json == states[rev]
    for micros, rev in ((log.micros, 20), (log.micros + 8, 21)):
        got = await unstarted.ask("GET", f"/v1/data?at={time_text(micros)}")
        assert got.headers["kanta-revision"] == str(rev)
    got = await unstarted.ask("GET", f"/v1/data?at={time_text(log.micros - 1)}")
    assert (got.code, got.json["reason"], got.json["oldest"]) == ("history_gone", "compacted", 20)


async def test_what_lies_behind_damage_is_gone(serving: Serving) -> None:
    history = History(serving)
    await history.run(60)
    await serving.ask("POST", "/v1/snapshot")
    await history.run(70)
    await serving.stop()
    data = bytearray(Path(serving.path).read_bytes())
    lines = data.split(b"\n")
    place = len(b"\n".join(lines[:29])) + 40  # in the record of revision 30
    data[place] ^= 1
    Path(serving.path).write_bytes(data)
    await serving.start()
    for rev in (0, 29, 60, 65):
        assert (await serving.ask("GET", f"/v1/data?rev={rev}")).json == history.states[rev]
    for rev in (30, 31, 59):
        got = await serving.ask("GET", f"/v1/data?rev={rev}")
        assert (got.status, got.code, got.json["reason"], got.json["oldest"]) == (410, "history_gone", "damaged", 60)
    assert (await serving.ask("POST", "/v1/revert", {"rev": 31})).code == "history_gone"
    assert (await serving.ask("POST", "/v1/revert", {"rev": 29})).json["changed"]


GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.kantadb"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.parametrize("inline", [0, 1 << 20], ids=["by a process", "here"])
async def test_the_past_of_a_file_of_kanta(unstarted: Serving, file: Path, inline: int) -> None:
    Path(unstarted.path).write_bytes(file.read_bytes())
    await unstarted.start()
    engine = unstarted.engine
    engine.former.inline = inline
    final, last = decode_json(encode_json(engine.root)), engine.rev
    assert last > 3
    await unstarted.put("", {"new": 1})
    before: Any = None
    for rev in range(engine.past.oldest, last + 1):
        got = await unstarted.ask("GET", f"/v1/data?rev={rev}")
        assert (got.status, got.headers["kanta-revision"]) == (200, str(rev))
        marked = await unstarted.ask("GET", f"/v1/data?rev={got.headers['kanta-cursor']}")
        assert marked.body == got.body
        assert before is None or not same(got.json, before)
        before = got.json
    assert same(before, final)
    assert (await unstarted.ask("GET", "/v1/data?at=2000-01-01T00:00:00Z")).headers["kanta-revision"] == "0"
    got = await unstarted.ask("POST", "/v1/revert", {"rev": last})
    assert got.json["changed"]
    assert same((await unstarted.ask("GET", "/v1/data")).json, final)


async def test_a_record_that_two_dialects_read_differently_is_read_as_the_start_reads_it(unstarted: Serving) -> None:
    lines = [
        {"ts": "2026-01-01T00:00:00.000001Z", "a": "x", "diff": {"unclear": "$$two"}},
        {"ts": "2026-01-01T00:00:00.000002Z", "a": "x", "diff": {"n": 1}},
        {"ts": "2026-01-01T00:00:00.000003Z", "a": "x", "diff": {"sign": "$one"}},
    ]
    Path(unstarted.path).write_bytes(b"".join(encode_json(line) + b"\n" for line in lines))
    await unstarted.start()
    now = (await unstarted.ask("GET", "/v1/data/unclear")).json
    await unstarted.put("/more", 1)
    for rev in (3, 1, 2):
        assert (await unstarted.ask("GET", f"/v1/data/unclear?rev={rev}")).json == now == "$$two"
