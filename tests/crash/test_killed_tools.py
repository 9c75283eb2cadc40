"""Each offline command killed, or told of a failure, at each system call on its files: the original or the result.

What may be left is the same as for a disk that dies in this process, `tests/tools/test_stopped.py`.
"""

from pathlib import Path

import pytest

from tests.crash.calls import WRITING, Call, ran
from tests.crash.injected import NEEDS_STRACE
from tests.tools.jobs import JOBS, ORIGINAL, RESULT, Job

pytestmark = NEEDS_STRACE

KILLED = (-9, 128 + 9)
FAULTS = ("error=EIO", "error=ENOSPC")


class Traced:
    """A job as a command line under strace, and the calls that it makes on its files."""

    def __init__(self, tmp_path: Path, tool: str, format: str) -> None:
        self.job = Job(tmp_path / "here", tool, format)
        self.log = tmp_path / "calls"
        self.job.begin()
        counted = ran(self.job.folder, self.job.arguments, self.log)
        assert (counted.status, self.job.judge()) == (0, RESULT), counted
        self.calls = counted.calls

    def killed_at(self, call: Call) -> str:
        """What is there after it was killed before this call; then it is run again."""
        self.job.begin()
        ended = ran(self.job.folder, self.job.arguments, self.log, call)
        assert ended.status in KILLED, (call, ended)
        assert ended.calls, (call, "another call was met")
        found = self.job.judge()
        self.job.finish()
        return found

    def failed_at(self, call: Call, fault: str) -> None:
        """Have a call fail: what is there and what is said agree, and it can be run again."""
        self.job.begin()
        ended = ran(self.job.folder, self.job.arguments, self.log, call, fault)
        assert ended.status in (0, 74), (call, fault, ended)
        found = self.job.judge()
        self.job.truthful(ended.err, found)
        assert ended.status or found == RESULT, (call, fault, ended)
        self.job.finish()


@pytest.mark.parametrize(("tool", "format"), [pair for pair in JOBS if pair[1] == "json"])
def test_killed_before_its_last_calls(tmp_path: Path, tool: str, format: str) -> None:
    traced = Traced(tmp_path, tool, format)
    places = [call for call in traced.calls if call.name in ("rename", "link", "pwrite64")]
    assert places
    assert {traced.killed_at(call) for call in places[:2]} >= {ORIGINAL}
    assert traced.killed_at(traced.calls[-1]) == RESULT


@pytest.mark.long
@pytest.mark.parametrize(("tool", "format"), JOBS)
def test_killed_at_every_system_call(tmp_path: Path, tool: str, format: str) -> None:
    traced = Traced(tmp_path, tool, format)
    assert len(traced.calls) > 20
    assert {traced.killed_at(call) for call in traced.calls} == {ORIGINAL, RESULT}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("tool", "format"), JOBS)
def test_every_system_call_may_fail(tmp_path: Path, tool: str, format: str, fault: str) -> None:
    traced = Traced(tmp_path, tool, format)
    for call in traced.calls:
        if "EIO" in fault or call.name in WRITING:
            traced.failed_at(call, fault)
