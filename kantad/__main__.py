"""The command: argv, signals, exit statuses.

0 after SIGTERM or SIGINT, 2 usage or configuration, 65 the file is damaged or no kantadb, 74 the
disk failed, 75 another process has the file.
"""

import asyncio
import contextlib
import errno
import gc
import importlib
import io
import logging
import os
import signal
import socket
import ssl
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import partial
from typing import Any, Final

import uvloop

from kantad import __version__
from kantad.background import verify_older_part
from kantad.changes import ChangeLog
from kantad.changes import set_up as set_up_changes
from kantad.config import COMMANDS, Config, UsageError, environment, load, unknown
from kantad.engine.engine import Engine
from kantad.engine.memory import return_large_blocks
from kantad.engine.opening import open_engine
from kantad.logs import escaped, open_closed_streams, set_up
from kantad.store.imported import CodeError, resolver
from kantad.store.log import Broken, Locked, NoRoom, NotOurs
from kantad.store.migrations import Failed, Migrations
from kantad.store.user_code import migrations_of, schema_of
from kantad.values.errors import Damaged
from kantad.values.names import Names
from kantad.values.pointer import bound as path_bound
from kantad.values.schema import Schema
from kantad.web.access import LOOPBACK, Access
from kantad.web.app import App
from kantad.web.binding import bind, bind_unix, release
from kantad.web.connection import Patience
from kantad.web.server import Server
from kantad.web.writing import Limits

logger = logging.getLogger("kantad")

OK, USAGE, DAMAGED, BROKEN, LOCKED = 0, 2, 65, 74, 75

LAST_WORDS: Final = 0.5  # seconds that a server whose disk failed takes to end its answers

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
DISK_FAILED: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main() -> None:
    """The console script."""
    open_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit status."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if arguments and arguments[0] in COMMANDS:
        return offline(arguments[0], arguments[1:])
    _end_at_signals()  # until it serves there is nothing to finish
    try:
        if arguments and not arguments[0].startswith("-"):
            raise UsageError(unknown(arguments[0]))
        config = load(arguments, environment())
    except UsageError as error:
        print(f"kantad: {escaped(str(error))}\nkantad --help tells the flags and the commands", file=sys.stderr)
        return USAGE
    set_up(config.get("log-level"), config.get("log-format"))
    for name in config.unknown:
        logger.warning("%s is set, but there is no such setting", name)
    os.umask(0o077)
    return_large_blocks()
    return serve(config)


def _end_at_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(OK))


def offline(name: str, arguments: list[str]) -> int:
    """An offline command on a file."""
    tool = importlib.import_module(f"kantad.tools.{name}")
    parser = ArgumentParser(
        prog=f"kantad {name}",
        description=tool.__doc__,
        allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )
    tool.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "follow", False):  # told to end, it has; a shell's background ignores SIGINT otherwise
        _end_at_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name on a terminal that is not UTF-8
    try:
        return int(tool.run(parsed, sys.stdout, sys.stderr))
    except CodeError as error:
        print(f"kantad {name}: {escaped(str(error))}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return OK


def serve(config: Config) -> int:
    """Serve until a signal; returns the exit status."""
    folder = os.path.dirname(config.get("db")) or "."
    if not os.path.isdir(folder):
        return _failed(USAGE, f"{config.get('db')}: there is no folder {folder}")
    try:
        code = _code(config)
    except UsageError as error:
        return _failed(USAGE, str(error))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_serve(config, code))
        except Failed as error:
            return _failed(USAGE, f"{config.get('db')}: {error}. Nothing was written")
        except (UsageError, CodeError) as error:
            return _failed(USAGE, str(error))
        except Locked as error:
            return _failed(LOCKED, str(error))
        except Damaged as error:
            return _failed(DAMAGED, f"{config.get('db')} is damaged: {error}. {remedy(config.get('db'))}")
        except NotOurs as error:
            return _failed(DAMAGED, f"{config.get('db')}: {error}")
        except (Broken, NoRoom) as error:
            return _failed(BROKEN, str(error))
        except OSError as error:
            status = BROKEN if error.errno in DISK_FAILED else USAGE
            return _failed(status, f"{error.filename or config.get('db')}: {error.strerror}")


def remedy(path: str) -> str:
    """What to do about a damaged file."""
    return (
        f"Nothing was changed. `kantad check {path}` tells more; "
        f"`kantad repair {path}` cuts at the damage, `kantad repair --adopt {path}` keeps what stands behind it "
        "as far as it fits; both keep a copy"
    )


def _failed(status: int, message: str) -> int:
    logger.critical("%s", message)
    return status


Code = tuple[Schema | None, Migrations | None]


def _code(config: Config) -> Code:
    """The user's own code, imported; raises `UsageError`."""
    name = ""
    try:
        name = "schema"
        schema = schema_of(config.get(name)) if config.get(name) else None
        name = "migrations"
        return schema, migrations_of(config.get(name)) if config.get(name) else None
    except CodeError as error:
        raise UsageError(f"--{name} {config.get(name)}: {error}") from None


def _open(config: Config, code: Code) -> tuple[Engine, list[socket.socket]]:
    """The engine, and the sockets to listen on.

    A file that is there is locked first, so that a second start says so; none is made where no address can be had.
    """
    bound = [] if os.path.exists(config.get("db")) else _bind(config)
    try:
        engine = open_engine(
            config.get("db"),
            format=config.get("format"),
            ack=config.get("ack"),
            flush_interval=config.get("flush-interval"),
            max_depth=config.get("max-depth"),
            schema=code[0],
            migrations=code[1],
            readonly=config.get("readonly"),
            own_process=True,
        )
    except BaseException:
        release(bound)
        raise
    return engine, bound


async def _serve(config: Config, code: Code) -> int:
    context, names = _tls(config), _names(config)
    engine, bound = _open(config, code)
    stop = _until_signal(engine)
    path_bound.segments = config.get("max-segments")
    server = Server(
        make_app(engine, config),
        fast_path=not config.get("no-fast-path"),
        most_connections=config.get("max-connections"),
        patience=Patience(head=config.get("header-timeout"), idle=config.get("idle-timeout")),
    )
    try:
        address = await _listen(server, bound or _bind(config), context, config)
    except UsageError:
        await engine.stop()
        raise
    name = os.path.basename(config.get("db")).replace("\n", "\\n")  # the ready line is one line
    print(
        f"kantad {__version__} ready on {address} ({escaped(name)}, rev {engine.visible.rev})",
        file=sys.stderr,
        flush=True,
    )
    if config.get("retain") is not None:
        engine.compaction.keep_to(config.get("retain"))
    changes = _log_changes(engine, config, names)
    verifying = asyncio.get_running_loop().create_task(verify_older_part(engine))
    ends: set[asyncio.Future[Any]] = {stop, engine.broken}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    verifying.cancel()
    await asyncio.wait({verifying})
    if engine.broken.done():
        with contextlib.suppress(
            TimeoutError
        ):  # the answers that say so are written; nothing else is worth waiting for
            await asyncio.wait_for(server.stop(), LAST_WORDS)
        return BROKEN
    engine.retire()
    await server.stop()
    await engine.stop()
    if changes is not None:
        changes.close()
    return BROKEN if engine.broken.done() else OK


def _names(config: Config) -> Names | None:
    """What gives identifiers their names, if anything does; raises `CodeError`."""
    name = config.get("resolver")
    return Names(resolver(name), partial(logger.warning, "--resolver %s failed: %s", name)) if name else None


def _log_changes(engine: Engine, config: Config, names: Names | None) -> ChangeLog | None:
    """The log of changes, if it is wanted."""
    if not config.get("log-changes"):
        return None
    set_up_changes(config.get("log-format"), names)
    log = ChangeLog(engine.log.codec)
    engine.watcher = log.published
    return log


def _until_signal(engine: Engine) -> "asyncio.Future[None]":
    """A future that the first signal settles; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if stop.done():
            os._exit(OK if engine.promised <= engine.written.rev else BROKEN)  # whether an acknowledged write is lost
        stop.set_result(None)

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return stop


def make_app(engine: Engine, config: Config) -> App:
    """The application of these settings."""
    access = Access(
        scheme="https" if config.get("tls-cert") else "http",
        hosts=LOOPBACK | {host.lower() for host in (*config.get("allowed-host"), config.get("host"))},
        origins=frozenset(config.get("cors-origin")),
    )
    limits = Limits(
        max_body=config.get("max-body"),
        max_depth=config.get("max-depth"),
        body_seconds=config.get("body-timeout"),
        max_target=config.get("max-target"),
        max_header=config.get("max-header"),
        max_subscriptions=config.get("max-subscriptions"),
        max_in_flight=config.get("max-in-flight"),
    )
    return App(engine, access, limits)


def _bind(config: Config) -> list[socket.socket]:
    """The sockets, bound; raises `UsageError`."""
    try:
        return [bind_unix(config.get("unix"))] if config.get("unix") else bind(config.get("host"), config.get("port"))
    except (OSError, UnicodeError) as error:
        raise _unheard(config, error) from None


def _unheard(config: Config, error: OSError | UnicodeError) -> UsageError:
    """What to say where it cannot listen."""
    number = error.errno if isinstance(error, OSError) else None
    where, flag = config.get("unix"), "--unix"
    if not where:
        where = f"{config.get('host')} port {config.get('port')}"
        flag = "--port" if number in (errno.EADDRINUSE, errno.EACCES) else "--host"
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UsageError(f"cannot listen on {where}: {why} ({flag} chooses another)")


def _tls(config: Config) -> ssl.SSLContext | None:
    """What TLS is spoken with, if it is; raises `UsageError`."""
    if not config.get("tls-cert"):
        return None
    for name in ("tls-cert", "tls-key"):
        try:
            open(config.get(name), "rb").close()  # what the library raises names no file
        except OSError as error:
            raise UsageError(f"--{name} {config.get(name)}: {error.strerror}") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.get("tls-cert"), config.get("tls-key"))
    except (OSError, ssl.SSLError) as error:
        files = f"--tls-cert {config.get('tls-cert')}, --tls-key {config.get('tls-key')}"
        raise UsageError(f"{files}: {error}") from None
    return context


async def _listen(server: Server, bound: list[socket.socket], context: ssl.SSLContext | None, config: Config) -> str:
    """Start listening; returns what the ready line names."""
    try:
        if config.get("unix"):
            await server.listen_unix(bound[0])
            return f"unix:{config.get('unix')}"
        port = await server.listen(bound, context)
    except OSError as error:  # somebody else began to, meanwhile
        release(bound)
        raise _unheard(config, error) from None
    host = config.get("host")
    return f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


if __name__ == "__main__":
    gc.disable()
    main()
