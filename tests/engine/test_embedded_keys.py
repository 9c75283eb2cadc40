"""Keys that are equal and have several spellings: one member of the object, as they are one key of the dict."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kantad.engine import Engine
from tests.engine.embedded_kit import held

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ELSEWHERE = NOON.astimezone(timezone(timedelta(hours=2)))


class Data(msgspec.Struct):
    at: dict[datetime, int] = {}
    prices: dict[Decimal, dict[str, int]] = {}


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize(("first", "second"), [(NOON, ELSEWHERE), (ELSEWHERE, NOON)])
async def test_an_equal_key_edits_and_deletes_what_is_there(
    tmp_path: Path, format: str, first: datetime, second: datetime
) -> None:
    path = tmp_path / "a.kantadb"
    async with Engine(path, Data, format=format, consistency="whole") as engine:
        with engine.transaction("one") as data:
            data.at[first] = 1
            data.prices[Decimal("1.0")] = {"a": 1}
        with engine.transaction("two") as data:
            data.at[second] += 1
            data.prices[Decimal("1")]["b"] = 2
        assert engine.data == Data({NOON: 2}, {Decimal(1): {"a": 1, "b": 2}})
        await engine.flush()
        stored: Any = await engine.value("", rev=engine.rev)
        assert list(map(str, stored["prices"])) == ["1"]
        assert len(stored["at"]) == 1
        with engine.transaction("three") as data:
            del data.at[second]
            del data.prices[Decimal("1.00")]
        assert engine.data == Data()
    assert held(path).state == {"at": {}, "prices": {}}
