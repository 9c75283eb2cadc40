"""The formats by name: how a file is read and a new one begins.

A name is `json`, `msgpack`, or `module:Class` for a format of one's own, which is the user's code: it is
imported and tried out once. That a file is in one of these shows in its bytes, in which one does not, so the name
has to be given. Called by the log and by all who read a file without it.
"""

import re
from functools import lru_cache
from typing import Any

from kantad.store.imported import CodeError, attribute
from kantad.values.codec import Codec, JsonCodec, MsgpackCodec
from kantad.values.errors import told
from kantad.values.framing import OWN, BinaryFrames, Framing, JsonLines, detect, is_binary, shows
from kantad.values.record import CHAIN_START
from kantad.values.serializer import OwnCodec, Unusable, own_codec


class NotOurs(Exception):
    """The path does not name a kantadb that can be served (exit status 2 or 65 is the caller's choice)."""


_NAME = re.compile(r"json|msgpack|[\w.]+:[\w.]+")


def format_name(text: str) -> str:
    """The name of a format, whether or not there is such code; raises ValueError, which says what it may be."""
    if not _NAME.fullmatch(text):
        raise ValueError("json, msgpack or module:Class")
    return text


def is_own(name: str | None) -> bool:
    """Whether this is the name of a format of one's own."""
    return name is not None and ":" in name


@lru_cache(maxsize=16)
def own(name: str) -> OwnCodec:
    """The codec that `module:Class` names; raises `CodeError`."""
    if name.startswith("__main__:"):
        raise CodeError(f"{name}: no other process finds what is in __main__; the class belongs into a module")
    made = attribute(name, "Class")
    if not isinstance(made, type):
        raise CodeError(f"{name} is no class")
    try:
        return own_codec(name, made())
    except Unusable as error:
        raise CodeError(f"{name} cannot be the format of a database: {error}") from error
    except (Exception, SystemExit) as error:
        raise CodeError(f"{name}: {told(error)}") from error


def format_of(buffer: Any, flag: str | None, called: str = "--format") -> tuple[Framing, Codec]:
    """How a file that begins with these bytes is read; an empty one as the flag says (default JSON).

    What the first record ends with is looked at, too, if it is there. Raises `NotOurs` where the bytes are no
    kantadb's or contradict the flag, which is `called` so, and `CodeError`.
    """
    head = bytes(buffer[:16])
    torn = not head.strip(b"\0")  # zeros from the start on: the first write to a new JSON file was torn
    found = None if torn else detect(buffer)
    if flag is not None and is_own(flag):
        if shows(buffer, found):
            raise NotOurs(f"it is a {found} file; {called} {flag} contradicts it")
        return _own_of(head, own(flag))
    if found is None:
        if not torn:
            raise NotOurs(
                "it is no kantadb: its first bytes are neither JSON lines nor MessagePack frames "
                f"(a file in a format of one's own needs {called} module:Class)"
            )
        found = "json" if head else flag or "json"
    if found == OWN and flag is None:
        raise NotOurs(f"it is in a format of one's own: {called} module:Class says whose")
    if flag is not None and flag != found:
        what = "in a format of one's own" if found == OWN else f"a {found} file"
        raise NotOurs(f"it is {what}; {called} {flag} contradicts it")
    if found == "json":
        return JsonLines(), JsonCodec()
    return BinaryFrames(head[:4]), MsgpackCodec()


def _own_of(head: bytes, codec: OwnCodec) -> tuple[Framing, Codec]:
    """The same where a format of one's own was asked for."""
    binary = is_binary(head)
    if head and binary == codec.lines:
        what, wanted = ("frames", "lines") if binary else ("lines", "frames")
        raise NotOurs(f"it is no file of {wanted}, as {codec.name} has it, but of {what}")
    return (BinaryFrames(head[:4]) if binary else JsonLines(own=True)), codec


def new_file(format: str | None, seed: bytes) -> tuple[Framing, Codec]:
    """How a new file of a format is written; raises `CodeError`."""
    if format is None or format == "json":
        return JsonLines(), JsonCodec()
    if format == "msgpack":
        return BinaryFrames(seed), MsgpackCodec()
    codec = own(format)
    return JsonLines(own=True) if codec.lines else BinaryFrames(seed), codec


def first_bytes(flag: str | None, micros: int, seed: bytes) -> bytes:
    """The content of a new file: nothing in JSON; else the seed, if there is one, and the first record."""
    framing, codec = new_file(flag, seed)
    return seed[: framing.header] + first_frame(framing, codec, micros)


def first_frame(framing: Framing, codec: Codec, micros: int) -> bytes:
    """What a file with no records holds behind its header: nothing in JSON; else a snapshot of the
    empty root, without which nothing could tell the format."""
    if codec.name == "json":
        return b""
    return framing.frame(codec.snapshot(micros, {}, 0, CHAIN_START), framing.header, True)
