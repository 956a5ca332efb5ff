from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.space import Space, default_space
from searchers.surrogate.deep_kernel import DeepKernelGP
from searchers.surrogate.knowledge import Knowledge, Trend, merit, rate_offset

LORA = {"variant": "lora", "rank": 16, "alpha_ratio": 1, "learning_rate": 3e-4, "batch_size": 64}


def test_the_offset_is_zero_at_the_expected_rate_and_counts_decades() -> None:
    assert rate_offset(LORA) == pytest.approx(0)
    assert rate_offset(LORA | {"learning_rate": 3e-3}) == pytest.approx(1)
    # alpha / rank acts like a factor on the rate, and alpha may be given itself.
    assert rate_offset(LORA | {"alpha_ratio": 10}) == pytest.approx(1)
    assert rate_offset({k: v for k, v in LORA.items() if k != "alpha_ratio"} | {"alpha": 160}) == pytest.approx(1)
    assert rate_offset(LORA | {"variant": "rslora"}) == pytest.approx(np.log10(4))


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"variant": "pissa"}, 1),  # the same rate is further up for PiSSA
        ({"rank": 128}, 1),
        ({"batch_size": 256}, -1),
    ],
)
def test_directions_are_the_published_ones(change: dict, sign: int) -> None:
    assert sign * rate_offset(LORA | change) > 0.05


def test_longer_training_lowers_the_expected_rate() -> None:
    assert rate_offset(LORA, 100_000) > rate_offset(LORA, 10_000) > rate_offset(LORA, 100)


def test_a_space_without_a_rate_has_a_flat_trend() -> None:
    assert rate_offset({"colour": "red"}) == 0 and merit({"colour": "red"}) == 0
    columns = Knowledge(Space.from_dict({"colour": ["red", "blue"]})).columns([0, 1])
    assert columns.shape == (2, 2) and (columns == 0).all()


def test_first_points_are_near_the_expected_rate_new_and_reproducible() -> None:
    space = default_space()
    knowledge = Knowledge(space)
    points = knowledge.first_points(np.random.default_rng(0), 4, [], set())
    assert points == knowledge.first_points(np.random.default_rng(0), 4, [], set())
    assert len(set(points)) == 4
    assert all(abs(rate_offset(space.decode(i))) < 1.2 for i in points)
    assert not set(knowledge.first_points(np.random.default_rng(0), 4, [], set(points))) & set(points)


def objective(u: np.ndarray, centre: float) -> np.ndarray:
    return 30 * np.exp(-0.5 * ((u - centre) / 0.6) ** 2)


@pytest.mark.parametrize("centre", [0.0, 1.5, -1.5])
def test_a_prior_that_is_off_by_a_factor_of_thirty_is_corrected(centre: float) -> None:
    generator = torch.Generator().manual_seed(0)
    u = np.linspace(-2.2, 2.2, 12)
    h = torch.cat([torch.randn(12, 8, generator=generator), torch.tensor(u, dtype=torch.float32)[:, None]], dim=1)
    h = torch.cat([h, torch.zeros(12, 1)], dim=1)
    model = DeepKernelGP(torch.zeros(8), size=4, seed=0, knowledge=True)
    model.calibrate(h)
    model.fit(lambda token: h, objective(u, centre), steps=60)
    assert model.trend is not None
    assert float(model.trend.shift.detach()) == pytest.approx(centre, abs=0.4)
    # What was learned carries over to points with unrelated hidden states.
    asked = torch.cat([torch.randn(45, 8, generator=generator), torch.zeros(45, 2)], dim=1)
    asked[:, 8] = torch.linspace(-2.2, 2.2, 45)
    mean, _, _ = model.predict(asked)
    assert abs(float(asked[int(mean.argmax()), 8]) - centre) < 0.6


def test_a_trend_that_explains_nothing_loses_its_weight() -> None:
    generator = torch.Generator().manual_seed(1)
    u = torch.linspace(-2, 2, 16)[:, None]
    h = torch.cat([torch.randn(16, 8, generator=generator), u, torch.zeros(16, 1)], dim=1)
    values = torch.randn(16, generator=generator).numpy()
    model = DeepKernelGP(torch.zeros(8), size=4, seed=0, knowledge=True)
    model.calibrate(h)
    model.fit(lambda token: h, values, steps=60)
    assert model.trend is not None
    assert float(model.trend.log_weight.detach()) < float(Trend().log_weight.detach()) - 0.5
