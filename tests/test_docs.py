"""The docs say what is there: routes, flags, codes, commands, links; and their examples answer what they show."""

import asyncio
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from kantactl.arguments import STATUSES, parser

import kantad.engine
from kantad.config import COMMANDS, SETTINGS
from kantad.engine.embedded import Engine, Options
from kantad.values.errors import CODES
from kantad.web.app import DATA, KEYS, ROUTES
from kantad.web.openapi import document
from tests.process.running import Running
from tests.serving import Serving

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
API = (ROOT / "docs" / "api.md").read_text()
CLIENT = (ROOT / "docs" / "client.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

SET_UP = (
    "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/kantad --db data.kantadb --port 8700",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
)

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sh (run|server)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"^```python\n((?:(?!```).)*^asyncio\.run\(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


# -- what there is, is documented


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_documented_with_its_methods(route: str) -> None:
    for method in ROUTES[route]:
        if method != "HEAD" or route in (DATA, KEYS):  # "the GETs also answer HEAD"
            assert f"`{method} {route}" in API, f"{method} {route}"


@pytest.mark.parametrize("code", CODES)
def test_an_error_code_is_documented_with_its_status(code: str) -> None:
    assert f"| `{code}` | {CODES[code][0]} |" in API


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
def test_a_setting_is_documented_as_flag_variable_and_key(name: str) -> None:
    assert f"| `--{name}` | `KANTAD_{name.upper().replace('-', '_')}` | `{name}` |" in OPERATIONS
    assert re.search(f"^#{name} = ", (ROOT / "deploy" / "kantad.toml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_offline_command_is_documented(command: str) -> None:
    assert f"| `kantad {command} FILE` |" in OPERATIONS


def test_what_kantactl_takes_and_how_it_ends_is_documented() -> None:
    page = (ROOT / "docs" / "kantactl.md").read_text()
    top = parser()
    for name, command in top.commands.items():
        assert re.search(rf"^\| `kantactl {name}[` ]", page, re.MULTILINE), name
        for option in (each for action in command.arguments for each in action.option_strings):
            assert option in ("-h", "--help", "-r") or f"`{option}" in page or f" {option} " in page, option
    for line in STATUSES.partition("exit status:\n")[2].splitlines():
        status, _, meaning = line.strip().partition(" ")
        assert f"| {status} | {meaning.strip()[:20]}" in page.replace("`", ""), line


def test_every_module_has_its_row_in_the_architecture_and_every_row_its_module() -> None:
    floors = re.split(
        r"^\*\*\d, .*?`kantad/(.*?)`", (ROOT / "docs" / "architecture.md").read_text(), flags=re.MULTILINE
    )
    assert len(floors) == 11
    for folder, text in zip(floors[1::2], floors[2::2], strict=True):
        rows = re.findall(r"^\| (`.*?`) \|", text.split("\n## ")[0], re.MULTILINE)
        named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        modules = [path.stem for path in (ROOT / "kantad" / folder).glob("*.py") if path.stem != "__init__"]
        assert sorted(named) == sorted(modules)


def test_every_module_of_the_client_has_its_row_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().split("\n## The client\n")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    modules = [path.stem for path in (ROOT / "client" / "kanta_client").glob("*.py") if path.stem != "__init__"]
    assert sorted(named) == sorted(modules)


def test_every_benchmark_is_listed() -> None:
    listed = (ROOT / "docs" / "contributing.md").read_text()
    for path in (ROOT / "tests" / "bench").glob("*.py"):
        assert f"tests/bench/{path.name}" in listed or f"tests.bench.{path.stem}" in listed, path.name


def test_the_commands_that_set_up_are_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in SET_UP:
        assert f"```sh\n{command}\n```" in readme


# -- the OpenAPI document


def test_the_openapi_document_has_exactly_the_routes_and_methods() -> None:
    found: dict[str, set[str]] = {}
    for path, item in document()["paths"].items():
        methods = {key.upper() for key in item if key != "parameters"}
        found.setdefault(path.removesuffix("/{path}"), set()).update(methods)
    assert found == {route: set(methods) for route, methods in ROUTES.items()}


def test_the_openapi_document_names_exactly_the_codes() -> None:
    assert document()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(CODES)


def test_the_openapi_document_refers_to_what_it_holds() -> None:
    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from (value for key, value in part.items() if key == "$ref")
            part = list(part.values())
        for item in part if isinstance(part, list) else ():
            yield from references(item)

    found = set(references(document()))
    assert found
    for reference in found:
        _, components, kind, name = reference.split("/")
        assert name in document()[components][kind], reference


async def test_what_is_served_is_what_is_documented(serving: Serving) -> None:
    assert (await serving.ask("GET", "/openapi.json")).json == document()
    status = document()["components"]["schemas"]["Status"]
    assert list((await serving.ask("GET", "/v1/status")).json) == status["required"] == list(status["properties"])
    for metric in re.findall(r"^# TYPE (\S+)", (await serving.ask("GET", "/metrics")).body.decode(), re.MULTILINE):
        assert f"| `{metric}` |" in OPERATIONS


def test_what_kanta_documents_has_its_place_and_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "coming-from-kanta.md").read_text().split("\n## Where everything is\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \| ?(.*?) ?\|$", page, re.MULTILINE)[2:]
    assert len(rows) > 25
    for feature, here, shown in rows:
        if here == "not there yet":
            continue
        found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
        assert found, feature
        assert re.search(rf"^ *(async )?def {found[2]}\(", (ROOT / found[1]).read_text(), re.MULTILINE), shown


# -- links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# -- examples


def answered(said: str, expected: list[str]) -> str:
    """What of the expected is not there, in this order; `…` stands for anything."""
    place = 0
    for line in expected:
        for part in filter(None, line.split("…")):
            place = said.find(part, place)
            if place < 0:
                return line
            place += len(part)
    return ""


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs curl and bash")
@pytest.mark.parametrize("page", ["quickstart.md", "kantactl.md"])
def test_a_page_of_commands_answers_what_it_shows(page: str, run: Callable[..., Running], tmp_path: Path) -> None:
    server: Running | None = None
    port, settings = 0, ""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    for kind, block in _BLOCK.findall((ROOT / "docs" / page).read_text()):
        if kind == "server":
            if server is not None:
                assert server.stop() == 0
            server = run(*shlex.split(block.replace("8700", "0"))[1:])
            port = server.port()
        elif re.fullmatch(r"([A-Z]+=\S+\n)+", block):
            settings += block
        else:
            script = (settings + block).replace("8700", str(port))
            done = subprocess.run(
                ["bash", "-eu", "-c", script],
                cwd=tmp_path,
                env={"PATH": path, "no_proxy": "*", "KANTA_URL": f"http://127.0.0.1:{port}"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            expected = [line[5:] for line in block.splitlines() if line.startswith("# => ")]
            missing = answered(done.stdout, expected)
            assert not missing, f"{missing}\nis not in\n{done.stdout}"


def test_the_synchronous_example_prints_what_it_shows(kanta_url: str, tmp_path: Path) -> None:
    [program] = re.findall(r"^```python sync\n(.*?)^```", CLIENT, re.MULTILINE | re.DOTALL)
    (tmp_path / "program.py").write_text(program.replace("http://127.0.0.1:8700", kanta_url))
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shown = [line.partition("  # => ")[2] for line in program.splitlines() if "  # => " in line]
    assert done.stdout.splitlines() == shown


def test_the_example_of_embedding_prints_what_it_shows(tmp_path: Path) -> None:
    [program] = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "embedding.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shown = [line.partition("  # => ")[2] for line in program.splitlines() if "  # => " in line]
    assert done.stdout.splitlines() == shown


def test_the_example_of_a_dry_run_shows_what_it_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "schemas.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "model.py").write_text(next(each for each in programs if "class Data" in each))
    (tmp_path / "steps.py").write_text(next(each for each in programs if "def migrate_v1" in each))
    [state] = re.findall(r"^Of a file whose one change made `(.*)`:$", page, re.MULTILINE)

    async def make() -> None:
        async with Engine(tmp_path / "data.kantadb") as engine, engine.transaction("first") as data:
            data.update(json.loads(state))

    asyncio.run(make())
    [(command, shown)] = re.findall(r"^    \$ kantad (migrate .*)\n((?:    .*\n)+)", page, re.MULTILINE)
    arguments = [sys.executable, "-m", "kantad", *command.split()]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    when = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert when.sub("", done.stdout) == when.sub("", textwrap.dedent(shown))


def test_every_option_and_name_of_the_engine_is_documented() -> None:
    page = (ROOT / "docs" / "embedding.md").read_text()
    for option in get_type_hints(Options):
        assert option in ("disk", "clock") or f"| `{option}` |" in page, option
    for name in kantad.engine.__all__:
        assert f"`{name}" in page or f" {name}(" in page, name


def test_the_example_of_tests_passes(tmp_path: Path) -> None:
    [tests] = re.findall(r"^```python pytest\n(.*?)^```", CLIENT, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_service.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:aiohttp", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("program", _PROGRAM.findall((ROOT / "docs" / "client.md").read_text()))
def test_a_program_on_the_clients_page_says_what_it_reads(
    program: str, run: Callable[..., Running], tmp_path: Path
) -> None:
    needed = re.findall(r"^(?:import|from) (aiohttp|websockets)", program, re.MULTILINE)
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {missing[0]}")
    address = run("--db", "data.kantadb", "--port", "0").ready()[2]
    (tmp_path / "program.py").write_text(program.replace("127.0.0.1:8700", address.removeprefix("http://")))
    command, environment = [sys.executable, str(tmp_path / "program.py")], {**os.environ, "no_proxy": "*"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
        impatience = threading.Timer(30.0, started.kill)
        impatience.start()
        try:
            assert started.stdout is not None
            assert '"rev"' in (line := started.stdout.readline()) or "'rev'" in line
        finally:
            impatience.cancel()
            started.kill()
