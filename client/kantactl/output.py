"""What is printed: JSON in a line for programs, indented and in colour for people, changes as lines or as records.

On a terminal nothing is printed that it would act on: control and bidirectional characters in keys and
values are written as JSON escapes, so what is shown is still JSON.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO

import msgspec
from kanta_client.records import Change

from kantad.values.content import MISSING
from kantad.values.lines import (
    UNKNOWN,
    Edit,
    announced,
    became,
    edits,
    header,
    painted,
    plain,
    safe,
    told,
    wants_colour,
)

COLOURS: Final = {"key": "34", "string": "32", "number": "36", "word": "35"}  # SGR parameters (ECMA-48)
_TOKEN: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*"(?=: ?))|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d[\d.eE+-]*)|(?P<word>[a-z]+)'
)


class Output:
    """Standard output, as it is: a terminal or not, in colour or not."""

    def __init__(self, out: TextIO, colour: str = "auto", plain_json: bool = False) -> None:
        self.out = out
        self.terminal = out.isatty()
        self.people = self.terminal and not plain_json
        self.colour = colour == "always" or (colour == "auto" and self.people and wants_colour(True, os.environ))

    def value(self, value: Any) -> None:
        """Print a value."""
        text = msgspec.json.encode(value).decode()
        if self.people:
            text = msgspec.json.format(text, indent=2)
        if self.terminal:
            text = "\n".join(map(safe, text.split("\n")))
        self.line(_TOKEN.sub(_coloured, text) if self.colour else text)

    def text(self, text: str) -> None:
        """Print a string as it is, or on a terminal what is safe of it."""
        self.line("\n".join(map(safe, text.split("\n"))) if self.terminal else text)

    def line(self, text: str) -> None:
        """Print a line at once: who reads a pipe wants it now."""
        self.out.write(f"{text}\n")
        self.out.flush()

    def change(self, change: Change, old: Any = UNKNOWN, *, event: bool = False, whole: bool = False) -> None:
        """Print a change: with `whole` its value is known, and `old` the one before (may be MISSING, or UNKNOWN)."""
        if not self.people:
            self.value(record(change, event, whole))
            return
        head = header(change.rev, change.ts, change.action or change.kind, change.user)
        if change.kind != "change":
            found = [Edit((), MISSING, change.value)] if not change.deleted else []
        else:
            found = list(_edits(change, old) if whole and old is not UNKNOWN else _announced(change))
        width = shutil.get_terminal_size().columns
        for line in told(head, found, width):
            self.line(painted(line) if self.colour else plain(line))


def _edits(change: Change, old: Any) -> Iterable[Edit]:
    return became(old, MISSING) if change.deleted else edits(old, change.patch)


def _announced(change: Change) -> Iterable[Edit]:
    return [Edit((), UNKNOWN, MISSING)] if change.deleted else announced(change.patch)


def record(change: Change, event: bool, whole: bool) -> dict[str, Any]:
    """A change with the names that it has in the API."""
    found = {
        "event": change.kind if event else None,
        "rev": change.rev,
        "cursor": change.cursor,
        "ts": change.ts or None,
        "a": change.action or None,
        "v": change.schema or None,
        "u": change.user,
        "m": change.m,
        "id": change.key,
        "deleted": change.deleted or None,
    }
    members = {name: value for name, value in found.items() if value is not None}
    if change.kind == "change" and not change.deleted:
        members["diff"] = change.patch
    if whole and not change.deleted:
        members["value"] = change.value
    return members


def _coloured(token: "re.Match[str]") -> str:
    return f"\x1b[{COLOURS[str(token.lastgroup)]}m{token[0]}\x1b[0m"


def complain(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"kantactl: {safe(text)}\n")
    sys.stderr.flush()
