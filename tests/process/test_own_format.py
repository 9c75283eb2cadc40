"""A server over a format of one's own: the example of the docs, the offline commands, what is said of wrong ones."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.running import Running

Run = Callable[..., Running]
DOCS = Path(__file__).parents[2] / "docs" / "format.md"
NAME = "cbor_format:Cbor"


@pytest.fixture(autouse=True)
def example(tmp_path: Path) -> None:
    """The module of the docs, where the processes run."""
    [module] = re.findall(r"^```python cbor_format.py\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "cbor_format.py").write_text(module)


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return json.loads(answer.read())


def fetched(port: int, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return bytes(answer.read())


def offline(run: Run, *arguments: str) -> tuple[int, str, str]:
    process = run(*arguments)
    status = process.wait()
    return status, process.said(), "".join(process.lines)


def test_the_example_serves_and_its_file_is_read_by_all_commands(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0", "--format", NAME)
    port = server.port()
    for number in range(5):
        ask(port, "PUT", "/v1/data/n", {"number": number, "text": "ü"})
    ask(port, "POST", "/v1/snapshot")
    ask(port, "PUT", "/v1/data/x", [1, 1.5, None])
    assert ask(port, "GET", "/v1/data/n?rev=2") == {"number": 1, "text": "ü"}
    assert ask(port, "GET", "/v1/status")["file"]["format"] == NAME
    changes = ask(port, "GET", "/v1/changes")["changes"]
    assert [change["rev"] for change in changes] == [1, 2, 3, 4, 5, 6]
    assert changes[-1]["diff"] == {"x": [1, 1.5, None]}
    server.process.kill()
    server.process.wait()
    server = run("--port", "0", "--log-changes", KANTAD_FORMAT=NAME)
    ready = server.ready()
    assert int(ready[4]) == 6
    ask(int(ready[2].rpartition(":")[2]), "PUT", "/v1/data/x", [1, 1.5])
    assert server.stop() == 0
    assert "put  x = [1,1.5,null] → [1,1.5]\n" in "".join(server.lines)
    file = ("--format", NAME, "data.kantadb")
    status, said, _ = offline(run, "check", *file)
    assert status == 0
    assert f"{NAME}, " in said
    assert "7 changes and 2 snapshots, 0 unverified" in said
    assert json.loads(offline(run, "dump", *file)[1]) == {"n": {"number": 4, "text": "ü"}, "x": [1, 1.5]}
    assert json.loads(offline(run, "dump", "--rev", "1", *file)[1]) == {"n": {"number": 0, "text": "ü"}}
    assert "n.number = 3 → 4" in offline(run, "log", *file)[1]
    assert "nothing was done" in offline(run, "repair", *file)[1]


def test_without_the_flag_it_is_said_that_the_format_is_ones_own_and_nothing_is_changed(
    run: Run, tmp_path: Path
) -> None:
    server = run("--port", "0", "--format", NAME)
    ask(server.port(), "PUT", "/v1/data/n", 1)
    assert server.stop() == 0
    before = (tmp_path / "data.kantadb").read_bytes()
    for arguments in (("--port", "0"), ("check", "data.kantadb"), ("repair", "data.kantadb"), ("log", "data.kantadb")):
        status, _, said = offline(run, *arguments)
        assert status == 65
        assert "in a format of one's own: --format module:Class" in said
    status, _, said = offline(run, "--port", "0", "--format", "json")
    assert (status, "--format json contradicts it" in said) == (65, True)
    assert (tmp_path / "data.kantadb").read_bytes() == before


def test_the_running_server_compacts_is_copied_and_a_copy_is_served(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0", "--format", NAME, "--retain", "50r")
    port = server.port()
    text = "x" * 300_000  # so much that the past is asked of another process
    ask(port, "PUT", "/v1/data/text", text)
    for number in range(20):
        ask(port, "PUT", "/v1/data/n", number)
    assert ask(port, "GET", "/v1/data/n?rev=5") == 3
    done = ask(port, "POST", "/v1/compact", {"retain": "10r"})
    assert (done["oldest"], done["dropped"]) == (11, 11)
    assert ask(port, "GET", "/v1/data/n?rev=15") == 13
    assert ask(port, "GET", "/v1/status")["compaction"]["retain"] == "50r"
    ask(port, "PUT", "/v1/data/n", "after")
    copy = tmp_path / "copy.kantadb"
    copy.write_bytes(fetched(port, "/v1/backup"))
    assert server.stop() == 0
    for file in (copy, tmp_path / "data.kantadb", *tmp_path.glob("data@*.kantadb")):
        status, said, _ = offline(run, "check", "--format", NAME, file.name)
        assert (status, " 0 unverified" in said) == (0, True)
    before = copy.read_bytes()
    reader = run("--db", copy.name, "--port", "0", "--readonly", "--format", NAME)
    port = reader.port()
    assert ask(port, "GET", "/v1/data/n") == "after"
    assert ask(port, "GET", "/v1/data/n?rev=12") == 10
    assert reader.stop() == 0
    assert copy.read_bytes() == before


def test_a_copy_is_not_served_without_the_flag(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0", "--format", NAME)
    server.ready()
    assert server.stop() == 0
    status, _, said = offline(run, "--port", "0", "--readonly")
    assert (status, "in a format of one's own: --format module:Class says whose" in said) == (65, True)


SCHEMA = """
import msgspec

class Data(msgspec.Struct):
    name: str = ""
    age: int = 0

def migrate_v1(d):
    d["name"] = "migrated"
"""


def test_schemas_and_migrations_work_over_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(SCHEMA)
    server = run("--port", "0", "--format", NAME)
    ask(server.port(), "PUT", "/v1/data/age", 3)
    assert server.stop() == 0
    server = run("--port", "0", "--format", NAME, "--schema", "model:Data", "--migrations", "model")
    port = server.port()
    assert ask(port, "GET", "/v1/data") == {"age": 3, "name": "migrated"}
    with pytest.raises(urllib.error.HTTPError, match="422"):
        ask(port, "PUT", "/v1/data/age", "old")
    assert server.stop() == 0
    assert "migrate:v1" in offline(run, "log", "--format", NAME, "data.kantadb")[1]


WRONG = """
import cbor2, msgspec

class Forgetful:
    framer = "frames"
    def encode(self, obj):
        return cbor2.dumps({k: v for k, v in obj.items() if k != "m"})
    def decode(self, payload, *, type):
        return msgspec.convert(cbor2.loads(payload), type)

class Unframed:
    encode = decode = print
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wrong:Forgetful", "wrong:Forgetful cannot be the format of a database: it decodes to something else"),
        ("wrong:Unframed", "it has no framer"),
        ("wrong:Missing", "wrong has no Missing"),
        ("missing:Class", "there is no module missing"),
        ("nonsense", "not json, msgpack or module:Class"),
    ],
)
def test_a_wrong_class_is_refused_before_there_is_a_file(run: Run, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    status, _, said = offline(run, "--port", "0", "--format", name)
    assert status == 2
    assert why in said
    assert not (tmp_path / "data.kantadb").exists()
    if ":" in name:
        (tmp_path / "data.kantadb").write_bytes(b"")
        status, _, said = offline(run, "check", "--format", name, "data.kantadb")
        assert (status, why in said) == (2, True)
