"""A MessagePack file of kanta's with integer keys: to clients they are text, and a mirror follows what is deleted."""

from pathlib import Path

from kanta_client import KantaClient
from kanta_client.testing import server

from tests.store.logs import Maker


async def test_mirrors_follow_integer_keys(tmp_path: Path) -> None:
    log = Maker("msgpack")
    log.data = log.data[: log.framing.header]
    log.foreign({"d": {5: 2, 6: 2, 1 << 60: 3, -7: 4}, "e": {5: {"a": 1}, 6: {"b": 1}}, "l": [1, 2, 3]})
    path = tmp_path / "data.kantadb"
    path.write_bytes(log.data)
    async with (
        server(path=path) as url,
        KantaClient(url) as db,
        db.mirror("") as whole,
        db.mirror("/d", type=dict[int, int]) as typed,
    ):
        assert typed.value == {5: 2, 6: 2, 1 << 60: 3, -7: 4}
        await db.delete("/d/5")
        await db.patch("", {"d": {"$delete": [str(1 << 60), "-7"], "6": 3}, "e": {"$delete": ["6"]}})
        await db.set("/d", {"6": 3, "8": 1})
        rev = (await db.delete("/l/0")).rev
        await whole.at_least(rev)
        await typed.at_least(rev)
        assert typed.value == {6: 3, 8: 1}
        assert whole.value == await db.get("") == {"d": {"6": 3, "8": 1}, "e": {"5": {"a": 1}}, "l": [2, 3]}
