"""Started without standard streams (`>&-`): no file or socket takes their descriptors, to be printed into."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.process.running import TIMEOUT, ask


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_without_streams_has_nothing_at_their_descriptors(tmp_path: Path) -> None:
    port = free_port()
    command = f'exec "$0" -m kantad --db x.kantadb --port {port} <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", command, sys.executable], cwd=tmp_path) as process:
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                assert ask(port, "PUT", "/v1/data/a", b"1")[0] == 200
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.02)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_an_offline_command_without_streams_says_nothing_and_ends_as_ever(tmp_path: Path) -> None:
    (tmp_path / "x.kantadb").write_text('{"ts":"2026-06-10T02:55:00Z","a":"a","diff":{"a":1}}\n')
    for arguments, status in (("log x.kantadb", 0), ("dump x.kantadb", 0), ("check x.kantadb", 0), ("log none", 2)):
        script = f'exec "$0" -m kantad {arguments} >&- 2>&-'
        done = subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, capture_output=True, timeout=TIMEOUT)
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")
