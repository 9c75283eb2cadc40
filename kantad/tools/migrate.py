"""Bring a file to the code's version and type, as a start of the server would, and tell what that changes.

With `--dry-run`, only tell. That reads only, needs no lock, and may be used on a live file.

Exit status 0: done, or nothing to do; 2: usage, the code cannot be used, or a step could not be done (which
one is said; nothing was written); 65: damaged, or no kantadb; 74: the disk failed; 75: locked.
"""

import argparse
import os
import shutil
from typing import Any, TextIO

from kantad.logs import escaped
from kantad.store.disk import Disk, RealDisk
from kantad.store.imported import CodeError
from kantad.store.log import Broken, NoRoom, open_log, reading
from kantad.store.migrations import Done, Failed, Migrations, Upgrade, upgrade
from kantad.store.recovery import recover
from kantad.store.user_code import migrations_of, schema_of
from kantad.tools.flags import add_format
from kantad.tools.refusals import BROKEN, REFUSALS, USAGE, refused
from kantad.values.lines import Line, edits, painted, plain, safe, told
from kantad.values.moment import now_micros
from kantad.values.schema import Schema

OK = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `kantad migrate`."""
    parser.add_argument("file", metavar="FILE", help="the database file")
    add_format(parser)
    parser.add_argument("--migrations", metavar="MODULE", help="the module with migrate_v1, migrate_v2, and so on")
    parser.add_argument("--schema", metavar="MODULE:TYPE", help="the msgspec.Struct that the state is brought to")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")


def run(args: argparse.Namespace, out: TextIO, err: TextIO, disk: Disk | None = None) -> int:
    """Migrate a file and say what was done; returns the exit status."""
    name = escaped(args.file)
    if args.migrations is None and args.schema is None:
        print("kantad migrate: give --migrations, --schema, or both", file=err)
        return USAGE
    try:
        steps = None if args.migrations is None else migrations_of(args.migrations)
        schema = None if args.schema is None else schema_of(args.schema)
        if args.dry_run:
            return _tell(args, name, steps, schema, out)
        return _migrate(args, name, steps, schema, disk or RealDisk(), out, err)
    except CodeError as error:
        print(f"kantad migrate: {escaped(str(error))}", file=err)
        return USAGE
    except Failed as error:
        print(f"{name}: {escaped(str(error))}\nNothing was written.", file=err)
        return USAGE
    except (Broken, NoRoom) as error:
        print(f"{name}: {escaped(str(error))}", file=err)
        return BROKEN
    except REFUSALS as error:
        return refused(name, error, err, "\nNothing was written.")


def _tell(args: argparse.Namespace, name: str, steps: Migrations | None, schema: Schema | None, out: TextIO) -> int:
    path, teller = os.path.realpath(args.file), Teller(out)
    with reading(path, args.format) as (buffer, size, framing, codec):
        found = recover(buffer, size, framing, codec)
        teller.rev = found.rev
        version = Upgrade(found, codec, path, now_micros(), schema, steps, teller.tell).version
    teller.sum_up(name, version, "nothing was written")
    return OK


def _migrate(
    args: argparse.Namespace,
    name: str,
    steps: Migrations | None,
    schema: Schema | None,
    disk: Disk,
    out: TextIO,
    err: TextIO,
) -> int:
    path, teller = os.path.realpath(args.file), Teller(out)
    disk.stat(path)  # a file that is not there is none to migrate
    log, found = open_log(path, args.format, disk, now_micros())
    for warning in found.warnings:
        print(f"warning: {escaped(warning)}", file=err)
    teller.rev = found.rev
    upgrade(log, found, now_micros(), schema, steps, teller.tell)
    log.close()
    teller.sum_up(name, found.v, "done")
    return OK


class Teller:
    """Prints each change."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.count, self.rev = out, 0, 0
        self.text = painted if out.isatty() and not os.environ.get("NO_COLOR") else plain
        self.width = shutil.get_terminal_size().columns if out.isatty() else None

    def tell(self, change: Done, before: Any) -> None:
        """See `store.migrations.Watch`."""
        self.count += 1
        self.rev += 1
        head: Line = [("faint", f"r{self.rev}"), ("", " "), ("action", change.action)]
        if change.description:
            head += [("", " "), ("faint", f"({safe(change.description)})")]
        changes = list(edits(before, change.diff))
        for line in told(head, changes, self.width):
            self.out.write(self.text(line) + "\n")

    def sum_up(self, name: str, version: int, what: str) -> None:
        """The last line."""
        what = what if self.count else "nothing to do"
        print(f"{name}: version {version}, {self.count} change(s), {what}", file=self.out)
