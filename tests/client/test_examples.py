"""The examples of the client's page, run in the order they stand in: what an expression gives is behind `# =>`."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from kanta_client import KantaClient

from tests.serving import Serving

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "client.md").read_text()
_EXAMPLE = re.compile(r"^```python example\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"^```python program\n(.*?)^```", re.MULTILINE | re.DOTALL)
_GIVES = "  # => "


class Checking(ast.NodeTransformer):
    """Has expressions whose line says what they give compared with that."""

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines()
        self.found = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        _, gives, said = self.lines[(node.end_lineno or 1) - 1].partition(_GIVES)
        if gives:
            self.found += 1
            call = ast.Call(ast.Name("compared", ast.Load()), [node.value, ast.Constant(said)], [])
            node.value = ast.copy_location(call, node.value)
        return node


def compared(value: Any, said: str) -> None:
    assert repr(value) == said


async def run(source: str, names: dict[str, Any]) -> int:
    """Run an example, whose top level may await; returns how many comparisons it has."""
    checking = Checking(source)
    tree = ast.fix_missing_locations(checking.visit(ast.parse(source)))
    code = compile(tree, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, names)
    if inspect.isawaitable(made):
        await made
    assert checking.found == source.count(_GIVES)
    return checking.found


async def test_the_examples_give_what_they_say(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = _PROGRAM.findall(PAGE)
    names: dict[str, Any] = {"compared": compared}
    exec(compile(program.replace("asyncio.run(main())", ""), "program", "exec"), names)
    async with KantaClient(f"http://127.0.0.1:{serving.port}") as db:
        names["db"] = db
        assert sum([await run(example, names) for example in _EXAMPLE.findall(PAGE)]) >= 18
    assert "configured anew by admin" in capsys.readouterr().out


async def test_a_difference_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await run("(lambda: 1)()  # => 2\n", {"compared": compared})
