from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from searchers.space import Space
from searchers.surrogate.deep_kernel import Inputs, Surrogate
from searchers.surrogate.knowledge import Knowledge, prior_means
from searchers.surrogate.targets import make_targets
from searchers.surrogate.transfer import P_TRANSFER, TransferredMeans

SPACE = Space.from_dict({"rank": [4, 16, 64], "batch_size": [16, 64], "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]})
ALL = range(len(SPACE))


def value(config: dict[str, Any], rate: float = 1e-2) -> float:
    """Best at a rate far above what is published."""
    return -((math.log10(config["learning_rate"] / rate)) ** 2) - 0.02 * (math.log2(config["rank"]) - 4) ** 2


def source(rate: float = 1e-2, **changes: Any) -> dict[str, Any]:
    configs = [SPACE.decode(i) for i in ALL]
    return {"name": "earlier", "configs": configs, "values": [value(c, rate) for c in configs], **changes}


def noise() -> dict[str, Any]:
    return source(values=np.random.default_rng(0).standard_normal(len(SPACE)).tolist())


def surrogate(sources: list[dict[str, Any]]) -> tuple[Surrogate, Inputs]:
    """A surrogate on the knobs, with published hypotheses and those of the sources, and all configurations."""
    known = Knowledge(SPACE)
    shifts, weights, log_prior = known.hypotheses()
    means = prior_means(known.columns(ALL), shifts, weights, known.learned.shape)
    if sources:
        transferred = TransferredMeans(SPACE, sources, None)
        means = np.concatenate([means, transferred.means(ALL)], axis=1)
        log_prior = transferred.log_prior(log_prior)
    x = torch.from_numpy(SPACE.features(ALL))
    model = Surrogate(None, lengthscales=np.array([1.5, 1.5, 0.7]), log_prior=log_prior)
    return model, Inputs(torch.zeros(len(x), 0), x, torch.from_numpy(means))


def beliefs(sources: list[dict[str, Any]], seen: list[int]) -> tuple[np.ndarray, float]:
    """Posterior means of all configurations after a few of them, and the probability of the sources' hypotheses."""
    model, inputs = surrogate(sources)
    targets = make_targets(np.array([value(SPACE.decode(i)) for i in seen]), np.zeros(len(seen)), warp=False)
    model.condition(inputs.rows(seen), targets)
    y = torch.from_numpy(targets.y)
    log_each, _, _ = model._evidence(model._featured(inputs.rows(seen)), inputs.means[seen], y, torch.zeros(len(y)))
    published = len(Knowledge(SPACE).hypotheses()[1])
    p = torch.softmax(log_each + model.log_pi, dim=0)
    return model.predict(inputs).mean, float(p[published:].sum().detach())


SEEN = [0, 1, 6, 9, 17, 22]
BEST = SPACE.encode({"rank": 16, "batch_size": 64, "learning_rate": 1e-2})


def test_the_means_of_a_source_are_largest_where_it_was_best() -> None:
    means = TransferredMeans(SPACE, [source()], None).means(ALL)
    middle = means.shape[1] // 2  # no shift
    assert SPACE.decode(int(means[:, middle].argmax()))["learning_rate"] == 1e-2


def test_shifts_move_the_optimum_both_ways() -> None:
    space = Space.from_dict({"rank": 16, "learning_rate": [10 ** (-5 + 0.1 * k) for k in range(31)]})
    means = TransferredMeans(space, [source(1e-3)], None).means(range(31))
    at = means.argmax(axis=0)
    assert at.min() <= 20 - 4 and at.max() >= 20 + 4


def test_a_source_with_the_same_optimum_raises_it() -> None:
    with_it, without = beliefs([source()], SEEN)[0], beliefs([], SEEN)[0]
    assert with_it[BEST] > without[BEST] + 0.2


def test_a_source_that_fits_gains_probability_and_one_of_noise_loses_it() -> None:
    assert beliefs([source()], SEEN)[1] > 0.6
    assert beliefs([noise()], SEEN)[1] < 0.4


def test_a_useless_source_changes_little() -> None:
    with_it, without = beliefs([noise()], SEEN)[0], beliefs([], SEEN)[0]
    assert np.isfinite(with_it).all()
    assert np.corrcoef(with_it, without)[0, 1] > 0.9


@pytest.mark.parametrize("count", [1, 3])
def test_probabilities_sum_to_one_and_sources_share_theirs(count: int) -> None:
    _, _, known = Knowledge(SPACE).hypotheses()
    transferred = TransferredMeans(SPACE, [source()] * count, None)
    log_prior = transferred.log_prior(known)
    assert len(log_prior) == len(known) + transferred.means([0]).shape[1]
    assert np.exp(log_prior[: len(known)]).sum() == pytest.approx(1 - P_TRANSFER)
    assert np.exp(log_prior).sum() == pytest.approx(1)


def test_results_of_another_space_count_by_what_both_have_in_common() -> None:
    configs = [{"variant": "dora", "alpha": 32.0, "rank": 32, "learning_rate": r, "x": 1} for r in (1e-4, 1e-3, 1e-2)]
    means = TransferredMeans(SPACE, [{"configs": configs, "values": [0.0, 1.0, 3.0]}], 1_000).means(ALL)
    assert np.isfinite(means).all() and means.std() > 0


def test_equal_results_say_nothing() -> None:
    assert np.abs(TransferredMeans(SPACE, [source(values=[0.3] * len(SPACE))], None).means(ALL)).max() < 1e-6


@pytest.mark.parametrize("count", [0, 1])
def test_a_source_with_fewer_than_two_results_is_refused_by_name(count: int) -> None:
    short = source(configs=[SPACE.decode(0)] * count, values=[0.5] * count)
    with pytest.raises(ValueError, match="learn_from: earlier has fewer than two results; leave it out"):
        TransferredMeans(SPACE, [short], None)
