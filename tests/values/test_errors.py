"""Problems: their codes, their bodies."""

import pytest

from kantad.values.errors import CODES, Damaged, Problem, pointer_text


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_status_and_a_title(code: str) -> None:
    problem = Problem(code, "detail", more=1)
    assert 400 <= problem.status < 600
    assert problem.body() == {
        "type": "about:blank",
        "title": CODES[code][1],
        "status": problem.status,
        "code": code,
        "detail": "detail",
        "more": 1,
    }
    assert str(problem) == "detail"


def test_a_problem_gathers_its_path_on_the_way_up() -> None:
    problem = Problem("invalid_value", "no").at(3).at("a/b").at("~")
    assert problem.body()["path"] == "/~0/a~1b/3"
    assert list(problem.body())[-1] == "path"


def test_a_path_that_is_given_wins_over_the_gathered_one() -> None:
    assert Problem("invalid_value", "no", path="/given").at("a").body()["path"] == "/given"


@pytest.mark.parametrize(
    ("keys", "text"), [([], ""), ([""], "/"), (["a", ""], "/a/"), (["~1"], "/~01"), (["/~"], "/~1~0")]
)
def test_a_pointer_is_spelt_by_rfc_6901(keys: list[str], text: str) -> None:
    assert pointer_text(keys) == text


def test_damage_names_its_place() -> None:
    by_line = Damaged("no JSON", offset=17, line=3)
    assert str(by_line) == "line 3, byte 17: no JSON"
    by_record = Damaged("no frame", offset=4, record=2)
    assert str(by_record) == "record 2, byte 4: no frame"
    assert (by_record.why, by_record.offset, by_record.record, by_record.line) == ("no frame", 4, 2, 0)
