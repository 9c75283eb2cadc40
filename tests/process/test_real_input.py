"""Documents like the real ones, through the whole daemon: put at once and one by one, patched, restarted.

`KANTAD_TEST_INPUT` may name a JSON file (an array of objects with a `cca3`, such as the countries
of the npm package world-countries) to be taken instead of the made ones.
"""

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.running import Running, ask

Start = Callable[..., Running]


def countries() -> list[dict[str, Any]]:
    """The named file's documents, or 120 of their kind."""
    name = os.environ.get("KANTAD_TEST_INPUT")
    if name:
        return list(json.loads(Path(name).read_text()))
    pick = random.Random(5)
    words = ["Åland", "Côte d'Ivoire", "ประเทศไทย", "日本国", "\u0421\u0443\u0434\u0430\u043d", "$", "a/b~c", ""]
    return [
        {
            "name": {
                "common": pick.choice(words),
                "native": {pick.choice(words): {"official": "x" * pick.randrange(60)}},
            },
            "cca3": f"C{i:02d}",
            "independent": pick.choice([True, False, None]),
            "currencies": {pick.choice(["EUR", "USD"]): {"symbol": "€"}},
            "idd": {"root": "+2", "suffixes": [str(n) for n in range(pick.randrange(4))]},
            "latlng": [pick.uniform(-90, 90), float(pick.randrange(-180, 180))],
            "borders": [f"C{pick.randrange(99):02d}" for _ in range(pick.randrange(6))],
            "area": pick.choice([180, 1.5, 17098242.0]),
            "demonyms": {},
        }
        for i in range(120)
    ]


def value(port: int, target: str) -> Any:
    """The value that a GET of the target gives, with the order of its keys."""
    status, body = ask(port, "GET", target)
    assert status == 200, (target, body)
    return json.loads(body)


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_real_documents_come_back_as_they_were_put(run: Start, form: str) -> None:
    documents = countries()
    by_code = {document["cca3"]: document for document in documents}
    process = run("--port", "0", "--format", form)
    port = process.port()
    assert ask(port, "PUT", "/v1/data/all", json.dumps(documents).encode())[0] == 200
    for code, document in by_code.items():
        assert ask(port, "PUT", f"/v1/data/one/{code}", json.dumps(document).encode())[0] == 200
    for document in documents[:40]:
        code = document["cca3"]
        patch = {"area": 5, "borders": {"$insert": [[0, "$x"]]}, "$delete": ["cca3"], "$$new": {"a": 1}}
        assert ask(port, "PATCH", f"/v1/data/one/{code}", json.dumps(patch).encode())[0] == 200
        changed = by_code[code]
        changed["area"] = 5
        changed["borders"] = ["$x", *changed.get("borders", [])]
        del changed["cca3"]
        changed["$new"] = {"a": 1}
    everything = {"all": countries(), "one": by_code}
    assert value(port, "/v1/data") == everything
    first = countries()[0]
    assert value(port, "/v1/data/all/0/idd/root") == first["idd"]["root"]
    text = ask(port, "GET", "/v1/data")[1]
    process.signal(signal.SIGKILL)
    process.wait()
    again = run("--port", "0")
    port = again.port()
    assert ask(port, "GET", "/v1/data")[1] == text, "the same bytes, key order included"
    assert again.stop() == 0
    third = run("--port", "0")
    assert ask(third.port(), "GET", "/v1/data")[1] == text


def test_what_would_cross_damage_in_the_older_part_is_gone(run: Start, tmp_path: Path) -> None:
    process = run("--port", "0")
    port = process.port()
    for number in (1, 2, 3):
        ask(port, "PUT", "/v1/data/a", b"%d" % number)
    assert ask(port, "POST", "/v1/snapshot")[0] == 200
    ask(port, "PUT", "/v1/data/b", b"4")
    assert process.stop() == 0
    path = tmp_path / "data.kantadb"
    path.write_bytes(path.read_bytes().replace(b'"a":2', b'"a":7'))
    port = run("--port", "0").port()
    assert value(port, "/v1/data") == {"a": 3, "b": 4}
    status, body = ask(port, "PUT", "/v1/data/a?base=1", b"5")
    assert (status, json.loads(body)["reason"], json.loads(body)["oldest"]) == (410, "damaged", 3)
    assert ask(port, "PUT", "/v1/data/a?base=3", b"5")[0] == 200
