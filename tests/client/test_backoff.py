"""The waits between attempts."""

import random

from hypothesis import given
from hypothesis import strategies as st
from kanta_client.backoff import Backoff


@given(st.floats(0.001, 10), st.floats(0.001, 100), st.integers(0, 200), st.randoms(use_true_random=False))
def test_a_wait_is_never_nothing_never_over_the_bound_and_the_bound_doubles(
    first: float, most: float, attempts: int, dice: random.Random
) -> None:
    backoff = Backoff(first, most, dice)
    for number in range(attempts):
        bound = min(most, first * 2.0 ** min(number, 30))
        assert bound * 0.0999 <= backoff.next() <= bound * 1.0001
    backoff.reset()
    assert backoff.next() <= min(first, most) * 1.0001


def test_two_clients_do_not_wait_equally_long() -> None:
    assert [Backoff().next() for _ in range(5)] != [Backoff().next() for _ in range(5)]
