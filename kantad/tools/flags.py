"""Flags that several offline commands have, for the same thing."""

import argparse

from kantad.store.formats import format_name


def add_format(parser: argparse.ArgumentParser, flag: str = "--format") -> None:
    """The flag for the format of a file that is read; only one's own needs to be told."""
    parser.add_argument(flag, metavar="MODULE:CLASS", help="the format of the file, where it is one's own")


def named_format(text: str) -> str:
    """A format's name, as an argument; raises as argparse wants it."""
    try:
        return format_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
