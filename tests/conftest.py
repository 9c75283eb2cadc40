"""Fixtures for all who need a server: one in this process, and the command as a process of its own."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.process.running import Running
from tests.serving import Serving

# A shell without job control has what it runs in the background ignore these, and so would all that tests start.
for interrupt in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(interrupt) is signal.SIG_IGN:
        signal.signal(interrupt, signal.default_int_handler if interrupt is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def fast_path(request: pytest.FixtureRequest) -> bool:
    """Whether the server has the fast path; parametrize with `indirect=True` to try both."""
    return bool(getattr(request, "param", True))


@pytest.fixture
async def unstarted(tmp_path: Path, fast_path: bool) -> AsyncIterator[Serving]:
    """A server that the test starts with options of its own."""
    serving = Serving(str(tmp_path / "data.kantadb"), fast_path=fast_path)
    yield serving
    await serving.stop()


@pytest.fixture
async def serving(unstarted: Serving) -> Serving:
    """A running server on a new file."""
    await unstarted.start()
    return unstarted


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Runs the command in `tmp_path`; what still runs afterwards is stopped."""
    started: list[Running] = []

    def start(*arguments: str, **environment: str) -> Running:
        started.append(Running(tmp_path, arguments, environment))
        return started[-1]

    yield start
    for process in started:
        process.end()
