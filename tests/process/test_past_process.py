"""The process that replays the past, seen from outside: one, replaceable, gone with the server."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.running import TIMEOUT, Running, ask

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")


def replaying(server: Running) -> list[int]:
    """The processes of a server that replay the past."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in children if b"kantad.tools.retrace" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    """Whether a process is no more, or nobody's."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_is_replaced_when_killed_and_ends_with_the_server(
    run: Callable[..., Running], number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "kantad").mkdir()  # is not taken for the package
    (tmp_path / "kantad" / "__init__.py").write_text("raise SystemExit(9)")
    server = run("--port", "0", PYTHONSAFEPATH="1")
    port = server.port()
    ask(port, "PUT", "/v1/data/big", json.dumps(["x" * 100] * 3000).encode())
    for value in range(1, 5):
        assert ask(port, "PUT", "/v1/data/n", str(value).encode())[0] == 200
    assert not replaying(server)
    assert ask(port, "GET", "/v1/data/n?rev=3") == (200, b"2")
    (first,) = replaying(server)
    os.kill(first, signal.SIGKILL)
    assert ask(port, "GET", "/v1/data/n?rev=2") == (200, b"1")
    (second,) = replaying(server)
    assert second != first
    server.signal(number)
    assert server.process.wait(TIMEOUT) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    assert gone(second)
