"""Makes the golden files beside it: databases that kanta itself wrote, and the state that was meant.

Run once with each version of kanta installed from PyPI with its `bin` extra (0.1.1, 0.5.0, 0.9.1, 0.9.4):

    python tests/golden/make.py tests/golden

It writes `kanta-<version>.<format>.kantadb` and, as JSON, `kanta-<version>.<format>.json`: the state
that the application had in memory, as plain values, and the number of changes. The steps hold what
the dialects differ in: list edits, keys and values that begin with `$`, deletions, objects over
scalars and lists (also `{}`), snapshots, and in MessagePack times, bytes and integer keys.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from kanta import Kanta
from kanta.serialization import JsonSerializer, MsgPackSerializer


class Data(msgspec.Struct):
    """The application's root."""

    items: dict[str, Any] = {}
    array: list[Any] = []
    flag: Any = None


def set_up(data: Data) -> None:
    data.items = {
        "plain": "text",
        "$key": "$value",
        "$$two": "one",
        "o": {"x": 1, "y": [1, 2, 3]},
        "scalar": 5,
        "gone": True,
        "users": {"ünï": {"name": "Zoë", "tags": ["a", "b"]}},
    }
    data.array = [1, 2, 3, 4, 5, 6, 7, 8, {"deep": [{"a": 1}, {"a": 2}]}]


def edit_lists(data: Data) -> None:
    data.array.insert(3, "$in")
    del data.array[0]
    data.array[-1]["deep"][1]["a"] = 3
    data.items["o"]["y"].append("tail")


def dollars(data: Data) -> None:
    data.items["$new"] = {"$inner": "$1", "x": ["$2"]}
    data.items["$key"] = "$other"
    data.items["plain"] = "$ single"
    data.items["like"] = {"$delete": ["x"], "ts": "2020-01-01T00:00:00Z"}


def objects_over(data: Data) -> None:
    data.items["scalar"] = {"now": {"an": "object"}}
    data.items["o"]["y"] = {}
    data.items["o"]["x"] = {"$x": "$y"}
    data.flag = {}


def deletions(data: Data) -> None:
    del data.items["gone"]
    del data.items["$$two"]
    data.items["users"].clear()
    data.items["o"] = "no longer"


def doubled(data: Data) -> None:
    data.items["doubled"] = "$$value"
    data.items["nested"] = {"$$k": ["$$v", "$v"]}


def after(data: Data) -> None:
    data.items["users"]["bob"] = {"name": "Bob", "n": 1}
    data.array = data.array[:2]


def more(data: Data) -> None:
    data.items["users"]["bob"]["n"] = 2
    data.flag = {"on": True}


def natives(data: Data) -> None:
    data.items["natives"] = {
        "at": datetime(2026, 6, 10, 2, 55, 0, 123456, tzinfo=UTC),
        "raw": b"\x00\x01kanta",
        "by": {7: "seven", -1: "minus"},
    }


STEPS = (set_up, edit_lists, dollars, objects_over, deletions, doubled, None, after, more)


async def make(folder: Path, name: str, serializer: Any) -> None:
    path = folder / f"{name}.kantadb"
    path.unlink(missing_ok=True)
    data = Data()
    kanta = Kanta(str(path), data, serializer=serializer, flush_interval=0.05)
    await kanta.open()
    steps = [*STEPS, natives] if isinstance(serializer, MsgPackSerializer) else STEPS
    for step in steps:
        if step is None:
            await kanta.flush()
            kanta.request_snapshot()
            await asyncio.sleep(0.2)  # its background task writes it
            continue
        with kanta.transaction(step.__name__, user="ann") as root:
            step(root)
    await kanta.close()
    state = json.loads(msgspec.json.encode(expected(steps)))
    content = path.read_bytes()
    framer = serializer.framer_cls()
    changes = sum(1 for is_snapshot, *_ in framer.iter_records(content, 0) if not is_snapshot)
    text = json.dumps({"state": state, "changes": changes}, ensure_ascii=False, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")


def expected(steps: Any) -> dict[str, Any]:
    """The state that was meant: the steps done to a plain object."""
    data = Data()
    for step in steps:
        if step is not None:
            step(data)
    return {"items": data.items, "array": data.array, "flag": data.flag}


async def main(folder: Path) -> None:
    number = version("kanta")
    await make(folder, f"kanta-{number}.json", JsonSerializer())
    await make(folder, f"kanta-{number}.msgpack", MsgPackSerializer())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
