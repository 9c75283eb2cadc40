"""The bounded memory of what was computed lately."""

from kantad.values.recent import Recent


def test_what_is_kept_is_found_until_as_much_again_was_kept_behind_it() -> None:
    recent: Recent[int, str] = Recent(3)
    for key in range(3):
        recent.keep(key, str(key))
    assert recent.young == {0: "0", 1: "1", 2: "2"}
    assert recent.older(0) is None  # it is young
    recent.keep(3, "3")
    assert recent.young == {3: "3"}
    assert recent.older(1) == "1"
    for key in range(4, 7):
        recent.keep(key, str(key))
    assert recent.older(0) is None
    assert recent.older(1) == "1"  # asked for since
    assert len(recent.young) + len(recent.old) <= 6


def test_a_working_set_that_just_does_not_fit_is_mostly_kept() -> None:
    recent: Recent[int, int] = Recent(100)
    missed = 0
    for turn in range(50):
        for key in range(120):
            if recent.young.get(key, recent.older(key)) is None:
                missed += 1
                recent.keep(key, turn)
    assert missed < 50 * 120 / 4
