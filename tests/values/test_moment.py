"""Times as text: every year that a datetime can hold, padded, and back."""

import pytest

from kantad.values.moment import TimeText, datetime_of, micros_of

FIRST = -62_135_596_800_000_000  # 0001-01-01


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (FIRST, "0001-01-01T00:00:00.000000Z"),
        (FIRST + 900 * 31_556_952_000_000, "0901-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_moment_is_written_with_four_digits_of_the_year_and_read_back(micros: int, text: str) -> None:
    assert TimeText()(micros)[:4] == text[:4]
    assert len(TimeText()(micros)) == len(text)
    assert micros_of(TimeText()(micros)) == micros
    assert micros_of(datetime_of(micros)) == micros


def test_what_is_no_time_in_a_file_counts_as_the_epoch() -> None:
    assert [micros_of(each) for each in ("", "yesterday", 7, None)] == [0, 0, 0, 0]
