from __future__ import annotations

import itertools

import pytest

from trainables.schedules import SCHEDULES, rate_factor


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_warms_up_first_whatever_comes_after(schedule) -> None:
    factors = [rate_factor(step, 100, 0.03, schedule) for step in range(4)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rate_factor(0, 1, 0.03, schedule) == 1.0


@pytest.mark.parametrize(("schedule", "half_way", "last"), [("cosine", 0.5, 1e-3), ("linear", 0.5, 0.0101)])
def test_rate_goes_down_to_zero(schedule, half_way, last) -> None:
    factors = [rate_factor(step, 100, 0.0, schedule) for step in range(100)]
    assert all(a > b for a, b in itertools.pairwise(factors))
    assert factors[50] == pytest.approx(half_way) and factors[-1] < last
    assert rate_factor(100, 100, 0.0, schedule) == pytest.approx(0.0)


def test_a_cosine_and_a_line_differ_and_a_constant_rate_stays() -> None:
    assert rate_factor(25, 100, 0.0, "cosine") == pytest.approx(0.8536, abs=1e-4)
    assert rate_factor(25, 100, 0.0, "linear") == 0.75
    assert {rate_factor(step, 100, 0.0, "constant") for step in range(100)} == {1.0}


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^schedule = 'wsd': allowed: cosine, linear, constant$"):
        rate_factor(0, 1, 0.0, "wsd")  # type: ignore[arg-type]
