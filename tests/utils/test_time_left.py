"""The estimate of the time that a run still takes, on a clock of made-up steps."""

from datetime import datetime

import pytest

from segvit.utils.time_left import MEASURED, TimeLeft, describe, duration


def lines(steps: int, every: int, *, step: float, validation: float) -> dict[int, str]:
    """Collect the lines printed after each step of a run whose first step takes ten times as long."""
    now = 0.0
    left = TimeLeft(steps=steps, eval_every=every, clock=lambda: now)
    said = {}
    for number in range(1, steps + 1):
        now += 10 * step if number == 1 else step
        if line := left.after(number):
            said[number] = line
        if number % every == 0:
            now += validation
    return said


def test_it_speaks_after_a_few_steps_and_after_each_validation() -> None:
    said = lines(600, 120, step=3.0, validation=60.0)
    assert list(said) == [1 + MEASURED, 121, 241, 361, 481]
    assert said[6].startswith("about 30 min left, plus 5 validations; done at ") and said[6].endswith(" or later")
    assert said[121].startswith("about 28 min left; done at ") and "later" not in said[121]  # 479 x 3 s + 4 x 60 s
    assert said[481].startswith("about 7 min left")


def test_a_validation_that_is_due_is_not_left_out() -> None:
    said = lines(60, 6, step=30.0, validation=60.0)
    assert said[2].startswith("about 29 min left, plus 10 validations")  # one step of 30 s is measured
    assert said[7].startswith("about 36 min left; done at ")  # 53 x 30 s + 9 x 60 s


@pytest.mark.parametrize("step, first", [(1.0, 6), (5.0, 5), (12.0, 3), (90.0, 2)])
def test_slow_steps_are_told_early(step: float, first: int) -> None:
    assert (
        next(iter(lines(400, 400, step=step, validation=0.0))) == first
    )  # after 5 steps or 20 s, the first not counted


def test_validations_after_every_step_count_as_part_of_it() -> None:
    said = lines(100, 1, step=30.0, validation=60.0)
    assert list(said) == [2] and said[2].startswith("about 2 h 27 min left; done at ")  # 98 x 90 s


def test_it_is_silent_where_a_line_is_not_worth_it() -> None:
    assert lines(20, 5, step=0.1, validation=0.1) == {}
    assert lines(2, 1, step=100.0, validation=1.0) == {}  # the first step is not measured
    assert next(iter(lines(1000, 3, step=1.0, validation=0.0))) == 8  # the fifth step without a validation before it


@pytest.mark.parametrize(
    "seconds, text",
    [(1, "1 min"), (90, "2 min"), (3600, "1 h"), (7800, "2 h 10 min"), (86400 * 3 + 3600 * 4 + 60, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_end_names_the_day_if_it_is_another() -> None:
    now = datetime(2026, 3, 2, 18, 0)
    assert describe(1440, now=now) == "about 24 min left; done at 18:24"
    assert describe(7 * 3600, now=now) == "about 7 h left; done at Tue 03 Mar 01:00"
