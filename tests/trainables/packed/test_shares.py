from __future__ import annotations

from dataclasses import dataclass

from trainables.packed.shares import choose


@dataclass
class Trial:
    place: int
    rows: int
    length: int
    served: float = 0.0


def size(trial: Trial) -> tuple[int, int]:
    return trial.rows, trial.length


def served(trials: list[Trial], passes: int, most: int) -> list[float]:
    """Tokens of each after so many passes."""
    for _ in range(passes):
        for one in choose(trials, size, most):
            one.served += one.rows * one.length
    return [one.served for one in trials]


def test_all_that_fit_have_a_part_in_the_order_of_their_places() -> None:
    trials = [Trial(2, 2, 10), Trial(0, 2, 10), Trial(1, 2, 10)]
    assert [one.place for one in choose(trials, size, 60)] == [0, 1, 2]


def test_a_pass_has_at_most_so_many_padded_tokens() -> None:
    trials = [Trial(0, 2, 10), Trial(1, 2, 30), Trial(2, 2, 10)]
    # The first two would be 4 rows of 30 tokens.
    assert [one.place for one in choose(trials, size, 100)] == [0, 2]


def test_one_that_is_too_large_goes_alone() -> None:
    assert [one.place for one in choose([Trial(0, 9, 100)], size, 50)] == [0]


def test_who_has_had_fewest_tokens_comes_first() -> None:
    trials = [Trial(0, 2, 10, served=500.0), Trial(1, 2, 10, served=0.0)]
    assert [one.place for one in choose(trials, size, 20)] == [1]


def test_who_is_far_ahead_lets_others_catch_up_though_there_is_room() -> None:
    trials = [Trial(0, 2, 10, served=500.0), Trial(1, 2, 10, served=0.0)]
    assert [one.place for one in choose(trials, size, 1000)] == [1]


def test_small_and_large_batches_are_served_equally_many_tokens() -> None:
    trials = [Trial(0, 1, 10), Trial(1, 8, 10), Trial(2, 4, 25)]
    found = served(trials, 400, 130)
    assert max(found) - min(found) <= 2 * 100
    assert min(found) > 1000


def test_shares_are_equal_where_one_fits_at_a_time() -> None:
    found = served([Trial(at, 4, 10) for at in range(3)], 30, 40)
    assert found == [400.0] * 3
