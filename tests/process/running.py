"""The real command as a process: started with arguments, read line by line, stopped by its own pid."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

READY = re.compile(r"kantad (\S+) ready on (\S+) \((.*), rev (\d+)\)\n")
TIMEOUT = 15.0


class Running:
    """One process. `lines` is what it said on stderr so far."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KANTAD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kantad", *arguments],
            cwd=folder,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self.held = b""

    def line(self) -> str:
        """The next line on stderr, `""` at its end."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        until = time.monotonic() + TIMEOUT
        while b"\n" not in self.held:
            readable, _, _ = select.select([descriptor], [], [], until - time.monotonic())
            assert readable, f"nothing more was said after {self.lines}"
            data = os.read(descriptor, 65536)
            if not data:
                break
            self.held += data
        text, newline, self.held = self.held.partition(b"\n")
        line = (text + newline).decode()
        if line:
            self.lines.append(line)
        return line

    def ready(self) -> re.Match[str]:
        """The ready line: version, address, file, revision."""
        while line := self.line():
            found = READY.fullmatch(line)
            if found:
                return found
        raise AssertionError(f"it ended with {self.process.wait(TIMEOUT)}: {self.lines}")

    def port(self) -> int:
        """The port that the ready line names."""
        return int(self.ready()[2].rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status; everything it said is in `lines`."""
        while self.line():
            pass
        return self.process.wait(TIMEOUT)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def said(self) -> str:
        """What it said on stdout; to be asked when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def end(self) -> None:
        """Stop it, if it runs, and close the pipes."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def ask(port: int, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request over TCP: the status and the body of the answer."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]
