"""`kantactl` without a standard output, input or error: nothing goes anywhere else, and the exit status stays true."""

import os
import subprocess
import sys

import pytest
from kanta_client import SyncKantaClient
from kanta_client.testing import serve

TIMEOUT = 30


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("set /n 5 >&-", 0),
        ("get /n >&-", 0),
        ("get /n <&- >&- 2>&-", 0),
        ("history >&- 2>&-", 0),
        ("get /nothing >&- 2>&-", 1),
        ("set /n - <&- 2>&-", 2),
        ("completion bash >&-", 0),
    ],
)
def test_what_is_closed_is_taken_for_nothing(command: str, status: int) -> None:
    with serve() as url, SyncKantaClient(url) as db:
        db.set("/n", 5)
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -m kantactl {command}', sys.executable],
            env={**os.environ, "KANTA_URL": url},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
        assert db.get("/n") == 5
