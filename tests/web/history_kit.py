"""A random history, made through HTTP, and the model that says what it comes to."""

import random
from typing import Any

from kantad.values.content import copied
from kantad.values.pointer import format_url
from tests.serving import Serving

KEYS = ("a", "b", "ü", "$x", "", "x/y")


class History:
    """Writes through HTTP, and what a plain dict says that they make; a state, cursor and `ts` for each revision."""

    def __init__(self, serving: Serving, seed: int = 3) -> None:
        self.serving, self.chance = serving, random.Random(seed)
        self.state: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = [{}]
        self.marks = ["0-0000000000000000"]
        self.times: list[str] = [""]

    async def change(self) -> None:
        chance = self.chance
        first, second = chance.choice(KEYS), chance.choice(KEYS)
        path = format_url((first, second))
        kind = chance.randrange(5)
        box = self.state.get(first)
        if kind == 0 and box is not None and second in box:
            got = await self.serving.ask("DELETE", f"/v1/data{path}?ack=written")
            del box[second]
        elif kind == 1:
            patch = {key: chance.choice((None, 1, True, {"n": chance.random()})) for key in chance.sample(KEYS[:4], 2)}
            target, header = f"/v1/data{format_url((first,))}?ack=written", "Content-Type: application/merge-patch+json"
            got = await self.serving.ask("PATCH", target, patch, header)
            box = self.state.setdefault(first, {})
            for key, value in patch.items():
                if value is None:
                    box.pop(key, None)
                elif type(value) is dict and type(box.get(key)) is dict:
                    box[key].update(value)
                else:
                    box[key] = value
        else:
            value = chance.choice((chance.random(), "$", [1, {"x": chance.randrange(9)}], {"n": {}}, None))
            got = await self.serving.ask("PUT", f"/v1/data{path}?ack=written", value)
            self.state.setdefault(first, {})[second] = copied(value)
        assert got.status == 200, got
        if got.json["changed"]:
            self.states.append(copied(self.state))
            self.marks.append(got.json["cursor"])
            self.times.append(got.json["ts"])
        assert got.json["rev"] == len(self.states) - 1

    async def run(self, revisions: int, *, snapshot: int = 0) -> None:
        while len(self.states) <= revisions:
            await self.change()
            if snapshot and len(self.states) % snapshot == 0:
                await self.serving.ask("POST", "/v1/snapshot")
        await self.serving.engine.settled("durable", len(self.states) - 1)
