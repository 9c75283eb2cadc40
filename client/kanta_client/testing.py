"""A real server for other people's tests: in this process, on 127.0.0.1 and a free port, over a file of its own.

`server` is for asynchronous tests, `serve` for all others; `kanta_pytest` has fixtures made of them.
Nothing else of this package imports this module: it needs all floors of kantad, the client needs only
the lowest. Each server is apart from the others, and there may be several at once.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from kanta_client.background import background
from kanta_client.options import Ack
from kanta_client.outgoing import builtins
from kantad.engine.opening import open_engine
from kantad.engine.proposal import Proposal
from kantad.values.content import MISSING
from kantad.web.access import Access
from kantad.web.app import App
from kantad.web.binding import bind
from kantad.web.body import Limits
from kantad.web.server import Server


@asynccontextmanager
async def server(
    *, path: str | os.PathLike[str] | None = None, data: Any = MISSING, port: int = 0, ack: Ack = "durable"
) -> AsyncIterator[str]:
    """`async with server() as url:` serves in the running event loop, asyncio's or uvloop's, until the end.

    `path` is the database's file, which is kept; without it there is a temporary one. `data`, an object, is set as the
    root. With a `path` and a `port`, what follows one server under the same URL is the same server started again.
    Raises OSError, and what kantad raises for a file it cannot open.
    """
    with TemporaryDirectory(prefix="kanta-", ignore_cleanup_errors=True) as folder:
        engine = open_engine(os.path.join(folder, "data.kantadb") if path is None else os.fspath(path), ack=ack)
        listening = Server(App(engine, Access(), Limits()))
        try:
            bound = await listening.listen(bind("127.0.0.1", port))
            if data is not MISSING:
                engine.transact(Proposal((), "put", builtins(data), "data"))
                await engine.settled("durable", engine.rev)
            yield f"http://127.0.0.1:{bound}"
        finally:
            engine.retire()
            await listening.stop()
            await engine.stop()


@contextmanager
def serve(
    *, path: str | os.PathLike[str] | None = None, data: Any = MISSING, port: int = 0, ack: Ack = "durable"
) -> Iterator[str]:
    """`with serve() as url:` is `server` in a thread: for tests that are not asynchronous, or of any framework."""
    there, serving = background(), server(path=path, data=data, port=port, ack=ack)
    url = there.run(serving.__aenter__())
    try:
        yield url
    finally:
        there.run(serving.__aexit__(None, None, None))
