"""No process outlives its test."""

from collections.abc import AsyncIterator

import pytest

from tests.crash.process_kit import end_all


@pytest.fixture(autouse=True)
async def no_process_is_left() -> AsyncIterator[None]:
    yield
    await end_all()
