"""The normal form of values of a type: how they are stored, whatever form a client gave them.

It is what msgspec makes of the typed value: defaults filled in, UUIDs and times in one spelling, sets in
order; in a JSON file as JSON has it, in a MessagePack file with times, byte strings and integer keys as they
are. What would get lost on the way is refused: members that the type does not have, and keys in another
spelling. Pure; raises `Problem`.
"""

from datetime import UTC, datetime
from typing import Any, Final

from msgspec import NODEFAULT, ValidationError, convert, to_builtins

from kantad.values.blame import blame, dict_of, refusal
from kantad.values.content import MISSING, check, encode_json, same
from kantad.values.errors import RAISED, Problem, told
from kantad.values.keys import one_spelling
from kantad.values.kinds import Compiler, Kind, Member

DEEPEST: Final = 256  # levels of a value that defaults were filled into; a request's own are bounded before


class NormalForm:
    """The normal form in one kind of file: with `native` in MessagePack, where times and such are kept."""

    def __init__(self, noticed: Compiler) -> None:
        self.tuples, self.unsettled = noticed.tuples, noticed.unsettled
        self.native = False

    def normal(self, kind: Kind, value: Any) -> Any:
        """What is stored of a value of this kind: itself where that is the same, or another. Raises `Problem`."""
        if type(value) is list and (items := kind.of(value).plain_items) and items.issuperset(map(type, value)):
            return value  # so it is told without msgspec, in a fifth of the time
        made = self.converted(kind, value)
        if same(value, made):
            return value
        self.check(made)
        self._look_for_strays(kind, value)
        return made

    def converted(self, kind: Kind, value: Any) -> Any:
        """The same, always another. What the type does not have is left out, what defaults add is not checked."""
        try:
            return self.stored(kind, kind.typed(value))
        except ValidationError as error:
            raise blame(kind, value, error) from None
        except RAISED as error:  # a `__post_init__` may raise what it likes
            raise refusal(told(error)) from None

    def check(self, made: Any) -> None:
        """Refuse what defaults or a `__post_init__` made that cannot be stored; raises `Problem`."""
        check(made, DEEPEST, self.native)

    def stored(self, kind: Kind, typed: Any) -> Any:
        """The normal form of a typed value of this kind."""
        if self.native:
            made = plain(to_builtins(typed, builtin_types=(bytes, datetime)))
        else:
            made = to_builtins(typed, str_keys=True)
            made = plain(made) if self.tuples else made
        if self.unsettled:
            self._settle(kind, made)
        return made

    def _settle(self, kind: Kind, made: Any) -> None:
        """Put sets in order, in place: theirs may differ at the next start. Fill in what msgspec leaves out.

        Spell keys that are equal as values of their type in one way, which makes them one.
        """
        kind = kind.of(made)
        if type(made) is dict:
            if kind.key is not None and kind.key.several:
                self._spell(kind, made)
            for key, member in kind.members.items() if kind.members is not None else ():
                if key not in made and not member.optional and not member.required:
                    made[key] = self.default(member)
            for key, item in made.items():
                self._settle_below(kind, key, item)
        elif type(made) is list:
            for position, item in enumerate(made):
                self._settle_below(kind, position, item)
            if kind.sorted:
                made.sort(key=encode_json)

    def _spell(self, kind: Kind, made: dict[Any, Any]) -> None:
        keys, items = dict_of(kind).annotation, list(made.items())
        made.clear()
        for key, item in items:
            [typed] = convert({key: None}, keys, str_keys=True)
            made[_plain_key(one_spelling(typed))] = item

    def _settle_below(self, kind: Kind, key: Any, item: Any) -> None:
        below = kind.below(key) if type(item) in (dict, list) else None
        if below is not None:
            self._settle(below, item)

    def _look_for_strays(self, kind: Kind, value: Any) -> None:
        """Refuse members that the type does not have, and keys in another spelling."""
        kind = kind.of(value)
        if type(value) is dict and (kind.members is not None or kind.key is not None):
            for key, item in value.items():
                self._look_into(kind, self.own_key(kind, key) if kind.key is not None else key, key, item)
        elif type(value) is list and (kind.item is not None or kind.positions):
            for position, item in enumerate(value):
                self._look_into(kind, position, position, item)

    def _look_into(self, kind: Kind, name: Any, key: Any, item: Any) -> None:
        below = kind.below(name)
        if below is None and kind.members is not None:
            raise unknown_member(key)
        try:
            if below is not None and type(item) in (dict, list):
                self._look_for_strays(below, item)
        except Problem as problem:
            raise problem.at(key) from None

    def own_key(self, kind: Kind, key: Any) -> Any:
        """The key as it is stored; raises `Problem` for one that is none, and for one in another spelling."""
        assert kind.key is not None
        if type(key) in kind.key.plain and type(key) is str:
            return key
        keys = dict_of(kind)
        try:
            [name] = self.stored(keys, convert({key: None}, keys.annotation, str_keys=True))
        except ValidationError as error:
            raise refusal(str(error).partition(" - at `key`")[0]).at(key) from None
        except OverflowError as error:
            raise refusal(told(error)).at(key) from None
        if str(name) != str(key):
            raise refusal(f"this key is spelled {str(name)!r}").at(key)
        return name

    def kept(self, kind: Kind, value: Any) -> Any:
        """What is stored of a scalar, where that is told at once: itself, or the same in its normal spelling.

        MISSING where the general way, `normal`, is to say what, or why nothing. A time in another spelling, or as
        text for a file in MessagePack, is not worth that (measured: it doubles the time of a write).
        """
        if type(value) in kind.plain or kind.free:
            return value
        if kind.decode is None:
            return MISSING
        text = encode_json(value)
        try:
            typed = kind.decode(text)
        except ValidationError:
            return MISSING
        if self.native and (kind.differs or type(value) in (bytes, datetime)):
            return _kept_native(typed) if kind.differs else MISSING
        if encode_json(typed) == text:
            return value
        made = self.stored(kind, typed) if type(value) is str else MISSING
        return made if type(made) is str and made[:1] != "$" else MISSING

    def default(self, member: Member) -> Any:
        """What is stored of a member that is not given."""
        typed = member.default if member.default is not NODEFAULT else member.factory()
        made = self.stored(member.kind, typed)
        self.check(made)
        return made


def refuse_merged(kind: Kind, given: Any, made: Any) -> None:
    """Refuse an object that has two keys of which the normal form makes one, so that an item would be lost."""
    kind = kind.of(made)
    if type(made) is list and type(given) is list and not kind.sorted:
        pairs: Any = zip(range(len(made)), given, made, strict=False)  # defaults may have been added
    elif type(made) is not dict or type(given) is not dict:
        return
    elif kind.members is not None:
        pairs = ((name, given[name], item) for name, item in made.items() if name in given)
    elif kind.key is None or len(given) == len(made):
        pairs = zip(made, given.values(), made.values(), strict=False)
    else:
        raise refusal("two of its keys are equal, and would become one")
    for key, before, after in pairs:
        below = kind.below(key) if type(after) in (dict, list) else None
        try:
            if below is not None:
                refuse_merged(below, before, after)
        except Problem as problem:
            raise problem.at(key) from None


def unknown_member(name: Any) -> Problem:
    """The refusal of a member that the type does not have; its path begins at the object."""
    return refusal(f"Object contains unknown field `{name}`").at(name)


def _kept_native(typed: Any) -> Any:
    """The same, for a typed value that MessagePack has a word for."""
    if type(typed) is datetime:
        try:
            return typed if typed.tzinfo is UTC else plain(typed)
        except OverflowError:  # UTC has no year for it; the general way says so
            return MISSING
    return typed if type(typed) is bytes else MISSING


def plain(value: Any) -> Any:
    """A value as a file holds it: lists for tuples, times in UTC (or as text), keys text or integers."""
    kind = type(value)
    if kind is dict:
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is datetime:
        return value.isoformat() if value.tzinfo is None else value.astimezone(UTC)
    return value


def _plain_key(key: Any) -> Any:
    if type(key) is str or type(key) is int:
        return key
    return next(iter(to_builtins({plain(key): None}, str_keys=True)))
