"""What each command does with a client. `__main__` runs them, and tells what they raise."""

import asyncio
import contextlib
import os
import stat
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from kanta_client import Change, KantaClient, State
from kanta_client.options import Options

from kantactl.output import Output, complain
from kantactl.refusals import UsageError
from kantad.values.content import MISSING, decode_json
from kantad.values.lines import UNKNOWN


async def get(db: KantaClient, args: Namespace, out: Output) -> None:
    """Print a value."""
    read = await db.read(args.path, rev=position(args.rev), at=args.at)
    if args.raw and isinstance(read.value, str):
        out.text(read.value)
    else:
        out.value(msgspec.to_builtins(read) if args.meta else read.value)


async def set_(db: KantaClient, args: Namespace, out: Output) -> None:
    """Set a value."""
    value = args.value if args.string else given(args.value)
    out.value(written(await db.set(args.path, value, **options(args))))


async def patch(db: KantaClient, args: Namespace, out: Output) -> None:
    """Apply a patch."""
    if args.merge and (args.if_etag is not None or args.if_absent or args.if_exists):
        raise UsageError("--merge takes no --if-etag, --if-absent or --if-exists (--base it does)")
    out.value(written(await db.patch(args.path, given(args.value), merge=args.merge, **options(args))))


async def delete(db: KantaClient, args: Namespace, out: Output) -> None:
    """Remove a value."""
    if args.if_absent:
        raise UsageError("delete takes no --if-absent: where nothing is there is nothing to remove")
    out.value(written(await db.delete(args.path, **options(args))))


async def revert(db: KantaClient, args: Namespace, out: Output) -> None:
    """Bring a value back."""
    to = position(args.rev)
    assert to is not None
    out.value(written(await db.revert(args.path, to, **options(args))))


async def keys(db: KantaClient, args: Namespace, out: Output) -> None:
    """Print keys."""
    found = await db.keys(args.path)
    if not args.raw:
        out.value(found)
        return
    for key in found:
        out.text(key)


async def history(db: KantaClient, args: Namespace, out: Output) -> None:
    """Print the changes of the past."""
    changes = db.history(
        args.path,
        since=position(args.since),
        until=position(args.until),
        action=args.action,
        user=args.user,
        limit=args.limit,
        newest_first=args.newest_first,
    )
    async for change in changes:
        out.change(change)


async def watch(db: KantaClient, args: Namespace, out: Output) -> None:
    """Print changes as they happen."""
    await db.ping()  # a server that is not there is said so, and not waited for without end
    feed = db.subscribe(args.path, since=position(args.since), value=args.value, action=args.action, user=args.user)
    old: Any = UNKNOWN
    async with feed:
        with _until_unread(out):
            async for change in _first(feed, args.limit):
                out.change(change, old, event=True, whole=args.value)
                old = MISSING if change.deleted else change.value


async def _first(changes: AsyncIterator[Change], limit: int | None) -> AsyncIterator[Change]:
    """The first so many changes, and what comes before and between them."""
    while limit is None or limit > 0:
        change = await anext(changes)
        yield change
        if limit is not None and change.kind == "change":
            limit -= 1


@contextlib.contextmanager
def _until_unread(out: Output) -> Any:
    """Cancelled when nobody reads the pipe any more that is written to, even if there is nothing to write."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    descriptor = -1
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISFIFO(os.fstat(out.out.fileno()).st_mode):
            descriptor = out.out.fileno()
            loop.add_reader(descriptor, task.cancel)
    try:
        yield
    finally:
        if descriptor >= 0:
            loop.remove_reader(descriptor)


async def status(db: KantaClient, args: Namespace, out: Output) -> None:
    """Print the server's status."""
    out.value(await db.status())


async def snapshot(db: KantaClient, args: Namespace, out: Output) -> None:
    """Have a snapshot written."""
    out.value(await db.snapshot())


async def backup(db: KantaClient, args: Namespace, out: Output) -> None:
    """Write a copy of the database to a file."""
    try:
        made = await db.backup(args.file, overwrite=args.force, timeout=args.timeout)
    except FileExistsError:
        raise UsageError(f"{args.file} is there already (--force replaces it)") from None
    out.value({"file": args.file, **msgspec.to_builtins(made)})


COMMANDS: Final[dict[str, Callable[[KantaClient, Namespace, Output], Awaitable[None]]]] = {
    "get": get,
    "set": set_,
    "patch": patch,
    "delete": delete,
    "keys": keys,
    "watch": watch,
    "history": history,
    "status": status,
    "snapshot": snapshot,
    "backup": backup,
    "revert": revert,
}


# -- from the command line to the client


def position(text: str | None) -> int | str | None:
    """A revision as a number; cursors and times as they are."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


def given(text: str) -> Any:
    """The value of an argument; raises `UsageError` and OSError."""
    if text == "-":
        data = sys.stdin.buffer.read()
    elif text.startswith("@"):
        with open(text[1:], "rb") as file:
            data = file.read()
    else:
        data = text.encode("utf-8", "surrogateescape")
    try:
        return decode_json(data)
    except ValueError as error:
        raise UsageError(f"the value is no JSON: {error} (a string is written '\"so\"')") from None


def options(args: Namespace) -> Options:
    """The options of a write."""
    found: Options = {}
    for name in ("action", "user", "key", "ack"):
        if (value := getattr(args, name)) is not None:
            found[name] = value
    if (base := position(args.base)) is not None:
        found["base"] = base
    if args.if_etag is not None:
        found["etag"] = args.if_etag
    if args.if_absent or args.if_exists:
        found["exists"] = args.if_exists
    return found


def written(answer: Any) -> dict[str, Any]:
    """What is printed of a write's answer."""
    members = msgspec.to_builtins(answer)
    return {name: value for name, value in members.items() if value is not None and (name != "replayed" or value)}


class Telling:
    """Tells on stderr, for who watches, when what is shown is not the present any more, and when it is again."""

    def __init__(self) -> None:
        self.stale = False

    def __call__(self, state: State) -> None:
        """The connection's state is another one."""
        if state == "stale" and not self.stale:
            complain("stale: the server is not heard of, what is shown may be old")
        elif state == "connected" and self.stale:
            complain("connected again")
        self.stale = state == "stale" or (self.stale and state != "connected")
