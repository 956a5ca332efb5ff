"""The policy: features, signs, and learning on problems with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.lelora.policy import (
    BINS,
    HIDDEN,
    Outcome,
    Policy,
    PolicySettings,
    bin_weights,
    describe,
    random_choice,
)
from trainables.lelora.rewards import Baseline, MatrixBaseline

SETTINGS = PolicySettings((0, 0, 1), ("q_proj", "up_proj", "q_proj"), (0, 4, 8), ("primary", "minor"))


def features(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return describe([np.sort(rng.uniform(0, 10, size=k))[::-1] for k in (16, 64, 200)])


def test_binning_averages_the_spectrum_as_a_step_function() -> None:
    assert bin_weights(4, 2) @ [1.0, 2.0, 3.0, 4.0] == pytest.approx([1.5, 3.5])
    assert bin_weights(2, 4) @ [1.0, 3.0] == pytest.approx([1, 1, 3, 3])
    assert bin_weights(3, 2) @ [3.0, 6.0, 9.0] == pytest.approx([4, 8])
    for k in (1, 7, BINS, 576):
        assert bin_weights(k).sum(axis=1) == pytest.approx(np.ones(BINS))


def test_features_are_norm_and_spectrum_and_follow_the_current_values() -> None:
    values = np.array([3.0, 4.0])
    (row,) = describe([values])
    assert row.shape == (BINS + 1,) and row.dtype == np.float32
    assert row[0] == pytest.approx(np.log(6.0))
    assert row[1:] == pytest.approx(np.log1p(np.repeat(values, BINS // 2)))
    assert not np.array_equal(describe([values * 2]), describe([values]))


def test_network_has_the_published_shape_and_gives_distributions() -> None:
    policy = Policy(SETTINGS, features())
    widths = [part.out_features for part in policy.network.trunk if hasattr(part, "out_features")]
    assert tuple(widths) == HIDDEN == (1024, 256, 64)
    assert policy.network.embed_layer.weight.shape == (2, 200) == policy.network.embed_kind.weight.shape
    for probabilities, choices in zip(policy.probabilities(features()), (3, 2), strict=True):
        assert probabilities.shape == (3, choices)
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_first_choices_are_uniform() -> None:
    for probabilities in Policy(SETTINGS, features()).probabilities(features(1)):
        assert np.ptp(probabilities) == 0
        assert probabilities[0, 0] == pytest.approx(1 / probabilities.shape[1], rel=1e-6)


def test_at_rate_zero_the_policy_stays_uniform() -> None:
    policy, xi = Policy(replace(SETTINGS, rate=0.0), features()), features()
    for seed in range(3):
        policy.update([Outcome(xi, policy.choose(xi, seed), 1.0)])
    assert policy.updates == 3 and all(np.ptp(found) == 0 for found in policy.probabilities(xi))


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_a_choice_cheaper_than_expected_becomes_more_probable_and_a_dearer_one_less(advantage: float) -> None:
    policy, xi = Policy(SETTINGS, features()), features()
    choice = np.array([[1, 0], [2, 1], [1, 1]])
    before = policy.log_probability(xi, choice).sum().item()
    policy.update([Outcome(xi, choice, advantage)])
    assert policy.updates == 1
    assert advantage * (policy.log_probability(xi, choice).sum().item() - before) < 0


def test_an_advantage_of_each_matrix_moves_its_own_choice() -> None:
    policy, xi = Policy(SETTINGS, features()), features()
    choice = np.array([[1, 0], [2, 1], [2, 0]])
    before = policy.log_probability(xi, choice).detach()
    policy.update([Outcome(xi, choice, np.array([-1.0, 1.0, 0.0]))])
    moved = (policy.log_probability(xi, choice) - before).detach()
    assert moved[0] > 0 > moved[1]


def test_positions_of_matrices_left_alone_do_not_count() -> None:
    policy, xi = Policy(SETTINGS, features()), features()
    policy.update([Outcome(xi, np.array([[1, 0], [1, 0], [1, 1]]), -1.0)])  # no longer uniform
    one, other = np.zeros((3, 2), dtype=np.int64), np.array([[0, 1]] * 3)
    assert torch.equal(policy.log_probability(xi, one), policy.log_probability(xi, other))
    one[:, 0] = other[:, 0] = 1
    assert not torch.equal(policy.log_probability(xi, one), policy.log_probability(xi, other))


def steady(step: int) -> float:
    return 0.0


def falling(step: int) -> float:
    """As a loss does, by thirty times what the choices are worth."""
    return 30 * math.exp(-step / 100)


@pytest.mark.parametrize("level", [steady, falling])
@pytest.mark.parametrize("gap", [0.0, 3.0])
def test_learns_the_better_arm_for_each_type_of_matrix(level: Callable[[int], float], gap: float) -> None:
    """q_proj is to be trained at its minor end, up_proj at its primary one, both at r = 8.

    From two trials that share a policy, and whose losses are `gap` apart.
    """
    xi = features()
    policy = Policy(SETTINGS, xi)
    right = np.array([[2, 1], [2, 0], [2, 1]])
    usual = [Baseline(), Baseline()]
    for step in range(100):
        outcomes = []
        for trial in range(2):
            choice = policy.choose(xi, step + 100_000 * trial)
            cost = level(step) + gap * trial + float((choice != right).mean())
            advantage = usual[trial].advantage(cost)
            if advantage is not None:
                outcomes.append(Outcome(xi, choice, advantage))
        policy.update(outcomes)
    by_dimension, by_position = policy.probabilities(xi)
    assert by_dimension[:, 2].min() > 0.8
    assert by_position[np.arange(3), right[:, 1]].min() > 0.8


KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def model_of(layers: int) -> tuple[PolicySettings, np.ndarray, np.ndarray]:
    """A model's matrices with spectra as theirs are: a few large values, a long slope, a sharp end.

    Returns:
        The settings, xi, and the right position of each matrix, by its type, `(N,)`.
    """
    rng = np.random.default_rng(0)
    about = [(layer, kind) for layer in range(layers) for kind in range(len(KINDS))]
    spectra = []
    for layer, kind in about:
        k = (576, 192, 192, 576, 576, 576, 576)[kind]
        slope = np.exp(-np.linspace(0, 3 + 0.3 * kind, k)) * (6 + 2 * kind) * (1 + 0.02 * layer)
        slope[:3] *= (3, 2, 1.5)
        spectra.append(np.sort(slope * rng.uniform(0.95, 1.05, k))[::-1])
    layers_of, kinds = zip(*((layer, KINDS[kind]) for layer, kind in about), strict=True)
    settings = PolicySettings(layers_of, kinds, (0, 2, 4, 8), ("primary", "middle", "minor"))
    return settings, describe(spectra), np.array([kind % 3 for _, kind in about])


def probability_of_right(reward: str, intervals: int, alike: bool = False) -> float:
    """Mean P(right position) after some intervals rewarded by an oracle; `alike`: all matrices want the first."""
    settings, xi, right = model_of(30)
    right = np.zeros_like(right) if alike else right
    policy = Policy(settings, xi)
    baselines = {"scalar": Baseline(), "per_matrix": MatrixBaseline(np.unique(settings.kinds, return_inverse=True)[1])}
    usual = baselines[reward]
    for seed in range(intervals):
        choice = policy.choose(xi, seed)
        wrong = ((choice[:, 1] != right) & (choice[:, 0] > 0)).astype(float)
        advantage = usual.advantage(wrong.mean()) if isinstance(usual, Baseline) else usual.advantages(wrong)
        if advantage is not None:
            policy.update([Outcome(xi, choice, advantage)])
    return float(policy.probabilities(xi)[1][np.arange(len(right)), right].mean())


def test_a_reward_per_matrix_teaches_in_eighteen_intervals_what_one_number_for_all_does_not() -> None:
    each, together = (probability_of_right(reward, 18) for reward in ("per_matrix", "scalar"))
    assert each > 0.6 and together < 0.4


def test_what_all_matrices_have_in_common_is_learnt_too() -> None:
    assert probability_of_right("per_matrix", 18, alike=True) > 0.8


def test_outcomes_of_several_trials_make_one_update_and_their_order_does_not_matter() -> None:
    xi = features()
    outcomes = [Outcome(xi, random_choice(SETTINGS, seed), seed - 0.5) for seed in range(3)]
    one, other = Policy(SETTINGS, xi), Policy(SETTINGS, xi)
    one.update(outcomes)
    other.update(outcomes[::-1])
    assert one.updates == 1
    torch.testing.assert_close(one.state()["parameters"], other.state()["parameters"], rtol=0, atol=1e-4)


def test_draws_depend_on_seed_and_parameters_alone_and_state_restores_both() -> None:
    xi = features()
    policy = Policy(SETTINGS, xi)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = policy.choose(xi, 7)
    policy.update([Outcome(xi, first, 1.0)])
    other = Policy(SETTINGS, features(1))
    other.load_state(policy.state())
    for seed in range(5):
        assert np.array_equal(policy.choose(xi, seed), other.choose(xi, seed))
    for one in (policy, other):
        one.update([Outcome(xi, first, -1.0)])
    assert torch.equal(policy.state()["parameters"], other.state()["parameters"])
    assert torch.equal(torch.rand(2), expected)  # the global generator is left alone
    with pytest.raises(ValueError, match="does not fit"):
        Policy(PolicySettings((0,), ("q_proj",), (0, 4), ("primary",)), xi[:1]).load_state(policy.state())


def test_policies_are_shared_only_between_equal_settings() -> None:
    changed = [
        replace(SETTINGS, dimensions=(0, 4)),
        replace(SETTINGS, rate=1e-2),
        replace(SETTINGS, cost="l1"),
        replace(SETTINGS, origin="0123"),
    ]
    assert len({SETTINGS.digest(), *(one.digest() for one in changed)}) == 5
    assert replace(SETTINGS, seed=9).digest() == SETTINGS.digest()
