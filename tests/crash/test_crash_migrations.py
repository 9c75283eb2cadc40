"""A server that migrates at its start, killed or failing at each system call on its file before it is ready.

The file is the original or the result, never neither, and the next start goes on. `kantad migrate` is one of
the commands of `tests/crash/test_killed_tools.py`.
"""

import re
from pathlib import Path

import pytest

from tests.crash.calls import WRITING, Call, concerning, tracing
from tests.crash.injected import NEEDS_STRACE
from tests.crash.process_kit import BROKEN, OK, USAGE, Ended, Process
from tests.store.logs import FORMATS
from tests.tools.jobs import ORIGINAL, RESULT, Job

READY = re.compile(r"\n\d+ +write\(2<[^>]*>, \"kantad .* ready on http")

pytestmark = NEEDS_STRACE


class Start:
    """A start on a file that needs two steps and a default, under strace."""

    def __init__(self, tmp_path: Path, format: str) -> None:
        self.job = Job(tmp_path / "here", "migrate", format)
        self.log = tmp_path / "calls"

    async def calls(self) -> list[Call]:
        """The calls on the file, in the thread that migrates, before the server is ready."""
        process = self.traced(None, "")
        await process.start()
        assert await process.stop() == OK
        told = READY.split(self.log.read_text(errors="replace"))[0].splitlines()
        main = told[0].split()[0]
        self.log.write_text("\n".join(line for line in told if line.split()[0] == main))
        assert self.job.judge() == RESULT
        return concerning(self.log, self.job.folder)

    def traced(self, call: Call | None, what: str) -> Process:
        """The server on the original."""
        self.job.begin()
        flags = [part for part in self.job.flags if not part.endswith(".kantadb")]
        return Process(str(self.job.path), *flags, before=tuple(tracing(self.log, call, what)))

    async def ended(self, call: Call, what: str) -> tuple[int | None, str]:
        """How a start ends with this call injected (None: it does not), and what is there then."""
        process = self.traced(call, what)
        try:
            await process.start()
        except Ended as ended:
            status: int | None = ended.status
        else:
            status = None
            await process.kill()
        found = self.job.judge()
        self.job.truthful(process.stderr.decode(), found)
        self.job.finish()
        return status, found


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.mark.parametrize("format", FORMATS)
async def test_killed_while_it_writes(tmp_path: Path, format: str) -> None:
    start = Start(tmp_path, format)
    calls = [call for call in await start.calls() if call.name in ("write", "pwrite64")]
    assert [call.name for call in calls] == ["pwrite64", "write", "pwrite64"]  # rewritten, hidden, shown
    assert [await start.ended(call, "signal=KILL") for call in calls[1:]] == [(-9, ORIGINAL)] * 2


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
async def test_killed_at_every_call(tmp_path: Path, format: str) -> None:
    start = Start(tmp_path, format)
    calls = await start.calls()
    assert len(calls) > 20
    found = [await start.ended(call, "signal=KILL") for call in calls]
    assert {status for status, _ in found} == {-9}
    assert {what for _, what in found} == {ORIGINAL, RESULT}


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_every_call_may_fail(tmp_path: Path, format: str, error: str) -> None:
    start = Start(tmp_path, format)
    for call in await start.calls():
        if error == "EIO" or call.name in WRITING:
            status, found = await start.ended(call, f"error={error}")
            assert status in (None, BROKEN, USAGE), call
            assert found == RESULT or status != OK, call
