"""The house itself: imports go down, files and functions stay short, names say something, the docs name everything."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kantad.config import SETTINGS
from kantad.values.errors import CODES
from kantad.web.app import ROUTES

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "kantad").rglob("*.py")), *sorted((ROOT / "client").rglob("*.py"))]
TESTING = (
    "kanta_client/testing.py",
    "kanta_pytest/__init__.py",
)  # start servers, so they are above all floors of these
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FORBIDDEN = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "manager",
    "managers",
    "impl",
    "mixin",
    "mixins",
    "misc",
}

# what each floor may import, besides itself
BELOW: dict[str, set[str]] = {
    "values": set(),
    "store": {"values"},
    "engine": {"store", "values"},
    "web": {"engine", "store", "values", ""},
    "tools": {"store", "values", ""},
    "client": {"values", ""},
    "testing": {"client", "web", "engine", "store", "values"},
    "process": {"web", "engine", "store", "values", "tools", "process", ""},
}


def floor(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "client":
        return "testing" if "/".join(parts[1:]) in TESTING else "client"
    return parts[1] if len(parts) > 2 else "process"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """The modules of ours that a file imports, with the name taken from each and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("kantad", "kanta_client"):
            for alias in node.names:
                yield node.module, alias.name, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("kantad", "kanta_client"):
                    yield alias.name, "", node.lineno


def target(module: str, name: str) -> str:
    """The floor of an imported module; `""` is what any may use: the version, and the escaping of what is printed."""
    parts = module.split(".")
    if parts[0] == "kanta_client":
        return "testing" if "testing" in (*parts[1:], name) else "client"
    if len(parts) == 1:
        is_module = (ROOT / "kantad" / name).is_dir() or (ROOT / "kantad" / f"{name}.py").is_file()
        return target(f"kantad.{name}", "") if name and is_module else ""
    if parts[1] == "logs":
        return ""
    return parts[1] if (ROOT / "kantad" / parts[1]).is_dir() else "process"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_only_go_down(path: Path) -> None:
    here = floor(path)
    for module, name, line in imports(path):
        there = target(module, name)
        assert there == here or there in BELOW[here], f"{named(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_no_file_is_over_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_function_is_over_50_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, f"{named(path)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_a_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not set(path.stem.split("_")) & FORBIDDEN


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_nobody_takes_a_private_name_from_another_module(path: Path) -> None:
    for module, name, line in imports(path):
        private = [part for part in (*module.split("."), name) if part.startswith("_") and not part.startswith("__")]
        assert not private, f"{named(path)}:{line} takes {private[0]} from {module}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_nobody_reaches_through_another_objects_underscore(path: Path) -> None:
    tree = ast.parse(path.read_text())
    modules = {
        alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        owner = node.value
        own = isinstance(owner, ast.Name) and (owner.id in ("self", "cls") or owner.id in modules)
        own = own or (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super")
        assert own or node.attr in ("_exit", "_replace", "_asdict"), f"{named(path)}:{node.lineno} {node.attr}"


def documentation() -> str:
    if not (ROOT / "docs" / "api.md").exists():
        pytest.skip("docs/api.md is not written yet")
    return "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))


def test_every_route_is_documented() -> None:
    text = documentation()
    assert not [route for route in ROUTES if route not in text]


def test_every_flag_is_documented() -> None:
    text = documentation()
    assert not [setting.name for setting in SETTINGS if f"--{setting.name}" not in text]


def test_every_error_code_is_documented() -> None:
    text = documentation()
    assert not [code for code in CODES if f"`{code}`" not in text]
