"""Keys of typed dicts: equal keys are spelled alike, and as keys that are equal to them."""

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.keys import one_spelling
from kantad.values.plain import name_in, name_of


def spelled(key: Any) -> str:
    [name] = msgspec.to_builtins({one_spelling(key): None}, str_keys=True)
    return str(name)


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(), zones, zones)
def test_a_moment_has_one_spelling(moment: datetime, zone: timezone, other: timezone) -> None:
    try:
        one, two = (moment.replace(tzinfo=UTC).astimezone(each) for each in (zone, other))
    except OverflowError:
        return
    assert one_spelling(one) == one
    assert spelled(one) == spelled(two) == name_of(two)
    assert spelled(one).endswith("Z")
    assert spelled(moment) == str(msgspec.to_builtins(moment))  # without a zone it is no moment


def test_a_moment_that_utc_has_no_year_for_stays_what_it_is() -> None:
    moment = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert one_spelling(moment) is moment


@given(st.times(), zones, st.times(), zones)
def test_times_of_day_are_spelled_alike_where_they_are_equal(
    one: time, zone: timezone, two: time, other: timezone
) -> None:
    first, second = one.replace(tzinfo=zone), two.replace(tzinfo=other)
    assert one_spelling(first) == first
    assert (spelled(first) == spelled(second)) == (first == second)
    assert one_spelling(one) is one


@given(st.times(), zones, zones)
def test_a_time_of_day_in_another_zone_has_the_same_spelling(one: time, zone: timezone, other: timezone) -> None:
    first = one.replace(tzinfo=zone)
    moved = datetime.combine(datetime(2000, 1, 2), first).astimezone(other).timetz()
    assert (spelled(first) == spelled(moved)) == (first == moved)


@given(st.integers(-(10**40), 10**40), st.integers(-40, 40), st.integers(0, 40))
def test_a_number_has_one_spelling(number: int, power: int, zeros: int) -> None:
    one = Decimal(number).scaleb(power) if abs(number) < 10**28 else Decimal((0, (1, 2, 3), power))
    digits = one.as_tuple()
    exponent = digits.exponent
    assert isinstance(exponent, int)
    two = Decimal((digits.sign, (*digits.digits, *[0] * zeros), exponent - zeros))
    assert one == two == one_spelling(two)
    assert spelled(one) == spelled(two)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (Decimal("100"), "100"),
        (Decimal("1E+2"), "100"),
        (Decimal("1.500"), "1.5"),
        (Decimal("-0.00"), "0"),
        (Decimal("1E+31"), "1E+31"),
        (Decimal("NaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (-0.0, "0.0"),
        (1.0, "1.0"),
        (5, "5"),
        ("-0.0", "-0.0"),
        (time(0, 30, tzinfo=timezone(timedelta(hours=2))), "00:30:00+02:00"),
        (time(23, 30, tzinfo=timezone(-timedelta(hours=2))), "23:30:00-02:00"),
        (time(12, 30, tzinfo=timezone(timedelta(hours=2))), "10:30:00Z"),
    ],
)
def test_keys_are_spelled_as_people_would(key: Any, text: str) -> None:
    assert spelled(key) == text


def test_a_key_that_is_there_is_called_as_it_is_spelled_there() -> None:
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=2)))
    held = {elsewhere: 1, noon + timedelta(1): 2}  # of a database without a schema
    assert name_in(held, noon) == name_in(held, elsewhere) == "2026-06-01T14:00:00+02:00"
    assert name_in({}, elsewhere) == "2026-06-01T12:00:00Z"
    assert name_in({1.0: 2}, 1.0) == "1.0"
    assert name_in({"a": 2}, "a") == "a"
