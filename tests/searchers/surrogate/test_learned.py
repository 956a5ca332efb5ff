from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from searchers.space import Space
from searchers.surrogate.advice import advise, reasons
from searchers.surrogate.facts import VARIANTS
from searchers.surrogate.knowledge import P_NOTHING, Knowledge, prior_means
from searchers.surrogate.learned import Context, Learned, Shape, shipped

CONTEXT = Context(50_000, 8e9)


def expected(rank: int, alpha: float, size: float = 8e9, **knobs: object) -> float:
    """Best rate that the shipped prior expects."""
    config = {"rank": rank, "alpha": alpha, "batch_size": 64, **knobs}
    row = shipped().describe(config, Context(50_000, size), alpha / rank)
    return float(10 ** shipped().location(row[None])[0])


def test_at_a_fixed_alpha_the_rank_hardly_moves_the_best_rate() -> None:
    assert 0.5 < expected(128, 32) / expected(1, 32) < 2


def test_at_alpha_equal_to_rank_the_best_rate_falls_slowly() -> None:
    assert 0.1 < expected(128, 128) / expected(8, 8) < 0.8


def test_large_models_take_smaller_rates_but_not_by_their_size_to_the_0_3() -> None:
    ratio = expected(16, 32, 400e9) / expected(16, 32, 10e9)
    assert 40**-0.3 < ratio < 1


def test_what_is_saved_is_loaded(tmp_path) -> None:
    shipped().save(tmp_path / "prior.json")
    assert Learned.load(tmp_path / "prior.json") == shipped()


def test_the_shipped_prior_says_what_it_has_seen() -> None:
    assert {"learning-rate-matters", "tinker-cookbook", "own"} == set(shipped().tables.values())


def test_a_shape_falls_on_either_side_with_its_own_width() -> None:
    shape = Shape(1.0, 0.5)
    assert shape(np.array([0.0]))[0] == 1
    assert shape(np.array([-1.0]))[0] == pytest.approx(shape(np.array([0.5]))[0])


# -- advice ------------------------------------------------------------------------------------------------------------


def test_an_uncertain_best_rate_is_kept_below_where_too_much_costs_more_than_too_little() -> None:
    steep = replace(shipped(), shape=Shape(1.0, 0.3))
    rates = [10 ** (0.05 * k) for k in range(-90, -39)]
    advice = advise([{"rank": 16, "alpha": 32, "learning_rate": rate} for rate in rates], steep, CONTEXT)
    assert advice.low < advice.config["learning_rate"] < advice.expected < advice.high


def test_of_equal_rates_the_largest_rank_is_advised() -> None:
    configs = [{"rank": rank, "alpha": 32, "learning_rate": 3e-4} for rank in (4, 64, 16)]
    assert advise(configs, shipped(), CONTEXT).config["rank"] == 64


def test_the_reasons_multiply_to_what_is_expected() -> None:
    config = {"rank": 64, "alpha": 32, "batch_size": 16, "learning_rate": 3e-4, "variant": "pissa"}
    told = reasons(config, shipped(), Context(20_000, 70e9, "llama"), 0.5)
    advice = advise([config], shipped(), Context(20_000, 70e9, "llama"))
    assert np.prod([one["factor"] for one in told]) == pytest.approx(advice.expected, rel=0.02)


# -- as the prior mean of a search -------------------------------------------------------------------------------------

SPACE = Space.from_dict({"rank": [4, 64], "alpha": 32, "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2], "batch_size": 64})


def test_a_search_with_a_learned_prior_begins_where_that_expects_the_best() -> None:
    known = Knowledge(SPACE, 50_000, 8e9, learned=shipped())
    shifts, weights, log_prior = known.hypotheses()
    means = prior_means(known.columns(range(len(SPACE))), shifts, weights, shipped().shape)
    p = np.exp(log_prior)
    assert p.sum() == pytest.approx(1) and p[weights == 0].sum() == pytest.approx(P_NOTHING)
    assert SPACE.decode(int((means @ p).argmax()))["rank"] == 64
    assert SPACE.decode(int((means @ p).argmax()))["learning_rate"] in (1e-4, 1e-3)


def test_the_offset_of_one_configuration_is_that_of_the_table() -> None:
    known = Knowledge(SPACE, 50_000, 8e9, learned=shipped(), misplaced=3.0)
    assert known.columns([3])[0, 0] == pytest.approx(known.offset(SPACE.decode(3)))


def test_a_measured_rate_of_a_variant_replaces_the_learned_one() -> None:
    space = Space.from_dict({"variant": ["pissa"], "learning_rate": [1e-4, 1e-3]})
    learned, measured = (Knowledge(space, learned=shipped(), ratios=ratios) for ratios in ({}, {"pissa": 0.1}))
    moved = learned.offset(space.decode(0)) - measured.offset(space.decode(0))
    assert moved == pytest.approx(np.log10(0.1) - shipped().coefficient("variant pissa"))
    assert "pissa" in VARIANTS


def test_what_is_not_known_of_the_exponents_is_a_hypothesis() -> None:
    space = Space.from_dict({"rank": [1, 128], "learning_rate": [1e-4, 1e-3]})
    tilt = Knowledge(space, learned=shipped()).columns(range(len(space)))[:, 2]
    assert abs(tilt[0] - tilt[-1]) > 0.1
