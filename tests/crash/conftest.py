"""No process outlives its test; what needs strace is skipped without it, but not where it was asked for."""

from collections.abc import AsyncIterator

import pytest

from tests.crash.injected import why_not
from tests.crash.process_kit import end_all


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be injected here; a long test is never run but on purpose, so it fails instead."""
    if item.get_closest_marker("strace") is not None and (why := why_not()):
        (pytest.fail if item.get_closest_marker("long") else pytest.skip)(why)


@pytest.fixture(autouse=True)
async def no_process_is_left() -> AsyncIterator[None]:
    yield
    await end_all()
