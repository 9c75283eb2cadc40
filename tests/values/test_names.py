"""Names for identifiers: asked once, kept, and a function that fails does no harm."""

from typing import Any

import pytest

from kantad.values import names
from kantad.values.names import Names


def test_a_name_is_asked_for_once() -> None:
    asked: list[str] = []

    def resolve(identifier: str) -> str | None:
        asked.append(identifier)
        return {"u1": "Ann"}.get(identifier)

    named = Names(resolve, lambda why: None)
    assert [named(each) for each in ("u1", "u2", "u1", "u2")] == ["Ann", "u2", "Ann", "u2"]
    assert asked == ["u1", "u2"]


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST", 4)
    named = Names(lambda identifier: identifier.upper(), lambda why: None)
    assert named("a" * 300) == "A" * 255 + "…"
    for number in range(100):
        assert named(f"u{number}") == f"U{number}"
        assert named(f"u{number // 2}") == f"U{number // 2}"
    assert len(named.known.young) + len(named.known.old) <= 8
    named("x" * 1000)
    assert "x" * 1000 not in named.known.young


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3), RecursionError()])
def test_what_it_raises_is_told_once(failure: BaseException) -> None:
    told: list[str] = []

    def resolve(identifier: str) -> Any:
        if identifier == "good":
            return "fine"
        raise failure

    named = Names(resolve, told.append)
    assert [named("a"), named("b"), named("good")] == ["a", "b", "fine"]
    assert len(told) == 1
    assert type(failure).__name__ in told[0]
    assert "'a'" in told[0]


def test_what_is_no_text_is_no_name() -> None:
    told: list[str] = []
    named = Names(lambda identifier: 3, told.append)
    assert (named("a"), named("b")) == ("a", "b")
    assert told == ["TypeError: it gives int, not text or None (asked for 'a'; told once)"]
