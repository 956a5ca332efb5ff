from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from searchers.space import Space, paper_space
from searchers.surrogate.facts import scale_of
from searchers.surrogate.knowledge import P_NOTHING, Knowledge, first_points, prior_means
from searchers.surrogate.learned import Shape

LORA = {"variant": "lora", "rank": 16, "alpha_ratio": 1, "learning_rate": 3e-4, "batch_size": 64}
SPACE = Space.from_dict(
    {
        "variant": ["lora", "pissa"],
        "rank": [4, 16, 64],
        "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2],
        "batch_size": [8, 64],
    }
)


SHAPE = Shape(1.0, 0.3)


def knowledge(space: Space = SPACE, **options: Any) -> Knowledge:
    return Knowledge(space, **options)


# -- effects -----------------------------------------------------------------------------------------------------------


def factor(change: dict[str, Any], **options: Any) -> float:
    """Of the rate that is expected to be best."""
    known = knowledge(**options)
    return 10 ** (known.offset(LORA) - known.offset(LORA | change))


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        # A larger batch wants a larger rate: between its root and proportionally.
        ({"batch_size": 256}, 1.8, 4.0),
        ({"batch_size": 16}, 0.25, 0.55),
        # A larger rank wants a smaller one.
        ({"rank": 128}, 0.3, 0.95),
        ({"rank": 2}, 1.05, 3.0),
        ({"variant": "pissa"}, 0.1, 0.6),
        ({"variant": "milora"}, 0.5, 0.95),
        ({"variant": "dora"}, 0.8, 1.5),
        ({"variant": "full"}, 0.01, 0.2),
        ({"variant": "unheard_of"}, 1.0, 1.0),
        ({"dropout": 0.3}, 1.0, 1.0),
    ],
    ids=str,
)
def test_the_expected_rate_moves_as_published(change: dict[str, Any], low: float, high: float) -> None:
    assert low - 1e-12 <= factor(change) <= high + 1e-12


def place(**options: Any) -> float:
    """The rate that is expected to be best for LORA."""
    return LORA["learning_rate"] / 10 ** knowledge(**options).offset(LORA)


def test_longer_training_wants_a_smaller_rate() -> None:
    rates = [place(samples=n) for n in (10_000, 100_000, 1_000_000)]
    assert rates[0] > rates[1] > rates[2] > 0.1 * rates[0]


def test_a_run_of_few_steps_wants_a_larger_rate_up_to_a_limit() -> None:
    assert place(samples=64 * 8) > 1.5 * place(samples=64 * 20) > 1.5 * place(samples=64 * 300)
    assert place(samples=64) == place(samples=32)


def test_a_larger_base_model_wants_a_smaller_rate() -> None:
    rates = [place(parameters=n) for n in (1e8, 1e9, 7e10)]
    assert rates[0] > rates[1] > rates[2]


def test_the_expected_rate_of_plain_lora_is_a_usual_one() -> None:
    assert 1e-4 <= place() <= 1e-3


def test_the_offset_counts_decades_of_the_rate() -> None:
    known = knowledge()
    assert known.offset(LORA | {"learning_rate": 3e-3}) == pytest.approx(known.offset(LORA) + 1)


def test_alpha_acts_by_the_variants_rule_of_scaling() -> None:
    steady = knowledge(scales={"rslora": "alpha / sqrt(rank)", "vera": "1"})
    lifted = 10 ** (0.6 * steady.learned.coefficient("scale"))
    rslora, vera = LORA | {"variant": "rslora"}, LORA | {"variant": "vera"}
    assert steady.offset(rslora) == pytest.approx(steady.offset(LORA) - math.log10(lifted), abs=2e-3)
    assert steady.offset(vera | {"alpha_ratio": 10}) == pytest.approx(steady.offset(vera))
    # alpha may be given itself.
    told = {k: v for k, v in LORA.items() if k != "alpha_ratio"} | {"alpha": 160}
    assert steady.offset(told) == pytest.approx(steady.offset(LORA | {"alpha_ratio": 10}))


def test_a_variant_that_does_not_read_alpha_has_no_scale() -> None:
    assert scale_of({"rank": 4, "alpha": 32}, "1") == 1.0


def test_an_unknown_rule_of_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scales: 'alpha' is unknown; use alpha / rank, alpha / sqrt\(rank\) or 1"):
        scale_of({"rank": 4}, "alpha")


def test_the_scale_is_alpha_over_rank_or_its_root() -> None:
    assert scale_of({"rank": 16, "alpha": 32}) == scale_of({"rank": 16, "alpha_ratio": 2.0}) == 2.0
    assert scale_of({"rank": 16, "alpha": 32}, "alpha / sqrt(rank)") == 8.0
    assert scale_of({}) == 1.0


def test_larger_ranks_and_smaller_batches_have_merit() -> None:
    known = knowledge()
    assert known.merit(LORA | {"rank": 64}) > known.merit(LORA) > known.merit(LORA | {"batch_size": 512})


def test_steps_have_merit_where_there_are_few() -> None:
    def gap(samples: int) -> float:
        known = knowledge(samples=samples)
        return known.merit(LORA | {"batch_size": 8}) - known.merit(LORA | {"batch_size": 64})

    # 12 steps against 1.5; 750 and 94: what small batches are worth anyway.
    assert gap(96) == pytest.approx(gap(6000) + 0.3)
    assert gap(6000) == pytest.approx(knowledge().merit(LORA | {"batch_size": 8}) - knowledge().merit(LORA))
    # The smallest batch of the space is what others are measured by: nothing where there is no choice.
    assert knowledge(samples=96).merit(LORA | {"batch_size": 8}) == knowledge().merit(LORA | {"batch_size": 8})


def test_ratios_of_the_users_own_win_over_learned_ones() -> None:
    assert factor({"variant": "pissa"}, ratios={"pissa": 2.0}) == pytest.approx(2)


def test_a_wrong_expectation_can_be_simulated() -> None:
    assert place(misplaced=10.0) == pytest.approx(10 * place())


def test_a_space_without_a_rate_has_nothing_to_tell_apart() -> None:
    known = knowledge(Space.from_dict({"colour": ["red", "blue"]}))
    assert (known.columns([0, 1])[:, :2] == 0).all()


# -- beliefs -----------------------------------------------------------------------------------------------------------


def best(known: Knowledge) -> dict[str, Any]:
    """Where the prior mean without a shift is largest."""
    means = prior_means(known.columns(range(len(known.space))), np.zeros((2, 1)), np.ones(1), SHAPE)
    return known.space.decode(int(means[:, 0].argmax()))


@pytest.mark.parametrize("rate", [1e-5, 5e-3, 1e-2])
def test_a_belief_in_a_rate_moves_the_optimum_there(rate: float) -> None:
    space = Space.from_dict({"rank": 16, "learning_rate": [1e-5, 6e-4, 5e-3, 1e-2]})
    assert best(knowledge(space))["learning_rate"] == 6e-4
    assert best(knowledge(space, beliefs={"learning_rate": rate}))["learning_rate"] == rate


@pytest.mark.parametrize(("name", "value"), [("rank", 4), ("rank", 64), ("batch_size", 64), ("variant", "pissa")])
def test_a_belief_in_another_knob_moves_the_optimum_there(name: str, value: Any) -> None:
    space = Space.from_dict({"variant": ["lora", "pissa"], "rank": [4, 16, 64], "batch_size": [8, 64]})
    assert best(knowledge(space, beliefs={name: value, "strength": 2}))[name] == value


def test_a_belief_between_two_values_favours_the_nearer() -> None:
    believed = knowledge(beliefs={"rank": 6})
    gains = [believed.merit(LORA | {"rank": r}) for r in (4, 16, 64)]
    assert gains[0] > gains[1] > gains[2] > 0


def test_a_stronger_belief_has_more_merit() -> None:
    gains = [knowledge(beliefs={"rank": 4, "strength": s}).merit(LORA | {"rank": 4}) for s in (0.5, 1, 3)]
    assert gains[0] < gains[1] < gains[2]


def test_a_stronger_belief_in_a_rate_allows_smaller_shifts() -> None:
    spreads = []
    for strength in (0.5, 1.0, 3.0):
        shifts, _, log_prior = knowledge(beliefs={"learning_rate": 1e-3, "strength": strength}).hypotheses()
        spreads.append(float(np.exp(log_prior) @ np.square(shifts[0])))
    assert spreads[0] > spreads[1] > spreads[2]


@pytest.mark.parametrize(
    ("beliefs", "message"),
    [
        ({"colour": 1}, "prior.colour: no such knob; use variant, rank, learning_rate, batch_size or strength"),
        ({"rank": "big"}, "prior.rank: 'big' is not a finite number"),
        ({"rank": None}, "prior.rank: None is not a finite number"),
        ({"learning_rate": -1.0}, "prior.learning_rate: -1.0 is not above 0"),
        pytest.param(
            {"rank": float("nan")},
            "prior.rank: nan is not",
        ),
        ({"variant": "other"}, "variant: 'other' is not in the search space"),
        ({"strength": 0}, "prior.strength: 0 is not a number above 0"),
        ({"strength": "high"}, "prior.strength: 'high' is not a number above 0"),
        ({"strength": True}, "prior.strength: True is not a number above 0"),
    ],
    ids=str,
)
def test_beliefs_that_make_no_sense_are_refused_in_one_line(beliefs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        knowledge(beliefs=beliefs)
    assert "\n" not in str(caught.value)


# -- hypotheses --------------------------------------------------------------------------------------------------------

SPACES = {
    "default": paper_space(),
    "small": SPACE,
    "no rate": Space.from_dict({"rank": [4, 8]}),
    "one rate": Space.from_dict({"rank": [4, 8], "learning_rate": 1e-4}),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("believed", [False, True])
def test_probabilities_of_the_hypotheses_sum_to_one(space: Space, believed: bool) -> None:
    beliefs = {"learning_rate": 1e-4} if believed and "learning_rate" in space.names else {}
    shifts, weights, log_prior = knowledge(space, beliefs=beliefs).hypotheses()
    assert shifts[0].shape == weights.shape == log_prior.shape
    assert np.exp(log_prior).sum() == pytest.approx(1)


def test_a_rate_of_zero_is_no_obstacle() -> None:
    known = knowledge(Space.from_dict({"learning_rate": [0.0, 1e-4, 1e-3]}))
    assert np.isfinite(known.hypotheses()[2]).all()


def test_the_hypothesis_that_knows_nothing_has_its_share() -> None:
    _, weights, log_prior = knowledge().hypotheses()
    assert np.exp(log_prior[weights == 0]).sum() == pytest.approx(P_NOTHING)
    means = prior_means(knowledge().columns(range(len(SPACE))), *knowledge().hypotheses()[:2], SHAPE)
    assert (means[:, weights == 0] == 0).all()


def test_people_search_around_the_optimum() -> None:
    expected = []
    for factor in (0.1, 1.0, 10.0):
        space = Space.from_dict({"learning_rate": [factor * rate for rate in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)]})
        shifts, _, log_prior = knowledge(space).hypotheses()
        expected.append(float(np.exp(log_prior) @ shifts[0]))
    assert expected[0] < -0.1 and abs(expected[1]) < 0.1 and expected[2] > 0.1


def test_prior_means_are_weighted_bumps_with_merit() -> None:
    columns = np.array([[0.5, 0.1, 0.0], [0.0, -0.2, 0.3]])
    got = prior_means(columns, np.array([[0.0, 0.5], [0.0, -1.0]]), np.array([1.0, 2.0]), SHAPE)
    above, other = SHAPE(np.array([0.5, -0.2]))
    wanted = [[above + 0.1, 2 * (1 + 0.1)], [1 - 0.2, 2 * (other - 0.2)]]
    assert got == pytest.approx(np.array(wanted))


# -- first points ------------------------------------------------------------------------------------------------------

MEANS = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
LOG_PRIOR = np.log([0.5, 0.2, 0.3])
FREE = np.ones(4, dtype=bool)


def test_first_points_are_best_where_the_others_are_poor() -> None:
    assert first_points(MEANS, LOG_PRIOR, [], FREE, 3) == [0, 2, 3]


def test_first_points_complement_those_that_are_taken() -> None:
    assert first_points(MEANS, LOG_PRIOR, [0], np.arange(4) != 0, 1) == [2]


def test_first_points_are_free_and_as_many_as_there_are() -> None:
    assert first_points(MEANS, LOG_PRIOR, [], np.array([False, True, False, True]), 5) == [1, 3]
