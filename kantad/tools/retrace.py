"""The process that replays the past for a server: `python -m kantad.tools.retrace`, started by the engine.

It answers one question after another on its standard input, a socket, and ends with it. It reads the
database without a lock, no further than it is told. Nobody calls it by hand.
"""

import contextlib
import gc
import os
import socket
import sys

from kantad.store.answers import Answers
from kantad.store.question import LENGTH, Answer, Question, Reply, decode_question, message

NICE = 10


def answered(answers: Answers, asked: Question) -> Answer:
    """The answer to a question, in one go; a bug is told to who asked, who logs it."""
    steps = answers.answer(asked)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        reply: Answer = done.value
        return reply
    except Exception as error:
        answers.retrace = None
        return Reply(fault=f"{type(error).__name__}: {error}"), b""


def serve(channel: socket.socket) -> None:
    """Answer what comes, until the other end closes."""
    answers = Answers()
    with channel.makefile("rb") as stream:
        while len(head := stream.read(LENGTH)) == LENGTH:
            reply, body = answered(answers, decode_question(stream.read(int.from_bytes(head, "little"))))
            channel.sendall(message(reply))
            if body:
                channel.sendall(body)
            del body


def main() -> int:
    """Serve standard input; returns the exit status."""
    gc.disable()  # a state has no cycles
    with contextlib.suppress(OSError):  # a sandbox may not allow it
        os.nice(NICE)
    try:
        serve(socket.socket(fileno=sys.stdin.fileno()))
    except ConnectionError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
