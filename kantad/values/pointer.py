"""What a path means: RFC 6901 JSON Pointers, URL paths, and the value there.

A path is a tuple of keys; the root is `()`. Nothing is normalised: `.`, `..` and the empty
string are ordinary keys. Pure; used by every floor and by the client.
"""

from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from kantad.values.content import MISSING
from kantad.values.errors import Problem, pointer_text

Path = tuple[str, ...]

format = pointer_text


class Bound:
    """How long the paths of this process may be; set once, at its start."""

    segments = 128


bound: Final = Bound()


def parse(pointer: str) -> Path:
    """The path that a JSON Pointer names (RFC 6901 section 3).

    Raises `Problem("invalid_path")` for a pointer that does not begin with `/`, for a `~` that
    is neither `~0` nor `~1`, and for too many segments.
    """
    if pointer == "":
        return ()
    if not pointer.startswith("/"):
        raise Problem("invalid_path", "a JSON Pointer is empty or begins with '/'", pointer=pointer)
    segments = pointer[1:].split("/")
    if "~" in pointer:
        segments = [_unescape(segment, pointer) for segment in segments]
    return bounded(tuple(segments))


def _unescape(segment: str, pointer: str) -> str:
    parts = segment.split("~")
    for part in parts[1:]:
        if part[:1] not in ("0", "1"):
            raise Problem("invalid_path", "'~' is written ~0 and '/' ~1 in a JSON Pointer", pointer=pointer)
    return segment.replace("~1", "/").replace("~0", "~")


def parse_url(raw: str) -> Path:
    """The path of a raw URL path below `/v1/data`: each segment percent-decoded as UTF-8.

    `raw` is `""` (the root) or begins with `/`. Raises `Problem("invalid_path")` where a segment
    is not UTF-8 or a `%` is not followed by two hexadecimal digits.
    """
    if raw == "":
        return ()
    segments = raw[1:].split("/")
    if "%" in raw or not raw.isascii():
        segments = [_percent_decoded(segment) for segment in segments]
    return bounded(tuple(segments))


def _percent_decoded(segment: str) -> str:
    try:
        return percent_decoded(segment)
    except ValueError as error:
        raise Problem("invalid_path", f"a path segment is percent-encoded UTF-8: {error}") from None


def percent_decoded(text: str) -> str:
    """Percent-encoded UTF-8 (RFC 3986 section 2.1) decoded, strictly; raises ValueError."""
    for piece in text.split("%")[1:]:
        if len(piece) < 2 or not all(c in "0123456789abcdefABCDEF" for c in piece[:2]):
            raise ValueError("'%' is followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise ValueError("the bytes are not UTF-8") from None


def format_url(path: Path) -> str:
    """The URL path of a path, to follow `/v1/data`."""
    return "".join("/" + quote(segment, safe="") for segment in path)


def bounded(path: Path) -> Path:
    """The path itself; raises `Problem("invalid_path")` beyond the bound of segments."""
    if len(path) > bound.segments:
        raise Problem(
            "invalid_path", f"a path has at most {bound.segments} segments (--max-segments), this one {len(path)}"
        )
    return path


def index(segment: object, length: int) -> int:
    """The position that a segment names in an array of this length, or -1.

    Canonical decimal only (RFC 6901 section 4): ASCII digits, no sign, no leading zero.
    """
    if type(segment) is int:
        return segment if 0 <= segment < length else -1
    if type(segment) is not str or not (segment.isascii() and segment.isdigit()) or len(segment) > 19:
        return -1
    if segment[0] == "0" and segment != "0":
        return -1
    position = int(segment)
    return position if position < length else -1


def key_in(target: dict[Any, Any], segment: str | int) -> Any:
    """The key of this object that the segment names: itself, or a foreign key that shows as it.

    MessagePack files of kanta may hold keys that are not strings; in JSON (and so in a path) an
    integer shows in decimal. A MessagePack patch may name either by an integer. Returns the segment
    where there is no such key.
    """
    if type(segment) is not str:
        return segment if segment in target or str(segment) not in target else str(segment)
    if segment in target or len(segment) > 20 or not segment.isascii() or not segment.removeprefix("-").isdigit():
        return segment
    number = int(segment)
    return number if str(number) == segment and number in target else segment


def respelled(new: Any, old: Any) -> Any:
    """A value that takes the place of another, with the integer keys of that where it spells them as text.

    It is changed in place, but for an object whose keys are spelled otherwise.
    """
    kind = type(new)
    if kind is not type(old):
        return new
    if kind is list:
        for position, (value, before) in enumerate(zip(new, old, strict=False)):
            if type(value) is dict or type(value) is list:
                new[position] = respelled(value, before)
    if kind is not dict:
        return new
    names = {}
    for key, value in new.items():
        name = key
        if key not in old and (name := key_in(old, key)) is not key:
            names[key] = name
        if type(value) is dict or type(value) is list:
            new[key] = respelled(value, old.get(name))
    return {names.get(key, key): value for key, value in new.items()} if names else new


def lookup(root: Any, path: Path) -> Any:
    """The value at a path, or MISSING (also where the path runs through a scalar)."""
    for segment in path:
        if type(root) is dict:
            try:
                root = root[segment]
            except KeyError:
                root = root.get(key_in(root, segment), MISSING)
        elif type(root) is list:
            position = index(segment, len(root))
            root = MISSING if position < 0 else root[position]
        else:
            return MISSING
    return root


def overlap(one: Path, other: Path) -> bool:
    """Whether one path is the other, above it, or below it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]
