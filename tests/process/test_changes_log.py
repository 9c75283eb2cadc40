"""The log of changes: what it prints, that it lags rather than be in the way, the flags, and a real process."""

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kantad import changes
from kantad.changes import ChangeFormatter, ChangeLog, JsonChangeFormatter, bounded
from kantad.engine.engine import Engine
from kantad.values.content import MISSING
from kantad.values.lines import Edit
from kantad.values.names import Names
from tests.engine.engine_kit import Database, delete, flushed, put
from tests.process.running import Running
from tests.process.test_own_format import ask

Run = Callable[..., Running]


class Kept(logging.Handler):
    """Keeps what is logged; `gate` holds it up."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.gate = threading.Event()
        self.gate.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.gate.wait(20)
        self.records.append(record)

    def texts(self, formatter: logging.Formatter | None = None) -> list[str]:
        return [(formatter or ChangeFormatter(None, False)).format(record) for record in self.records]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    database = Database(str(tmp_path / "data.kantadb"))
    yield database
    await database.stop()


def logged(engine: Engine, kept: Kept) -> ChangeLog:
    log = logging.Logger("test", logging.INFO)
    log.addHandler(kept)
    made = ChangeLog(engine.log.codec, log)
    engine.watcher = made.published
    return made


async def test_additions_updates_and_deletions_are_told_with_old_and_new_values(database: Database, kept: Kept) -> None:
    engine = database.open()
    log = logged(engine, kept)
    put(engine, "/users/ann", {"name": "Ann", "tags": ["x", "y"]}, user="root", action="create")
    put(engine, "/users/ann/name", "Anna\x1b[2J")
    put(engine, "/users/ann/tags", ["y"])
    delete(engine, "/users/ann")
    await flushed(engine)
    log.close()
    first, second, third, last = (text.split(" ", 2)[2] for text in kept.texts())
    assert first == 'create by root\n  users =\n    ann:          {"name":"Ann","tags":["x","y"]}'
    assert second == 'put  users.ann.name = "Ann" → "Anna\\u001b[2J"'
    assert third == 'put  users.ann.tags = ["x","y"] → ["y"]'
    assert last.startswith('delete  users.ann ✗ {"name":')
    painted = kept.texts(ChangeFormatter(None, True))[1]
    assert "\x1b[33mname\x1b[0m" in painted
    assert "\x1b[2J" not in painted


async def test_as_json_it_is_one_object_a_change(database: Database, kept: Kept) -> None:
    engine = database.open()
    log = logged(engine, kept)
    put(engine, "/users", {"u1": {"a": 1}})
    put(engine, "/users/u1/a", 2, user="u1")
    await flushed(engine)
    log.close()
    names = Names({"u1": "Ann Lee"}.get, pytest.fail)
    told = json.loads(kept.texts(JsonChangeFormatter(names))[1])
    assert (told["rev"], told["action"], told["user"], told["level"]) == (2, "put", "Ann Lee", "info")
    assert told["changes"] == ['users."Ann Lee".a = 1 → 2']
    assert json.loads(kept.texts(JsonChangeFormatter(None))[0])["changes"] == ["users =", 'u1:           {"a":1}']


async def test_what_is_too_much_is_left_out_and_said(database: Database, kept: Kept) -> None:
    engine = database.open()
    log = logged(engine, kept)
    put(engine, "/many", {f"k{number}": number for number in range(1000)})
    put(engine, "/large", "x" * changes.LARGE)
    put(engine, "/long", "y" * 10_000)
    await flushed(engine)
    log.close()
    many, large, long = kept.texts()
    assert many.count("\n") <= changes.LINES + 2
    assert max(map(len, many.splitlines())) <= changes.WIDTH
    assert large.startswith("2, a change of 262")
    assert len(long) <= changes.WIDTH


def test_of_many_edits_so_many_are_told() -> None:
    found, more = bounded(iter([Edit((number,), MISSING, 1) for number in range(250)]))
    assert (len(found), more) == (changes.LINES, 150)
    found, more = bounded([Edit((), MISSING, {str(number): 1 for number in range(250)}), Edit((1,), 1, 2)])
    assert (len(found[0].new), len(found), more) == (100, 1, 151)


async def test_a_log_that_nobody_reads_holds_up_nothing_and_says_what_it_skipped(
    database: Database, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST", 10)
    engine = database.open()
    kept.gate.clear()
    log = logged(engine, kept)
    for number in range(100):
        put(engine, "/n", number)
        await flushed(engine)
    assert log.given <= 12
    log.close(0.05)
    assert log.thread.is_alive()
    kept.gate.set()
    log.thread.join(20)
    shown = [text for text in kept.texts() if "put" in text]
    assert [text.split()[0] for text in shown] == [str(number + 1) for number in range(len(shown))]
    assert f"{100 - len(shown)} changes are not shown" in kept.texts()[-1]


async def test_a_change_that_cannot_be_told_is_a_fault_in_the_log_and_the_next_is_told(
    database: Database, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open()
    log = logged(engine, kept)
    monkeypatch.setattr(log, "decode", lambda payload: 1 / 0)
    put(engine, "/n", 1)
    await flushed(engine)
    log.close()
    assert "change 1 could not be told" in kept.texts()[0]


def test_the_process_prints_changes_with_names_as_text_and_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text(
        "def name_of(key):\n    if key == 'bad':\n        raise ValueError('who?')\n    return {'u1': 'Ann'}.get(key)\n"
    )
    (tmp_path / "kantad.toml").write_text('log-changes = true\nresolver = "names:name_of"\n')
    server = run("--port", "0", "--config", "kantad.toml")
    port = server.port()
    ask(port, "PUT", "/v1/data/users/u1", {"age": 1})
    ask(port, "PUT", "/v1/data/users/u1/age", 2)
    ask(port, "PUT", "/v1/data/bad", 1)
    ask(port, "PUT", "/v1/data/bad", 2)
    assert server.stop() == 0
    said = "".join(server.lines)
    assert "put  users.Ann.age = 1 → 2\n" in said
    assert "put  bad = 1 → 2\n" in said
    assert said.count("ValueError: who? (asked for 'bad'; told once)") == 1
    assert "\x1b" not in said
    server = run("--port", "0", KANTAD_LOG_CHANGES="1", KANTAD_LOG_FORMAT="json")
    ask(server.port(), "DELETE", "/v1/data/users/u1")
    assert server.stop() == 0
    [line] = [json.loads(line) for line in server.lines if "kantad.changes" in line]
    assert (line["rev"], line["action"], line["changes"]) == (5, "delete", ['users.u1 ✗ {"age":2}'])
    log = run("log", "--resolver", "names:name_of", "data.kantadb")
    assert log.wait() == 0
    assert "users.Ann.age = 1 → 2" in log.said()
    assert sum("who?" in line for line in log.lines) == 1


def test_without_the_flag_nothing_is_printed_and_a_wrong_resolver_is_refused(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0")
    ask(server.port(), "PUT", "/v1/data/a", 1)
    assert server.stop() == 0
    assert len(server.lines) == 1
    for name, why in (("missing:f", "no module missing"), ("json:Missing", "has no Missing"), ("x", "module:name")):
        server = run("--port", "0", "--log-changes", "--resolver", name, "--db", "new.kantadb")
        assert server.wait() == 2
        assert why in "".join(server.lines)
        assert not (tmp_path / "new.kantadb").exists()
    log = run("log", "--resolver", "missing:f", "data.kantadb")
    assert log.wait() == 2
