"""What may stand at a place: a msgspec type, taken apart once into a tree of small kinds.

A kind knows the type that msgspec converts to there, and how a patch goes on below it: by member, by
key, by position. Where msgspec has more to say of a value than of its parts (a length, a
`__post_init__`, a set, a tuple, fields left out at their default) a kind is `whole`: what is changed
below it is converted anew as a whole. Pure; made at the start, for `schema`.
"""

from collections.abc import Callable
from types import NoneType
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types

from kantad.values.spelling import bounds_of, type_of


class Unsupported(Exception):
    """A type that values cannot be checked against."""


class Member(NamedTuple):
    """A member of an object; without a default it is required, unless it may be absent."""

    kind: "Kind"
    default: Any  # NODEFAULT if there is none
    factory: Callable[[], Any] | Any
    optional: bool  # may be absent from what is stored

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is NODEFAULT and self.factory is NODEFAULT and not self.optional


class Kind:
    """What may stand at a place; see the module. One that is `sorted` is a set.

    `annotation` is what msgspec converts to (by way of a `holder`, see `typed`). `plain` are the types of values that
    are stored as they are given, `plain_items` those of what a list may hold to be so; another scalar is stored as it
    is if `decode` makes a value of its JSON that has the same JSON (and if the kind is none that `differs` in
    MessagePack). Keys of `several` spellings are stored in one. Below it: `members` of an object, or a `key` and an
    `item`, or (of an array) an `item` or a kind for each of the `positions`. Of a union, `choices` are the kinds by the
    type of the value, or, where it is an object with a `tag`, by that.
    """

    __slots__ = (
        "annotation",
        "choices",
        "decode",
        "differs",
        "free",
        "holder",
        "item",
        "key",
        "members",
        "plain",
        "plain_items",
        "positions",
        "several",
        "sorted",
        "tag",
        "whole",
    )

    def __init__(self, annotation: Any, plain: frozenset[type] = frozenset(), *, free: bool = False) -> None:
        self.annotation, self.plain, self.free = annotation, plain, free
        self.plain_items: frozenset[type] = frozenset()
        self.whole = self.sorted = self.differs = self.several = False
        self.members: dict[Any, Member] | None = None
        self.key: Kind | None = None
        self.item: Kind | None = None
        self.positions: tuple[Kind, ...] = ()
        self.choices: dict[Any, Kind] | None = None
        self.tag: str | None = None
        self.decode: Callable[[bytes], Any] | None = None
        self.holder: type[Any] | None = None

    def typed(self, value: Any) -> Any:
        """A plain value converted to this type; raises what msgspec does, and what a `__post_init__` does.

        What msgspec finds out about a type it keeps for Structs only. Of `User | None` or `list[str]` it does so anew
        at each conversion, which takes longer than the rest (measured: 2.1 us, 0.5 us). So a Struct holds them.
        """
        kind = self.of(value)
        kind = self if kind is OPAQUE else kind
        if hasattr(kind.annotation, "__struct_config__"):
            return msgspec.convert(value, kind.annotation, str_keys=True)
        if kind.holder is None:
            kind.holder = msgspec.defstruct("Held", [("held", kind.annotation)])
        try:
            holder: Any = msgspec.convert({"held": value}, kind.holder, str_keys=True)
            return holder.held
        except msgspec.ValidationError:
            return msgspec.convert(value, kind.annotation, str_keys=True)  # it names the place as if nothing held it

    def of(self, value: Any) -> "Kind":
        """The kind that a stored value is of: itself, or one of a union's."""
        if self.choices is None or self.free:
            return self
        if self.tag is not None and type(value) is dict:
            found = self.choices.get(value.get(self.tag))
        else:
            found = self.choices.get(type(value))
        return found or OPAQUE

    def below(self, key: Any) -> "Kind | None":
        """The kind of what is at a key of an object or a position of an array, if any."""
        if self.members is not None:
            member = self.members.get(key)
            return None if member is None else member.kind
        if self.positions:
            return self.positions[key] if type(key) is int and key < len(self.positions) else None
        return self.item


FREE: Final = Kind(Any, free=True)
OPAQUE: Final = Kind(Any)  # of a value that no choice of a union fits
OPAQUE.whole = True

_SCALARS: Final[dict[type, type]] = {
    types.NoneType: NoneType,
    types.BoolType: bool,
    types.IntType: int,
    types.FloatType: float,
    types.StrType: str,
}
_NOT_STORED: Final = (types.CustomType, types.RawType, types.ExtType, types.MemoryViewType)
_SEVERAL: Final = (types.DateTimeType, types.TimeType, types.DecimalType, types.FloatType)  # see `keys`
_NATIVE: Final = (types.BytesType, types.ByteArrayType, types.DateTimeType)

Record = types.StructType | types.DataclassType | types.TypedDictType | types.NamedTupleType


class Compiler:
    """Makes kinds of msgspec's descriptions of types. Types may contain themselves."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[types.Type, Kind]] = {}  # by the id of the description, which is kept
        self.unsettled = False  # whether msgspec leaves something open: order of sets, defaults of dataclasses, keys
        self.several = False  # whether there are keys of several spellings
        self.tuples = False  # or other arrays that are no lists
        self.odd_keys = False  # keys that MessagePack would have as floats or byte strings

    def kind(self, described: types.Type) -> Kind:
        """The kind of a described type; raises `Unsupported`."""
        while isinstance(described, types.Metadata):
            described = described.type
        if isinstance(described, types.AnyType):
            return FREE
        if id(described) in self.known:
            return self.known[id(described)][1]
        if isinstance(described, _NOT_STORED):
            raise Unsupported(f"{getattr(described, 'cls', type(described).__name__)} is no type of stored values")
        made = Kind(type_of(described))
        self.known[id(described)] = described, made
        self._fill(made, described)
        if made.members is None and made.item is None and not made.positions and not made.choices:
            made.decode = msgspec.json.Decoder(made.annotation).decode
            parts = described.types if isinstance(described, types.UnionType) else (described,)
            made.differs = any(isinstance(part, _NATIVE) for part in parts)
            made.several = any(isinstance(part, _SEVERAL) for part in parts)
        return made

    def _fill(self, kind: Kind, described: types.Type) -> None:
        scalar = _SCALARS.get(type(described))
        if scalar is not None:
            kind.plain = frozenset() if bounds_of(described) else frozenset((scalar,))
        elif isinstance(described, types.UnionType):
            self._fill_union(kind, described)
        elif isinstance(described, types.DictType):
            kind.key, kind.item = self.kind(described.key_type), self.kind(described.value_type)
            kind.whole = described.min_length is not None or described.max_length is not None
            self.several |= kind.key.several
            self.unsettled |= kind.key.several
            self.odd_keys |= isinstance(described.key_type, types.FloatType | types.BytesType)
        elif isinstance(described, types.CollectionType):
            is_set = isinstance(described, types.SetType | types.FrozenSetType)
            self.unsettled |= is_set
            kind.sorted = is_set
            self.tuples |= isinstance(described, types.VarTupleType)
            kind.item = self.kind(described.item_type)
            kind.whole = is_set or described.min_length is not None or described.max_length is not None
            kind.plain_items = kind.item.plain if not kind.whole else frozenset()
        elif isinstance(described, types.TupleType):
            self.tuples = kind.whole = True
            kind.positions = tuple(self.kind(each) for each in described.item_types)
        elif isinstance(described, Record):
            self._fill_record(kind, described)

    def _fill_record(self, kind: Kind, described: Record) -> None:
        tag = tag_of(described)
        tag_kind = None if tag is None else self.kind(types.LiteralType((tag[1],)))
        if isinstance(described, types.NamedTupleType) or getattr(described, "array_like", False):
            self.tuples = kind.whole = True
            below = [self.kind(field.type) for field in described.fields]
            kind.positions = tuple(below if tag_kind is None else [tag_kind, *below])
            return
        self.unsettled |= isinstance(described, types.DataclassType)
        config = getattr(described.cls, "__struct_config__", None)
        omits = config is not None and config.omit_defaults
        kind.whole = omits or hasattr(described.cls, "__post_init__")
        kind.members = {}
        if tag is not None and tag_kind is not None:
            kind.members[tag[0]] = Member(tag_kind, tag[1], NODEFAULT, False)
        for field in described.fields:
            unset = not field.required and field.default is field.default_factory is NODEFAULT
            each = self.kind(field.type)
            kind.members[field.encode_name] = Member(each, field.default, field.default_factory, omits or unset)

    def _fill_union(self, kind: Kind, described: types.UnionType) -> None:
        kind.choices = {}
        for each in described.types:
            choice = self.kind(each)
            if choice.free:
                kind.free = True
            kind.plain |= choice.plain
            tag = tag_of(each)
            if choice.members is not None and tag is not None:
                kind.tag, kind.choices[tag[1]] = tag[0], choice
            elif choice.members is not None or choice.key is not None:
                kind.choices[dict] = choice
            elif choice.item is not None or choice.positions:
                kind.choices[list] = OPAQUE if list in kind.choices else choice


def compiled(root: type[Any]) -> tuple[Kind, Compiler]:
    """The kind of a type, and what else was noticed of it; raises `Unsupported`."""
    compiler = Compiler()
    try:
        kind = compiler.kind(types.type_info(root))
        msgspec.json.schema(root)
        msgspec.json.Decoder(root)  # builds what it decodes with, so that what is wrong shows now
    except Unsupported:
        raise
    except Exception as error:  # of annotations that do not resolve, and of what msgspec does not support
        raise Unsupported(str(error)) from error
    return kind, compiler


def tag_of(described: types.Type) -> tuple[str, Any] | None:
    """The member that tells a Struct from others, and its value; None where it has none."""
    if not isinstance(described, types.StructType) or described.tag_field is None:
        return None
    return described.tag_field, described.tag
