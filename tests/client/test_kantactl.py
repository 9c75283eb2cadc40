"""`kantactl` as a process against a real server: what it prints, where, and how it ends."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kanta_client import SyncKantaClient
from kanta_client.testing import serve

import kantad

TIMEOUT = 30
COMMAND = [sys.executable, "-m", "kantactl"]
Done = subprocess.CompletedProcess[str]


class Kantactl:
    """Runs it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "KANTA_URL": url, "TERM": "xterm"}
        self.environment.pop("NO_COLOR", None)

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Done:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """What it prints, when all is well."""
        done = self(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start it, to be read from while it runs."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_a_terminal(self, *arguments: str, **environment: str) -> str:
        """What it shows there."""
        master, slave = pty.openpty()
        command, environment = [*COMMAND, *arguments], {**self.environment, **environment}
        with subprocess.Popen(command, env=environment, stdout=slave, stderr=slave) as process:
            os.close(slave)
            shown = b""
            while True:
                try:
                    shown += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
            process.wait(TIMEOUT)
        os.close(master)
        return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def db(url: str) -> Iterator[SyncKantaClient]:
    with SyncKantaClient(url) as db:
        yield db


@pytest.fixture
def kantactl(url: str, tmp_path: Path) -> Kantactl:
    return Kantactl(url, tmp_path)


# -- values


def test_a_value_is_set_printed_patched_and_removed(kantactl: Kantactl) -> None:
    written = kantactl.json("set", "/users/alice", '{"name":"Alice","n":1}', "--action", "sign_up", "--user", "me")
    assert (written["rev"], written["changed"], "key" in written) == (1, True, False)
    assert kantactl("get", "/users/alice").stdout == '{"name":"Alice","n":1}\n'
    assert kantactl("get", "/users/alice/name", "--raw").stdout == "Alice\n"
    assert kantactl.json("get", "/users/alice", "--meta")["rev"] == 1
    assert kantactl.json("patch", "/users/alice", '{"n":2,"$delete":["name"]}')["rev"] == 2
    assert kantactl.json("patch", "/users/alice", '{"n":null,"x":"é"}', "--merge")["rev"] == 3
    assert kantactl("get").stdout == '{"users":{"alice":{"x":"é"}}}\n'
    assert kantactl.json("keys", "/users") == ["alice"]
    assert kantactl("keys", "/users", "-r").stdout == "alice\n"
    assert kantactl.json("delete", "/users/alice")["rev"] == 4
    assert kantactl.json("get", "/users/alice/name", "--rev", "1") == "Alice"
    assert kantactl.json("revert", "/users", "--rev", "1")["rev"] == 5
    assert kantactl.json("status")["rev"] == kantactl.json("snapshot")["rev"] == 5


def test_a_value_comes_from_where_it_is_said_to(kantactl: Kantactl, tmp_path: Path) -> None:
    (tmp_path / "value.json").write_text('{"from":"file"}')
    kantactl.json("set", "/x", "@value.json")
    assert kantactl.json("get", "/x") == {"from": "file"}
    kantactl.json("set", "/x", "-", stdin="[1]\n")
    assert kantactl.json("get", "/x") == [1]
    for text in ("@value.json", "-5", "-", "1"):
        kantactl.json("set", "--string", "/x", "--", text)
        assert kantactl.json("get", "/x") == text


def test_what_is_asked_for_with_a_write_is_passed_on(kantactl: Kantactl, db: SyncKantaClient) -> None:
    kantactl.json("set", "/x", "1", "--if-absent", "--key", "k", "--ack", "applied")
    assert kantactl.json("set", "/x", "1", "--if-absent", "--key", "k", "--ack", "applied")["replayed"]
    etag = kantactl.json("get", "/x", "--meta")["etag"]
    kantactl.json("set", "/x", "2", "--if-etag", etag)
    assert kantactl("set", "/x", "3", "--if-etag", etag).returncode == 4
    assert kantactl("set", "/x", "3", "--base", "1").returncode == 4
    kantactl.json("set", "/x", "3", "--base", "2", "--if-exists")
    assert [(change.action, change.key) for change in db.history(limit=1)] == [("put", "k")]


# -- how it ends


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["get", "/nope"], 1, "kantactl: not_found: there is no value at this path (/nope)"),
        (["delete", "/nope"], 1, "kantactl: not_found: "),
        (["get", "nope"], 2, "kantactl: invalid_path: "),
        (["set", "/x", "{"], 2, "kantactl: usage: the value is no JSON: "),
        (["set", "/x", "@nope"], 2, "kantactl: usage: "),
        (["get", "--url", "ftp://x"], 2, "kantactl: usage: a URL begins with "),
        (["patch", "/x", "{}", "--merge", "--if-exists"], 2, "kantactl: usage: --merge takes no "),
        (["get", "--token-file", "nope"], 2, "kantactl: usage: "),
        (["patch", "", '{"n":{"$delete":[0]}}'], 3, "kantactl: patch_mismatch: "),
        (["set", "", "5"], 3, "kantactl: invalid_value: "),
        (["delete", "/nope", "--if-absent"], 2, "kantactl: usage: delete takes no --if-absent"),
        (["set", "/n", "2", "--if-absent"], 4, "kantactl: precondition_failed: "),
        (["set", "/n", "2", "--base", "0"], 4, "kantactl: conflict: "),
        (["get", "--url", "http://127.0.0.1:1", "--timeout", "0.3"], 5, "kantactl: unreachable: "),
        (["watch", "--url", "http://127.0.0.1:1", "--timeout", "0.3"], 5, "kantactl: unreachable: "),
        (["get", "--rev", "99"], 8, "kantactl: unknown_revision: "),
        (["history", "--since", "99"], 8, "kantactl: history_diverged: "),
        (["watch", "--since", "1-0000000000000000"], 8, "kantactl: history_diverged: "),
    ],
)
def test_the_exit_status_tells_what_happened(
    kantactl: Kantactl, db: SyncKantaClient, arguments: list[str], status: int, said: str
) -> None:
    db.set("/n", 1)
    done = kantactl(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said)


def test_usage_is_told_by_status_2(kantactl: Kantactl) -> None:
    for arguments in (
        [],
        ["nope"],
        ["get", "a", "b"],
        ["get", "--ur", "x"],
        ["watch", "--limit", "x"],
        *(["get", "--timeout", text] for text in ("nan", "-1", "soon")),
    ):
        done = kantactl(*arguments)
        assert (done.returncode, "_seconds" in done.stderr) == (2, False)
    assert kantactl("--version").stdout == f"kantactl {kantad.__version__}\n"
    helped = kantactl("--help")
    assert helped.returncode == 0
    assert "exit status:" in helped.stdout


def test_errors_are_json_on_request(kantactl: Kantactl) -> None:
    problem = json.loads(kantactl("get", "/nope", "--json-errors").stderr.splitlines()[0])
    assert (problem["code"], problem["status"], problem["path"]) == ("not_found", 404, "/nope")


def test_the_token_comes_from_the_environment_or_a_file(kantactl: Kantactl, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert kantactl("get", KANTA_TOKEN="secret").returncode == 0
    assert kantactl("get", "--token-file", "token").returncode == 0
    assert kantactl("get", "--token", "secret").returncode == 2


def test_a_reader_that_goes_ends_it_quietly(kantactl: Kantactl, db: SyncKantaClient) -> None:
    for n in range(3):
        db.set("/n", "x" * 100_000 + str(n))
    for arguments in (["history"], ["get"], ["watch", "--since", "0"], ["watch"]):
        process = kantactl.start(*arguments)
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            if arguments != ["watch"]:
                process.stdout.read(1)
            process.stdout.close()
            assert process.wait(TIMEOUT) == 0
            assert "Broken" not in process.stderr.read()


# -- changes


def test_the_history_is_records(kantactl: Kantactl, db: SyncKantaClient) -> None:
    for n in range(4):
        db.set("/a/n", n, action=f"act{n}", user="me")
    lines = [json.loads(line) for line in kantactl("history", "/a", "--since", "1", "--limit", "2").stdout.splitlines()]
    assert [(line["rev"], line["a"], line["u"], line["diff"]) for line in lines] == [
        (2, "act1", "me", {"n": 1}),
        (3, "act2", "me", {"n": 2}),
    ]
    back = kantactl("history", "--newest-first", "--action", "act[12]", "--until", "3").stdout.splitlines()
    assert [json.loads(line)["rev"] for line in back] == [3, 2]


def test_changes_are_watched_as_they_happen(kantactl: Kantactl, db: SyncKantaClient) -> None:
    db.set("/a", {"n": 0})
    process = kantactl.start("watch", "/a", "--value", "--limit", "2")
    assert process.stdout is not None
    with process:
        first = json.loads(process.stdout.readline())
        assert (first["event"], first["value"], "diff" in first) == ("snapshot", {"n": 0}, False)
        db.set("/a/n", 1)
        second = json.loads(process.stdout.readline())
        assert (second["event"], second["rev"], second["diff"], second["value"]) == ("change", 2, {"n": 1}, {"n": 1})
        db.delete("/a")
        third = json.loads(process.stdout.readline())
        assert (third["deleted"], "value" in third, "diff" in third) == (True, False, False)
        assert process.wait(TIMEOUT) == 0


def test_a_watch_goes_on_over_a_restart_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    with serve(path=path) as url:
        process = Kantactl(url, tmp_path).start("watch", "--since", "0", "--limit", "2")
        assert process.stdout is not None
        assert process.stderr is not None
        with SyncKantaClient(url) as db:
            db.set("/n", 1)
        assert json.loads(process.stdout.readline())["rev"] == 1
    assert process.stderr.readline().startswith("kantactl: stale: ")
    with serve(path=path, port=int(url.rpartition(":")[2])), process:
        assert process.stderr.readline().startswith("kantactl: connected again")
        with SyncKantaClient(url) as db:
            db.set("/n", 2)
        assert json.loads(process.stdout.readline())["rev"] == 2
        assert process.wait(TIMEOUT) == 0


def test_an_interruption_ends_a_watch_with_130(kantactl: Kantactl, db: SyncKantaClient) -> None:
    process = kantactl.start("watch", "--since", "0")
    assert process.stdout is not None
    with process:
        db.set("/n", 1)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


# -- a terminal


def test_on_a_terminal_values_are_indented_and_in_colour(kantactl: Kantactl, db: SyncKantaClient) -> None:
    db.set("/a", {"s": "x", "n": [1, None]})
    shown = kantactl.on_a_terminal("get", "/a")
    assert shown.splitlines()[:2] == ["{", '  \x1b[34m"s"\x1b[0m: \x1b[32m"x"\x1b[0m,']
    assert shown.splitlines()[3:5] == ["    \x1b[36m1\x1b[0m,", "    \x1b[35mnull\x1b[0m"]
    uncoloured = kantactl.on_a_terminal("get", "/a", NO_COLOR="1")
    assert (json.loads(uncoloured), uncoloured.count("\n")) == (db.get("/a"), 7)
    assert "\x1b" not in kantactl.on_a_terminal("get", "/a", TERM="dumb")
    assert kantactl.on_a_terminal("get", "/a", "--json") == '{"s":"x","n":[1,null]}\n'
    assert "\x1b" in kantactl("get", "/a", "--color", "always").stdout


def test_nothing_is_shown_that_a_terminal_would_act_on(kantactl: Kantactl, db: SyncKantaClient) -> None:
    nasty = "\x1b]0;title\x07\x9b31m\u202e\u2066"
    db.set(("k" + nasty,), nasty)
    watch = ["watch", "--since", "0", "--limit", "1"]
    told = ["get", "/not" + nasty, "--json-errors"]
    for arguments in (["get"], ["get", "--json"], ["history"], watch, ["keys", "-r"], ["get", "/k" + nasty], told):
        shown = kantactl.on_a_terminal(*arguments, NO_COLOR="1")
        assert shown
        assert not set("\x1b\x07\x9b\u202e\u2066") & set(shown), arguments
    assert json.loads(kantactl.on_a_terminal("get", NO_COLOR="1")) == {"k" + nasty: nasty}
    assert json.loads(kantactl.on_a_terminal("get", "--json")) == {"k" + nasty: nasty}
    assert kantactl("--complete", "get", "/").stdout == ""


def test_on_a_terminal_changes_are_lines(kantactl: Kantactl, db: SyncKantaClient) -> None:
    db.set("/users/alice/age", 30, action="sign_up", user="me")
    db.set("/users/alice/age", 31)
    db.delete("/users")
    shown = kantactl.on_a_terminal("history", NO_COLOR="1").splitlines()
    assert [line.partition("Z ")[2] for line in shown] == [
        "sign_up by me  users.alice.age = 30",
        "put  users.alice.age = 31",
        "delete  users ✗",
    ]
    watched = kantactl.on_a_terminal("watch", "--since", "1", "--limit", "2", "--value", NO_COLOR="1").splitlines()
    assert [line.partition("Z ")[2] for line in watched if "Z " in line] == [
        "put  users.alice.age = 31",
        'delete  users ✗ {"alice":{"age":31}}',
    ]


# -- completion

BASH = """
source <({command} completion bash)
compopt() {{ :; }}
kantactl() {{ {command} "$@"; }}
command() {{ "$@"; }}
COMP_LINE={line!r}
COMP_POINT=${{#COMP_LINE}}
_kantactl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kantactl se", ["set"]),
        ("kantactl get --me", ["--meta"]),
        ("kantactl set --ack ", ["durable", "written", "applied"]),
        ("kantactl completion z", ["zsh"]),
        ("kantactl get /u", ["/users"]),
        ("kantactl set --ack durable /users/al", ["/users/alice"]),
        ("kantactl get /users/a b", []),
        ("kantactl get /users/", ["/users/alice", "/users/a\\ b", "/users/x:1", "/users/x:2", "/users/s~1l"]),
        ("kantactl get /users/x:", ["1", "2"]),
        ("kantactl keys --url http://127.0.0.1:1 /u", []),
        ("kantactl set /users/alice ", []),
    ],
)
def test_bash_completes(kantactl: Kantactl, db: SyncKantaClient, line: str, expected: list[str]) -> None:
    db.set("/users", {"alice": 1, "a b": 1, "x:1": 1, "x:2": 1, "s/l": 1})
    script = BASH.format(command=" ".join(COMMAND), line=line)
    done = subprocess.run(
        ["bash", "-c", script], env=kantactl.environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stdout.split("\n")[: len(expected)] == expected
    assert (done.stdout.strip("\n").count("\n") + 1 if expected else 0, done.stderr) == (len(expected), "")


def test_completion_is_printed_for_each_shell(kantactl: Kantactl) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "kantactl --complete" in kantactl("completion", shell).stdout
        if shutil.which(shell):
            script = kantactl("completion", shell).stdout
            assert subprocess.run([shell, "-n"], input=script, text=True, timeout=TIMEOUT).returncode == 0


def test_completion_imports_neither_the_client_nor_aiohttp(kantactl: Kantactl) -> None:
    script = "import sys, kantactl.__main__ as main; main.run(['--complete', 'get', '/']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=kantactl.environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert not {"kanta_client", "aiohttp", "asyncio"} & set(done.stdout.split())


def test_a_backup_is_written_and_never_over_a_file(kantactl: Kantactl, db: SyncKantaClient, tmp_path: Path) -> None:
    db.set("/n", 1)
    told = kantactl.json("backup", "copy.kantadb")
    assert told["file"] == "copy.kantadb"
    assert (told["bytes"], told["rev"]) == ((tmp_path / "copy.kantadb").stat().st_size, 1)
    assert kantactl("backup", "copy.kantadb").returncode == 2
    assert kantactl.json("backup", "copy.kantadb", "--force")["bytes"] > 0
