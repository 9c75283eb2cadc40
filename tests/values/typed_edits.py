"""Types with everything that a schema may have, random edits of what is of them, and the naive way to judge those.

The naive way applies the edit to a copy, converts the whole, and looks whether anything that was given is gone.
Values and edits follow msgspec's own description of the types, so nothing here depends on what is tested.
"""

import base64
import enum
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
from msgspec import Meta, convert
from msgspec import inspect as types

from kantad.values.content import MISSING, decode_json
from kantad.values.patch import escape, marshal


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: str = "r"


class Span(msgspec.Struct):
    """Holds by its `__post_init__` only."""

    low: int = 0
    high: int = 10
    inside: dict[str, int] = {}

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[float, Meta(ge=0)]
    name: str = "c"


class Box(msgspec.Struct, tag="box", forbid_unknown_fields=True):
    width: int = 1
    parts: dict[str, "Circle | Box"] = {}


class Extra(TypedDict):
    a: int
    b: NotRequired[str]


@dataclass
class Old:
    n: int = 1
    s: str = "s"


class User(msgspec.Struct, rename="camel"):
    name: Annotated[str, Meta(min_length=1, max_length=8)]
    login_count: Annotated[int, Meta(ge=0)] = 0
    tags: list[str] = []
    score: float | None = None
    colour: Colour = Colour.RED
    seen_at: datetime | None = None
    raw: bytes = b""


class Node(msgspec.Struct):
    children: list["Node"] = []
    n: int = 0


class Data(msgspec.Struct):
    users: dict[uuid.UUID, User] = {}
    by_time: dict[datetime, int] = {}
    by_number: dict[int, list[float]] = {}
    shapes: dict[str, Circle | Box] = {}
    shape: Circle | Box | None = None
    span: Span = msgspec.field(default_factory=Span)
    spans: list[Span] = []
    point: Point = Point(1)
    pair: Pair = msgspec.field(default_factory=lambda: Pair(1))
    extra: Extra | None = None
    old: Old = msgspec.field(default_factory=Old)
    tree: Node | None = None
    anything: Any = None
    level: Level = Level.LOW
    word: Literal["one", "two", 3] = "one"
    numbers: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=4)] = []
    few: Annotated[dict[str, int], Meta(max_length=3)] = {}
    set_: set[str] = set()
    money: Decimal = Decimal("1.50")
    day: date | None = None
    wait: timedelta = timedelta(seconds=5)
    fixed: tuple[int, str] = (1, "a")
    scalar: int | str | None = None
    nested: list[list[dict[str, int]]] = []
    on: bool = False
    row: tuple[Annotated[int, Meta(ge=0)], ...] = ()


INFO = types.type_info(Data)
WORDS = ("a", "b", "c", "", "é", "$x", "$$y", "a/b", "long enough", "red", "one", "circle")
ANY = (None, True, 0, 1, -1, 1.5, 2**60, "text", "$t", [], {}, [1, {"a": []}], {"k": {"$d": 1}})


class Maker:
    """Random values and edits; about one in `fault` parts does not fit."""

    def __init__(self, seed: int, fault: int = 40) -> None:
        self.random, self.fault = random.Random(seed), fault

    def value(self, info: types.Type, depth: int = 0) -> Any:  # noqa: C901
        """A plain value that nearly always is of this type."""
        pick = self.random
        if pick.randrange(self.fault) == 0:
            return pick.choice(ANY)
        few = range(pick.randrange(3) if depth < 4 else 0)
        match info:
            case types.Metadata():
                return self.value(info.type, depth)
            case types.AnyType():
                return pick.choice(ANY)
            case types.NoneType():
                return None
            case types.BoolType():
                return pick.random() < 0.5
            case types.IntType():
                return pick.choice((0, 1, 2, 5, 11, -3, 2**40)) if info.ge is None else pick.choice((0, 1, 7))
            case types.FloatType():
                return pick.choice((0.0, 0.5, 1.0, 2, 3.25))
            case types.LiteralType():
                return pick.choice(info.values)
            case types.EnumType():
                return pick.choice(list(info.cls)).value
            case types.UnionType():
                return self.value(pick.choice(info.types), depth)
            case types.DictType():
                return {self.key(info.key_type): self.value(info.value_type, depth + 1) for _ in few}
            case types.TupleType():
                return [self.value(each, depth + 1) for each in info.item_types]
            case types.CollectionType():
                return [self.value(info.item_type, depth + 1) for _ in few]
            case types.NamedTupleType():
                return [self.value(field.type, depth + 1) for field in info.fields]
            case types.StructType() | types.TypedDictType() | types.DataclassType():
                return self.members(info, depth)
            case _:
                return self.text(info)

    def text(self, info: types.Type) -> str:
        pick = self.random
        match info:
            case types.UUIDType():
                return str(uuid.UUID(int=pick.randrange(6)))
            case types.DateTimeType():
                zone = "Z" if pick.random() < 0.9 else pick.choice(("+00:00", "+02:00", ""))
                return f"2026-06-{pick.randrange(1, 4):02}T00:00:00{zone}"
            case types.DateType():
                return "2026-06-10"
            case types.TimeDeltaType():
                return pick.choice(("PT5S", "PT1M", "P1D"))
            case types.DecimalType():
                return pick.choice(("1.50", "0", "12"))
            case types.BytesType():
                return base64.b64encode(pick.randbytes(2)).decode()
            case _:
                return pick.choice(WORDS)

    def key(self, info: types.Type) -> str:
        if self.random.randrange(self.fault) == 0:
            return self.random.choice(("x", "007", str(uuid.UUID(int=10)).upper(), "2026-06-01T00:00:00+00:00"))
        return str(self.value(info, 9))

    def members(self, info: Any, depth: int) -> Any:
        if getattr(info, "array_like", False):
            return [self.value(field.type, depth + 1) for field in info.fields]
        made = {}
        if getattr(info, "tag_field", None) is not None and self.random.randrange(self.fault):
            made[info.tag_field] = info.tag
        for field in info.fields:
            if field.required or self.random.random() < 0.4:
                made[field.encode_name] = self.value(field.type, depth + 1)
        if self.random.randrange(self.fault) == 0:
            made["unknown"] = 1
        return made

    def patch(self, info: types.Type, value: Any) -> Any:
        """A patch, mostly of a part, of a value of this type."""
        while isinstance(info, types.Metadata):
            info = info.type
        if isinstance(info, types.UnionType):
            info = self.choice(info, value)
        if self.random.random() < 0.12:
            return {"$replace": marshal(self.value(info))}
        if type(value) is list and isinstance(info, types.CollectionType):
            return self.list_edit(info, value)
        if type(value) is dict and isinstance(info, types.DictType):
            return self.item_edit(info, value)
        if type(value) is dict and isinstance(info, types.StructType | types.DataclassType | types.TypedDictType):
            return self.member_edit(info, value)
        return marshal(self.value(info))

    def choice(self, info: types.UnionType, value: Any) -> types.Type:
        for each in info.types:
            tag = getattr(each, "tag", None)
            if type(value) is dict and (tag is None or value.get("type") == tag) and hasattr(each, "fields"):
                return each
        return self.random.choice(info.types)

    def list_edit(self, info: Any, value: list[Any]) -> Any:
        pick = self.random.randrange(4)
        if pick == 0 or not value:
            return {"$insert": [[self.random.randrange(len(value) + 1), marshal(self.value(info.item_type, 2))]]}
        place = self.random.randrange(len(value))
        if pick == 1:
            return {"$delete": [place]}
        if pick == 2:
            return {str(place): self.patch(info.item_type, value[place])}
        return marshal(self.value(info))

    def item_edit(self, info: Any, value: dict[str, Any]) -> Any:
        pick = self.random.randrange(5)
        if value and pick < 3:
            key = self.random.choice(list(value))
            if pick == 0:
                return {"$delete": [escape(key)]}
            return {escape(key): self.patch(info.value_type, value[key])}
        return {escape(self.key(info.key_type)): marshal(self.value(info.value_type, 1))}

    def member_edit(self, info: Any, value: dict[str, Any]) -> Any:
        made: dict[str, Any] = {}
        if self.random.randrange(self.fault) == 0:
            made["unknown"] = 1
        for field in self.random.sample(info.fields, min(len(info.fields), self.random.choice((1, 1, 1, 2)))):
            made[escape(field.encode_name)] = self.patch(field.type, value.get(field.encode_name, MISSING))
        if self.random.randrange(12) == 0:
            gone = self.random.choice(info.fields).encode_name
            made.pop(escape(gone), None)
            made["$delete"] = [escape(gone)]
        if getattr(info, "tag", None) is not None and self.random.randrange(20) == 0:
            made["type"] = self.random.choice(("circle", "box", 5))
        return made


def naive(root: type[Any], value: Any, native: bool) -> Any:
    """What is stored of a whole value, or MISSING where it does not fit."""
    try:
        typed = convert(value, root, str_keys=True)
    except msgspec.ValidationError:
        return MISSING
    if native:
        made = text_keys(msgspec.msgpack.decode(msgspec.msgpack.encode(typed)))
    else:
        made = decode_json(msgspec.json.encode(typed))
        made["by_time"] = {in_utc(key): item for key, item in made["by_time"].items()}
    made["set_"].sort()
    made["old"] = {"n": 1, "s": "s"} | made["old"]  # msgspec leaves a dataclass's defaults out
    return MISSING if lost(value, made) else made


def in_utc(text: str) -> str:
    """The text of a time in UTC, unless it has no zone."""
    moment = datetime.fromisoformat(text)
    return text if moment.tzinfo is None else str(msgspec.to_builtins(moment.astimezone(UTC)))


def text_keys(value: Any) -> Any:
    """A value with the text of keys that are times."""
    if type(value) is dict:
        texts = {key: decode_json(msgspec.json.encode(key)) if type(key) is datetime else key for key in value}
        return {texts[key]: text_keys(item) for key, item in value.items()}
    return [text_keys(item) for item in value] if type(value) is list else value


def lost(given: Any, made: Any) -> bool:
    """Whether an object's member or key that was given is not in what is stored."""
    if type(given) is dict and type(made) is dict:
        there = {str(key): item for key, item in made.items()}
        return any(str(key) not in there or lost(item, there[str(key)]) for key, item in given.items())
    if type(given) is list and type(made) is list and len(given) == len(made):
        return any(map(lost, given, made))
    return False
