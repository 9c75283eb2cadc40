"""Listings and feeds of a file that is damaged in the part that a start does not read."""

from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine_kit import eventually
from tests.engine.feed_kit import Follower
from tests.serving import Serving
from tests.web.stream_kit import Feed

OLDEST, LAST, HURT = 700, 720, 400  # the snapshot's revision, the newest, the first one that is damaged


async def made(serving: Serving, kind: str) -> list[str]:
    """A stopped server whose file has several blocks before its snapshot and some changes behind; its cursors."""
    await serving.start(format=kind, ack="written")
    cursors = ["0-0000000000000000"]
    while len(cursors) <= LAST:
        got = await serving.put(f"/k{len(cursors) % 7}", {"n": len(cursors), str(len(cursors)): "x" * 900})
        cursors.append(got.json["cursor"])
        if len(cursors) == OLDEST + 1:
            await serving.ask("POST", "/v1/snapshot")
    await serving.stop()
    return cursors


def hurt(path: str, kind: str) -> None:
    """Damage the record of revision HURT in one of several ways."""
    data = Path(path).read_bytes()
    if kind == "msgpack":
        place = data.index(b"x" * 900, data.index(b"\xa3400"))
        Path(path).write_bytes(data[:place] + b"y" + data[place + 1 :])
        return
    lines = data.split(b"\n")
    line = lines[HURT - 1]
    broken = {
        "content": line.replace(b"xxx", b"xyx", 1),
        "a digit of the chain": line[:-3] + (b"0" if line[-3:-2] != b"0" else b"1") + line[-2:],
        "no digit in the chain": line[:-3] + b"g" + line[-2:],
        "no ASCII in the chain": line[:-3] + b"\xff" + line[-2:],
        "the name of the chain": line.replace(b'"h":', b'"i":'),
        "the newline": line + b"\x0b" + lines[HURT],
    }
    lines[HURT - 1 : HURT + (kind == "the newline")] = [broken[kind]] if kind in broken else []
    Path(path).write_bytes(b"\n".join(lines))


KINDS = [
    "content",
    "a digit of the chain",
    "no digit in the chain",
    "no ASCII in the chain",
    "the name of the chain",
    "the newline",
    "lost",
    "msgpack",
]


async def refusal(serving: Serving, query: str) -> Any:
    got = await serving.ask("GET", f"/v1/changes?{query}")
    assert got.status == 410, (query, got)
    return got.code, got.json["reason"], got.json["oldest"]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_stands_before_damage_is_given_and_reading_goes_on_at_the_oldest(
    unstarted: Serving, kind: str
) -> None:
    cursors = await made(unstarted, "msgpack" if kind == "msgpack" else "json")
    hurt(unstarted.path, kind)
    await unstarted.start(ring_bytes=1000)
    gone = ("history_gone", "damaged", OLDEST)

    async def given(query: str, limit: int = 10_000) -> tuple[list[int], str | None]:
        got = await unstarted.ask("GET", f"/v1/changes?limit={limit}&{query}")
        assert got.status == 200, (query, got)
        assert all(change["cursor"] == cursors[change["rev"]] for change in got.json["changes"])
        return [change["rev"] for change in got.json["changes"]], got.json["next"]

    for beginning in ("since=600", f"since={HURT}", f"since={cursors[600]}", f"since={OLDEST - 1}"):
        assert await refusal(unstarted, beginning) == gone
    for _ in range(2):  # not read yet, and read
        revs, following = await given("since=0")
        assert revs == list(range(1, HURT))
        assert following == cursors[HURT - 1]
        assert await refusal(unstarted, f"since={following}") == gone
        assert await given(f"since=0&until={HURT - 1}") == (list(range(1, HURT)), None)
        assert await given("action=nothing") == ([], following)

        assert await refusal(unstarted, "since=600") == gone
        assert await given(f"since={OLDEST}") == (list(range(OLDEST + 1, LAST + 1)), None)
        assert await given(f"since={cursors[OLDEST]}") == (list(range(OLDEST + 1, LAST + 1)), None)
        revs, following = await given("order=desc")
        assert revs == list(range(LAST, OLDEST, -1))
        assert await refusal(unstarted, f"order=desc&until={following}") == gone
        revs, following = await given(f"order=desc&until={HURT - 1}", 5)
        assert (revs, following) == (list(range(HURT - 1, HURT - 6, -1)), cursors[HURT - 6])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_feed_gives_what_stands_before_damage_and_says_where_to_go_on(unstarted: Serving, kind: str) -> None:
    cursors = await made(unstarted, "msgpack" if kind == "msgpack" else "json")
    hurt(unstarted.path, kind)
    await unstarted.start(ring_bytes=1000)
    feed = await Feed.open(unstarted, "since=0")
    events = await feed.rest_of_it()
    assert [members.get("cursor") for event, _, members in events if event == "change"] == cursors[1:HURT]
    event, _, problem = events[-1]
    assert (event, problem["code"], problem["reason"]) == ("error", "history_gone", "damaged")
    feed = await Feed.open(unstarted, f"since={problem['oldest']}")
    assert [members["rev"] for _, _, members in await feed.until(LAST)] == list(range(OLDEST + 1, LAST + 1))

    whole = Follower(unstarted.engine, 0, whole=True)
    await eventually(lambda: whole.reader.position == LAST)
    assert [event["event"] for event in whole.events] == ["change"] * (HURT - 1) + ["reset"]


async def test_a_moment_behind_damage_is_found(unstarted: Serving) -> None:
    cursors = await made(unstarted, "json")
    times = [record["ts"] for record in unstarted.records()]
    hurt(unstarted.path, "content")
    await unstarted.start(ring_bytes=1000)
    for rev in (OLDEST + 1, OLDEST + 3, LAST):
        got = await unstarted.ask("GET", f"/v1/changes?since={times[rev - 1]}")
        assert [change["cursor"] for change in got.json["changes"]] == cursors[rev + 1 :]
    assert (await refusal(unstarted, f"since={times[600]}"))[1] == "damaged"
