"""The process that replays the past for a server: `python -m kantad.tools.retrace`, started by the engine.

It answers one question after another. See `ordered`.
"""

import socket
import sys

from kantad.store.answers import Answers
from kantad.store.question import Answer, Question, Reply, decode_question, message
from kantad.tools.ordered import messages, run


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
        for asked in map(decode_question, messages(stream)):
            reply, body = answered(answers, asked)
            channel.sendall(message(reply))
            if body:
                channel.sendall(body)
            del body


if __name__ == "__main__":
    sys.exit(run(serve))
