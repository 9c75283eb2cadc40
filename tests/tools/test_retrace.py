"""The process that replays the past, spoken to as the engine does."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantad.store.question import LENGTH, Answer, Question, decode_reply, message
from kantad.values.content import encode_json
from tests.store.logs import every_kind

TIMEOUT = 20.0


class Process:
    """The process and the socket to it."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(TIMEOUT)
        with theirs:
            command = [sys.executable, "-m", "kantad.tools.retrace"]
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        self.stream = self.channel.makefile("rb")

    def ask(self, question: Question) -> Answer:
        self.channel.sendall(message(question))
        reply = decode_reply(self.stream.read(int.from_bytes(self.stream.read(LENGTH), "little")))
        return reply, self.stream.read(reply.size)

    def hang_up(self) -> int:
        self.stream.close()
        self.channel.close()
        return self.process.wait(TIMEOUT)


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.process.kill()
    made.hang_up()


def test_it_answers_in_turn_and_ends_when_the_other_end_closes(process: Process, tmp_path: Path) -> None:
    log = every_kind("json")
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    status = path.stat()
    question = Question(str(path), (status.st_dev, status.st_ino), len(log.data), 0)
    for point in log.points:
        question.rev = point.rev
        reply, body = process.ask(question)
        assert (reply.rev, reply.chain, body) == (point.rev, point.chain, encode_json(point.state))
    question.file += "-none"
    question.identity = (0, 0)
    assert process.ask(question)[0].fault.startswith("FileNotFoundError")
    assert process.hang_up() == 0


def test_a_bug_is_told_and_survived(process: Process, tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    path.write_bytes(b"")
    status = path.stat()
    question = Question(str(path), (status.st_dev, status.st_ino), 0, 0)
    question.file = "\0"
    assert process.ask(question)[0].fault.startswith("ValueError")
    question.file = str(path)
    reply, body = process.ask(question)
    assert (reply.rev, body) == (0, b"{}")
