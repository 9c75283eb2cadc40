"""The fast path: plain data requests answered from `data_received`, round aiohttp.

Plain is: `GET`, `PUT` or `PATCH` of `/v1/data/...` without a query or percent-encoding, whole in
one piece, with a header block that is, byte for byte, one that came through the plain path before
and holds nothing but what is listed here. So the checks of access, the parsing of headers and the
limits are the plain path's own: this only recognises what they let through. It may be switched off
(`--no-fast-path`); a test shows that both ways answer byte for byte the same.
"""

import re
from functools import partial
from typing import Final, Literal

from kantad.engine.engine import Engine
from kantad.engine.place import Place
from kantad.engine.proposal import Outcome
from kantad.values.errors import Problem
from kantad.values.pointer import bounded
from kantad.values.recent import Recent
from kantad.web.answer import Reply, problem_reply, render
from kantad.web.body import decode
from kantad.web.connection import Connection, body_length
from kantad.web.reading import value_answer
from kantad.web.writing import Limits, plain_outcome_reply, written_answer

MOST_BLOCKS: Final = 1024
LONGEST_BLOCK: Final = 2048
MOST_HEADS: Final = 16_384
LONGEST_HEAD: Final = 384

Edit = Literal["put", "patch"]
Plain = tuple[Edit | None, Place, int]  # what to do (None: read), where, and the bytes of the body

_EDITS: Final[dict[bytes, Edit | None]] = {b"GET": None, b"PUT": "put", b"PATCH": "patch"}

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

# A request line of a plain data request: no query, no percent-encoding, only characters of RFC 3986 paths.
_LINE: Final = re.compile(rb"(GET|PUT|PATCH) /v1/data((?:/[!$&-.0-;=@-Z_a-z~]*)*) HTTP/1\.1(?=\r\n)").match


class Fast:
    """See the module.

    `blocks` maps a known header block to the length of the body it announces, `heads` a known
    request line and header block to what they ask for.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.blocks: dict[bytes, int] = {}
        self.heads: Recent[bytes, Plain] = Recent(MOST_HEADS)
        self.answers = 0

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
        end = data.find(b"\r\n\r\n") + 4
        head = data[:end]
        known = self.heads.young.get(head) or self.heads.older(head) or self._recognised(head)
        if known is None:
            return False
        edit, place, length = known
        if len(data) != end + length:
            return False
        self.answers += 1
        try:
            if edit is None:
                connection.write(value_answer(self.engine, place[0]))
                connection.active = True
            else:
                self._write(connection, place, edit, data[end:])
        except Problem as problem:
            self._refuse(connection, problem)
        except Exception:
            connection.failed()
        return True

    def _recognised(self, head: bytes) -> "Plain | None":
        """What a head asks for, if it is plain; kept, because the same is asked for again."""
        found = _LINE(head)
        if found is None or len(found[2]) + len("/v1/data") > self.limits.max_target:
            return None
        length = self.blocks.get(head[found.end() : -2])
        method, rest = found.groups()
        if length is None or (length == 0) is not (method == b"GET"):
            return None
        try:
            path = bounded(tuple(rest[1:].decode().split("/"))) if rest else ()
        except Problem:
            return None  # the plain path says why
        plain = (_EDITS[method], self.engine.places.at(path), length)
        if len(head) <= LONGEST_HEAD:
            self.heads.keep(head, plain)
        return plain

    def _write(self, connection: Connection, place: Place, edit: Edit, body: bytes) -> None:
        engine = self.engine
        batch = engine.write(place, decode(body, False, self.limits.max_depth), edit, edit)
        connection.waiting = True
        if batch is not None and engine.policy == "durable":
            batch.answers.append((connection, written_answer(engine.rev, engine.chain, engine.micros)))
            return
        outcome = Outcome(engine.rev, engine.chain, engine.micros, batch is not None)
        settle = partial(_settle, connection, plain_outcome_reply(outcome))
        if not engine.settle_when(None, outcome.rev, settle):
            settle(None)

    def _refuse(self, connection: Connection, problem: Problem) -> None:
        """Answer with a problem; one that shows state waits for that state to be acknowledged."""
        reply = problem_reply(problem)
        connection.waiting = True
        shows = problem.shows_state and problem.code != "not_found"
        if not shows or not self.engine.settle_when(None, self.engine.rev, partial(_settle, connection, reply)):
            _settle(connection, reply, None)


def _settle(connection: Connection, reply: Reply, error: Exception | None) -> None:
    if error is not None:
        unknown = Problem("unavailable", "whether the change was stored is not known")
        reply = problem_reply(error if isinstance(error, Problem) else unknown)
    connection.settled(render(reply.status, reply.headers, reply.body))
