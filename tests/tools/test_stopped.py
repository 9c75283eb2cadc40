"""Each offline command stopped or failing at each call to the disk: the original or the result, never neither.

Whatever is left, running the command again finishes. The same with a real process and real system calls is
`tests/crash/test_killed_tools.py`.
"""

import contextlib
import errno
from pathlib import Path

import pytest

from tests.store.disks import Death, FaultyDisk, FillingDisk
from tests.tools.jobs import JOBS, ORIGINAL, OWN_JOBS, RESULT, Job, only_the_original


@pytest.fixture(params=JOBS + OWN_JOBS, ids=lambda pair: f"{pair[0]}-{pair[1].rpartition(':')[2]}")
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path / "here", *request.param)


def calls(job: Job) -> list[str]:
    """What the command asks of the disk."""
    job.begin()
    counting = FaultyDisk()
    assert job.run(counting).status == 0
    return counting.log


@pytest.mark.parametrize("fault", ["death", "late death"])
def test_it_may_die_at_every_call(job: Job, fault: str) -> None:
    found = set()
    for at, name in enumerate(calls(job)):
        job.begin()
        with contextlib.suppress(Death):  # what finds nothing to remove is not done, so there is no after it
            job.run(FaultyDisk(fault, at))
            assert (fault, name) == ("late death", "unlink")
        found.add(job.judge())
        job.finish()
    assert found == {ORIGINAL, RESULT}


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_every_call_may_fail(job: Job, fault: int) -> None:
    for at, name in enumerate(calls(job)):
        job.begin()
        ran = job.run(FaultyDisk(fault, at))
        assert ran.status in (0, 74), (name, ran)
        assert name == "unlink" or not job.leftovers(), name
        found = job.judge()
        job.truthful(ran.err, found)
        assert ran.status or found == RESULT, (name, ran)
        job.finish()


def test_every_write_may_be_short(job: Job) -> None:
    for at in range(calls(job).count("write")):
        job.begin()
        assert job.run(FaultyDisk("short", at, ("write",))).status == 0
        assert job.judge() == RESULT


def test_the_disk_may_be_full_at_every_write(job: Job) -> None:
    for at in range(calls(job).count("write")):
        job.begin()
        ran = job.run(FillingDisk(errno.ENOSPC, at))
        assert ran.status == 74
        assert "No space left" in ran.err
        assert only_the_original(job)
