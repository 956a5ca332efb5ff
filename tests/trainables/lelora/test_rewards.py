"""What strategies were worth: one number for all, and shares of matrices against dense computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trainables.decode import mean_loss
from trainables.lelora.rewards import Baseline, MatrixBaseline, MatrixReward, ScalarReward, cost_of
from trainables.variants.core.tiny import attached, make_base, make_batches, train

INTERVALS = 20


def test_a_loss_that_fell_costs_less_than_one_that_rose() -> None:
    assert cost_of(1.0, 2.0, 0.5, "both") == 0.5 < cost_of(1.0, 0.5, 0.5, "both") == 1.25
    assert cost_of(1.0, 2.0, 0.5, "l1") == 1.0
    assert cost_of(1.0, 2.0, 0.5, "l2") == -1.0


# -- one number -----------------------------------------------------------------------------------------------------


def costs_of(curve: Callable[[int], float], terms: str = "both") -> list[float]:
    return [cost_of(curve(k), curve(k - 1), 1.0, terms) for k in range(1, INTERVALS)]


CURVES: dict[str, Callable[[int], float]] = {
    "straight": lambda k: 5 - 0.1 * k,
    "quick": lambda k: 1 + 2 * math.exp(-k / 5),
    "slow": lambda k: 1 + 2 * math.exp(-k / 20),
    "power": lambda k: 1 + 2 / math.sqrt(1 + k),
    "rising": lambda k: 1 + 0.01 * k,
    "level": lambda k: 1.0,
}


@pytest.mark.parametrize("terms", ["both", "l1", "l2"])
@pytest.mark.parametrize("curve", CURVES)
def test_where_choices_have_no_effect_advantages_are_near_zero(curve: str, terms: str) -> None:
    usual = Baseline()
    found = [usual.advantage(cost) for cost in costs_of(CURVES[curve], terms)]
    assert found[:3] == [None] * 3
    told = [one for one in found if one is not None]
    steady = curve == "level" or (terms == "l2" and curve in ("straight", "rising"))
    assert not told if steady else len(told) == INTERVALS - 4
    assert all(abs(one) < 0.33 for one in told)


@pytest.mark.parametrize("curve", ["quick", "power"])
def test_what_choices_do_to_a_falling_loss_is_what_advantages_tell(curve: str) -> None:
    usual, rng = Baseline(), np.random.default_rng(0)
    worth = rng.choice([-1.0, 1.0], size=200)
    lasting, told = 0.0, []
    for k, one in enumerate(worth, start=1):
        before, lasting = CURVES[curve](k - 1) + lasting, lasting + 0.1 * one
        told.append(usual.advantage(cost_of(CURVES[curve](k) + lasting, before, 1.0, "l1")))
    assert np.corrcoef(worth[3:], told[3:])[0, 1] > 0.7


def test_the_size_of_losses_does_not_matter() -> None:
    small, large = Baseline(), Baseline()
    costs = [1.0, 0.9, 0.85, 0.7, 0.72]
    found = [small.advantage(cost) for cost in costs]
    assert [large.advantage(100 * cost) for cost in costs][3:] == pytest.approx(found[3:])


# -- one for each matrix ----------------------------------------------------------------------------------------------


def test_credits_are_centred_over_the_matrices_of_a_type() -> None:
    usual = MatrixBaseline(np.array([0, 0, 1, 1]))
    assert usual.advantages(np.array([1.0, 1.0, 5.0, 5.0])) is None  # alike within each type
    assert usual.advantages(np.array([0.0, 2.0, 5.0, 5.0])) is None  # the first says only what is usual
    found = usual.advantages(np.array([-2.0, -4.0, 7.0, 7.0]))  # relative: +, -, 0, 0 after -, +, 0, 0
    assert found == pytest.approx(2 * math.sqrt(2) * np.array([1, -1, 0, 0]))


def test_layers_that_always_differ_have_no_advantage_over_each_other() -> None:
    usual = MatrixBaseline(np.array([0, 0, 0]))
    for size in (1.0, 0.5, 0.1):  # as the rate falls
        found = usual.advantages(size * np.array([-3.0, -1.0, -0.5]))
    assert found == pytest.approx(np.zeros(3), abs=1e-12)


def test_a_matrix_alone_of_its_type_has_no_advantage() -> None:
    usual, rng = MatrixBaseline(np.array([0, 1, 1])), np.random.default_rng(0)
    for _ in range(3):
        found = usual.advantages(rng.standard_normal(3))
    assert found is not None and found[0] == 0 and found[1] != 0


def moved(steps: int, learning_rate: float) -> tuple[Any, Any, Any, float]:
    """A variant after some steps of one interval with its reward, the base, the batches, and the loss before."""
    base, batches = make_base(), make_batches(2, seed=5)
    variant = attached("lelora", base, batches, learning_rate=learning_rate, extra={"reward": "per_matrix"})
    before = mean_loss(variant.module, batches)
    train(variant, batches, steps)
    return variant, base, batches, before


def weight_gradients(variant: Any, batches: Any, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """dL/dW of every adapted matrix at these weights, through a model that holds them."""
    model = make_base()
    for name, weight in weights.items():
        model.get_submodule(name).weight = torch.nn.Parameter(weight)
    sum(model(**batch).loss for batch in batches).div(len(batches)).backward()
    return {name: model.get_submodule(name).weight.grad for name in weights}


def test_credits_are_those_of_the_dense_gradients_and_add_up_to_the_change_of_the_loss() -> None:
    variant, _, batches, before = moved(3, learning_rate=2e-3)
    reward = variant.reward
    assert isinstance(reward, MatrixReward)
    seen: list[np.ndarray] = []
    reward.baseline.advantages = lambda credits: seen.append(credits)  # type: ignore[method-assign]
    reward.measure(variant.module, batches)
    change = mean_loss(variant.module, batches) - before
    assert change < -0.01 and seen[0].sum() == pytest.approx(change, rel=0.03)

    start = {matrix.name: matrix.weight.detach().clone() for matrix in variant.matrices}
    now = variant.tuned_weights()
    gradients = [weight_gradients(variant, batches, weights) for weights in (start, now)]
    for name, one in zip(start, seen[0], strict=True):
        both = gradients[0][name] + gradients[1][name]
        assert one == pytest.approx(0.5 * float((both * (now[name] - start[name])).sum()), rel=0.05, abs=1e-5)


def test_a_matrix_that_trains_nothing_has_no_credit() -> None:
    variant, _, batches, _ = moved(2, learning_rate=2e-3)
    still = [layer.active[0] == layer.active[1] for layer in variant.layers.values()]
    seen: list[np.ndarray] = []
    variant.reward.baseline.advantages = lambda credits: seen.append(credits)  # type: ignore[method-assign]
    variant.reward.measure(variant.module, batches)
    assert any(still) and [one == 0 for one in seen[0]] == still


def test_measuring_leaves_gradients_and_slices_as_they_are() -> None:
    variant, _, batches, _ = moved(1, learning_rate=2e-3)
    active = [layer.active for layer in variant.layers.values()]
    variant.reward.measure(variant.module, batches)
    assert [layer.active for layer in variant.layers.values()] == active
    assert all(layer.triplets.grad is None for layer in variant.layers.values())


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    for reward in (ScalarReward("both", 1.0), attached("lelora", extra={"reward": "per_matrix"}).reward):
        assert [reward.measure(make_base(), []) for _ in range(4)] == [None] * 4
