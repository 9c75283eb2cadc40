"""The command line: commands, options and what they mean, as argparse knows them. `completing` reads it, too."""

import argparse
import os
from typing import Any, Final, TypeVar

from kantad import __version__

Action = TypeVar("Action", bound=argparse.Action)

URL: Final = "http://127.0.0.1:8700"

ABOUT: Final = """\
A kantad server from the command line.

PATH is a JSON Pointer: /users/alice, ~1 for a slash in a key and ~0 for a tilde; '' (or nothing) is the root.
VALUE and PATCH are JSON: given as they are, or @FILE, or - for standard input."""

STATUSES: Final = """\
environment:
  KANTA_URL    the server, where --url is not given
  KANTA_TOKEN  the access token; never a flag, because others would see it (--token-file reads it from a file)
  NO_COLOR     no colours

exit status:
  0  done
  1  there is no value at the path
  2  the command line is wrong: an option, a path, a value that is no JSON, a file that cannot be read or written
  3  refused: the patch does not fit, the value is not allowed, the disk is full, the server is read-only, ...
  4  somebody was faster: what --base, --if-etag, --if-absent or --if-exists asks for is not so (any more)
  5  no answer in time; nothing was done
  6  no answer in time to a write that was sent: it may be done or not (stderr says with which --key to repeat it)
  7  the token is missing, wrong, or not enough
  8  the revision or the history that was asked for is not there
  70 a bug
  130 interrupted"""

WRITE: Final = ("set", "patch", "delete", "revert")


class Parser(argparse.ArgumentParser):
    """A parser that tells its arguments, and the parsers of its commands."""

    def __init__(self, **given: Any) -> None:
        self.arguments: list[argparse.Action] = []
        self.commands: dict[str, Parser] = {}
        super().__init__(allow_abbrev=False, **given)

    def _add_action(self, action: Action) -> Action:
        self.arguments.append(action)
        return super()._add_action(action)


def parser() -> Parser:
    """The command line. The options that all commands have may stand before the command or behind it."""
    top = Parser(
        prog="kantactl", description=ABOUT, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _common(top, first=True)
    top.add_argument("--version", action="version", version=f"kantactl {__version__}", help="tell the version, and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (about, add) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        top.commands[name] = command
        add(command)
        if name in WRITE:
            _write(command)
        if name != "completion":
            _common(command, first=False)
    return top


def _common(to: argparse.ArgumentParser, *, first: bool) -> None:
    def default(value: object) -> object:
        return value if first else argparse.SUPPRESS

    to.add_argument("--url", default=default(os.environ.get("KANTA_URL") or URL), help=f"the server (default {URL})")
    to.add_argument("--token-file", metavar="FILE", default=default(None), help="a file that holds the access token")
    to.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=default(30.0), help="how long is tried (30)")
    to.add_argument("--json", action="store_true", default=default(False), help="JSON in a line, on a terminal, too")
    to.add_argument("--color", choices=("auto", "always", "never"), default=default("auto"), help="auto: on a terminal")
    to.add_argument("--json-errors", action="store_true", default=default(False), help="errors as JSON, on stderr")


def _path(to: argparse.ArgumentParser, *, optional: bool = False) -> None:
    to.add_argument("path", metavar="PATH", nargs="?" if optional else None, default="", help="a JSON Pointer")


def _write(to: argparse.ArgumentParser) -> None:
    to.add_argument("--action", help="what the change is recorded as")
    to.add_argument("--user", help="who it is recorded for")
    to.add_argument("--base", metavar="WHEN", help="refuse if what it touches has changed since (revision or cursor)")
    to.add_argument("--key", help="an idempotency key: the same command with the same key is done once")
    to.add_argument("--ack", choices=("durable", "written", "applied"), help="when it is answered")
    only = to.add_mutually_exclusive_group()
    only.add_argument("--if-etag", metavar="ETAG", help="only if the value is still this one (get --meta tells)")
    only.add_argument("--if-absent", action="store_true", help="only if there is no value")
    only.add_argument("--if-exists", action="store_true", help="only if there is a value")


def _past(to: argparse.ArgumentParser) -> None:
    when = to.add_mutually_exclusive_group()
    when.add_argument("--rev", metavar="REV", help="as of this revision or cursor")
    when.add_argument("--at", metavar="TIME", help="as of this moment (RFC 3339)")


def _get(to: argparse.ArgumentParser) -> None:
    _path(to, optional=True)
    _past(to)
    form = to.add_mutually_exclusive_group()
    form.add_argument("--raw", "-r", action="store_true", help="a string as text, without quotes")
    form.add_argument("--meta", action="store_true", help="with etag, revision and cursor")


def _set(to: argparse.ArgumentParser) -> None:
    _path(to)
    to.add_argument("value", metavar="VALUE", help="JSON, @FILE or -")
    to.add_argument("--string", action="store_true", help="VALUE is a string as it stands, no JSON and no file")


def _patch(to: argparse.ArgumentParser) -> None:
    _path(to)
    to.add_argument("value", metavar="PATCH", help="JSON, @FILE or -")
    to.add_argument("--merge", action="store_true", help="a merge patch (RFC 7396), not the compact syntax")


def _keys(to: argparse.ArgumentParser) -> None:
    _path(to, optional=True)
    to.add_argument("--raw", "-r", action="store_true", help="a key a line, without quotes")


def _filters(to: argparse.ArgumentParser) -> None:
    _path(to, optional=True)
    to.add_argument("--action", metavar="GLOB", help="only such actions")
    to.add_argument("--user", help="only changes by this user")
    to.add_argument("--limit", metavar="N", type=_count, help="so many changes at most")
    to.add_argument("--since", metavar="WHEN", help="the changes after this revision, cursor or time (RFC 3339)")


def _watch(to: argparse.ArgumentParser) -> None:
    _filters(to)
    to.add_argument(
        "--value", action="store_true", help="with the value: first the present one, then after each change"
    )


def _history(to: argparse.ArgumentParser) -> None:
    _filters(to)
    to.add_argument("--until", metavar="WHEN", help="the changes up to this revision, cursor or time")
    to.add_argument("--newest-first", action="store_true", help="backwards")


def _revert(to: argparse.ArgumentParser) -> None:
    _path(to)
    to.add_argument("--rev", metavar="REV", required=True, help="the revision or cursor to bring it back to")


def _backup(to: argparse.ArgumentParser) -> None:
    to.add_argument("file", metavar="FILE", help="where to")
    to.add_argument("--force", action="store_true", help="replace a file that is there")


def _completion(to: argparse.ArgumentParser) -> None:
    to.add_argument("shell", choices=("bash", "zsh", "fish"))


def _nothing(to: argparse.ArgumentParser) -> None:
    """A command without arguments of its own."""


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"no number of changes: {text}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # nor is it NaN, which no time is later than
        raise argparse.ArgumentTypeError(f"no number of seconds: {text}")
    return seconds


COMMANDS: Final = {
    "get": ("print the value at a path", _get),
    "set": ("set the value at a path", _set),
    "patch": ("apply a patch to the value at a path", _patch),
    "delete": ("remove what is at a path", _path),
    "keys": ("print the keys of the object at a path", _keys),
    "watch": ("print the changes at a path as they happen, until interrupted", _watch),
    "history": ("print the changes at a path that the log holds", _history),
    "status": ("print what the server says of itself", _nothing),
    "snapshot": ("have a snapshot written now", _nothing),
    "backup": ("write a copy of the database to a file", _backup),
    "revert": ("bring the value at a path back to what it was", _revert),
    "completion": ("print a shell's completion script", _completion),
}
