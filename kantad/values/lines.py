"""A change as lines for people: what it added, updated and deleted, and nothing that a terminal would act on.

`edits` takes a canonical patch apart, given the value before it (which it leaves as it is). `told`
makes lines of them, each a list of spans (style, text); `plain` and `painted` make text of a line.
Paths are in dot notation, values are JSON. What is not plain in a key, an action or a user is
quoted, so no text can pass for another; characters that are invisible or that control a terminal
are written as JSON escapes. Pure; called by `kantad log` and `kantactl`.

An element that leaves an array is named by the index that it had, one that comes or changes by the
index that it has afterwards.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from kantad.values.content import MISSING, encode_json, same
from kantad.values.patch import Unfit, build, named, unescape, unmarshal
from kantad.values.pointer import index

Span = tuple[str, str]
Line = list[Span]
Named = Callable[[str], str]

OLD_MOST: Final = 60  # columns of a value that is gone
LEAST: Final = 20  # columns of a value, however narrow the terminal is
KEYS_ALIGNED: Final = (12, 30)  # columns of the keys of an added object, at least and at most

STYLES: Final = {  # SGR parameters (ECMA-48)
    "faint": "90",
    "action": "1;34",
    "user": "34",
    "added": "32",
    "updated": "33",
    "deleted": "31",
}

_UNSAFE: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_KEY = re.compile(r'[^\s"\\.=]+')
_LABEL = re.compile(r'[^\s"\\]+')


class Unknown:
    """The type of UNKNOWN: whatever was there, it is not at hand."""


UNKNOWN: Final = Unknown()


class Edit(NamedTuple):
    """One thing that a change did: an addition where `old` is MISSING, a deletion where `new` is."""

    path: tuple[Any, ...]
    old: Any
    new: Any


# -- what a patch does


def edits(old: Any, patch: Any, path: tuple[Any, ...] = ()) -> Iterator[Edit]:
    """The edits that a canonical patch amounts to over `old` (may be MISSING); raises `Unfit`."""
    if type(patch) is not dict:
        yield from became(old, unmarshal(patch), path)
    elif "$replace" in patch:
        yield from became(old, unmarshal(patch["$replace"]), path)
    elif type(old) is dict:
        yield from _in_object(old, patch, path)
    elif not patch and old is not MISSING:
        return
    elif type(old) is list:
        yield from _in_array(old, patch, path)
    else:
        yield from became(old, build(patch), path)


def became(old: Any, new: Any, path: tuple[Any, ...] = ()) -> Iterator[Edit]:
    """The edits that made `new` of `old` (each may be MISSING); of two objects key by key, else as a whole."""
    if type(old) is dict and type(new) is dict:
        for key, value in old.items():
            if key not in new:
                yield Edit((*path, key), value, MISSING)
        for key, value in new.items():
            yield from became(old.get(key, MISSING), value, (*path, key))
    elif not same(old, new):
        yield Edit(path, old, new)


def announced(patch: Any, path: tuple[Any, ...] = ()) -> Iterator[Edit]:
    """The edits that a canonical patch names, told without the value before it: `old` is UNKNOWN."""
    if type(patch) is not dict or not patch or "$replace" in patch:
        whole = patch if type(patch) is not dict else patch.get("$replace", {})
        yield Edit(path, UNKNOWN, unmarshal(whole))
        return
    for key, sub in patch.items():
        if key == "$delete":
            for name in sub if type(sub) is list else [sub]:
                yield Edit((*path, named(name)), UNKNOWN, MISSING)
        elif key == "$insert":
            for position, value in sub:
                yield Edit((*path, position), UNKNOWN, unmarshal(value))
        else:
            yield from announced(sub, (*path, unescape(key)))


def _in_object(old: dict[Any, Any], patch: dict[Any, Any], path: tuple[Any, ...]) -> Iterator[Edit]:
    for key, sub in patch.items():
        if key == "$delete":
            for name in map(named, sub if type(sub) is list else [sub]):
                if name in old:
                    yield Edit((*path, name), old[name], MISSING)
        elif type(key) is str and key[:1] == "$" and key[:2] != "$$":
            raise Unfit(f"{key} on an object")
        else:
            name = unescape(key)
            yield from edits(old.get(name, MISSING), sub, (*path, name))


def _in_array(old: list[Any], patch: dict[Any, Any], path: tuple[Any, ...]) -> Iterator[Edit]:
    order = list(range(len(old)))  # where each element came from; those that are inserted count down from -1
    inserted: list[Any] = []
    try:
        for position in patch.get("$delete", ()):
            origin = order.pop(position)
            yield Edit((*path, origin), old[origin], MISSING)
        for position, value in patch.get("$insert", ()):
            inserted.append(unmarshal(value))
            order.insert(position, -len(inserted))
    except (IndexError, TypeError, ValueError):
        raise Unfit("a list edit that does not fit") from None
    if inserted:
        for position, origin in enumerate(order):
            if origin < 0:
                yield Edit((*path, position), MISSING, inserted[-1 - origin])
    for key, sub in patch.items():
        if key == "$delete" or key == "$insert":
            continue
        position = index(key, len(order))
        if position < 0:
            raise Unfit(f"no element {key!r} in an array of {len(order)}")
        origin = order[position]
        yield from edits(old[origin] if origin >= 0 else inserted[-1 - origin], sub, (*path, position))


# -- safe text


def safe(text: str) -> str:
    """The text with control, invisible and bidirectional characters as JSON escapes."""
    if text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _UNSAFE else char for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def label(text: str) -> str:
    """An action or a user: as it is, or as a JSON string where it would not stand out as one word."""
    return _word(text, _LABEL)


def _word(text: str, ordinary: re.Pattern[str]) -> str:
    if ordinary.fullmatch(text) and text.isprintable():
        return text
    return safe(encode_json(text).decode())


def columns(text: str) -> int:
    """How many columns a terminal needs for safe text."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.east_asian_width(char) in "WF":
        return 2
    return 0 if unicodedata.category(char) in ("Mn", "Me") else 1


def cut(text: str, most: int | None) -> str:
    """The text, cut with `…` to this many columns."""
    if most is None or len(text) * 2 <= most:
        return text
    used = kept = 0
    for place, char in enumerate(text):
        used += _columns(char)
        if used <= most - 1:
            kept = place + 1
        elif used > most:
            return text[:kept] + "…"
    return text


def value_text(value: Any, most: int | None = None) -> str:
    """A value as safe JSON, cut to this many columns; of a large one no more is looked at than is shown."""
    if most is None:
        try:
            return safe(encode_json(value).decode())
        except TypeError:  # a MessagePack extension somewhere in it
            return safe("".join(_pieces(value)))
    pieces, length = [], 0
    for piece in _pieces(value):
        pieces.append(piece)
        length += len(piece)
        if length > most:
            break
    return cut(safe("".join(pieces)[: most + 1]), most)


def _pieces(value: Any) -> Iterator[str]:
    """The JSON text of a value, bit by bit."""
    if type(value) is dict:
        yield "{"
        for place, (key, item) in enumerate(value.items()):
            yield f"{',' if place else ''}{encode_json(str(key)).decode()}:"
            yield from _pieces(item)
        yield "}"
    elif type(value) is list:
        yield "["
        for place, item in enumerate(value):
            if place:
                yield ","
            yield from _pieces(item)
        yield "]"
    else:
        try:
            yield encode_json(value).decode()
        except TypeError:
            yield f'"{type(value).__name__}"'


# -- lines


def header(rev: int, time: str, action: str, user: str | None, about: str | None = None) -> Line:
    """The line that says which change it is, and what it is about."""
    line = [("faint", f"{rev} {safe(time)} "), ("action", label(action))]
    if user is not None:
        line += [("", " by "), ("user", label(user))]
    if about is not None:
        line += [("", " "), ("faint", f"({safe(about)})")]
    return line


def as_is(identifier: str) -> str:
    """The name of an identifier where nobody knows a better one."""
    return identifier


def told(head: Line, changes: list[Edit], width: int | None = None, named: Named = as_is) -> list[Line]:
    """The lines of a change; with a width in columns, long values are cut to it. `named` gives keys their names.

    What fits on the line of its header stands there, as one edit does; else each edit has lines of
    its own, an added object one for each of its members.
    """
    if len(changes) == 1 and not _is_block(changes[0]):
        room = None if width is None else _room(width, columns(plain(head)) + 2)
        return [[*head, ("", "  "), *_line(changes[0], room, named)]]
    lines = [head]
    for edit in changes:
        lines.append([("", "  "), *_line(edit, _room(width, 2), named)])
        if _is_block(edit):
            lines += _members(edit.new, width, named)
    return lines


def _is_block(edit: Edit) -> bool:
    return edit.old is MISSING and type(edit.new) is dict and bool(edit.new)


def _room(width: int | None, used: int) -> int | None:
    return None if width is None else max(LEAST, width - used)


def _line(edit: Edit, room: int | None, named: Named) -> Line:
    """One edit; the value of a block is left to its members."""
    style = "added" if edit.old is MISSING else "deleted" if edit.new is MISSING else "updated"
    line = _name(edit.path, style, named)
    mark = ("deleted", "✗") if edit.new is MISSING else ("faint", "=")
    line += [("", " "), mark] if line else [mark]
    if _is_block(edit):
        return line
    if room is not None:
        room = _room(room, columns(plain(line)) + 1)
    if edit.old is UNKNOWN and edit.new is MISSING:
        return line
    if edit.old is not MISSING and edit.old is not UNKNOWN:
        most = OLD_MOST if room is None else min(OLD_MOST, room if edit.new is MISSING else room // 2)
        old = value_text(edit.old, most)
        line += [("", " "), ("faint", old)]
        if edit.new is MISSING:
            return line
        line += [("", " "), ("faint", "→")]
        room = _room(room, columns(old) + 3)
    return [*line, ("", " "), ("", value_text(edit.new, room))]


def _name(path: tuple[Any, ...], style: str, named: Named) -> Line:
    if not path:
        return []
    names = [_word(named(str(key)), _KEY) for key in path]
    above = [("faint", ".".join(names[:-1]) + ".")] if len(names) > 1 else []
    return [*above, (style, names[-1])]


def _members(value: dict[Any, Any], width: int | None, named: Named) -> Iterator[Line]:
    names = [_word(named(str(key)), _KEY) for key in value]
    least, most = KEYS_ALIGNED
    aligned = min(most, max(least, *map(columns, names)))
    for name, item in zip(names, value.values(), strict=True):
        gap = " " * (1 + max(0, aligned - columns(name)))
        room = _room(width, 5 + columns(name) + len(gap))
        yield [("", "    "), ("", name), ("faint", ":"), ("", gap + value_text(item, room))]


def plain(line: Iterable[Span]) -> str:
    """A line's text."""
    return "".join(text for _, text in line)


def painted(line: Iterable[Span]) -> str:
    """A line's text with the colours of a terminal."""
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style else text for style, text in line)


def wants_colour(terminal: bool, environment: Mapping[str, str]) -> bool:
    """Whether output is painted by itself: on a terminal that can, unless NO_COLOR (no-color.org) says otherwise."""
    return terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
