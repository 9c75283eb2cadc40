"""The fast path: plain data requests answered from `data_received`, round aiohttp.

Plain is: `GET`, `PUT` or `PATCH` of `/v1/data/...` without a query or percent-encoding, whole in
one piece, with a header block that is, byte for byte, one that came through the plain path before
and holds nothing but what is listed here. So the checks of access, the parsing of headers and the
limits are the plain path's own: this only recognises what they let through. It may be switched off
(`--no-fast-path`); a test shows that both ways answer byte for byte the same.
"""

from functools import partial
from typing import Final

from kantad.engine.engine import Engine
from kantad.engine.proposal import Proposal
from kantad.values.errors import Problem
from kantad.values.pointer import Path, bounded
from kantad.web.answer import Reply, problem_reply, render
from kantad.web.body import decode
from kantad.web.connection import Connection, body_length
from kantad.web.reading import value_reply
from kantad.web.writing import Limits, plain_outcome_reply

MOST_BLOCKS: Final = 1024
LONGEST_BLOCK: Final = 2048

# The headers that change nothing about how a plain request is answered, and the values allowed.
PLAIN: Final[dict[bytes, tuple[bytes, ...] | None]] = {
    b"host": None,
    b"user-agent": None,
    b"accept": (b"*/*", b"application/json", b"application/json, */*"),
    b"accept-encoding": None,
    b"accept-language": None,
    b"connection": (b"keep-alive",),
    b"content-length": None,
    b"content-type": (b"application/json", b"application/json; charset=utf-8", b"application/x-www-form-urlencoded"),
}

PREFIX: Final = b"/v1/data"


class Fast:
    """See the module. `blocks` maps a known header block to the length of the body it announces."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.blocks: dict[bytes, int] = {}

    def learn(self, block: bytes) -> None:
        """Remember the header block of a request that was admitted, if it is plain."""
        if len(block) > LONGEST_BLOCK or block in self.blocks:
            return
        for line in block[2:-2].split(b"\r\n") if len(block) > 4 else ():
            name, _, value = line.partition(b":")
            allowed = PLAIN.get(name.lower(), ())
            if allowed is not None and value.strip().lower() not in allowed:
                return
        length = body_length(block)
        if length is None or length > self.limits.max_body:
            return
        if len(self.blocks) >= MOST_BLOCKS:
            self.blocks.clear()
        self.blocks[block] = length

    def answer(self, connection: Connection, data: bytes) -> bool:
        """Answer a plain request; False, with nothing done, where it is not one."""
        end = data.find(b"\r\n\r\n")
        line_end = data.find(b"\r\n")
        length = self.blocks.get(data[line_end : end + 2])
        if length is None or len(data) != end + 4 + length:
            return False
        line = data[:line_end]
        if line[-9:] != b" HTTP/1.1" or b"?" in line or b"%" in line:
            return False
        method, _, target = line[:-9].partition(b" ")
        if target[:8] != PREFIX or not target.isascii() or b" " in target or b"#" in target:
            return False
        if method == b"GET":
            if length:
                return False
        elif (method != b"PATCH" and method != b"PUT") or not length:
            return False
        try:
            path = _path(target)
            if path is None:
                return False
            if method == b"GET":
                self._read(connection, path)
            else:
                self._write(connection, path, method, data[end + 4 :])
        except Problem as problem:
            self._refuse(connection, problem)
        return True

    def _read(self, connection: Connection, path: Path) -> None:
        _send(connection, value_reply(self.engine, path, False))

    def _write(self, connection: Connection, path: Path, method: bytes, body: bytes) -> None:
        put = method == b"PUT"
        engine = self.engine
        proposal = Proposal(
            path,
            "put" if put else "patch",
            decode(body, False, self.limits.max_depth),
            "put" if put else "patch",
            foreign=engine.foreign,
        )
        outcome = engine.transact(proposal)
        reply = plain_outcome_reply(outcome)
        connection.waiting = True
        if not engine.settle_when(None, outcome.rev, partial(_settle, connection, reply)):
            _settle(connection, reply, None)

    def _refuse(self, connection: Connection, problem: Problem) -> None:
        """Answer with a problem; one that shows state waits for that state to be acknowledged."""
        reply = problem_reply(problem)
        connection.waiting = True
        shows = problem.status in (404, 409, 412) and problem.code != "not_found"
        if not shows or not self.engine.settle_when(None, self.engine.rev, partial(_settle, connection, reply)):
            _settle(connection, reply, None)


def _path(target: bytes) -> Path | None:
    if len(target) == len(PREFIX):
        return ()
    if target[8:9] != b"/":
        return None
    return bounded(tuple(target[9:].decode("ascii").split("/")))


def _send(connection: Connection, reply: Reply) -> None:
    connection.write(render(reply.status, reply.headers, reply.body))
    connection.since = connection.now()


def _settle(connection: Connection, reply: Reply, error: Exception | None) -> None:
    if error is not None:
        reply = problem_reply(error) if isinstance(error, Problem) else reply
    connection.settled(render(reply.status, reply.headers, reply.body))
