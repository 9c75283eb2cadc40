"""The command with --readonly: a copy, and a file that another one serves."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.process.running import Running, ask
from tests.store.logs import every_kind

Start = Callable[..., Running]


def test_a_file_is_served_beside_the_one_who_has_it(run: Start, tmp_path: Path) -> None:
    writer = run("--port", "0")
    port = writer.port()
    assert ask(port, "PUT", "/v1/data/a", b"1")[0] == 200
    reader = run("--port", "0", "--readonly")
    copy = reader.port()
    assert ask(port, "PUT", "/v1/data/a", b"2")[0] == 200
    assert ask(copy, "GET", "/v1/data/a") == (200, b"1")
    assert ask(copy, "PUT", "/v1/data/a", b"3")[0] == 403
    command = [sys.executable, "-m", "kantactl", "--url", f"http://127.0.0.1:{copy}", "set", "/a", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "read_only" in done.stderr) == (3, True)
    assert (reader.stop(), writer.stop()) == (0, 0)


def test_a_file_that_may_only_be_read_is_served_and_one_that_is_not_there_is_not_made(
    run: Start, tmp_path: Path
) -> None:
    path = tmp_path / "backup.kantadb"
    path.write_bytes(bytes(every_kind("json").data))
    path.chmod(0o400)
    reader = run("--db", "backup.kantadb", "--port", "0", KANTAD_READONLY="true")
    assert ask(reader.port(), "GET", "/v1/data/n") == (200, b"2")
    assert reader.stop() == 0
    none = run("--db", "none.kantadb", "--port", "0", "--readonly")
    assert none.wait() == 2
    assert [each.name for each in tmp_path.iterdir()] == ["backup.kantadb"]


def test_one_that_the_code_would_bring_on_is_served_as_it_is_with_a_warning(run: Start, tmp_path: Path) -> None:
    (tmp_path / "backup.kantadb").write_bytes(before := bytes(every_kind("json").data))
    (tmp_path / "steps.py").write_text(
        "def migrate_v1(d): d.clear()\ndef migrate_v2(d): pass\ndef migrate_v3(d): pass\n"
    )
    reader = run("--db", "backup.kantadb", "--port", "0", "--readonly", "--migrations", "steps")
    assert ask(reader.port(), "GET", "/v1/data/n") == (200, b"2")
    assert reader.stop() == 0
    assert "of version 0, the code of 3, and what is only read is not migrated: it is served as it is" in "".join(
        reader.lines
    )
    assert (tmp_path / "backup.kantadb").read_bytes() == before
