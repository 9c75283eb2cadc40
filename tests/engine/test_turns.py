"""Turns: so many tasks in a round of the loop, in the order they asked, whoever gives up meanwhile."""

import asyncio

import pytest

from kantad.engine.turns import Turns


async def rounds(count: int) -> None:
    """Let the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_so_many_go_on_in_a_round_and_the_rest_of_the_loop_between_them() -> None:
    turns, seen = Turns(3), []

    async def walk(name: int) -> None:
        for step in range(2):
            await turns.take()
            seen.append((step, name))

    async def watch() -> None:
        while len(seen) < 14:
            seen_before = len(seen)
            await asyncio.sleep(0)
            assert len(seen) - seen_before <= 3

    tasks = [asyncio.create_task(walk(name)) for name in range(7)]
    await asyncio.wait_for(watch(), 5)
    await asyncio.gather(*tasks)
    assert seen == [(step, name) for step in range(2) for name in range(7)]


@pytest.mark.parametrize("gone", [{0}, {0, 1, 2, 3}, {5}, set(range(6))])
async def test_who_gives_up_takes_nobodys_turn(gone: set[int]) -> None:
    turns, seen = Turns(2), []

    async def walk(name: int) -> None:
        await turns.take()
        seen.append(name)

    tasks = [asyncio.create_task(walk(name)) for name in range(6)]
    await rounds(1)
    for name in gone:
        tasks[name].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == [name for name in range(6) if name not in gone]
    await asyncio.wait_for(walk(9), 5)
