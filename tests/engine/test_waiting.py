"""Long polls: a change wakes those whose path it touches, and hashes what a path shows once."""

import asyncio
from typing import Any

import pytest

from kantad.engine import waiting as waiting_module
from kantad.engine.waiting import Waiting
from kantad.values.pointer import Path


class Shown:
    """Etags of paths, and how often each was asked for."""

    def __init__(self) -> None:
        self.tags: dict[Path, str] = {}
        self.asked: list[Path] = []

    def tag(self, path: Path) -> str:
        self.asked.append(path)
        return self.tags.get(path, "")


async def started(*tasks: Any) -> list["asyncio.Task[Any]"]:
    running = [asyncio.create_task(task) for task in tasks]
    await asyncio.sleep(0)
    return running


@pytest.mark.parametrize(
    ("path", "patch"),
    [
        ((), {"x": 1}),
        (("a",), {"a": {"b": 1}}),
        (("a", "b"), {"a": {"b": 1}}),
        (("a", "b"), {"$delete": ["a"]}),
        (("a", "b", "c"), {"a": {"$replace": {}}}),
        (("a", "b"), [1]),
        (("a", "2"), {"a": {"$delete": [0]}}),
        (("$x",), {"$$x": 1}),
    ],
)
async def test_a_change_at_above_or_below_a_path_wakes_who_waits_there(path: Path, patch: Any) -> None:
    shown = Shown()
    waiting = Waiting(shown.tag)
    (task,) = await started(waiting.differs(path, "", 60.0))
    shown.tags[path] = "new"
    waiting.seen([patch])
    await asyncio.wait_for(task, 5)


async def test_a_change_elsewhere_wakes_nobody_and_hashes_nothing() -> None:
    shown = Shown()
    waiting = Waiting(shown.tag)
    (task,) = await started(waiting.differs(("a", "b"), "", 60.0))
    for number in range(100):
        waiting.seen([{"a": {"c": number}}, {"d": number}])
    await asyncio.sleep(0)
    assert not task.done()
    assert shown.asked == [("a", "b")]
    task.cancel()


async def test_a_thousand_who_wait_at_a_path_cost_one_hash_a_change() -> None:
    shown = Shown()
    waiting = Waiting(shown.tag)
    tasks = await started(*(waiting.differs(("a",), "", 60.0) for _ in range(1000)))
    waiting.seen([{"a": {"b": 1}}])  # which alters nothing that the etag tells
    await asyncio.sleep(0.01)
    assert len(shown.asked) == 2
    shown.tags[("a",)] = "new"
    waiting.seen([{"a": {"b": 2}}])
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert len(shown.asked) == 3


async def test_what_was_hashed_before_a_change_is_not_believed_after_it() -> None:
    shown = Shown()
    waiting = Waiting(shown.tag)
    await waiting.differs(("a",), "old", 0)  # nobody waits
    shown.tags[("a",)] = "new"
    waiting.seen([{"a": 1}])
    await asyncio.wait_for(waiting.differs(("a",), "", 60.0), 5)


async def test_the_time_runs_out_and_leaves_nothing_behind() -> None:
    shown = Shown()
    waiting = Waiting(shown.tag)
    await waiting.differs(("a",), "", 0.01)
    waiting.seen([{"a": 1}])
    assert shown.asked == [("a",)]


async def test_the_end_wakes_all_and_nobody_waits_after_it() -> None:
    waiting = Waiting(Shown().tag)
    tasks = await started(waiting.differs(("a",), "", 60.0), waiting.change(60.0))
    waiting.end()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    await asyncio.wait_for(waiting.differs(("a",), "", 60.0), 5)
    assert not await asyncio.wait_for(waiting.change(60.0), 5)


async def test_any_written_change_ends_a_wait_for_one() -> None:
    waiting = Waiting(Shown().tag)
    (task,) = await started(waiting.change(60.0))
    waiting.written()
    assert await asyncio.wait_for(task, 5)
    assert not await waiting.change(0.01)


async def test_without_changes_few_tags_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "MOST_TAGS", 3)
    shown = Shown()
    waiting = Waiting(shown.tag)
    for name in "aabcda":
        await waiting.differs((name,), "other", 60.0)
    assert shown.asked == [("a",), ("b",), ("c",), ("d",), ("a",)]
