"""How much history is kept, as text."""

import pytest

from kantad.values.retention import Retention, retention


def test_days_hours_revisions_and_none_are_read() -> None:
    assert retention("30d") == Retention("30d", None, 30 * 86_400_000_000)
    assert retention("12h") == Retention("12h", None, 12 * 3_600_000_000)
    assert retention("100000r") == Retention("100000r", 100_000)
    assert retention("0r") == Retention("0r", 0)
    assert retention("none") == Retention("none", 0)


@pytest.mark.parametrize(
    "text", ["", "r", "30", "30 d", "-1r", "007r", "1.5d", "٣d", "30d\n", "None", None, 30, ["30d"]]
)
def test_anything_else_is_refused_with_what_would_be_one(text: object) -> None:
    with pytest.raises(ValueError, match="100000r"):
        retention(text)
