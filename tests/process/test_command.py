"""Section 11 of the contract, by the real process: the ready line, the sockets, the signals, the exit statuses."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kantad import __version__
from tests.process.running import Running, ask

Run = Callable[..., Running]


def test_the_ready_line_is_exact_and_sigterm_ends_it_with_0(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0")
    ready = server.ready()
    assert server.lines == [
        f"kantad {__version__} ready on http://127.0.0.1:{ready[2].rpartition(':')[2]} (data.kantadb, rev 0)\n"
    ]
    assert ask(int(ready[2].rpartition(":")[2]), "PUT", "/v1/data/x", b"[1]")[0] == 200
    assert server.stop() == 0
    assert stat.S_IMODE((tmp_path / "data.kantadb").stat().st_mode) == 0o600
    again = run("--port", "0", "--db", str(tmp_path / "data.kantadb"))
    assert again.ready()[4] == "1"
    assert again.stop() == 0
    assert not server.said()


def test_the_ready_line_is_one_line_whatever_the_file_is_called(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0", "--db", str(tmp_path / "a\nb\x1b.kantadb"))
    server.ready()
    assert [line.endswith("(a\\nb\\u001b.kantadb, rev 0)\n") for line in server.lines] == [True]
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_it_with_0_and_everything_acknowledged_on_disk(run: Run, number: signal.Signals) -> None:
    server = run("--port", "0", "--ack", "applied", "--flush-interval", "30")
    port = server.port()
    for i in range(5):
        assert ask(port, "PUT", f"/v1/data/{i}", b"1")[0] == 200
    server.signal(number)
    assert server.wait() == 0
    assert len(server.lines) <= 2
    again = run("--port", "0")
    assert again.ready()[4] == "5"


def test_a_signal_closes_idle_and_waiting_clients_and_is_quick(run: Run) -> None:
    server = run("--port", "0")
    port = server.port()
    with (
        socket.create_connection(("127.0.0.1", port)) as idle,
        socket.create_connection(("127.0.0.1", port)) as uploading,
    ):
        uploading.sendall(b"PUT /v1/data/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[")
        ask(port, "GET", "/v1/data")
        server.signal(signal.SIGTERM)
        assert idle.recv(100) == b""
        assert server.process.wait(5) == 0


def test_the_second_signal_ends_it_at_once(run: Run) -> None:
    server = run("--port", "0")
    port = server.port()
    with socket.create_connection(("127.0.0.1", port)) as uploading:
        uploading.sendall(b"PUT /v1/data/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[")
        ask(port, "GET", "/v1/data")
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        assert server.wait() == 0


def test_a_signal_while_it_starts_ends_it_with_0(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "held.toml")
    server = run("--config", "held.toml")
    with open(tmp_path / "held.toml", "wb"):  # opens when the other side does: it is reading its settings now
        assert server.stop() == 0
    assert server.lines == []


def test_the_port_that_is_taken_is_named_and_leaves_no_file(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = run("--port", str(port))
        assert server.wait() == 2
    assert f"127.0.0.1 port {port}: address already in use (--port chooses another)" in server.lines[0].lower()
    assert len(server.lines) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--host", "192.0.2.1", "--insecure", "--port", "0"], "--host chooses another"),
        (["--host", "no.such.host.invalid", "--insecure"], "--host chooses another"),
        (["--host", "a..b", "--insecure"], "--host chooses another"),
        (["--unix", "no/folder"], "--unix chooses another"),
        (["--unix", "x" * 200], "--unix chooses another"),
    ],
)
def test_an_address_that_cannot_be_had_leaves_no_file(
    run: Run, tmp_path: Path, arguments: list[str], hint: str
) -> None:
    server = run(*arguments)
    assert server.wait() == 2
    assert hint in server.lines[0]
    assert len(server.lines) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.isdir("/sys"), reason="/sys is a folder that takes no file, from root neither")
def test_a_folder_that_takes_no_file_is_named(run: Run) -> None:
    server = run("--port", "0", "--db", "/sys/data.kantadb")
    assert server.wait() == 2
    assert "/sys: no file can be made there: " in server.lines[0]
    assert ".new-" not in server.lines[0]


def test_a_file_that_cannot_be_made_leaves_no_socket(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data.kantadb").symlink_to("no/folder/data.kantadb")
    server = run("--unix", "socket")
    assert server.wait() == 2
    assert not (tmp_path / "socket").exists()


def test_localhost_is_all_its_addresses(run: Run) -> None:
    server = run("--host", "localhost", "--port", "0")
    assert ask(server.port(), "GET", "/v1/data")[0] == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--port", "x"], {}, "--port"),
        (["--colour", "red"], {}, "--colour"),
        ([], {"KANTAD_MAX_BODY": "much"}, "KANTAD_MAX_BODY"),
        (["--config", "none.toml"], {}, "none.toml"),
        (["--host", "0.0.0.0"], {}, "--insecure"),
        (["--db", "no/such/folder/x.kantadb"], {}, "no/such/folder"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem", "--port", "0"], {}, "--tls-cert a.pem: No such file"),
        (["--tls-cert", "/dev/null", "--tls-key", "b.pem", "--port", "0"], {}, "--tls-key b.pem: No such file"),
        (["--tls-cert", "/dev/null", "--tls-key", "/dev/null", "--port", "0"], {}, "--tls-cert /dev/null"),
    ],
)
def test_a_wrong_setting_ends_it_with_2_and_is_named(
    run: Run, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    server = run(*arguments, **environment)
    assert server.wait() == 2
    text = "".join(server.lines)
    assert named in text
    assert "Traceback" not in text


def test_version_and_help_are_on_stdout(run: Run) -> None:
    version = run("--version")
    assert version.wait() == 0
    assert version.said() == f"kantad {__version__}\n"
    told = run("--help")
    assert told.wait() == 0
    text = told.said()
    assert "--flush-interval" in text
    commands = ("kantad check ", "kantad dump ", "kantad log ", "kantad repair ")
    for part in (*commands, "{json,msgpack,MODULE:CLASS}", "16MiB"):
        assert part in text
    assert "None" not in text
    for arguments in (("help",), ("-h",)):
        same = run(*arguments)
        assert (same.wait(), same.said()) == (0, text)
    log = run("help", "log")
    assert log.wait() == 0
    assert "--follow" in log.said()


def test_a_word_that_is_no_command_is_told_the_commands(run: Run) -> None:
    server = run("frobnicate")
    assert server.wait() == 2
    assert "check, compact, convert, dump, log, migrate, repair" in server.lines[0]
    assert len(server.lines) == 2


@pytest.mark.parametrize("arguments", [["x.kantadb"], ["some/file"], ["--port", "0", "x.kantadb"]])
def test_a_file_without_its_flag_is_told_the_flag(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    server = run(*arguments)
    assert server.wait() == 2
    assert f"kantad --db {arguments[-1]}\n" in server.lines[0]
    assert not list(tmp_path.iterdir())


def test_environment_and_file_reach_the_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kantad.toml").write_text('db = "from-file.kantadb"\nport = 1\nformat = "msgpack"\n')
    server = run("--config", "kantad.toml", KANTAD_PORT="0", KANTAD_ACK="written", LIST_SETTING="unused")
    status = json.loads(ask(server.port(), "GET", "/v1/status")[1])
    assert status["file"]["path"].endswith("from-file.kantadb")
    assert (status["file"]["format"], status["ack"]) == ("msgpack", "written")
    assert server.stop() == 0


def test_a_variable_that_is_no_setting_is_a_warning(run: Run) -> None:
    server = run("--port", "0", KANTAD_DATABASE="x.kantadb")
    server.ready()
    assert server.stop() == 0
    assert "WARNING KANTAD_DATABASE is set" in server.lines[0]
    assert len(server.lines) == 2


def test_a_file_that_is_served_already_ends_it_with_75(run: Run, tmp_path: Path) -> None:
    first = run("--port", "0")
    first.ready()
    before = (tmp_path / "data.kantadb").read_bytes()
    second = run("--port", "0")
    assert second.wait() == 75
    assert "Traceback" not in "".join(second.lines)
    assert (tmp_path / "data.kantadb").read_bytes() == before


def test_a_damaged_file_ends_it_with_65_and_says_where(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0")
    port = server.port()
    for i in range(3):
        ask(port, "PUT", f"/v1/data/key{i}", b'"some value"')
    assert server.stop() == 0
    file = tmp_path / "data.kantadb"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"key1":"some', b'"key1":"Some'))
    damaged = run("--port", "0")
    assert damaged.wait() == 65
    text = "".join(damaged.lines)
    for part in ("data.kantadb", "line ", "byte ", "kantad check", "kantad repair"):
        assert part in text
    assert file.read_bytes() == whole.replace(b'"key1":"some', b'"key1":"Some')


def test_what_is_no_kantadb_ends_it_with_65(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data.kantadb").write_text("a letter to a friend\n" * 10)
    server = run("--port", "0")
    assert server.wait() == 65
    folder = run("--port", "0", "--db", ".")
    assert folder.wait() == 65
    assert (tmp_path / "data.kantadb").read_text().startswith("a letter")


def test_a_file_that_was_replaced_ends_it_with_74(run: Run, tmp_path: Path) -> None:
    server = run("--port", "0")
    port = server.port()
    ask(port, "PUT", "/v1/data/x", b"1")
    (tmp_path / "data.kantadb").rename(tmp_path / "moved.kantadb")
    (tmp_path / "data.kantadb").write_bytes((tmp_path / "moved.kantadb").read_bytes())
    status, body = ask(port, "PUT", "/v1/data/x", b"2")
    assert (status, json.loads(body)["code"]) == (503, "unavailable")
    assert server.wait() == 74
    assert "".join(server.lines).count("it was replaced") == 1
    assert "Traceback" not in "".join(server.lines)


def test_a_unix_socket_is_its_owners_only_and_removed_at_the_end(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = run("--unix", "socket")
    assert server.ready()[2] == "unix:socket"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    if shutil.which("curl"):
        command = ["curl", "-s", "--unix-socket", str(path), "http://localhost/v1/data"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"{}"
    assert server.stop() == 0
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(run: Run, tmp_path: Path) -> None:
    server = run("--unix", "socket")
    server.ready()
    other = run("--unix", "socket", "--db", "other.kantadb")
    assert other.wait() == 2
    server.signal(signal.SIGKILL)
    server.wait()
    assert (tmp_path / "socket").exists()
    again = run("--unix", "socket")
    again.ready()
    assert again.stop() == 0


def test_a_file_in_the_place_of_the_unix_socket_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "socket").write_text("precious")
    server = run("--unix", "socket")
    assert server.wait() == 2
    assert (tmp_path / "socket").read_text() == "precious"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_spoken_with_a_certificate(run: Run, tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"]
    command = ["openssl", "req", "-x509", *key, "-out", "cert.pem", "-days", "2", *subject]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    server = run("--port", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    ready = server.ready()
    assert ready[2].startswith("https://127.0.0.1:")
    port = int(ready[2].rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    for method, body, origin in [("PUT", "5", f"https://localhost:{port}"), ("GET", None, f"https://localhost:{port}")]:
        connection.request(method, "/v1/data/x", body, {"Origin": origin})
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:1]) in [(200, b"{"), (200, b"5")]
    connection.close()
    assert ask_plainly(port) == b""
    assert server.stop() == 0
    assert len(server.lines) == 1, server.lines


def ask_plainly(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            return b"" if connection.recv(1000)[:4] != b"HTTP" else b"it answered"
        except ConnectionError:
            return b""


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_log_is_one_harmless_line_a_record(run: Run, style: str) -> None:
    server = run("--port", "0", "--log-format", style)
    port = server.port()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /\x1b[31m\xc2\x9b HTTP/1.1\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert server.stop() == 0
    line = server.lines[1]
    assert len(server.lines) == 2
    assert line[:-1].isprintable()
    assert len(line) <= 512
    if style == "json":
        record = json.loads(line)
        assert (record["level"], record["logger"]) == ("warning", "kantad.http")
        assert record["ts"].endswith("Z")
    else:
        assert " WARNING refused " in line
